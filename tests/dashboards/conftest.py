"""One day of usage of two teams, and a key without a team."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway_admin.catalog.models import Deployment
from gateway_admin.keys.models import VirtualKey
from tests import builders
from tests.people import People
from tests.usage.ledger import take_in, usage_event


@dataclass(frozen=True)
class Story:
    """`search` spent $3, `ads` $5 with a failure, the outsider's own key $0.25."""

    search_key: VirtualKey
    ads_key: VirtualKey
    own_key: VirtualKey
    deployment: Deployment
    events: list[Any]

    def event_id(self, name: str) -> str:
        return next(str(event["event_id"]) for event in self.events if event["customer"] == name)


@pytest.fixture
def story(people: People) -> Story:
    search, _ = builders.key(people.owner, team=people.search, name="search bot")
    ads, _ = builders.key(people.outsider, team=people.ads, name="ads writer")
    own, _ = builders.key(people.outsider, name="tinkering")
    deployment = builders.deployment(model=builders.model("gpt-4o"), name="gpt-4o in Europe")
    at = datetime.now(UTC) - timedelta(minutes=10)

    def event(key: VirtualKey, customer: str, cost: str | None, **fields: Any) -> Any:
        return usage_event(
            started_at=at.isoformat(),
            key_id=str(key.pk),
            public_id=key.public_id,
            team_id=str(key.team_id) if key.team_id else None,
            user_id=str(key.owner_id),
            customer=customer,
            cost=cost,
            deployment=str(deployment.pk),
            **fields,
        )

    events = [
        event(search, "of-search", "3"),
        event(ads, "of-ads", "4"),
        event(ads, "=cmd()", "1", why="fallback", requested_model="gpt-5"),
        event(ads, "failed", "0", status="error", error_class="timeout", http_status=504),
        event(own, "own", "0.25", tags={"note": "<script>alert(1)</script>"}),
        event(own, "free", None),
    ]
    take_in(events)
    return Story(search, ads, own, deployment, events)
