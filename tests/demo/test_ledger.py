"""The ledger counts exactly what was served, also under concurrency and when clients leave."""

import asyncio
from typing import Any

import httpx
import litellm
import openai
import pytest

from gateway_admin.demo.simulator.process import Simulator
from tests.demo.kinds import CHAT, HELLO, HELLO_TOKENS, SECRET, litellm_params, row_of

BODY = {"model": "gpt-4o", "messages": HELLO}


def _client(simulator: Simulator) -> openai.AsyncOpenAI:
    base_url = f"{simulator.base_url}/openai/v1"
    return openai.AsyncOpenAI(base_url=base_url, api_key=SECRET, max_retries=0)


async def test_aborted_stream_counts_what_was_sent(simulator: Simulator) -> None:
    simulator.control(model="gpt-4o", token_interval_ms=30, output_tokens=100)
    seen = 0
    async with _client(simulator) as client:
        stream: Any = await client.chat.completions.create(**BODY, stream=True)
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


@pytest.mark.filterwarnings("ignore:.*ReadOnly:UserWarning")  # litellm's types
@pytest.mark.parametrize("kind", list(CHAT))
async def test_stream_that_litellm_abandons(kind: str, simulator: Simulator) -> None:
    simulator.control(token_interval_ms=30, output_tokens=200)
    stream = await litellm.acompletion(
        model=CHAT[kind], messages=HELLO, stream=True, **litellm_params(kind, simulator)
    )
    seen = 0
    async for chunk in stream:
        seen += bool(chunk.choices and chunk.choices[0].delta.content)
        if seen == 4:
            break
    await stream.aclose()
    del stream
    report = await asyncio.to_thread(simulator.settled_ledger)
    row = row_of(report, kind, CHAT[kind])
    assert (row["ok"], row["aborted"]) == (0, 1)
    assert 4 <= row["output_tokens"] < 100
    assert row["input_tokens"] == HELLO_TOKENS


async def test_client_that_leaves_before_the_answer(simulator: Simulator) -> None:
    simulator.control(model="gpt-4o", latency_ms=5_000)
    async with httpx.AsyncClient(timeout=httpx.Timeout(20, read=0.5)) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post(
                f"{simulator.base_url}/openai/v1/chat/completions",
                json=BODY,
                headers={"authorization": f"Bearer {SECRET}"},
            )
    row = row_of(await asyncio.to_thread(simulator.settled_ledger), "openai", "gpt-4o")
    assert (row["aborted"], row["input_tokens"], row["output_tokens"]) == (1, 0, 0)


class _Crowd:
    """Many calls through the stock client, with what the client was told of them."""

    def __init__(self, client: openai.AsyncOpenAI) -> None:
        self.client = client
        self.gate = asyncio.Semaphore(100)
        self.input_tokens = self.output_tokens = self.errors = 0

    async def plain(self, model: str, number: int) -> None:
        try:
            async with self.gate:
                reply = await self._ask(model, number)
        except openai.InternalServerError:
            self.errors += 1
        else:
            self._count(reply.usage)

    async def streamed(self, model: str, number: int) -> None:
        async with self.gate:
            options = {"stream_options": {"include_usage": True}}
            async for chunk in await self._ask(model, number, stream=True, **options):
                self._count(chunk.usage)

    async def abandoned(self, model: str, number: int) -> None:
        async with self.gate:
            stream = await self._ask(model, number, stream=True)
            async for _ in stream:
                break
            await stream.close()

    async def _ask(self, model: str, number: int, **more: Any) -> Any:
        messages: Any = [{"role": "user", "content": f"call {number}"}]
        return await self.client.chat.completions.create(model=model, messages=messages, **more)

    def _count(self, usage: Any) -> None:
        if usage is not None:
            self.input_tokens += usage.prompt_tokens
            self.output_tokens += usage.completion_tokens


async def test_exact_under_concurrency(simulator: Simulator) -> None:
    """1,000 calls, 100 at once: plain, streamed, failing, aborted; every token is booked."""
    simulator.control(
        {"model": "slow", "token_interval_ms": 20, "output_tokens": 200},
        {"model": "bad", "faults": [{"type": "server_error", "every": 2}]},
    )
    async with _client(simulator) as client:
        crowd = _Crowd(client)
        await asyncio.gather(
            *[crowd.plain("fast", number) for number in range(400)],
            *[crowd.plain("bad", number) for number in range(200)],
            *[crowd.streamed("fast", number) for number in range(350)],
            *[crowd.abandoned("slow", number) for number in range(50)],
        )
    report = await asyncio.to_thread(simulator.settled_ledger, detail=True)
    fast, bad, slow = (row_of(report, "openai", name) for name in ("fast", "bad", "slow"))
    assert (fast["requests"], fast["ok"]) == (750, 750)
    assert (bad["errors"], bad["ok"]) == (crowd.errors, 200 - crowd.errors) == (100, 100)
    assert fast["input_tokens"] + bad["input_tokens"] == crowd.input_tokens
    assert fast["output_tokens"] + bad["output_tokens"] == crowd.output_tokens
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
