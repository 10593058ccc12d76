"""What supply's pages say of recent traffic. `usage` knows it and builds on this app: late."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.utils import timezone

from gateway_admin.catalog.breakers import breaker_states
from gateway_admin.catalog.models import Deployment, Lane

RECENT = timedelta(hours=24)


@dataclass(frozen=True)
class Signs:
    """What was seen of deployments beside their tests; both by deployment."""

    breakers: Mapping[UUID, str] = field(default_factory=dict)  # "open" or "half_open"
    answered: Mapping[UUID, datetime] = field(default_factory=dict)  # begin of the latest hour


def signs_of(deployments: Iterable[Deployment]) -> Signs:
    """Of deployments that were read with their environment, in two queries."""
    from gateway_admin.usage.queries import answered_since

    rows = list(deployments)
    if not rows:
        return Signs()
    since = timezone.now() - RECENT
    return Signs(breaker_states(rows), answered_since([row.pk for row in rows], since))


def lane_card(deployment: Deployment) -> dict[str, Any]:
    """Context of the line "Lane" of a deployment: what is set, and what recent requests say."""
    from gateway_admin.usage.lanes import recent_lanes

    own, model = deployment.lane, deployment.model.lane
    kept = Lane.LITELLM in (own, model)
    return {
        "lane": Lane.LITELLM.label if kept else Lane.AUTO.label,
        "lane_by_model": own != Lane.LITELLM and model == Lane.LITELLM,
        "lanes": recent_lanes(deployment),
    }
