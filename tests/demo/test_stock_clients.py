"""The unmodified clients of the providers speak to the simulator directly."""

import base64
import json
import struct
from typing import Any

import anthropic
import boto3  # type: ignore[import-untyped]
import httpx
import openai
import pytest

from gateway_admin.demo.simulator.process import Simulator
from tests.demo.kinds import HELLO, HELLO_TOKENS, SECRET, WEATHER

CLAUDE = "claude-sonnet-4-6"
BEDROCK_MODEL = "amazon.nova-lite-v1:0"


@pytest.fixture
def gpt(simulator: Simulator) -> Any:
    return openai.OpenAI(base_url=f"{simulator.base_url}/openai/v1", api_key=SECRET, max_retries=0)


@pytest.fixture
def claude(simulator: Simulator) -> Any:
    base_url = f"{simulator.base_url}/anthropic"
    return anthropic.Anthropic(base_url=base_url, api_key=SECRET, max_retries=0)


@pytest.fixture
def bedrock(simulator: Simulator) -> Any:
    return boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=f"{simulator.base_url}/bedrock",
        aws_access_key_id="AKIACANARY001234",
        aws_secret_access_key=SECRET,
    )


def test_openai_chat(gpt: Any) -> None:
    first = gpt.chat.completions.create(model="gpt-4o", messages=HELLO)
    again = gpt.chat.completions.create(model="gpt-4o", messages=HELLO)
    text = first.choices[0].message.content
    assert text == again.choices[0].message.content
    assert first.id != again.id
    assert first.choices[0].finish_reason == "stop"
    assert first.usage.prompt_tokens == HELLO_TOKENS
    assert first.usage.completion_tokens == len(text.split())
    assert 20 <= first.usage.completion_tokens <= 60


@pytest.mark.parametrize("with_usage", [True, False])
def test_openai_stream(gpt: Any, with_usage: bool) -> None:
    whole = gpt.chat.completions.create(model="gpt-4o", messages=HELLO)
    options = {"stream_options": {"include_usage": True}} if with_usage else {}
    stream = gpt.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True, **options)
    chunks = list(stream)
    texts = [one.choices[0].delta.content for one in chunks if one.choices]
    assert "".join(text or "" for text in texts) == whole.choices[0].message.content
    assert len([text for text in texts if text]) == whole.usage.completion_tokens
    usages = [one.usage for one in chunks if one.usage]
    assert [usage.total_tokens for usage in usages] == (
        [whole.usage.total_tokens] if with_usage else []
    )


def test_openai_limit_cuts_the_answer(gpt: Any) -> None:
    reply = gpt.chat.completions.create(model="gpt-4o", messages=HELLO, max_tokens=7)
    assert reply.usage.completion_tokens == 7
    assert reply.choices[0].finish_reason == "length"


def test_openai_several_choices(gpt: Any) -> None:
    reply = gpt.chat.completions.create(model="gpt-4o", messages=HELLO, n=3)
    texts = {choice.message.content for choice in reply.choices}
    assert len(texts) == 3
    assert reply.usage.completion_tokens == sum(len(text.split()) for text in texts)


def test_openai_tools_plain_and_streamed(gpt: Any) -> None:
    ask = {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "Weather in both cities"}],
        "tools": [WEATHER],
    }
    reply = gpt.chat.completions.create(**ask)
    calls = reply.choices[0].message.tool_calls
    assert reply.choices[0].finish_reason == "tool_calls"
    assert [call.function.name for call in calls] == ["get_weather", "get_weather"]
    assert set(json.loads(calls[0].function.arguments)) == {"city", "days"}
    pieces: dict[int, str] = {}
    for chunk in gpt.chat.completions.create(**ask, stream=True):
        for call in chunk.choices[0].delta.tool_calls or []:
            pieces[call.index] = pieces.get(call.index, "") + call.function.arguments
    assert list(pieces.values()) == [call.function.arguments for call in calls]
    after = [
        *ask["messages"],
        reply.choices[0].message.model_dump(exclude_none=True),
        *[{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in calls],
    ]
    final = gpt.chat.completions.create(**{**ask, "messages": after})
    assert final.choices[0].message.content


def test_openai_json_by_schema(gpt: Any) -> None:
    schema = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}}
    form = {"type": "json_schema", "json_schema": {"name": "paint", "schema": schema}}
    reply = gpt.chat.completions.create(model="gpt-4o", messages=HELLO, response_format=form)
    assert json.loads(reply.choices[0].message.content)["colour"] in ("red", "blue")


def test_openai_long_prompt_is_cached_the_second_time(gpt: Any) -> None:
    messages = [{"role": "user", "content": "word " * 1500}]
    cached = [
        gpt.chat.completions.create(
            model="gpt-4o", messages=messages
        ).usage.prompt_tokens_details.cached_tokens
        for _ in range(2)
    ]
    assert cached == [0, 1408]


