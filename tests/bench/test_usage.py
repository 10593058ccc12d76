"""`make ledger`: the figures of the ledger in docs/performance.md, on this machine."""

import os

import pytest

from tests.bench import dashboards, ingest

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("budgets", [False, True], ids=["without budgets", "five budgets each"])
@pytest.mark.parametrize("threads", [1, 2])
def test_ingest(threads: int, budgets: bool) -> None:
    rate = ingest.measure(
        events=200_000, batch=5_000, threads=threads, keys=200, spread_s=60.0, budgets=budgets
    )
    assert rate > 0


def test_pages_over_a_large_ledger() -> None:
    """GATEWAY_BENCH_EVENTS sets the size: 10 million take a quarter of an hour to write."""
    size = os.environ.get("GATEWAY_BENCH_EVENTS", "1000000")
    assert not dashboards.measure(dashboards.arguments_of(["--events", size]))
