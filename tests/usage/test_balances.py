"""Balances are stored for pages, and thresholds are noted once."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.utils import timezone

from gateway_admin.keys.calendar import calendar
from gateway_admin.keys.models import BudgetBalance, BudgetNotice, BudgetOverride
from gateway_admin.usage.balances import balances_store
from gateway_admin.usage.counters import counters_ensure, counters_repair
from gateway_admin.usage.spent import current_period, question_of
from tests.usage.counting import Fleet, budget
from tests.usage.ledger import rows, take_in, usage_event

pytestmark = pytest.mark.django_db(transaction=True)


def stored() -> dict[tuple[str, str], tuple[Decimal, Decimal]]:
    return {
        (row.budget.name, row.subject): (row.spent, row.held)
        for row in BudgetBalance.objects.select_related("budget")
    }


def test_it_stores_what_is_spent_and_held() -> None:
    row, idle, fleet = budget(name="all"), budget(name="idle", period="day"), Fleet()
    counters_ensure(environment=fleet.environment)
    settled, _ = fleet.admit([row], cost="0.25"), fleet.admit([row], estimate=3_000_000)
    fleet.settle(settled)
    balances_store(environment=fleet.environment)
    assert stored() == {
        ("all", "prod"): (Decimal("0.25"), Decimal("0.003")),
        ("idle", "prod"): (Decimal(0), Decimal(0)),
    }
    period = current_period(question_of(idle), at=timezone.now(), cut=calendar())
    assert BudgetBalance.objects.get(budget=idle).period_id == period.id


def test_each_of_many_customers_has_a_balance_unless_a_budget_of_its_own() -> None:
    fleet = Fleet()
    each = budget(name="each", scope="customer", subject="*", is_default=True)
    counters_ensure(environment=fleet.environment)
    take_in(usage_event(customer=f"customer {n}", cost=f"0.{n:04d}") for n in range(1, 1_201))
    counters_repair(environment=fleet.environment, budgets=[each.pk])
    balances_store(environment=fleet.environment)
    found = stored()
    assert len(found) == 1_200
    assert found["each", "customer 77"] == (Decimal("0.0077"), Decimal(0))
    from gateway_admin.keys.models import Customer

    someone = Customer.objects.create(environment=fleet.environment, reference="customer 77")
    budget(name="own", scope="customer", subject="customer 77", customer=someone)
    BudgetBalance.objects.all().delete()
    counters_repair(environment=fleet.environment)
    balances_store(environment=fleet.environment)
    found = stored()
    assert ("each", "customer 77") not in found
    assert found["own", "customer 77"] == (Decimal("0.0077"), Decimal(0))
    assert len(found) == 1_200


def test_an_unchanged_balance_is_not_written_again() -> None:
    fleet = Fleet()
    budget()
    counters_ensure(environment=fleet.environment)
    balances_store(environment=fleet.environment)
    before = rows("SELECT xmin, as_of FROM keys_budgetbalance")
    balances_store(environment=fleet.environment)
    assert rows("SELECT xmin, as_of FROM keys_budgetbalance") == before
    BudgetBalance.objects.update(as_of=timezone.now() - timedelta(minutes=6))
    balances_store(environment=fleet.environment)
    assert BudgetBalance.objects.get().as_of > timezone.now() - timedelta(minutes=1)


def test_a_crossed_threshold_is_noted_once_per_period() -> None:
    row, fleet = budget(limit_usd=Decimal(10), soft_percent=[50, 80]), Fleet()
    counters_ensure(environment=fleet.environment)
    fleet.settle(fleet.admit([row], cost="4.99"))
    assert balances_store(environment=fleet.environment) == 0
    fleet.settle(fleet.admit([row], cost="0.01"))
    assert balances_store(environment=fleet.environment) == 1
    assert balances_store(environment=fleet.environment) == 0
    fleet.settle(fleet.admit([row], cost="4"))
    assert balances_store(environment=fleet.environment) == 1
    noted = BudgetNotice.objects.values_list("percent", "subject", "period_id")
    period = current_period(question_of(row), at=timezone.now(), cut=calendar())
    assert sorted(noted) == [(50, "prod", period.id), (80, "prod", period.id)]


def test_thresholds_follow_a_temporary_override() -> None:
    row, fleet = budget(limit_usd=Decimal(10), soft_percent=[50]), Fleet()
    counters_ensure(environment=fleet.environment)
    BudgetOverride.objects.create(
        budget=row,
        limit_usd=Decimal(100),
        expires_at=timezone.now() + timedelta(hours=1),
        reason="launch",
    )
    fleet.settle(fleet.admit([row], cost="9"))
    assert balances_store(environment=fleet.environment) == 0
    BudgetOverride.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert balances_store(environment=fleet.environment) == 1


def test_nothing_is_stored_while_counters_are_not_built() -> None:
    fleet = Fleet()
    budget()
    assert balances_store(environment=fleet.environment) == 0
    assert stored() == {}


def test_balances_of_periods_that_are_over_are_forgotten() -> None:
    row, fleet = budget(), Fleet()
    counters_ensure(environment=fleet.environment)
    BudgetBalance.objects.create(
        budget=row, subject="prod", period_id="m2020-01-01", as_of="2020-01-31T00:00Z"
    )
    balances_store(environment=fleet.environment)
    assert not BudgetBalance.objects.filter(period_id="m2020-01-01").exists()
