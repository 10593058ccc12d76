"""Which lane served requests, and why, in words.

direct    the gateway called the provider itself
litellm   LiteLLM called it; the event's `lane_reason` says why

Refused requests and cached answers called no provider, whatever lane their event names.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.utils import timezone

from gateway_admin.catalog.models import Deployment
from gateway_admin.usage.models import UsageEvent

LANE_NAMES = {"direct": "Direct", "litellm": "LiteLLM"}
DIRECT_WORDS = "the provider speaks OpenAI's format"
REASON_WORDS = {
    "provider": "the provider's format has to be translated",
    "setting": "the deployment or its model is set to LiteLLM always",
    "route": "this kind of request is never sent directly",
    "form": "the request came as a form",
    "network": "the provider is behind a proxy server",
    "retry": "an earlier attempt failed",
}
NAMED_REASONS = {  # "parameter:logit_bias"
    "parameter": "the parameter {name} is translated",
    "params": "the deployment's parameter {name} needs LiteLLM",
    "environment": "the replica's variable {name} needs LiteLLM",
}
RECENT = timedelta(hours=24)
LOOKED_AT = 5_000  # of the model's newest requests, at most

_RECENT_LANES = """
    SELECT lane, lane_reason, count(*) FROM (
        SELECT deployment_id, lane, lane_reason, status, why FROM usage_event
        WHERE environment_id = %s AND model = %s AND started_at >= %s
        ORDER BY started_at DESC, event_id DESC LIMIT %s
    ) newest
    WHERE deployment_id = %s AND status <> 'refused' AND why <> 'cache' AND lane <> ''
    GROUP BY 1, 2
"""


def reason_words(reason: str) -> str:
    """Why a request went through LiteLLM, as a clause; "" where the worker did not tell."""
    kind, _, name = reason.partition(":")
    if kind in NAMED_REASONS:
        return NAMED_REASONS[kind].format(name=name)
    return REASON_WORDS.get(reason, reason.replace("_", " "))


def lane_of(event: UsageEvent) -> str:
    """ "direct" or "litellm"; "" where no provider was called or it was not told."""
    called = event.status != "refused" and event.why != "cache" and event.deployment_id
    return event.lane if called else ""


def lane_name(lane: str) -> str:
    return LANE_NAMES.get(lane, lane)


def lane_words(event: UsageEvent) -> str:
    """ "LiteLLM: an earlier attempt failed"; "" where there is nothing to tell."""
    lane = lane_of(event)
    reason = DIRECT_WORDS if lane == "direct" else reason_words(event.lane_reason)
    return f"{lane_name(lane)}: {reason}" if lane and reason else lane_name(lane)


@dataclass(frozen=True)
class LaneShares:
    """How the newest requests to a deployment were served."""

    direct: int = 0
    reasons: Counter[str] = field(default_factory=Counter)  # of those that LiteLLM served

    @property
    def requests(self) -> int:
        return self.direct + self.reasons.total()

    @property
    def direct_share(self) -> float:
        return self.direct / self.requests if self.requests else 0.0

    @property
    def main_reason(self) -> str:
        """The most common reason why LiteLLM served, as a clause."""
        told = [(count, reason) for reason, count in self.reasons.items() if reason]
        return reason_words(max(told)[1]) if told else ""


def recent_lanes(deployment: Deployment, *, now: datetime | None = None) -> LaneShares:
    """From at most LOOKED_AT requests of the last day to the deployment's model; one query."""
    since = (now or timezone.now()) - RECENT
    place: list[Any] = [
        deployment.environment_id,
        deployment.model.name,
        since,
        LOOKED_AT,
        deployment.pk,
    ]
    with connection.cursor() as cursor:
        cursor.execute(_RECENT_LANES, place)
        rows = cursor.fetchall()
    reasons: Counter[str] = Counter()
    for lane, reason, count in rows:
        if lane != "direct":
            reasons[reason] += count
    return LaneShares(sum(count for lane, _, count in rows if lane == "direct"), reasons)
