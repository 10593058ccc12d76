"""The invented past has the shape of real traffic, and its rollups equal its ledger."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import transaction

from gateway_admin.accounts.models import Organisation
from gateway_admin.catalog.models import Environment
from gateway_admin.demo import organisation as tables
from gateway_admin.demo.backfill import backfill
from gateway_admin.demo.budgets import BUDGETS
from gateway_admin.demo.events import RUNAWAY, EventSource
from gateway_admin.demo.world import World
from gateway_admin.keys.models import BudgetBalance, VirtualKey
from gateway_admin.usage.balances import balances_store
from gateway_admin.usage.checks import differences
from gateway_admin.usage.counters import counters_repair
from gateway_admin.usage.models import UsageEvent
from tests.demo.organisation import seed, select

pytestmark = pytest.mark.django_db

EVENTS = 12_000
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture(scope="module")
def filled(
    django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Filled once for all tests of this module, which only read; rolled back afterwards."""
    with django_db_blocker.unblock(), transaction.atomic():
        seed(tmp_path_factory.mktemp("demo"))
        steps = list(backfill(events=EVENTS))
        assert steps[-1].done == steps[-1].days
        assert [step.events for step in steps] == sorted(step.events for step in steps)
        yield
        transaction.set_rollback(True)


def test_it_has_about_the_wanted_number_of_events_over_sixty_days(filled: None) -> None:
    assert abs(UsageEvent.objects.count() - EVENTS) < EVENTS * 0.2
    days = {event.started_at.date() for event in UsageEvent.objects.only("started_at")}
    assert len(days) in (60, 61)


def test_rollups_equal_the_ledger(filled: None) -> None:
    assert differences() == []
    ((requests, cost),) = select(
        "SELECT sum(requests)::bigint, sum(cost) FROM usage_cost_hour WHERE level = 0"
    )
    assert requests == UsageEvent.objects.count()
    ((ledger,),) = select("SELECT sum(cost) FROM usage_event")
    assert cost == ledger
    assert isinstance(cost, Decimal)
    assert cost > 0


def test_weekdays_are_busier_than_weekends_and_days_than_nights(filled: None) -> None:
    # Without the program that ran away: it was blocked 3.6 days before the demonstration was
    # made, so at what time of which day it was busiest depends on when this test runs.
    runaway = VirtualKey.objects.get(name=RUNAWAY[0], environment__slug=tables.MAIN)
    usual = UsageEvent.objects.exclude(key_id=runaway.pk)
    local = [at.astimezone(BERLIN) for at in usual.values_list("started_at", flat=True)]
    days = Counter(at.isoweekday() for at in local)
    weekday = sum(days[day] for day in range(1, 6)) / 5
    weekend = (days[6] + days[7]) / 2
    assert weekday > 1.35 * weekend
    hours = Counter(at.hour for at in local)
    assert hours[10] > 3 * hours[4]


def test_traffic_grows(filled: None) -> None:
    ((first, last),) = select(
        "SELECT count(*) FILTER (WHERE started_at < demo_since - interval '45 days'),"
        " count(*) FILTER (WHERE started_at > demo_since - interval '15 days')"
        " FROM usage_event, accounts_organisation"
    )
    assert last > 1.4 * first


def test_few_keys_make_most_of_the_traffic(filled: None) -> None:
    counts = sorted(
        Counter(UsageEvent.objects.values_list("key_id", flat=True)).values(), reverse=True
    )
    assert len(counts) > 30
    assert sum(counts[:5]) > 0.45 * sum(counts)
    assert counts[-1] < counts[0] / 50


def test_everything_that_pages_show_occurs(filled: None) -> None:
    assert {status for (status,) in select("SELECT DISTINCT status FROM usage_event")} == {
        "ok",
        "error",
        "refused",
        "aborted",
    }
    ((streams, cached, estimated, unpriced, customers),) = select(
        "SELECT count(*) FILTER (WHERE streaming), count(*) FILTER (WHERE cache_read_tokens > 0),"
        " count(*) FILTER (WHERE estimated), count(*) FILTER (WHERE cost IS NULL),"
        " count(DISTINCT customer) FROM usage_event"
    )
    assert min(streams, cached, estimated, unpriced) > 10
    assert customers > 50


