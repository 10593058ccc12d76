"""Stock clients get right answers through a virtual key, whichever provider stands behind."""

import json
import math
from typing import Any

import anthropic
import openai
import pytest

from tests.acceptance.stack import CHAT_MODELS, EMBEDDING_MODELS, Stack

pytestmark = pytest.mark.fleet

TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def _question(model: str, kind: str) -> list[Any]:
    return [{"role": "user", "content": f"What does {model} say to {kind} today?"}]


def _is_an_answer(text: str | None, *, tokens: int) -> bool:
    """The simulator answers in words of its list, one token each, with a full stop."""
    words = (text or "").split()
    return len(words) == tokens and words[0][0].isupper() and words[-1].endswith(".")


@pytest.fixture(scope="module")
def client(stack: Stack) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{stack.proxy}/v1", api_key=stack.key, max_retries=0)


@pytest.fixture(scope="module")
def claude(stack: Stack) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=stack.proxy, api_key=stack.key, max_retries=0)


@pytest.mark.parametrize("model", CHAT_MODELS)
def test_plain(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=_question(model, "plain"))
    assert answer.usage
    assert _is_an_answer(answer.choices[0].message.content, tokens=answer.usage.completion_tokens)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens == 7 + 4


@pytest.mark.parametrize("model", CHAT_MODELS)
def test_stream(client: openai.OpenAI, model: str) -> None:
    chunks = list(
        client.chat.completions.create(
            model=model,
            messages=_question(model, "stream"),
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    usage = chunks[-1].usage
    assert usage
    assert _is_an_answer(text, tokens=usage.completion_tokens)


@pytest.mark.parametrize("model", CHAT_MODELS)
def test_stream_without_usage_shows_none(client: openai.OpenAI, model: str) -> None:
    """We ask the provider for usage; a client that did not ask must not see it."""
    chunks = list(
        client.chat.completions.create(model=model, messages=_question(model, "quiet"), stream=True)
    )
    assert chunks[-1].choices, "the chunk that carries usage has none"
    assert all(chunk.usage is None for chunk in chunks)


@pytest.mark.parametrize("model", CHAT_MODELS)
def test_tools(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
    )
    calls: Any = answer.choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["get_weather"]
    assert set(json.loads(calls[0].function.arguments)) == {"city"}


@pytest.mark.parametrize("model", EMBEDDING_MODELS)
def test_embeddings(client: openai.OpenAI, model: str) -> None:
    one, other, again = (
        client.embeddings.create(model=model, input=text).data[0].embedding
        for text in ("a red fox", "a blue whale", "a red fox")
    )
    assert math.isclose(sum(value * value for value in one), 1, rel_tol=1e-3)
    assert one == again
    assert one != other


@pytest.mark.parametrize("model", CHAT_MODELS)
def test_anthropic_plain(claude: anthropic.Anthropic, model: str) -> None:
    answer = claude.messages.create(
        model=model, max_tokens=200, messages=_question(model, "messages")
    )
    text = "".join(block.text for block in answer.content if block.type == "text")
    assert _is_an_answer(text, tokens=answer.usage.output_tokens)


@pytest.mark.parametrize("model", CHAT_MODELS)
def test_anthropic_stream(claude: anthropic.Anthropic, model: str) -> None:
    with claude.messages.stream(
        model=model, max_tokens=200, messages=_question(model, "messages")
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert _is_an_answer(text, tokens=final.usage.output_tokens)
