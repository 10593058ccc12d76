"""Compiled rules: reused while nothing changes, never after."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import admission_plan
from proxy.admission_plan import Plan
from proxy.contract import ModelDocument
from proxy.contract.counters import nano_dollars
from proxy.estimate import Demand, worst_cost
from proxy.rates import Rate
from proxy.refusals import Refusal
from proxy.snapshot import Price, build_snapshot
from proxy.trace import Trace
from proxy.worker import Worker
from tests.proxy.documents import (
    ENVIRONMENT,
    FLEET_KEY,
    budget,
    envelope,
    limit,
    policy,
    subject,
)
from tests.proxy.drill import Drill, price


@pytest.fixture
async def drill() -> AsyncIterator[Drill]:
    async with Drill() as found:
        found.subjects = [subject("key", "key-alpha", budgets=[budget("b", "1", period="day")])]
        yield found


def utc(text: str) -> datetime:
    """A moment."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def plan_of(worker: Worker, trace: Trace) -> Plan:
    """The compiled rules of a request."""
    assert trace.snapshot is not None
    rows = trace.snapshot.by_model[trace.model]
    return worker.admission.plans.find(
        trace.policy, trace.customer, trace.snapshot, rows, rows[0], trace.started_at
    )


def plan_at(drill: Drill, moment: datetime, **request: Any) -> Plan:
    """The plan of a request that begins at a moment."""
    worker = drill.workers[0]
    trace = drill.request(worker, **request)
    trace.started_at = moment
    return plan_of(worker, trace)


async def test_requests_of_one_kind_share_a_plan_and_others_do_not(drill: Drill) -> None:
    drill.keys.append(policy("beta"))
    worker = await drill.worker()
    plan = plan_of(worker, drill.request(worker))
    assert plan_of(worker, drill.request(worker, max_tokens=7)) is plan
    assert plan_of(worker, drill.request(worker, user="jane")) is plan  # no rule speaks of her
    assert plan_of(worker, drill.request(worker, model="dear")) is not plan
    assert plan_of(worker, drill.request(worker, key="beta")) is not plan
    assert plan_of(worker, drill.request(worker)) is plan


async def test_customers_have_plans_where_rules_speak_of_them(drill: Drill) -> None:
    drill.subjects = [subject("customer", "*", budgets=[budget("c", "1")])]
    worker = await drill.worker()
    plans = {id(plan_of(worker, drill.request(worker, user=name))) for name in ("a", "b", "", "a")}
    assert len(plans) == 3


async def test_plans_are_bounded(drill: Drill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_plan, "PLANS_MAX", 10)
    drill.subjects = [subject("customer", "*", budgets=[budget("c", "1")])]
    worker = await drill.worker()
    kept = plan_of(worker, drill.request(worker, user="kept"))
    for number in range(50):
        plan_of(worker, drill.request(worker, user=str(number)))
        assert plan_of(worker, drill.request(worker, user="kept")) is kept
    assert len(worker.admission.plans) == 10


async def test_a_changed_policy_is_in_force_with_the_next_request(drill: Drill) -> None:
    worker = await drill.worker()
    await drill.admit(worker)
    drill.subjects = [subject("key", "key-alpha", budgets=[budget("b", "0", limit_nano=1)])]
    drill.tell(worker)
    assert isinstance(await drill.try_admit(worker), Refusal)
    drill.subjects = [subject("key", "key-alpha", limits=[limit("l", rpm=1)])]
    drill.tell(worker)
    await drill.admit(worker)
    assert isinstance(await drill.try_admit(worker), Refusal)
    drill.subjects = []
    drill.tell(worker)
    await drill.admit(worker)


async def test_a_changed_calendar_moves_the_period(drill: Drill) -> None:
    worker = await drill.worker()
    moment = utc("2026-07-01T23:00:00")
    assert plan_at(drill, moment).rules.budgets[0].period.id == "d2026-07-01"
    drill.calendar["time_zone"] = "Europe/Berlin"
    drill.tell(worker)
    assert plan_at(drill, moment).rules.budgets[0].period.id == "d2026-07-02"


