"""What the removal would take."""

from typing import Any

from django.db.models import Sum

from gateway_admin.accounts.models import Organisation, User
from gateway_admin.accounts.roles import Role
from gateway_admin.catalog.models import Deployment, Environment, Model, Provider
from gateway_admin.demo.removal import demo_keys, is_settled
from gateway_admin.keys.models import Team
from gateway_admin.usage.models import CostDay, Level, Series


def removal_facts(person: User) -> dict[str, Any]:
    """Counts of what goes, and what the person should know before."""
    waiting = [row.name for row in Environment.objects.all() if not is_settled(row)]
    real_administrators = User.objects.filter(
        groups__name=Role.ADMIN.value, is_active=True, is_demo=False
    )
    return {
        "made_at": Organisation.objects.get().demo_since,
        "counts": [
            ("People", User.objects.filter(is_demo=True).count()),
            ("Teams", Team.objects.filter(is_demo=True).count()),
            ("Virtual keys", demo_keys().count()),
            ("Providers", Provider.objects.filter(is_demo=True).count()),
            ("Models", Model.objects.filter(is_demo=True).count()),
            ("Deployments", Deployment.objects.filter(provider__is_demo=True).count()),
            ("Requests in the ledger, about", _requests()),
        ],
        "waiting": waiting,
        "waiting_text": (
            f"{', '.join(waiting)}: publish or discard the draft first, or the proxies go on "
            "offering the simulated models until somebody publishes."
        ),
        "own_account": person.is_demo,
        "last_administrator": not real_administrators.exists(),
    }


def _requests() -> int:
    """Requests of demonstration keys, from the daily rollups."""
    keys = [str(key) for key in demo_keys().values_list("pk", flat=True)]
    series = Series.objects.filter(level=Level.KEY, key_id__in=keys).values("pk")
    rows = CostDay.objects.filter(level=Level.KEY, series_id__in=series)
    return rows.aggregate(total=Sum("requests"))["total"] or 0
