"""Scheduled work on the ledger and on the budgets' counters."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import structlog
from celery import shared_task
from django.utils import timezone

from gateway_admin.catalog.models import Environment
from gateway_admin.usage import abandoned, balances, charging, counters, partitions, rollups
from gateway_admin.usage.counter_store import CountersAway

log = structlog.get_logger(__name__)


@shared_task(name="usage.maintain_partitions")  # type: ignore[untyped-decorator]
def maintain_partitions() -> None:
    """Hourly: partitions ahead, retention, and days re-cut after a change of time zone."""
    done = partitions.maintain()
    if done and any(done.values()):
        log.info("usage_partitions", **done)
    if recut := rollups.follow_time_zone():
        log.info("usage_days_recut", time_zone=recut)


@shared_task(name="usage.counters_repair")  # type: ignore[untyped-decorator]
def counters_repair(environment_id: str = "", budget_ids: list[str] | None = None) -> None:
    """Every five minutes for all environments; at once for budgets that changed."""
    chosen = None if budget_ids is None else [UUID(budget) for budget in budget_ids]

    def repair(environment: Environment) -> None:
        counters.counters_repair(environment=environment, budgets=chosen)

    _each(repair, environment_id)


@shared_task(name="usage.abandoned_account")  # type: ignore[untyped-decorator]
def abandoned_account() -> None:
    """Every 15 seconds: counters that were lost, updates not told, and holds that expired."""

    def account(environment: Environment) -> None:
        if not counters.counters_are_known(environment=environment):
            counters.counters_repair(environment=environment)
        with charging.counters_held(environment.pk, alone=False):
            charging.deliver_waiting(environment, before=timezone.now() - charging.WAITED)
        abandoned.abandoned_account(environment=environment)

    _each(account)


@shared_task(name="usage.balances_store")  # type: ignore[untyped-decorator]
def balances_store() -> None:
    """Every 30 seconds: balances for pages, and thresholds that were crossed."""
    _each(lambda environment: balances.balances_store(environment=environment))


def _each(work: Callable[[Environment], Any], environment_id: str = "") -> None:
    """For one environment or for all; without Redis there is nothing to do until it is back."""
    environments = Environment.objects.all()
    if environment_id:
        environments = environments.filter(pk=environment_id)
    for environment in environments:
        try:
            work(environment)
        except CountersAway as error:
            log.warning("counters_unreachable", environment=environment.slug, error=str(error))
            return
