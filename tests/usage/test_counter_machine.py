"""Whatever order things happen in: counters equal the ledger, and each request is there once."""

from itertools import count
from typing import Any

import pytest
from django.conf import settings as django_settings
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gateway_admin.usage import charging, counter_store
from gateway_admin.usage.abandoned import abandoned_account
from gateway_admin.usage.counters import counters_ensure, counters_rebuild, counters_repair
from gateway_admin.usage.models import CounterUpdate, UsageEvent
from proxy.contract import UsageEventDocument, counters
from proxy.contract.counters import nano_dollars
from tests import builders
from tests.usage.counting import Fleet, budget, redis_away
from tests.usage.ledger import take_in

ESTIMATE = 10**7
_number = count(1)


class Traffic(RuleBasedStateMachine):
    """Requests live in `running`, then in `ended` (settled or not), then in the ledger."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet(builders.environment(f"machine-{next(_number)}"))
        self.budgets = [
            budget(environment=self.fleet.environment),
            budget(environment=self.fleet.environment, period="rolling", rolling_hours=24),
            budget(
                environment=self.fleet.environment, scope="customer", subject="*", is_default=True
            ),
        ]
        self.running: list[UsageEventDocument] = []
        self.ended: list[UsageEventDocument] = []
        self.delivered: list[UsageEventDocument] = []

    # --- the data plane ---

    @rule(nano=st.integers(0, 10**8), customer=st.sampled_from(["", "a", "b"]))
    def admits(self, nano: int, customer: str) -> None:
        budgets = self.budgets if customer else self.budgets[:2]
        cost = f"{counters.dollars(nano):f}"
        self.running.append(
            self.fleet.admit(budgets, estimate=ESTIMATE, cost=cost, customer=customer)
        )

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def ends(self, data: st.DataObject) -> None:
        event = self._take(self.running, data)
        self.fleet.settle(event, estimate=ESTIMATE)
        self.ended.append(event)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), told=st.booleans())
    def dies(self, data: st.DataObject, told: bool) -> None:
        """Its event was spooled and its settlement lost, or both were lost."""
        event = self._take(self.running, data)
        if self._holds(event):
            self.fleet.abandon(event)
        elif not told:
            return  # Redis forgot it as well, or never knew: nobody is left to tell
        if told:
            self.ended.append(event)

    @precondition(lambda self: self.ended)
    @rule(data=st.data(), times=st.integers(1, 3))
    def delivers(self, data: st.DataObject, times: int) -> None:
        batch = [self._take(self.ended, data) for _ in range(min(times, len(self.ended)))]
        take_in(batch, self.fleet.environment)
        self.delivered += batch

    @precondition(lambda self: self.delivered)
    @rule(data=st.data())
    def delivers_again(self, data: st.DataObject) -> None:
        again = data.draw(st.sampled_from(self.delivered))
        take_in([again, again], self.fleet.environment)

    # --- trouble and the control plane ---

    @precondition(lambda self: self.ended)
    @rule()
    def delivers_while_redis_is_away(self) -> None:
        with redis_away(django_settings):
            take_in(self.ended, self.fleet.environment)
        self.delivered += self.ended
        self.ended = []

    @rule()
    def redis_is_emptied(self) -> None:
        for key in self.fleet.redis.scan_iter(f"{counters.tag(self.fleet.slug)}*"):
            self.fleet.redis.delete(key)

    @rule()
    def counters_are_asked_for(self) -> None:
        counters_ensure(environment=self.fleet.environment)

    @rule()
    def repairs(self) -> None:
        outcome = counters_repair(environment=self.fleet.environment)
        assert outcome.corrections == []

    @rule()
    def rebuilds(self) -> None:
        counters_rebuild(environment=self.fleet.environment)

    @rule()
    def accounts_for_the_abandoned(self) -> None:
        abandoned_account(environment=self.fleet.environment)
        self._charge_waiting()

    @invariant()
    def spent_is_the_ledger_and_what_it_waits_for(self) -> None:
        if not counter_store.epoch_of(self.fleet.slug):
            return
        if CounterUpdate.objects.filter(environment_id=self.fleet.environment.pk).exists():
            return
        self._check()

    def teardown(self) -> None:
        """Everything comes to rest: nothing is held, nothing waits, each request is there once."""
        counters_ensure(environment=self.fleet.environment)
        for event in self.running:
            self.fleet.settle(event, estimate=ESTIMATE)
        self.ended += self.running
        take_in(self.ended, self.fleet.environment)
        abandoned_account(environment=self.fleet.environment)
        self._charge_waiting()
        self._check(at_rest=True)
        assert counters_repair(environment=self.fleet.environment).corrections == []

    # --- looking ---

    def _holds(self, event: UsageEventDocument) -> bool:
        return bool(self.fleet.redis.exists(counters.hold_key(self.fleet.slug, event["event_id"])))

    def _take(self, events: list[UsageEventDocument], data: st.DataObject) -> UsageEventDocument:
        return events.pop(data.draw(st.integers(0, len(events) - 1)))

    def _charge_waiting(self) -> None:
        with charging.counters_held(self.fleet.environment.pk, alone=False):
            charging.deliver_waiting(self.fleet.environment)

    def _check(self, *, at_rest: bool = False) -> None:
        rows = list(
            UsageEvent.objects.filter(environment_id=self.fleet.environment.pk).values_list(
                "customer", "cost", "event_id"
            )
        )
        assert len({event_id for _, _, event_id in rows}) == len(rows)
        subjects = [(self.budgets[0], ""), (self.budgets[1], "")]
        subjects += [(self.budgets[2], customer) for customer in ("a", "b")]
        for row, customer in subjects:
            ledger = sum(
                nano_dollars(cost) for name, cost, _ in rows if cost and customer in ("", name)
            )
            reading = self.fleet.read(row, customer)
            assert reading.spent == ledger + reading.unrecorded
            if reading.buckets:
                assert sum(reading.buckets.values()) == reading.spent
            if at_rest:
                assert (reading.unrecorded, reading.held) == (0, 0)


@pytest.mark.django_db(transaction=True)
def test_counters_agree_with_the_ledger_whatever_happens(settings: Any) -> None:
    settings.ABANDONED_GRACE_S = 0
    run_state_machine_as_test(Traffic, settings=MACHINE)


MACHINE = settings(
    max_examples=15,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
