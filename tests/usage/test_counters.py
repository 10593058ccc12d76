"""The budgets' counters agree with the ledger, whatever happens to either."""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from gateway_admin.keys.models import Budget
from gateway_admin.usage import charging, counter_store
from gateway_admin.usage.counters import (
    SETTLED_AFTER,
    counters_ensure,
    counters_rebuild,
    counters_repair,
)
from gateway_admin.usage.models import CounterState, CounterUpdate, UsageEvent
from gateway_admin.usage.tasks import abandoned_account
from proxy.contract import counters
from proxy.contract.counters import dollars, nano_dollars
from tests import builders
from tests.usage.counting import Fleet, budget, in_balance, redis_away
from tests.usage.ledger import take_in, usage_event

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_settled_request_is_spent_once_when_its_event_arrives() -> None:
    row, fleet = budget(), Fleet()
    counters_ensure(environment=fleet.environment)
    event = fleet.admit([row], cost="0.25")
    assert fleet.read(row).held == 10**7
    assert fleet.settle(event)
    assert fleet.read(row).spent == fleet.read(row).unrecorded == nano_dollars(Decimal("0.25"))
    take_in([event])
    assert fleet.read(row) == counter_store.Reading(spent=250_000_000)
    take_in([event, event])
    assert fleet.read(row) == counter_store.Reading(spent=250_000_000)
    assert CounterUpdate.objects.count() == 0


def test_a_locally_counted_request_is_charged_when_its_event_arrives() -> None:
    row, fleet = budget(), Fleet()
    event = fleet.admit([row], cost="0.1")
    assert event["admission"]["mode"] == "local"
    counters_ensure(environment=fleet.environment)
    take_in([event])
    take_in([event])
    assert fleet.read(row) == counter_store.Reading(spent=100_000_000)


def test_costs_below_a_nano_dollar_are_rounded_up_alike_on_both_sides() -> None:
    row, fleet = budget(), Fleet()
    counters_ensure(environment=fleet.environment)
    for _ in range(7):
        event = fleet.admit([row], cost="0.0000000001")
        fleet.settle(event)
        take_in([event])
    assert fleet.read(row).spent == 7
    assert counters_repair(environment=fleet.environment).corrections == []
    assert counters_rebuild(environment=fleet.environment).counters == 1
    assert fleet.read(row).spent == 7


def test_unpriced_and_free_requests_charge_nothing() -> None:
    row, fleet = budget(), Fleet()
    counters_ensure(environment=fleet.environment)
    take_in([fleet.admit([row], cost=None), fleet.admit([row], cost="0")])
    assert fleet.read(row).spent == 0


def test_a_wiped_redis_is_built_anew_and_requests_under_way_are_charged_after_all() -> None:
    row, fleet = budget(), Fleet()
    first = counters_ensure(environment=fleet.environment)
    done, settled, running = (fleet.admit([row], cost="0.2") for _ in range(3))
    fleet.settle(done)
    take_in([done])
    fleet.settle(settled)
    fleet.wipe()
    assert not fleet.settle(running)
    second = counters_ensure(environment=fleet.environment)
    assert second != first
    assert fleet.read(row).spent == 200_000_000
    take_in([settled, running])
    assert fleet.read(row) == counter_store.Reading(spent=600_000_000)
    assert counters_repair(environment=fleet.environment).corrections == []


def test_callers_at_once_share_one_build() -> None:
    environment = builders.environment()
    barrier = threading.Barrier(5)

    def ask() -> str:
        barrier.wait()
        return counters_ensure(environment=environment)

    epochs = at_once(*[ask] * 5)
    assert len(epochs) == 5
    assert len(set(epochs)) == 1


def test_events_that_arrive_while_redis_is_away_are_told_later_and_once(settings: Any) -> None:
    row, fleet = budget(), Fleet()
    counters_ensure(environment=fleet.environment)
    event = fleet.admit([row], cost="0.3")
    fleet.settle(event)
    local = fleet.admit([row], cost="0.1")
    local["admission"]["mode"], local["admission"]["epoch"] = "local", ""
    with redis_away(settings):
        assert take_in([event, local])["accepted"] == 2
        assert take_in([event])["duplicates"] == 1
        assert CounterUpdate.objects.count() == 1
        abandoned_account()
        assert CounterUpdate.objects.count() == 1
    CounterUpdate.objects.update(created_at=timezone.now() - charging.WAITED * 2)
    assert fleet.read(row).unrecorded == 300_000_000
    abandoned_account()
    assert CounterUpdate.objects.count() == 0
    assert (fleet.read(row).spent, fleet.read(row).unrecorded) == (400_000_000, 0)
    abandoned_account()
    assert fleet.read(row).spent == 400_000_000