def test_openai_embeddings_float_and_base64(gpt: Any, simulator: Simulator) -> None:
    reply = gpt.embeddings.create(model="text-embedding-3-small", input=["two words", "one"])
    assert [len(one.embedding) for one in reply.data] == [1536, 1536]
    assert reply.usage.prompt_tokens == 3
    body = {"model": "text-embedding-3-small", "input": ["two words", "one"]}
    plain = httpx.post(
        f"{simulator.base_url}/openai/v1/embeddings",
        json={**body, "encoding_format": "base64"},
        headers={"authorization": f"Bearer {SECRET}"},
    ).json()
    packed = base64.b64decode(plain["data"][0]["embedding"])
    assert struct.unpack("<1536f", packed) == pytest.approx(reply.data[0].embedding, abs=1e-6)


def test_openai_responses_plain_and_streamed(gpt: Any) -> None:
    reply = gpt.responses.create(model="gpt-4o", input="Hello there my friend")
    assert reply.status == "completed"
    assert reply.usage.input_tokens == HELLO_TOKENS
    assert reply.usage.output_tokens == len(reply.output_text.split())
    events = list(gpt.responses.create(model="gpt-4o", input="Hello there my friend", stream=True))
    deltas = [one.delta for one in events if one.type == "response.output_text.delta"]
    assert "".join(deltas) == reply.output_text
    assert [one.sequence_number for one in events] == list(range(len(events)))
    assert events[-1].type == "response.completed"


def test_openai_other_routes(gpt: Any) -> None:
    image = gpt.images.generate(model="gpt-image-1", prompt="a red cat")
    assert base64.b64decode(image.data[0].b64_json).startswith(b"\x89PNG")
    heard = gpt.audio.transcriptions.create(model="whisper-1", file=("a.wav", b"RIFF" + bytes(99)))
    assert heard.text
    spoken = gpt.audio.speech.create(model="tts-1", voice="alloy", input="hello world")
    assert spoken.content.startswith(b"RIFF")
    verdict = gpt.moderations.create(model="omni-moderation-latest", input="a forbidden thing")
    assert verdict.results[0].flagged
    done = gpt.completions.create(model="gpt-3.5-turbo-instruct", prompt="once upon a time")
    assert done.usage.prompt_tokens == 4
    assert "gpt-4o" in [model.id for model in gpt.models.list()]


def test_anthropic_message(claude: Any) -> None:
    reply = claude.messages.create(model=CLAUDE, max_tokens=500, messages=HELLO)
    assert reply.stop_reason == "end_turn"
    assert reply.usage.input_tokens == HELLO_TOKENS
    assert reply.usage.output_tokens == len(reply.content[0].text.split())
    counted = claude.messages.count_tokens(model=CLAUDE, messages=HELLO)
    assert counted.input_tokens == HELLO_TOKENS
    short = claude.messages.create(model=CLAUDE, max_tokens=3, messages=HELLO)
    assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 3)


def test_anthropic_stream(claude: Any) -> None:
    whole = claude.messages.create(model=CLAUDE, max_tokens=500, messages=HELLO)
    with claude.messages.stream(model=CLAUDE, max_tokens=500, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.stop_reason == "end_turn"


def test_anthropic_tools_streamed(claude: Any) -> None:
    function = WEATHER["function"]
    tool = {"name": "get_weather", "input_schema": function["parameters"]}
    with claude.messages.stream(
        model=CLAUDE,
        max_tokens=500,
        messages=HELLO,
        tools=[tool],
    ) as stream:
        final = stream.get_final_message()
    assert final.stop_reason == "tool_use"
    block = final.content[0]
    assert set(block.input) == {"city", "days"}


def test_anthropic_cache_is_written_then_read(claude: Any) -> None:
    system = [{"type": "text", "text": "one two three", "cache_control": {"type": "ephemeral"}}]
    seen = []
    for _ in range(2):
        usage = claude.messages.create(
            model=CLAUDE, max_tokens=9, messages=HELLO, system=system
        ).usage
        seen.append((usage.cache_creation_input_tokens, usage.cache_read_input_tokens))
        assert usage.input_tokens == HELLO_TOKENS
    assert seen == [(3, 0), (0, 3)]


def test_bedrock_converse_and_its_stream_as_botocore_reads_them(bedrock: Any) -> None:
    messages = [{"role": "user", "content": [{"text": "Hello there my friend"}]}]
    whole = bedrock.converse(modelId=BEDROCK_MODEL, messages=messages)
    text = whole["output"]["message"]["content"][0]["text"]
    assert whole["usage"]["inputTokens"] == HELLO_TOKENS
    assert whole["usage"]["outputTokens"] == len(text.split())
    events = list(bedrock.converse_stream(modelId=BEDROCK_MODEL, messages=messages)["stream"])
    deltas = [
        one["contentBlockDelta"]["delta"]["text"] for one in events if "contentBlockDelta" in one
    ]
    assert "".join(deltas) == text
    assert events[-1]["metadata"]["usage"]["outputTokens"] == whole["usage"]["outputTokens"]


def test_bedrock_error_inside_a_stream_as_botocore_reads_it(
    bedrock: Any, simulator: Simulator
) -> None:
    simulator.control(kind="bedrock", faults=[{"type": "stream_error", "status": 429}])
    messages = [{"role": "user", "content": [{"text": "Hello"}]}]
    stream = bedrock.converse_stream(modelId=BEDROCK_MODEL, messages=messages)["stream"]
    with pytest.raises(Exception, match="throttlingException"):
        list(stream)
