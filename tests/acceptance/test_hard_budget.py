"""A budget's limit holds while many call at once; tests/chaos does it for every scope."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal

import openai
import pytest

from proxy.contract.counters import nano_dollars
from tests.acceptance.counters import Counters, Highest
from tests.acceptance.stack import Stack, running_stack

pytestmark = pytest.mark.fleet

CALLS = 120
LIMIT = Decimal("0.008")


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack(workers=2) as running:
        yield running


def test_many_at_once_never_pass_the_limit(stack: Stack) -> None:
    key = stack.issue_key("narrow")
    budget = stack.api.post(
        "budgets/", environment="prod", scope="key", subject=key["id"], limit_usd=str(LIMIT),
        period="month",
    )  # fmt: skip
    stack.policies_in_force()
    stack.simulator.control(kind="openai", latency_ms=800)
    counters = Counters.of(stack)
    with Highest(counters, budget["id"]) as watch:
        answers = asyncio.run(_call_all(stack, key["key"]))
    assert set(answers) == {"ok", "insufficient_quota"}
    assert answers.total() == CALLS  # none was retried by the client: each was sent once
    assert watch.samples > 20
    assert watch.nano <= nano_dollars(LIMIT)
    stack.wait_for(
        lambda: (
            counters.of_budget(budget["id"])["h"] == 0
            and counters.of_budget(budget["id"])["p"] == 0
        ),
        "everything is settled and in the ledger",
    )
    row = stack.database(
        "SELECT sum(ceil(cost * 1e9)) AS nano, count(*) FILTER (WHERE status = 'ok') AS ok,"
        " count(*) AS calls FROM usage_event WHERE public_id = %s",
        key["public_id"],
    )[0]
    assert counters.of_budget(budget["id"])["s"] == row["nano"]
    assert (row["ok"], row["calls"]) == (answers["ok"], CALLS)


async def _call_all(stack: Stack, key: str) -> Counter[str]:
    """What the stock client makes of each of many calls at once, half of them streams."""
    async with openai.AsyncOpenAI(base_url=f"{stack.proxy}/v1", api_key=key) as client:

        async def call(number: int) -> str:
            try:
                answer = await client.chat.completions.create(
                    model="openai-chat",
                    max_tokens=40,
                    stream=number % 2 == 0,
                    messages=[{"role": "user", "content": f"call {number:05d}"}],
                )
                if isinstance(answer, openai.AsyncStream):
                    async for _ in answer:
                        pass
            except openai.RateLimitError as error:
                return str(error.code)
            return "ok"

        return Counter(await asyncio.gather(*(call(number) for number in range(CALLS))))
