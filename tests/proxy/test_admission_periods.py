"""Budget periods: their ends, the two days on which clocks change, rolling hours."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from proxy.refusals import Refusal
from proxy.trace import Trace
from proxy.worker import Worker
from tests.proxy.documents import budget, subject
from tests.proxy.drill import Drill


@pytest.fixture
async def drill() -> AsyncIterator[Drill]:
    async with Drill() as found:
        found.subjects = [subject("key", "key-alpha", budgets=[budget("b", "1", period="day")])]
        yield found


def utc(text: str) -> datetime:
    """A moment."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


async def spend(drill: Drill, worker: Worker, moment: datetime, usd: str) -> Trace:
    """One request at a moment; the worker's clock is where the last one left it."""
    drill.at(moment)
    trace = await drill.admit(worker)
    await drill.finish(worker, trace, usd=usd)
    return trace


async def test_a_new_period_begins_empty_and_the_old_one_keeps_what_ran_over_its_end(
    drill: Drill,
) -> None:
    worker = await drill.worker()
    drill.at(utc("2026-11-30T23:59:59"))
    await drill.clocks()
    runs_over = await drill.admit(worker)
    await spend(drill, worker, utc("2026-11-30T23:59:59.500"), "0.9999")
    assert isinstance(await drill.try_admit(worker), Refusal)
    # This worker believes that it is still November.
    fresh = await spend(drill, worker, utc("2026-12-01T00:00:00.001"), "0.25")
    assert fresh.started_at >= utc("2026-12-01T00:00:00")
    await drill.finish(worker, runs_over, usd="0.5")
    assert await drill.counters("b") == ["b:key-alpha:d2026-11-30", "b:key-alpha:d2026-12-01"]
    assert await drill.budget("b:key-alpha:d2026-11-30") == (1_499_900_000, 0, 1_499_900_000)
    assert await drill.budget("b:key-alpha:d2026-12-01") == (250_000_000, 0, 250_000_000)


async def test_a_worker_whose_clock_is_ahead_does_not_open_the_next_period(drill: Drill) -> None:
    worker = await drill.worker()
    drill.at(utc("2026-12-01T00:00:03"))
    await drill.clocks()
    trace = await spend(drill, worker, utc("2026-11-30T23:59:58"), "0.1")
    assert trace.started_at < utc("2026-12-01T00:00:00")
    assert await drill.counters("b") == ["b:key-alpha:d2026-11-30"]


@pytest.mark.parametrize(
    ("first_day", "hours", "offset_before"),
    [("2026-03-29", 23, 1), ("2026-10-25", 25, 2)],
    ids=["spring", "autumn"],
)
async def test_days_on_which_clocks_change_are_as_long_as_they_are(
    drill: Drill, first_day: str, hours: int, offset_before: int
) -> None:
    drill.calendar["time_zone"] = "Europe/Berlin"
    worker = await drill.worker()
    begins = utc(f"{first_day}T00:00:00") - timedelta(hours=offset_before)
    ends = begins + timedelta(hours=hours)
    drill.at(begins)
    await drill.clocks()
    await spend(drill, worker, begins, "0.5")
    await spend(drill, worker, begins + timedelta(hours=2, minutes=30), "0.4")
    await spend(drill, worker, ends - timedelta(milliseconds=1), "0.0995")
    refusal = await drill.try_admit(worker)
    assert isinstance(refusal, Refusal)
    assert ends.strftime("%Y-%m-%dT%H:%M:%SZ") in refusal.message
    drill.at(ends)
    await drill.admit(worker)
    spent, _, _ = await drill.budget(f"b:key-alpha:d{first_day}")
    assert spent == 999_500_000
    assert len(await drill.counters("b")) == 2


async def test_rolling_hours_free_up_as_spending_gets_old(drill: Drill) -> None:
    rule = budget("b", "1", period="rolling", rolling_hours=1)
    drill.subjects = [subject("key", "key-alpha", budgets=[rule])]
    worker = await drill.worker()
    begin = utc("2026-11-30T10:00:30")
    for minutes, usd in ((0, "0.6"), (30, "0.3995")):
        drill.at(begin + timedelta(minutes=minutes))
        await drill.clocks()
        await spend(drill, worker, begin + timedelta(minutes=minutes), usd)
    drill.at(begin + timedelta(minutes=59))
    refusal = await drill.try_admit(worker)
    assert isinstance(refusal, Refusal)
    assert "in any 1 h" in refusal.message
    drill.at(begin + timedelta(minutes=61))
    await drill.clocks()
    await spend(drill, worker, begin + timedelta(minutes=61, seconds=30), "0.1")
    spent, held, _ = await drill.budget("b:key-alpha:r1")
    assert (spent, held) == (499_500_000, 0)
    drill.at(begin + timedelta(hours=5))
    await drill.clocks()
    await drill.admit(worker)
    spent, _, _ = await drill.budget("b:key-alpha:r1")
    assert spent == 0


async def test_a_lifetime_budget_never_resets(drill: Drill) -> None:
    drill.subjects = [subject("key", "key-alpha", budgets=[budget("b", "1", period="lifetime")])]
    worker = await drill.worker()
    await spend(drill, worker, utc("2026-11-30T10:00:00"), "0.9999")
    drill.at(utc("2031-01-01T00:00:00"))
    refusal = await drill.try_admit(worker)
    assert isinstance(refusal, Refusal)
    assert "does not reset" in refusal.message
