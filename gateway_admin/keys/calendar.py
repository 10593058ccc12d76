"""The organisation's calendar as budgets use it."""

from gateway_admin.accounts.models import Organisation
from gateway_admin.catalog.models import Environment
from gateway_admin.keys.counters_seed import counters_seed
from gateway_admin.keys.models import Budget
from gateway_admin.keys.policies import policy_touched
from proxy.contract import CalendarDocument


def calendar() -> CalendarDocument:
    """How the organisation cuts its periods."""
    organisation = Organisation.objects.get()
    return {
        "time_zone": organisation.time_zone,
        "week_start": organisation.week_start,
        "fiscal_year_month": organisation.fiscal_year_month,
    }


def calendar_changed() -> None:
    """Tell replicas, and have the counters of the new periods built.

    Call it last in the transaction of the change.
    """
    environments = list(Environment.objects.all())
    for environment in environments:
        budgets = Budget.objects.filter(environment=environment).exclude(
            period__in=[Budget.Period.ROLLING, Budget.Period.LIFETIME]
        )
        counters_seed(environment=environment, budgets=budgets)
    policy_touched(environments=environments)
