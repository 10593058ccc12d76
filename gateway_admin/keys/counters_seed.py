"""Counters of new budgets start at what the ledger says was spent already."""

from collections.abc import Iterable
from functools import partial

from django.db import transaction

from gateway_admin.catalog.models import Environment
from gateway_admin.keys.models import Budget


def counters_seed(*, environment: Environment, budgets: Iterable[Budget]) -> None:
    """Count these budgets' past right after the commit.

    Call it before `policy_changed`: the bell then rings when the counters are right, so that
    no request is admitted as if nothing had been spent yet.
    """
    ids = [budget.pk for budget in budgets]
    if not ids:
        return
    # The ledger stands above this app.
    from gateway_admin.usage.counters import counters_seed as seed

    # Robust: whatever goes wrong with it, the bell has to ring.
    transaction.on_commit(partial(seed, environment=environment, budgets=ids), robust=True)