def test_the_next_batch_takes_what_waited_along(settings: Any) -> None:
    row, fleet = budget(), Fleet()
    counters_ensure(environment=fleet.environment)
    first, second = (fleet.admit([row], cost="0.3") for _ in range(2))
    with redis_away(settings):
        take_in([first])
    take_in([second])
    assert fleet.read(row).unrecorded == -600_000_000
    assert CounterUpdate.objects.count() == 0


def test_a_worker_that_asks_may_go_on_in_counters_that_know_all(settings: Any) -> None:
    row, fleet = budget(), Fleet()
    epoch = counters_ensure(environment=fleet.environment)
    event = fleet.admit([row], cost="0.3")
    event["admission"]["mode"], event["admission"]["epoch"] = "local", ""
    with redis_away(settings):
        take_in([event])
    assert fleet.read(row).spent == 0
    assert counters_ensure(environment=fleet.environment) == epoch
    assert fleet.read(row).spent == 300_000_000


def test_an_update_that_was_told_before_its_process_died_is_not_told_twice() -> None:
    row, fleet = budget(), Fleet()
    counters_ensure(environment=fleet.environment)
    event = fleet.admit([row], cost="0.3")
    event["admission"]["mode"], event["admission"]["epoch"] = "local", ""
    update = CounterUpdate(
        environment_id=fleet.environment.pk,
        created_at=timezone.now() - charging.WAITED * 2,
        deltas=f'[["{fleet.counter(row)}", null, "", 300000000]]',
    )
    update.save()
    deltas = [counter_store.Delta(fleet.counter(row), None, "", 300_000_000)]
    counter_store.charge(fleet.slug, update=update.pk, deltas=deltas)
    abandoned_account()
    assert fleet.read(row).spent == 300_000_000
    assert CounterUpdate.objects.count() == 0


def test_a_repair_mends_counters_and_reports_what_was_wrong() -> None:
    row, fleet = budget(), Fleet()
    counters_ensure(environment=fleet.environment)
    settled = fleet.admit([row], cost="0.5")
    fleet.settle(settled)
    take_in([usage_event(cost="1.5")])  # of a replica that does not tell how it admitted
    outcome = counters_repair(environment=fleet.environment)
    assert outcome.drift_nano == 1_500_000_000
    assert fleet.read(row).spent == 2_000_000_000
    assert fleet.read(row).unrecorded == 500_000_000
    assert CounterState.objects.get().drift_nano == 0  # a new budget's counters only follow
    Budget.objects.update(updated_at=timezone.now() - SETTLED_AFTER * 2)
    fleet.redis.hincrby(counters.budget_key(fleet.slug, fleet.counter(row)), "s", -9)
    counters_repair(environment=fleet.environment)
    assert CounterState.objects.get().drift_nano == 9
    fleet.redis.hincrby(counters.budget_key(fleet.slug, fleet.counter(row)), "s", -7)
    assert counters_repair(environment=fleet.environment).drift_nano == 7
    assert counters_repair(environment=fleet.environment).drift_nano == 0


def test_the_counters_of_a_new_budget_start_at_what_was_spent_already() -> None:
    fleet = Fleet()
    counters_ensure(environment=fleet.environment)
    take_in([usage_event(cost="0.75")])
    row = budget()
    outcome = counters_repair(environment=fleet.environment, budgets=[row.pk])
    assert fleet.read(row).spent == 750_000_000
    assert outcome.drift_nano == 750_000_000
    assert CounterState.objects.get().drift_nano == 0  # it was absent, not wrong


def test_counters_of_a_server_that_came_back_older_are_built_anew() -> None:
    row, fleet = budget(), Fleet()
    epoch = counters_ensure(environment=fleet.environment)
    event = fleet.admit([row], cost="0.5")
    fleet.settle(event)
    CounterState.objects.update(server_run_id="another start of the process")
    outcome = counters_repair(environment=fleet.environment)
    assert outcome.built
    assert outcome.epoch != epoch
    assert fleet.read(row) == counter_store.Reading()
    take_in([event])
    assert fleet.read(row).spent == 500_000_000


