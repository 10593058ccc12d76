"""A thousand mixed requests: our ledger equals the one that the simulator kept by itself."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import openai
import pytest

from tests.acceptance.stack import CHAT_MODELS, PRICES, Stack

pytestmark = pytest.mark.fleet

REQUESTS = 1_000
AT_ONCE = 16
TOKEN_SORTS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
CENT = Decimal("0.01")
# By then the gateway has received what a client leaves unread, and was told its usage. Streams
# that are cut while they are produced are estimated: tests/acceptance/test_aborted_streams.py.
RECEIVED_S = 1.0


@dataclass(frozen=True)
class Plan:
    """What the mixed load asks for; drawn from a fixed seed."""

    number: int
    model: str
    how: str  # plain, stream, stream_usage, abort

    @property
    def messages(self) -> list[Any]:
        return [{"role": "user", "content": f"request {self.number} of the mixed load"}]


def _plans() -> list[Plan]:
    draw = random.Random(20)
    models = [*CHAT_MODELS, "openai-flaky", "openai-dead"]
    ways = ("plain", "stream", "stream_usage", "abort")
    return [
        Plan(number, draw.choice(models), draw.choices(ways, (45, 25, 20, 10))[0])
        for number in range(REQUESTS)
    ]


@pytest.fixture(scope="module")
def mixed_stack(stack: Stack) -> Stack:
    """Two more models: one that fails often, one that always does and falls back."""
    for name, upstream in (("openai-flaky", "gpt-4.1-mini"), ("openai-dead", "gpt-4.1-nano")):
        stack.add_model(name, "openai", upstream)
        stack.api.post(
            "chains/",
            environment="prod",
            model=name,
            kind="general",
            targets=["anthropic-chat", "gemini-chat"],
        )
    stack.publish("models that fail")
    stack.simulator.reset()
    stack.simulator.control(
        {"model": "gpt-4.1-mini", "faults": [{"type": "overload", "probability": 0.4}]},
        {"model": "gpt-4.1-nano", "faults": [{"type": "server_error"}]},
        {"kind": "gemini", "faults": [{"type": "rate_limit", "probability": 0.1}]},
        {"kind": "azure", "faults": [{"type": "bad_request", "every": 25}]},
    )
    return stack


async def _send(client: openai.AsyncOpenAI, plan: Plan) -> str:
    try:
        if plan.how == "plain":
            await client.chat.completions.create(model=plan.model, messages=plan.messages)
            return "ok"
        options: Any = {"include_usage": True} if plan.how == "stream_usage" else openai.omit
        stream = await client.chat.completions.create(
            model=plan.model, messages=plan.messages, stream=True, stream_options=options
        )
        seen = 0
        async for _ in stream:
            seen += 1
            if plan.how == "abort" and seen == 5:
                await asyncio.sleep(RECEIVED_S)
                await stream.close()
                return "aborted"
    except openai.APIStatusError as error:
        return f"status {error.status_code}"
    return "ok"


async def _send_all(stack: Stack, plans: list[Plan]) -> Counter[str]:
    gate = asyncio.Semaphore(AT_ONCE)
    limits = httpx.Limits(max_connections=AT_ONCE)
    async with openai.AsyncOpenAI(
        base_url=f"{stack.proxy}/v1",
        api_key=stack.key,
        max_retries=0,
        http_client=httpx.AsyncClient(limits=limits, timeout=60, trust_env=False),
    ) as client:

        async def one(plan: Plan) -> str:
            async with gate:
                return await _send(client, plan)

        return Counter(await asyncio.gather(*map(one, plans)))


def _cost(row: dict[str, Any]) -> Decimal:
    """What the simulator's own counts cost at the published prices."""
    cached = row["cache_read_tokens"] + row["cache_write_tokens"]
    counts = {
        "input_token": row["input_tokens"] - cached,
        "output_token": row["output_tokens"],
        "cache_read_token": row["cache_read_tokens"],
        "cache_write_token": row["cache_write_tokens"],
    }
    return sum((count * PRICES[unit] for unit, count in counts.items()), Decimal())


def _consumed(stack: Stack, events: list[dict[str, Any]]) -> dict[tuple[str, str], Counter[str]]:
    """Calls and tokens by kind and upstream model, as our events tell them."""
    by_id = {identity: name for name, identity in stack.deployments.items()}
    kinds = CHAT_MODELS | {
        "openai-flaky": ("openai", "gpt-4.1-mini"),
        "openai-dead": ("openai", "gpt-4.1-nano"),
    }
    ours: dict[tuple[str, str], Counter[str]] = {}
    for event in events:
        for attempt in event["attempts"]:
            row = ours.setdefault(kinds[by_id[attempt["deployment"]]], Counter())
            row["requests"] += 1
        if event["deployment_id"]:
            row = ours.setdefault(kinds[by_id[event["deployment_id"]]], Counter())
            row.update({sort: event[sort] for sort in TOKEN_SORTS})
    return ours


def test_ledger_equals_what_was_served(mixed_stack: Stack) -> None:
    stack = mixed_stack
    since = datetime.now(UTC)
    outcomes = asyncio.run(_send_all(stack, _plans()))
    events = stack.settled_events(since, REQUESTS)
    served = stack.simulator.settled_ledger()

    assert len(events) == len({event["event_id"] for event in events}) == REQUESTS
    assert outcomes["ok"] > 700, outcomes
    assert outcomes["aborted"] > 50, outcomes
    assert sum(event["why"] == "fallback" for event in events) > 50
    assert [event for event in events if event["estimated"]] == []
    assert Counter(event["status"] for event in events)["error"] == sum(
        count for name, count in outcomes.items() if name.startswith("status")
    )

    ours = _consumed(stack, events)
    theirs = {
        (row["kind"], row["model"]): Counter(
            {name: row[name] for name in ("requests", *TOKEN_SORTS)}
        )
        for row in served["rows"]
    }
    assert {key: dict(+row) for key, row in ours.items()} == {
        key: dict(+row) for key, row in theirs.items()
    }

    cost = sum((Decimal(event["cost"]) for event in events), Decimal())
    expected = sum((_cost(row) for row in served["rows"]), Decimal())
    assert cost.quantize(CENT) == expected.quantize(CENT)
    assert cost == expected
    print(f"{REQUESTS} requests, {dict(outcomes)}, ${cost} = ${expected}")  # noqa: T201

    day = since.date().isoformat()
    summary = stack.api.get("usage/summary/", **{"from": day, "group_by": "model"})
    assert Decimal(summary["total"]["cost"]) == cost
    assert sum(Decimal(row["totals"]["cost"]) for row in summary["results"]) == cost
