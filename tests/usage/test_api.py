"""`/api/v1/usage/`: requests, sums, wrong parameters. Access: tests/dashboards/test_access.py."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.people import People
from tests.usage.ledger import take_in, usage_event

pytestmark = pytest.mark.django_db


def test_events_are_paged_newest_first(people: People, api_of: Any) -> None:
    now = datetime.now(UTC)
    take_in(
        usage_event(started_at=(now - timedelta(seconds=number // 3)).isoformat())
        for number in range(25)
    )
    api, seen, url = api_of(people.admin), [], "/api/v1/usage/events/?page_size=10"
    while url:
        page = api.get(url).data
        seen += [(event["started_at"], event["event_id"]) for event in page["results"]]
        url = page["next"]
    assert len(set(seen)) == 25
    assert seen == sorted(seen, reverse=True)


def test_an_event_has_all_but_prompts(people: People, api_of: Any) -> None:
    event = usage_event(cost="0.0000001", customer="acme")
    take_in([event])
    found = api_of(people.admin).get(f"/api/v1/usage/events/{event['event_id']}/").data
    assert found["cost"] == "0.0000001"
    assert found["attempts"] == event["attempts"]
    assert found["unit_prices"] == event["unit_prices"]


def test_events_by_lane(people: People, api_of: Any) -> None:
    take_in(
        [
            usage_event(lane="direct"),
            usage_event(lane="litellm", lane_reason="provider"),
            usage_event(lane="litellm", status="refused", attempts=[]),
            usage_event(lane="litellm", why="cache", attempts=[]),
        ]
    )
    api = api_of(people.admin)
    (direct,) = api.get("/api/v1/usage/events/?lane=direct").data["results"]
    assert (direct["lane"], direct["lane_reason"]) == ("direct", "")
    (translated,) = api.get("/api/v1/usage/events/?lane=litellm").data["results"]
    assert translated["lane_reason"] == "provider"
    assert api.get("/api/v1/usage/events/?lane=fast").status_code == 422


def test_a_summary_is_exact_and_grouped(people: People, api_of: Any) -> None:
    take_in(usage_event(model=model, cost="0.1") for model in ("a", "a", "a", "b"))
    asked = {"group_by": "model", "environment": "prod"}
    summary = api_of(people.admin).get("/api/v1/usage/summary/", asked).data
    assert summary["total"]["cost"] == "0.4"
    assert [(row["name"], row["totals"]["cost"]) for row in summary["results"]] == [
        ("a", "0.3"),
        ("b", "0.1"),
    ]


@pytest.mark.parametrize("interval", ["day", "hour"])
def test_a_summary_over_time(interval: str, people: People, api_of: Any) -> None:
    now = datetime.now(UTC).replace(hour=12)
    take_in([usage_event(started_at=(now - timedelta(days=1)).isoformat())])
    asked = {"interval": interval, "from": str((now - timedelta(days=2)).date())}
    (row,) = api_of(people.admin).get("/api/v1/usage/summary/", asked).data["results"]
    assert row["at"].startswith(str((now - timedelta(days=1)).date()))


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("summary", {"group_by": "colour"}, "group_by"),
        ("summary", {"from": "soon"}, "from"),
        ("summary", {"from": "2026-02-02", "to": "2026-01-01"}, "from"),
        ("summary", {"from": "2000-01-01"}, "from"),
        ("summary", {"environment": "nowhere"}, "environment"),
        ("events", {"team": "search"}, "team"),
        ("events", {"status": "fine"}, "status"),
        ("events", {"from": "soon"}, "from"),
    ],
)
def test_wrong_parameters_are_422(
    path: str, query: dict[str, str], field: str, people: People, api_of: Any
) -> None:
    answer = api_of(people.admin).get(f"/api/v1/usage/{path}/", query)
    assert answer.status_code == 422
    assert answer.data["errors"][0]["attr"] == field


def test_a_request_that_is_not_there_is_404(people: People, api_of: Any) -> None:
    for event_id in ("5b0b6a5c-8a77-4d0e-9d21-000000000000", "no-request"):
        assert api_of(people.admin).get(f"/api/v1/usage/events/{event_id}/").status_code == 404
