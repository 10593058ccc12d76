"""Unmodified openai and anthropic clients through a virtual key, for each provider kind."""

import json
from typing import Any

import openai
import pytest

from tests.proxy.conftest import CHAT, EMBEDDING, Gateway

HELLO: Any = [{"role": "user", "content": "Hello there my friend"}]
HELLO_TOKENS = 8
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
}


def only_row(gateway: Gateway) -> dict[str, Any]:
    """The simulator's one row: the independent truth."""
    rows = gateway.simulator.settled_ledger()["rows"]
    assert len(rows) == 1, rows
    row: dict[str, Any] = rows[0]
    return row


def check_event(gateway: Gateway, count: int = 1) -> Any:
    """The one event equals the one row, at 2.50 and 10.00 USD per million tokens."""
    (event,) = gateway.new_events(count)
    row = only_row(gateway)
    assert row["requests"] == len(event["attempts"]) == 1
    assert event["status"] == "ok"
    assert event["input_tokens"] == row["input_tokens"]
    assert event["output_tokens"] == row["output_tokens"]
    micros = row["input_tokens"] * 25 + row["output_tokens"] * 100
    assert float(event["cost"] or "nan") == pytest.approx(micros / 1e7, abs=1e-12)
    assert event["estimated"] is False
    return event


@pytest.mark.parametrize("kind", CHAT)
def test_plain(gateway: Gateway, kind: str) -> None:
    reply = gateway.openai().chat.completions.create(model=f"chat-{kind}", messages=HELLO)
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == HELLO_TOKENS
    event = check_event(gateway)
    assert event["deployment"] == f"dep-{kind}"
    assert event["streaming"] is False
    assert event["overhead_ms"] < event["latency_ms"]


@pytest.mark.parametrize("kind", CHAT)
def test_stream(gateway: Gateway, kind: str) -> None:
    chunks = list(
        gateway.openai().chat.completions.create(model=f"chat-{kind}", messages=HELLO, stream=True)
    )
    assert not [chunk for chunk in chunks if chunk.usage]
    told = [chunk.choices[0] for chunk in chunks if chunk.choices]  # Azure begins with none
    assert chunks[-1].choices[0].finish_reason == "stop"
    text = "".join(choice.delta.content or "" for choice in told)
    event = check_event(gateway)
    assert len(text.split()) == event["output_tokens"]
    assert event["streaming"] is True
    assert 0 < event["ttft_ms"] <= event["latency_ms"]


@pytest.mark.parametrize("kind", CHAT)
def test_stream_with_usage(gateway: Gateway, kind: str) -> None:
    chunks = list(
        gateway.openai().chat.completions.create(
            model=f"chat-{kind}",
            messages=HELLO,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    event = check_event(gateway)
    assert usages[-1].completion_tokens == event["output_tokens"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", CHAT)
def test_tools(gateway: Gateway, kind: str, stream: bool) -> None:
    client = gateway.openai()
    ask: Any = {"model": f"chat-{kind}", "messages": HELLO, "tools": [WEATHER]}
    if stream:
        with client.chat.completions.stream(**ask) as events:
            for _ in events:
                pass
            choice: Any = events.get_final_completion().choices[0]
    else:
        choice = client.chat.completions.create(**ask).choices[0]
    (call,) = choice.message.tool_calls
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city", "days"}
    check_event(gateway)


@pytest.mark.parametrize("kind", EMBEDDING)
def test_embeddings(gateway: Gateway, kind: str) -> None:
    reply = gateway.openai().embeddings.create(model=f"embed-{kind}", input="two words")
    assert len(reply.data[0].embedding) > 100
    (event,) = gateway.new_events(1)
    row = only_row(gateway)
    # Gemini reports no usage for embeddings: LiteLLM counts, and the event says so.
    assert event["estimated"] is (kind == "gemini")
    if kind != "gemini":
        assert event["input_tokens"] == row["input_tokens"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", CHAT)
def test_anthropic_client(gateway: Gateway, kind: str, stream: bool) -> None:
    client = gateway.anthropic()
    ask: Any = {"model": f"chat-{kind}", "messages": HELLO, "max_tokens": 200}
    if stream:
        with client.messages.stream(**ask) as events:
            text = "".join(events.text_stream)
    else:
        block: Any = client.messages.create(**ask).content[0]
        text = block.text
    event = check_event(gateway)
    assert len(text.split()) == event["output_tokens"]
    assert event["route"] == "/v1/messages"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", CHAT)
def test_responses(gateway: Gateway, kind: str, stream: bool) -> None:
    client = gateway.openai()
    if stream:
        with client.responses.stream(model=f"chat-{kind}", input="Hello there my friend") as events:
            for _ in events:
                pass
            reply: Any = events.get_final_response()
    else:
        reply = client.responses.create(model=f"chat-{kind}", input="Hello there my friend")
    event = check_event(gateway)
    assert reply.usage is not None
    assert reply.usage.output_tokens == event["output_tokens"]


def test_models_of_the_key(gateway: Gateway) -> None:
    gateway.set_key("narrow", models=["chat-gemini", "default"])
    client = gateway.openai("narrow")
    assert [model.id for model in client.models.list()] == ["chat-gemini", "chat-openai", "default"]
    assert client.models.retrieve("default").id == "default"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("chat-azure")
    listed = gateway.anthropic("narrow").models.list()
    assert [model.id for model in listed] == ["chat-gemini", "chat-openai", "default"]


def test_model_info_has_prices_and_no_secrets(gateway: Gateway) -> None:
    with gateway.client() as client:
        rows = client.get("/model/info").json()["data"]
        text = client.get("/v1/model/info").text
    row = next(row for row in rows if row["model_name"] == "chat-openai")
    assert row["litellm_params"] == {"model": "openai/gpt-4o"}
    assert row["model_info"]["input_cost_per_token"] == 0.0000025
    assert row["model_info"]["id"] == "dep-openai"
    unpriced = next(row for row in rows if row["model_name"] == "unpriced")
    assert unpriced["model_info"]["input_cost_per_token"] is None
    assert "canary" not in text
    assert gateway.simulator.base_url not in text


def test_stock_client_sees_typed_errors(gateway: Gateway) -> None:
    client = gateway.openai()
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="nope", messages=HELLO)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model="no-credit", messages=HELLO)
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-gw-x-y").models.list()
