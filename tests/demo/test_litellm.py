"""LiteLLM reaches all provider kinds with `connection_params`, and its usage is the ledger's."""

import asyncio
import json
from typing import Any

import litellm
import pytest

from gateway_admin.demo.simulator.process import Simulator
from tests.demo.kinds import (
    CHAT,
    EMBEDDING,
    HELLO,
    HELLO_TOKENS,
    SECRET,
    WEATHER,
    litellm_params,
    row_of,
)

KINDS = list(CHAT)
pytestmark = pytest.mark.filterwarnings("ignore:.*ReadOnly:UserWarning")  # litellm's types


async def _chat(kind: str, simulator: Simulator, **more: Any) -> Any:
    ask = {"model": CHAT[kind], "messages": HELLO, "max_tokens": 500, "max_retries": 0, **more}
    return await litellm.acompletion(**ask, **litellm_params(kind, simulator))


@pytest.mark.parametrize("kind", KINDS)
async def test_chat(kind: str, simulator: Simulator) -> None:
    reply = await _chat(kind, simulator)
    text = reply.choices[0].message.content
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.prompt_tokens == HELLO_TOKENS
    assert reply.usage.completion_tokens == len(text.split())
    row = row_of(simulator.ledger(), kind, CHAT[kind])
    assert (row["requests"], row["ok"]) == (1, 1)
    assert row["input_tokens"] == reply.usage.prompt_tokens
    assert row["output_tokens"] == reply.usage.completion_tokens


@pytest.mark.parametrize("kind", KINDS)
async def test_stream(kind: str, simulator: Simulator) -> None:
    whole = await _chat(kind, simulator)
    stream = await _chat(kind, simulator, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    text = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
    usage = [one.usage for one in chunks if getattr(one, "usage", None)][-1]
    assert text == whole.choices[0].message.content
    assert usage.prompt_tokens == whole.usage.prompt_tokens
    assert usage.completion_tokens == whole.usage.completion_tokens
    row = row_of(simulator.ledger(), kind, CHAT[kind])
    assert (row["requests"], row["ok"]) == (2, 2)
    assert row["output_tokens"] == 2 * usage.completion_tokens


@pytest.mark.parametrize("kind", KINDS)
async def test_limit(kind: str, simulator: Simulator) -> None:
    reply = await _chat(kind, simulator, max_tokens=5)
    assert reply.usage.completion_tokens == 5
    assert reply.choices[0].finish_reason == "length"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", KINDS)
async def test_tools(kind: str, stream: bool, simulator: Simulator) -> None:
    reply = await _chat(kind, simulator, tools=[WEATHER], stream=stream)
    if stream:
        reply = litellm.stream_chunk_builder([chunk async for chunk in reply])
    assert reply.choices[0].finish_reason == "tool_calls"
    (call,) = reply.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city", "days"}


@pytest.mark.parametrize("kind", list(EMBEDDING))
async def test_embedding(kind: str, simulator: Simulator) -> None:
    reply = await litellm.aembedding(
        model=EMBEDDING[kind], input=["two words", "one"], **litellm_params(kind, simulator)
    )
    assert len(reply.data) == 2
    assert reply.usage.prompt_tokens == 3
    assert row_of(simulator.ledger(), kind, EMBEDDING[kind])["input_tokens"] == 3


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", KINDS)
async def test_anthropic_messages_over_any_kind(
    kind: str, stream: bool, simulator: Simulator
) -> None:
    reply = await litellm.anthropic_messages(
        model=CHAT[kind],
        messages=HELLO,
        max_tokens=500,
        stream=stream,
        **litellm_params(kind, simulator),
    )
    if stream:
        text = b"".join(
            [part if isinstance(part, bytes) else str(part).encode() async for part in reply]
        )
        assert b"message_stop" in text
    else:
        assert reply["usage"]["input_tokens"] == HELLO_TOKENS
    row = row_of(await asyncio.to_thread(simulator.settled_ledger), kind, CHAT[kind])
    assert (row["ok"], row["input_tokens"]) == (1, HELLO_TOKENS)


@pytest.mark.parametrize("kind", KINDS)
async def test_responses_over_any_kind(kind: str, simulator: Simulator) -> None:
    reply = await litellm.aresponses(
        model=CHAT[kind], input="Hello there my friend", **litellm_params(kind, simulator)
    )
    row = row_of(simulator.ledger(), kind, CHAT[kind])
    assert reply.usage.input_tokens == row["input_tokens"] == HELLO_TOKENS
    assert reply.usage.output_tokens == row["output_tokens"]


async def test_rerank(simulator: Simulator) -> None:
    reply = await litellm.arerank(
        model="cohere/rerank-v3.5",
        query="which",
        documents=["a", "b", "c"],
        top_n=2,
        **litellm_params("cohere", simulator),
    )
    assert len(reply.results) == 2
    assert reply.results[0]["relevance_score"] >= reply.results[1]["relevance_score"]


async def test_cache_usage_of_anthropic(simulator: Simulator) -> None:
    part = {"type": "text", "text": "a b c d", "cache_control": {"type": "ephemeral"}}
    messages = [{"role": "system", "content": [part]}, *HELLO]
    for _ in range(2):
        reply = await _chat("anthropic", simulator, messages=messages)
    assert reply.usage.prompt_tokens == HELLO_TOKENS + 4
    assert reply.usage.prompt_tokens_details.cached_tokens == 4
    row = row_of(simulator.ledger(), "anthropic", CHAT["anthropic"])
    assert (row["cache_write_tokens"], row["cache_read_tokens"]) == (4, 4)


async def test_reasoning_is_billed_as_output(simulator: Simulator) -> None:
    simulator.control(model="gpt-4o", reasoning_tokens=11, output_tokens=5)
    reply = await _chat("openai", simulator)
    assert reply.usage.completion_tokens == 16
    assert reply.usage.completion_tokens_details.reasoning_tokens == 11
    row = row_of(simulator.ledger(), "openai", "gpt-4o")
    assert (row["output_tokens"], row["reasoning_tokens"]) == (16, 11)


async def test_no_secret_in_ledger_or_rules(simulator: Simulator) -> None:
    simulator.control(credential=SECRET, latency_ms=1)
    for kind in KINDS:
        await _chat(kind, simulator)
    shown = json.dumps([simulator.ledger(detail=True), simulator.control()])
    assert SECRET not in shown
    assert "AKIACANARY001234" not in shown
    assert "...1234" in shown
