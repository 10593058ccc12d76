"""Counters of new budgets start at what the ledger says was spent already."""

from collections.abc import Iterable
from functools import partial

import structlog
from celery import current_app
from django.db import transaction
from kombu.exceptions import OperationalError

from gateway_admin.catalog.models import Environment
from gateway_admin.keys.models import Budget

COUNTERS_TASK = "usage.counters_repair"

log = structlog.get_logger(__name__)


def counters_seed(*, environment: Environment, budgets: Iterable[Budget]) -> None:
    """Ask for the counters of these budgets after the commit.

    Without a broker there are no counters either: they are built when Redis is back.
    """
    ids = [str(budget.pk) for budget in budgets]
    if not ids:
        return
    transaction.on_commit(partial(_queue, str(environment.pk), ids))


def _queue(environment_id: str, budget_ids: list[str]) -> None:
    try:
        # By name: the ledger stands above this app.
        current_app.send_task(
            COUNTERS_TASK,
            kwargs={"environment_id": environment_id, "budget_ids": budget_ids},
            retry=False,
        )
    except OperationalError as error:
        log.warning("counters_not_queued", task=COUNTERS_TASK, error=str(error))
