"""No dollar over: 1,000 calls at once on a budget that has room for ten."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from typing import Any

import httpx
import pytest

from proxy.contract.counters import dollars, nano_dollars
from tests.acceptance.counters import Counters, Highest
from tests.acceptance.stack import ADMIN, PRICES, Stack, running_stack

CALLS = 1_000
ROOM = 10
MAX_TOKENS = 40
SLOW_MS = 3_000
SCOPES = ("key", "team", "user", "customer", "environment", "credential")


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack(workers=4) as running:
        running.team = running.api.post("teams/", name="Spenders", owner=ADMIN)  # type: ignore[attr-defined]
        yield running


@pytest.fixture(scope="module")
def counters(stack: Stack) -> Counters:
    return Counters.of(stack)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streams"])
@pytest.mark.parametrize("scope", SCOPES)
def test_never_above_the_limit(stack: Stack, counters: Counters, scope: str, stream: bool) -> None:
    key = stack.issue_key(f"{scope} {stream}", team="spenders")
    customer = f"customer-{scope}-{stream}"
    stack.api.post("customers/", environment="prod", reference=customer)
    estimate = estimated(stack, counters, key, customer, stream=stream)
    limit = dollars(ROOM * estimate)
    budget = make_budget(stack, scope, key, customer, limit)
    try:
        since = datetime.now(UTC)
        stack.simulator.control(kind="openai", latency_ms=SLOW_MS)
        with Highest(counters, budget["id"]) as watch:
            answers = asyncio.run(burst(stack, key["key"], customer, CALLS, stream=stream))
        statuses = Counter(status for status, _ in answers)
        print(  # noqa: T201
            f"{scope}, {'streams' if stream else 'whole'}: {dict(statuses)}, limit "
            f"${budget['limit_usd']}, highest ${dollars(watch.nano)} in {watch.samples} looks, "
            f"admitted {admissions(stack, since)}"
        )
        assert set(statuses) == {200, 429}, statuses
        assert {code for status, code in answers if status == 429} == {"insufficient_quota"}
        assert statuses[200] >= ROOM
        assert watch.samples > 100
        assert watch.nano <= nano_dollars(Decimal(budget["limit_usd"]))
        spent = settled_spend(stack, counters, budget["id"], since, statuses[200])
        assert spent <= Decimal(budget["limit_usd"])
    finally:
        stack.simulator.reset()
        stack.api.call("DELETE", f"budgets/{budget['id']}/")


def test_overlapping_budgets_hold_together(stack: Stack, counters: Counters) -> None:
    """A key's budget inside its team's, a model's inside the key's: the narrowest decides."""
    key = stack.issue_key("overlap", team="spenders")
    estimate = estimated(stack, counters, key, "", stream=False)
    rooms = {"team": 30, "key": 20, "model": 10, "environment": 25}
    budgets: dict[str, dict[str, Any]] = {}
    for name, room in rooms.items():
        extra = {"model": "openai-chat"} if name == "model" else {}
        scope = "key" if name == "model" else name
        budgets[name] = make_budget(stack, scope, key, "", dollars(room * estimate), **extra)
    stack.simulator.control(kind="openai", latency_ms=SLOW_MS)
    watches = [Highest(counters, budget["id"]) for budget in budgets.values()]
    try:
        for watch in watches:
            watch.__enter__()
        answers = asyncio.run(burst(stack, key["key"], "", 300, stream=False))
    finally:
        for watch in watches:
            watch.__exit__(None, None, None)
        stack.simulator.reset()
        for budget in budgets.values():
            stack.api.call("DELETE", f"budgets/{budget['id']}/")
    for watch, budget in zip(watches, budgets.values(), strict=True):
        assert watch.nano <= nano_dollars(Decimal(budget["limit_usd"]))
    assert Counter(status for status, _ in answers)[200] >= min(rooms.values())


def make_budget(
    stack: Stack, scope: str, key: dict[str, Any], customer: str, limit: Decimal, **extra: str
) -> dict[str, Any]:
    made: dict[str, Any] = stack.api.post(
        "budgets/", environment="prod", scope=scope, **subject_of(scope, key, customer),
        limit_usd=in_micro_dollars(limit), period="month", **extra,
    )  # fmt: skip
    stack.policies_in_force()
    spent = stack.api.get(f"budgets/{made['id']}/")["balance"]["spent_usd"]
    if Decimal(spent):  # what the subject spent before counts: leave the same room
        more = in_micro_dollars(limit + Decimal(spent))
        made = stack.api.patch(f"budgets/{made['id']}/", limit_usd=more)
        stack.policies_in_force()
    return made


def subject_of(scope: str, key: dict[str, Any], customer: str) -> dict[str, str]:
    """Whose budget it is, as the API takes it."""
    subjects = {
        "key": key["id"],
        "team": "spenders",
        "user": ADMIN,
        "customer": customer,
        "credential": "openai main",
    }
    return {"subject": subjects[scope]} if scope in subjects else {}


def in_micro_dollars(amount: Decimal) -> str:
    """As the API takes amounts, rounded up."""
    return str(amount.quantize(Decimal("0.000001"), ROUND_CEILING))


def estimated(
    stack: Stack, counters: Counters, key: dict[str, Any], customer: str, *, stream: bool
) -> int:
    """Nano-dollars that one call reserves: read off a roomy budget while it runs."""
    roomy = stack.api.post(
        "budgets/", environment="prod", scope="key", subject=key["id"], limit_usd="100",
        period="lifetime",
    )  # fmt: skip
    stack.policies_in_force()
    stack.simulator.control(kind="openai", latency_ms=1_000)
    with Highest(counters, roomy["id"]) as watch:
        answers = asyncio.run(burst(stack, key["key"], customer, 1, stream=stream))
    assert answers[0][0] == 200
    stack.simulator.reset()
    stack.wait_for(lambda: counters.of_budget(roomy["id"])["p"] == 0, "the probe is in the ledger")
    stack.api.call("DELETE", f"budgets/{roomy['id']}/")
    stack.policies_in_force()
    assert watch.nano > nano_dollars(MAX_TOKENS * PRICES["output_token"])
    return watch.nano


async def burst(
    stack: Stack, key: str, customer: str, calls: int, *, stream: bool
) -> list[tuple[int, str]]:
    """Status and error code of each of `calls` requests sent at once."""
    limits = httpx.Limits(max_connections=calls)
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(
        base_url=stack.proxy, headers=headers, limits=limits, timeout=120, trust_env=False
    ) as client:

        async def one(number: int) -> tuple[int, str]:
            body: dict[str, Any] = {
                "model": "openai-chat",
                "max_tokens": MAX_TOKENS,
                "stream": stream,
                "messages": [{"role": "user", "content": f"call {number:05d}"}],
            }
            if customer:
                body["user"] = customer
            answer = await client.post("/v1/chat/completions", json=body)
            code = "" if answer.status_code == 200 else answer.json()["error"]["code"]
            return answer.status_code, code

        return await asyncio.gather(*(one(number) for number in range(calls)))


def admissions(stack: Stack, since: datetime) -> dict[str, int]:
    """How the answered calls were admitted."""
    rows = stack.database(
        "SELECT admission, count(*) AS calls FROM usage_event"
        " WHERE status = 'ok' AND started_at >= %s GROUP BY 1",
        since,
    )
    return {row["admission"]: row["calls"] for row in rows}


def settled_spend(
    stack: Stack, counters: Counters, budget_id: str, since: datetime, answered: int
) -> Decimal:
    """What the budget's counter says was spent, once it says nothing else; equals the ledger."""

    def settled() -> bool:
        row = counters.of_budget(budget_id)
        return row["h"] == 0 and row["p"] == 0

    stack.wait_for(settled, "everything is settled and in the ledger", timeout_s=60)
    row = stack.database(
        "SELECT count(*) AS calls, sum(cost) AS cost FROM usage_event"
        " WHERE status = 'ok' AND started_at >= %s",
        since,
    )[0]
    assert row["calls"] == answered
    assert stack.simulator.settled_ledger()["totals"]["ok"] >= answered
    return Decimal(dollars(counters.of_budget(budget_id)["s"]))
