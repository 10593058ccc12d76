"""The ledger counts exactly what was served, also under concurrency and when clients leave."""

import asyncio
from typing import Any

import httpx
import openai
import pytest

from gateway_admin.demo.simulator.process import Simulator
from tests.demo.kinds import HELLO, HELLO_TOKENS, SECRET, row_of

BODY = {"model": "gpt-4o", "messages": HELLO}


def _client(simulator: Simulator) -> openai.AsyncOpenAI:
    base_url = f"{simulator.base_url}/openai/v1"
    return openai.AsyncOpenAI(base_url=base_url, api_key=SECRET, max_retries=0)


async def test_aborted_stream_counts_what_was_sent(simulator: Simulator) -> None:
    simulator.control(model="gpt-4o", token_interval_ms=30, output_tokens=100)
    seen = 0
    async with _client(simulator) as client:
        stream: Any = await client.chat.completions.create(**BODY, stream=True)  # type: ignore[call-overload]
        async for chunk in stream:
            seen += bool(chunk.choices[0].delta.content)
            if seen == 5:
                break
        await stream.close()
    report = await asyncio.to_thread(simulator.settled_ledger, detail=True)
    row = row_of(report, "openai", "gpt-4o")
    assert (row["ok"], row["errors"], row["aborted"]) == (0, 0, 1)
    assert row["input_tokens"] == HELLO_TOKENS
    assert 5 <= row["output_tokens"] <= 7
    (entry,) = report["requests"]
    assert (entry["outcome"], entry["streaming"]) == ("aborted", True)
    assert entry["output_tokens"] == row["output_tokens"]


async def test_client_that_leaves_before_the_answer(simulator: Simulator) -> None:
    simulator.control(model="gpt-4o", latency_ms=5_000)
    async with httpx.AsyncClient(timeout=0.2) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post(
                f"{simulator.base_url}/openai/v1/chat/completions",
                json=BODY,
                headers={"authorization": f"Bearer {SECRET}"},
            )
    row = row_of(await asyncio.to_thread(simulator.settled_ledger), "openai", "gpt-4o")
    assert (row["aborted"], row["input_tokens"], row["output_tokens"]) == (1, 0, 0)


async def test_exact_under_concurrency(simulator: Simulator) -> None:
    """1,000 calls at once: plain, streamed, failing, aborted; every token is accounted for."""
    simulator.control(
        {"model": "slow", "token_interval_ms": 20, "output_tokens": 200},
        {"model": "bad", "faults": [{"type": "server_error", "every": 2}]},
    )
    totals = {"input": 0, "output": 0, "errors": 0}
    gate = asyncio.Semaphore(100)

    async def plain(client: openai.AsyncOpenAI, model: str, number: int) -> None:
        messages: Any = [{"role": "user", "content": f"call {number}"}]
        try:
            reply = await client.chat.completions.create(model=model, messages=messages)
        except openai.InternalServerError:
            totals["errors"] += 1
            return
        assert reply.usage is not None
        totals["input"] += reply.usage.prompt_tokens
        totals["output"] += reply.usage.completion_tokens

    async def streamed(client: openai.AsyncOpenAI, number: int) -> None:
        messages: Any = [{"role": "user", "content": f"call {number}"}]
        stream = await client.chat.completions.create(
            model="fast", messages=messages, stream=True, stream_options={"include_usage": True}
        )
        async for chunk in stream:
            if chunk.usage:
                totals["input"] += chunk.usage.prompt_tokens
                totals["output"] += chunk.usage.completion_tokens

    async def abandoned(client: openai.AsyncOpenAI, number: int) -> None:
        messages: Any = [{"role": "user", "content": f"call {number}"}]
        stream: Any = await client.chat.completions.create(
            model="slow", messages=messages, stream=True
        )
        async for _ in stream:
            break
        await stream.close()

    async def gated(work: Any) -> None:
        async with gate:
            await work

    async with _client(simulator) as client:
        work = [plain(client, "fast", number) for number in range(400)]
        work += [plain(client, "bad", number) for number in range(200)]
        work += [streamed(client, number) for number in range(350)]
        work += [abandoned(client, number) for number in range(50)]
        await asyncio.gather(*map(gated, work))
    report = await asyncio.to_thread(simulator.settled_ledger, detail=True)
    fast, bad = row_of(report, "openai", "fast"), row_of(report, "openai", "bad")
    slow = row_of(report, "openai", "slow")
    assert (fast["requests"], fast["ok"]) == (750, 750)
    assert (bad["errors"], bad["ok"]) == (totals["errors"], 200 - totals["errors"]) == (100, 100)
    assert fast["input_tokens"] + bad["input_tokens"] == totals["input"]
    assert fast["output_tokens"] + bad["output_tokens"] == totals["output"]
    assert (slow["aborted"], slow["ok"]) == (50, 0)
    assert slow["input_tokens"] == 50 * 6
    assert report["totals"]["requests"] == len(report["requests"]) == 1000
    for name in ("input_tokens", "output_tokens"):
        assert report["totals"][name] == sum(entry[name] for entry in report["requests"])


def test_rows_are_per_credential(simulator: Simulator) -> None:
    for key in ("sk-first-key-aaaa", "sk-other-key-bbbb", "sk-other-key-bbbb"):
        httpx.post(
            f"{simulator.base_url}/openai/v1/chat/completions",
            json=BODY,
            headers={"authorization": f"Bearer {key}"},
        ).raise_for_status()
    rows = {row["credential"]: row["requests"] for row in simulator.ledger()["rows"]}
    assert rows == {"...aaaa": 1, "...bbbb": 2}


def test_lists_and_lookups_are_not_booked(simulator: Simulator) -> None:
    headers = {"authorization": f"Bearer {SECRET}"}
    for path in ("openai/v1/models", "ollama/api/tags", "gemini/v1beta/models"):
        assert httpx.get(f"{simulator.base_url}/{path}", headers=headers).status_code == 200
    assert simulator.ledger()["rows"] == []


def test_reset_forgets(simulator: Simulator) -> None:
    headers = {"authorization": f"Bearer {SECRET}"}
    url = f"{simulator.base_url}/openai/v1/chat/completions"
    httpx.post(url, json=BODY, headers=headers)
    simulator.reset()
    assert simulator.ledger()["totals"]["requests"] == 0
