"""A stream that its caller leaves is charged for what was produced, not more, not nothing."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal

import httpx
import pytest

from tests.acceptance.stack import PRICES, Stack, running_stack

pytestmark = pytest.mark.fleet

STREAMS = 100
# Long enough that what a tokenizer adds to each request (3 tokens before the answer, 1 for a
# capital letter), and the simulator does not, is no more than a percent.
TOKENS = 240
INTERVAL_MS = 15
SHARES = (0.1, 0.5, 0.9)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    # No drain: the provider's own count never comes, so the tokens are counted by us.
    with running_stack(workers=2, GATEWAY_ABORT_DRAIN_S="0.2") as running:
        yield running


def test_a_hundred_aborted_streams(stack: Stack) -> None:
    since = datetime.now(UTC)
    stack.simulator.reset()
    stack.simulator.control(
        kind="openai", first_token_ms=50, token_interval_ms=INTERVAL_MS, output_tokens=TOKENS
    )
    marks = [f"abort-{number}" for number in range(STREAMS)]
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda mark: leave_early(stack, mark), marks))
    events = stack.settled_events(since, STREAMS, marks)
    of_ours = [event for event in events if event["customer"] in marks]
    assert len(of_ours) == STREAMS
    assert {event["status"] for event in of_ours} == {"aborted"}
    assert sum(event["estimated"] for event in of_ours) > STREAMS / 2  # counted by us
    charged = sum((Decimal(event["cost"]) for event in of_ours), Decimal(0))
    produced = provider_cost(stack)
    off = abs(charged - produced) / produced
    print(f"charged ${charged}, produced ${produced}: {off:.2%} apart")  # noqa: T201
    assert off <= Decimal("0.02")


def leave_early(stack: Stack, mark: str) -> None:
    """Read a share of the stream's chunks, then close the connection."""
    share = SHARES[int(mark.rpartition("-")[2]) % len(SHARES)]
    body = {
        "model": "openai-chat",
        "user": mark,
        "stream": True,
        "messages": [{"role": "user", "content": "Tell me a long story"}],
    }
    headers = {"Authorization": f"Bearer {stack.key}"}
    with httpx.stream(
        "POST", f"{stack.proxy}/v1/chat/completions", json=body, headers=headers, timeout=60
    ) as answer:
        assert answer.status_code == 200
        chunks = 0
        for line in answer.iter_lines():
            chunks += line.startswith("data:")
            if chunks >= TOKENS * share:
                return


def provider_cost(stack: Stack) -> Decimal:
    """What the simulator sent until it noticed, at our prices."""
    totals = stack.simulator.settled_ledger()["totals"]
    cost = Decimal(totals["input_tokens"]) * PRICES["input_token"]
    return cost + Decimal(totals["output_tokens"]) * PRICES["output_token"]