async def test_a_new_price_is_reserved_as_soon_as_it_is_served(drill: Drill) -> None:
    worker = await drill.worker()
    before = plan_of(worker, trace := drill.request(worker)).reserve(_demand(trace)).nano[0]
    for row in drill.content["deployments"]:
        row["price"] = price("0.001", "0.002")  # type: ignore[typeddict-item]
    old = worker.snapshot
    worker.snapshot = build_snapshot(
        envelope(2, drill.content, {}), environment=ENVIRONMENT, fleet_key=FLEET_KEY
    )
    after = plan_of(worker, drill.request(worker)).reserve(_demand(trace)).nano[0]
    assert after > 100 * before
    worker.snapshot = old  # a request that began before the change
    assert plan_of(worker, drill.request(worker)).reserve(_demand(trace)).nano[0] == before


def _demand(trace: Trace) -> Demand:
    assert trace.demand is not None
    return trace.demand


@pytest.mark.parametrize(
    ("day", "hours", "offset"),
    [("2026-03-29", 23, 1), ("2026-10-25", 25, 2), ("2026-07-01", 24, 2)],
    ids=["spring", "autumn", "summer"],
)
async def test_a_plan_ends_with_the_day(drill: Drill, day: str, hours: int, offset: int) -> None:
    drill.calendar["time_zone"] = "Europe/Berlin"
    await drill.worker()
    begins = utc(f"{day}T00:00:00") - timedelta(hours=offset)
    ends = begins + timedelta(hours=hours)
    plan = plan_at(drill, begins)
    assert plan_at(drill, ends - timedelta(microseconds=1)) is plan
    following = plan_at(drill, ends)
    assert following is not plan
    assert following.rules.budgets[0].period.start == ends
    # A clock that was ahead is set right: the day before is in force again.
    assert plan_at(drill, ends - timedelta(seconds=1)).rules.budgets[0].period.end == ends


async def test_a_plan_ends_with_the_bucket_of_a_rolling_period(drill: Drill) -> None:
    rule = budget("b", "1", period="rolling", rolling_hours=1)
    drill.subjects = [subject("key", "key-alpha", budgets=[rule])]
    await drill.worker()
    begins = utc("2026-07-01T10:01:00")
    plan = plan_at(drill, begins)
    assert plan_at(drill, begins + timedelta(seconds=59.9)) is plan
    following = plan_at(drill, begins + timedelta(seconds=60))
    bucket = plan.rules.budgets[0].bucket
    assert bucket is not None
    assert following.rules.budgets[0].bucket == bucket + 1


async def test_a_plan_ends_with_an_override(drill: Drill) -> None:
    until = utc("2026-07-01T12:00:00")
    rule = budget("b", "1", override_nano=7, override_until=until.isoformat())
    drill.subjects = [subject("key", "key-alpha", budgets=[rule])]
    await drill.worker()
    limits = [
        plan_at(drill, until + timedelta(seconds=seconds)).rules.budgets[0].limit_nano
        for seconds in (-1, -0.001, 0, 1, -1)
    ]
    assert limits == [7, 7, 10**9, 10**9, 7]


UNITS = (
    "input_token", "output_token", "reasoning_token", "cache_write_token", "cache_read_token",
    "input_audio_token", "output_audio_token", "request", "image",
)  # fmt: skip
amounts = st.decimals(min_value=0, max_value=1, places=12, allow_nan=False)
tokens = st.integers(0, 2_000_000)
models = st.none() | st.builds(
    lambda window, most: ModelDocument(
        name="m", mode="chat", context_window=window, max_output_tokens=most, cache=True
    ),
    st.none() | st.integers(1, 1_000_000),
    st.none() | st.integers(1, 100_000),
)
demands = st.builds(
    Demand,
    input_tokens=tokens,
    rough_input_tokens=tokens,
    output_tokens=st.none() | tokens,
    choices=st.integers(1, 8),
    audio=st.booleans(),
    caching=st.booleans(),
    units=st.sampled_from([{"request": Decimal(1)}, {}, {"image": Decimal(3)}]),
)


@given(
    units=st.dictionaries(st.sampled_from(UNITS), amounts), demand=demands, model=models
)  # fmt: skip
def test_whole_numbers_say_what_decimals_say(
    units: dict[str, Decimal], demand: Demand, model: ModelDocument | None
) -> None:
    found = Price("p", "own", units)
    rate = Rate(found, model)
    assert rate.worst_nano(demand) == nano_dollars(worst_cost(demand, found, model))
    least = units.get("input_token", Decimal(0)) * demand.rough_input_tokens
    assert rate.least_nano(demand) == nano_dollars(least + units.get("request", Decimal(0)))
