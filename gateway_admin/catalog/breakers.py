"""What deployments' pages show of breakers. `fleet` knows them and builds on this app: late."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from gateway_admin.catalog.models import Deployment, Environment


def breaker_states(deployments: Iterable[Deployment]) -> dict[UUID, str]:
    """ "open" or "half_open" by deployment, one query; deployments that take calls are absent."""
    from gateway_admin.fleet.breakers import states_of

    ids = [row.pk for row in deployments if row.environment.breaker_enabled]
    found = states_of(ids) if ids else {}
    return {key: state for key, state in found.items() if state != "closed"}


def kept_out(environment: Environment) -> list[UUID]:
    """The environment's deployments that no call, or only trial calls, go to."""
    rows = Deployment.objects.filter(environment=environment).select_related("environment")
    return list(breaker_states(rows))


def breaker_card(deployment: Deployment) -> dict[str, Any]:
    """Context of `fleet/breaker_card.html`."""
    from gateway_admin.fleet.breaker_presentation import ORDERS, breaker_view

    return {"breaker": breaker_view(deployment), "orders": list(ORDERS.values())}