def test_a_rolling_budget_is_kept_by_bucket() -> None:
    row = budget(period="rolling", rolling_hours=1)
    fleet = Fleet()
    counters_ensure(environment=fleet.environment)
    event = fleet.admit([row], cost="0.5")
    fleet.settle(event)
    take_in([event])
    local = fleet.admit([row], cost="0.25")
    local["admission"]["mode"], local["admission"]["epoch"] = "local", ""
    take_in([local])
    reading = fleet.read(row)
    assert (reading.spent, sum(reading.buckets.values())) == (750_000_000,) * 2
    assert counters_repair(environment=fleet.environment).corrections == []
    old = usage_event(started_at=ago(minutes=50), cost="0.125")
    older = usage_event(started_at=ago(minutes=70), cost="4")
    take_in([old, older])
    counters_repair(environment=fleet.environment)
    reading = fleet.read(row)
    assert (reading.spent, sum(reading.buckets.values())) == (875_000_000,) * 2
    assert len(reading.buckets) >= 2
    counters_rebuild(environment=fleet.environment)
    assert fleet.read(row).spent == 875_000_000


def test_a_bucket_that_rolled_out_is_not_charged_late() -> None:
    row = budget(period="rolling", rolling_hours=1)
    fleet = Fleet()
    counters_ensure(environment=fleet.environment)
    late = fleet.admit([row], cost="0.5", started_at=ago(minutes=90))
    late["admission"] = {
        "mode": "local",
        "epoch": "",
        "charged": [{"counter": fleet.counter(row), "bucket": int(time.time() - 5400) // 60}],
    }
    take_in([late])
    assert fleet.read(row).spent == 0


def test_it_holds_while_everything_happens_at_once() -> None:
    """Requests settle, batches arrive twice, repairs and a rebuild run: nothing drifts."""
    rows = [
        budget(),
        budget(period="rolling", rolling_hours=24),
        budget(scope="key", subject="*", is_default=True, period="day"),
        budget(scope="customer", subject="*", is_default=True),
    ]
    fleet = Fleet()
    counters_ensure(environment=fleet.environment)
    stop = threading.Event()

    def traffic(seed: int) -> None:
        draw, own, waiting = random.Random(seed), Fleet(), []
        for number in range(120):
            cost = Decimal(draw.randint(1, 10**9)).scaleb(-10)
            event = own.admit(rows, cost=f"{cost:f}", customer=f"c{draw.randint(1, 4)}")
            own.settle(event)
            waiting.append(event)
            if number % 10 == 9:
                take_in([*waiting, *waiting[:3]])
                take_in(waiting[-2:])
                waiting.clear()

    def repairs() -> None:
        while not stop.is_set():
            outcome = counters_repair(environment=fleet.environment)
            assert not outcome.built
            assert outcome.corrections == []
            time.sleep(0.01)

    with ThreadPoolExecutor(1) as checker:
        checking = checker.submit(closing(repairs))
        try:
            at_once(*(partial(traffic, seed) for seed in (1, 2, 3)))
        finally:
            stop.set()
        checking.result()
    for row in rows[:2]:
        assert in_balance(fleet, row, sum_of_rounded())
        assert fleet.read(row).unrecorded == 0
    at_once(partial(counters_rebuild, environment=fleet.environment), partial(traffic, 4))
    abandoned_account()
    assert counters_repair(environment=fleet.environment).corrections == []
    assert fleet.read(rows[0]).spent == nano_dollars(sum_of_rounded())


def sum_of_rounded() -> Decimal:
    costs = UsageEvent.objects.exclude(cost=None).values_list("cost", flat=True)
    return sum((dollars(nano_dollars(cost)) for cost in costs if cost), Decimal(0))


def ago(**span: int) -> str:
    return (timezone.now() - timedelta(**span)).isoformat()


def at_once(*bodies: Callable[[], Any]) -> list[Any]:
    """Each in a thread with a connection of its own; what one raises is raised."""
    with ThreadPoolExecutor(len(bodies)) as pool:
        return [future.result() for future in [pool.submit(closing(body)) for body in bodies]]


def closing(body: Callable[[], Any]) -> Callable[[], Any]:
    def work() -> Any:
        try:
            return body()
        finally:
            connection.close()

    return work
