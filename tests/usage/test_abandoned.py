"""Requests whose worker died are accounted for once, whichever half of their end is missing."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from gateway_admin.usage import counter_store
from gateway_admin.usage.abandoned import Accounted, abandoned_account
from gateway_admin.usage.counters import counters_ensure, counters_rebuild, counters_repair
from gateway_admin.usage.models import CounterState, UsageEvent
from proxy.contract import counters
from tests import builders
from tests.people import People
from tests.usage.counting import Fleet, budget
from tests.usage.ledger import take_in

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def no_grace(settings: Any) -> None:
    settings.ABANDONED_GRACE_S = 0


def account(fleet: Fleet) -> Accounted:
    return abandoned_account(environment=fleet.environment)


def test_an_event_that_came_without_its_settlement_is_settled() -> None:
    row, fleet = budget(), Fleet()
    counters_ensure(environment=fleet.environment)
    event = fleet.admit([row], cost="0.5")
    take_in([event])
    assert fleet.read(row).unrecorded == -500_000_000
    fleet.abandon(event)
    assert account(fleet) == Accounted(settled=1)
    assert fleet.read(row) == counter_store.Reading(spent=500_000_000)
    assert account(fleet) == Accounted()
    assert [one.status for one in UsageEvent.objects.all()] == ["ok"]


def test_an_event_that_ingest_has_charged_needs_nothing_more() -> None:
    row, fleet = budget(), Fleet()
    counters_ensure(environment=fleet.environment)
    event = fleet.admit([row], cost="0.5")
    fleet.abandon(event)
    counters_rebuild(environment=fleet.environment)  # another epoch than that of the event
    take_in([event])
    assert account(fleet) == Accounted(charged=1)
    assert fleet.read(row) == counter_store.Reading(spent=500_000_000)


def test_a_request_of_which_nothing_came_is_booked_at_its_input() -> None:
    row, fleet = budget(), Fleet()
    counters_ensure(environment=fleet.environment)
    event = fleet.admit([row], estimate=8_000_000, cost="0.5", customer="acme", user_id="7")
    assert fleet.read(row).held == 8_000_000
    fleet.abandon(event)
    assert account(fleet) == Accounted(booked=1)
    assert fleet.read(row) == counter_store.Reading(spent=2_000_000)
    booked = UsageEvent.objects.get()
    assert str(booked.event_id) == event["event_id"]
    assert (booked.status, booked.cost, booked.estimated) == ("abandoned", Decimal("0.002"), True)
    assert (booked.customer, booked.user_id, booked.model) == ("acme", 7, event["model"])
    assert counters_repair(environment=fleet.environment).corrections == []
    assert account(fleet) == Accounted()
    assert take_in([event])["duplicates"] == 1  # its spool was found a day later
    assert fleet.read(row).spent == 2_000_000


def test_only_budgets_of_the_called_target_are_charged() -> None:
    row, other, fleet = budget(), budget(model="other"), Fleet()
    counters_ensure(environment=fleet.environment)
    event = fleet.admit([row, other], estimate=8_000_000)
    key = counters.hold_key(fleet.slug, event["event_id"])
    hold = json.loads(fleet.redis.get(key) or "")
    hold["budgets"][1][3] = 0
    fleet.redis.set(key, json.dumps(hold))
    fleet.abandon(event)
    assert account(fleet) == Accounted(booked=1)
    assert fleet.read(row) == counter_store.Reading(spent=2_000_000)
    assert fleet.read(other) == counter_store.Reading()
    assert counters_repair(environment=fleet.environment).corrections == []


def test_a_hold_within_its_grace_is_left_alone(settings: Any) -> None:
    settings.ABANDONED_GRACE_S = 3_600
    row, fleet = budget(), Fleet()
    counters_ensure(environment=fleet.environment)
    fleet.abandon(fleet.admit([row]))
    assert account(fleet) == Accounted(waiting=1)
    assert CounterState.objects.get().abandoned == 1


def test_an_event_that_is_there_is_not_waited_for(settings: Any) -> None:
    settings.ABANDONED_GRACE_S = 3_600
    row, fleet = budget(), Fleet()
    counters_ensure(environment=fleet.environment)
    event = fleet.admit([row], cost="0.5")
    fleet.abandon(event)
    assert account(fleet) == Accounted(waiting=1)
    take_in([event])
    assert account(fleet) == Accounted(settled=1)
    assert fleet.read(row) == counter_store.Reading(spent=500_000_000)


def test_a_hold_that_was_booked_and_stayed_in_the_list_is_not_booked_twice() -> None:
    row, fleet = budget(), Fleet()
    counters_ensure(environment=fleet.environment)
    fleet.abandon(fleet.admit([row]))
    key = counters.abandoned_key(fleet.slug)
    (hold,) = fleet.redis.lrange(key, 0, -1)
    account(fleet)
    fleet.redis.rpush(key, hold)
    assert account(fleet) == Accounted(charged=1)
    assert fleet.read(row).spent == 2_500_000


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"id": "x"}', "null", "7"])
def test_a_hold_that_cannot_be_read_does_not_stop_the_others(text: str) -> None:
    row, fleet = budget(), Fleet()
    counters_ensure(environment=fleet.environment)
    fleet.redis.rpush(counters.abandoned_key(fleet.slug), text)
    fleet.abandon(fleet.admit([row]))
    assert account(fleet) == Accounted(booked=1, unreadable=1)


def test_a_wiped_redis_leaves_nothing_to_account_for() -> None:
    row, fleet = budget(), Fleet()
    counters_ensure(environment=fleet.environment)
    fleet.admit([row])
    fleet.wipe()
    assert account(fleet) == Accounted()


def test_who_may_see_it_finds_it_on_the_requests_page(people: People, client_of: Any) -> None:
    key, _ = builders.key(people.owner, team=people.search)
    fleet = Fleet()
    counters_ensure(environment=fleet.environment)
    event = fleet.admit(
        [budget()],
        key_id=str(key.pk),
        team_id=str(people.search.pk),
        user_id=str(people.owner.pk),
        started_at=datetime.now(UTC).isoformat(),
    )
    fleet.abandon(event)
    account(fleet)
    log = reverse("dashboards:requests") + "?status=abandoned"
    detail = reverse("dashboards:request-detail", args=[event["event_id"]])
    for name, user in people.everybody().items():
        client: Client = client_of(user)
        allowed = name != "outsider"
        assert (event["event_id"] in client.get(log).content.decode()) == allowed, name
        page = client.get(detail)
        assert page.status_code == (200 if allowed else 404), name
        if allowed:
            assert "process ended before this request did" in page.content.decode()