def test_every_reason_for_an_attempt_occurs_at_full_size(filled: None) -> None:
    # Drawn, not stored: among as few events as the other tests store, the rare ones may be none.
    end = Organisation.objects.get().demo_since
    assert end is not None
    source = EventSource(world=World.load(), end=end, days=tables.DAYS, events=tables.EVENTS)
    reasons: Counter[str] = Counter()
    for days_ago in (2, 3, tables.INCIDENT_DAYS_AGO, tables.INCIDENT_DAYS_AGO + 1):
        begins = end - timedelta(days=days_ago)
        drawn = source.events(begins, begins + timedelta(days=1))
        reasons.update(event["why"] for _, event in drawn)
    assert reasons.keys() >= {"first", "retry", "fallback", "context_window"}, reasons


def test_requests_take_plausible_lanes(filled: None) -> None:
    counts = dict(
        select(
            "SELECT lane || ' ' || split_part(lane_reason, ':', 1), count(*) FROM usage_event"
            " WHERE status <> 'refused' AND why <> 'cache' GROUP BY 1"
        )
    )
    assert counts.keys() == {"direct ", "litellm provider", "litellm retry", "litellm parameter"}
    assert counts["direct "] > 0.3 * sum(counts.values())
    ((strangers,),) = select(
        "SELECT count(*) FROM usage_event e JOIN catalog_deployment d ON d.id = e.deployment_id"
        " JOIN catalog_provider p ON p.id = d.provider_id"
        " WHERE e.lane = 'direct' AND p.kind NOT IN ('openai', 'azure', 'ollama')"
    )
    assert strangers == 0
    ((mixed,),) = select(
        "SELECT count(*) FROM usage_event WHERE attempts <> '[]'"
        " AND attempts -> -1 ->> 'lane' <> lane"
    )
    assert mixed == 0


def test_the_incident_is_visible_and_bridged_by_fallbacks(filled: None) -> None:
    ((requests, fallbacks),) = select(
        "SELECT count(*), count(*) FILTER (WHERE why IN ('fallback', 'retry'))"
        " FROM usage_event, accounts_organisation"
        " WHERE requested_model IN ('claude-haiku-4-5', 'claude-sonnet-4-5')"
        " AND (started_at AT TIME ZONE 'Europe/Berlin')::date"
        " = (demo_since AT TIME ZONE 'Europe/Berlin')::date - 9"
        " AND extract(hour FROM started_at AT TIME ZONE 'Europe/Berlin') IN (14, 15)"
    )
    if requests:
        assert fallbacks > requests / 4
    ((overloads,),) = select(
        "SELECT count(*) FROM usage_event WHERE attempts @> '[{\"status\": 529}]'"
    )
    assert overloads > 0


def test_it_notes_when_keys_and_credentials_were_used(filled: None) -> None:
    assert VirtualKey.objects.filter(last_used_at=None).count() < 8
    assert not VirtualKey.objects.filter(name="support-bot", last_used_at=None).exists()


def test_budgets_have_spend_and_none_is_exhausted(filled: None) -> None:
    environment = Environment.objects.get(slug=tables.MAIN)
    counters_repair(environment=environment)
    balances_store(environment=environment)
    spent = {
        (row.budget.scope, row.budget.is_default, row.budget.period): row.spent
        for row in BudgetBalance.objects.select_related("budget").order_by("spent")
    }
    assert spent["team", False, "rolling"] > 0
    assert spent["key", False, "rolling"] > 0
    assert len({scope for scope, _, _ in spent}) == len({row.scope for row in BUDGETS})
    for row in BudgetBalance.objects.select_related("budget"):
        # A tenth of the usual number of events was drawn, or less.
        assert row.spent < row.budget.limit_usd


def test_the_cache_answers_what_is_asked_again(filled: None) -> None:
    ((hits, bought, saved, others),) = select(
        "SELECT count(*) FILTER (WHERE why = 'cache'),"
        " count(*) FILTER (WHERE why = 'cache' AND (cost <> 0 OR input_tokens > 0)),"
        " sum(saved_cost), count(*) FILTER (WHERE why <> 'cache' AND saved_cost IS NOT NULL)"
        " FROM usage_event"
    )
    assert hits > 10
    assert bought == others == 0
    assert saved > 0
    names = select(
        "SELECT DISTINCT k.name FROM usage_event e JOIN keys_virtualkey k ON k.id = e.key_id"
        " WHERE e.why = 'cache'"
    )
    assert {name for (name,) in names} <= {"search-indexer", "query-rewriter", "faq-generator"}
