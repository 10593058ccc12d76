"""What the pages say, and that they cost the same number of queries however much there is."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext

from gateway_admin.accounts.models import AuditEvent
from gateway_admin.dashboards.requests import cost_parts
from gateway_admin.usage.models import UsageEvent
from tests import builders
from tests.bench.events import Mix
from tests.dashboards.conftest import Story
from tests.people import People
from tests.usage.ledger import take_in, usage_event

pytestmark = pytest.mark.django_db
COUNTS = json.loads((Path(__file__).parent / "query_counts.json").read_text())


@pytest.fixture
def noon() -> Iterator[None]:
    """The middle of the day: in its first hour the overview asks for less."""
    with time_machine.travel(datetime.now(UTC).replace(hour=12), tick=True):
        yield


@pytest.mark.parametrize("path", COUNTS)
def test_queries_are_counted(
    path: str, noon: None, people: People, story: Story, client_of: Any
) -> None:
    client = client_of(people.admin)
    client.get(path)
    take_in(Mix(keys=40, teams=4).batch(300, now=datetime.now(UTC), spread_s=3_600))
    with CaptureQueriesContext(connection) as captured:
        assert client.get(path).status_code == 200
    listed = "\n".join(query["sql"][:160] for query in captured.captured_queries)
    assert len(captured) == COUNTS[path], listed


def test_the_overview_sums_today(people: People, story: Story, client_of: Any) -> None:
    response = client_of(people.admin).get("/")
    now = response.context["now"]
    assert (now.totals.requests, now.totals.errors, now.totals.unpriced) == (6, 1, 1)
    assert [line.name for line in response.context["rankings"][1].lines] == [
        "Ads",
        "Search",
        "No team",
    ]


def test_the_overview_refreshes_its_figures_alone(
    people: People, story: Story, client_of: Any
) -> None:
    fragment = client_of(people.admin).get("/", headers={"HX-Request": "true"}).content.decode()
    assert "<html" not in fragment
    assert 'id="live"' in fragment


def test_an_empty_installation_shows_how_to_begin(people: People, client_of: Any) -> None:
    page = client_of(people.admin).get("/")
    assert page.context["steps"].current == "provider"
    assert "Listening for the first call" in page.content.decode()
    assert "Issue a key" in client_of(people.owner).get("/").content.decode()
    assert "Issue a key" not in client_of(people.finance).get("/").content.decode()


def test_the_first_key_comes_with_the_call_filled_in(people: People, client_of: Any) -> None:
    page = client_of(people.admin).post("/first-key/").content.decode()
    assert page.count("sk-gw-") >= 4  # shown once, and in three snippets


def test_the_listener_tells_of_the_first_call(people: People, client_of: Any) -> None:
    client = client_of(people.admin)
    assert "every 2s" in client.get("/first-call/").content.decode()
    take_in([usage_event(cost="0.0003", latency_ms=812.0)])
    told = client.get("/first-call/").content.decode()
    assert "First call arrived" in told
    assert "$0.000300" in told
    assert "812 ms" in told
    assert "every 2s" not in told


def test_cost_compares_with_the_days_before(people: People, client_of: Any) -> None:
    now = datetime.now(UTC)
    for days, cost in ((1, "6"), (8, "4")):
        take_in([usage_event(started_at=(now - timedelta(days=days)).isoformat(), cost=cost)])
    chart = client_of(people.admin).get("/cost/daily.json?range=7d&group=model").json()
    assert chart["title"] == "$6.00 spent, up 50% on the 7 days before"
    assert sum(chart["figure"]["data"][0]["y"]) == 6
    assert len(chart["table"]["rows"]) == 7


def test_cost_folds_small_groups_into_other(people: People, client_of: Any) -> None:
    take_in(
        usage_event(model=f"m{number}", requested_model=f"m{number}", cost=str(number))
        for number in range(1, 13)
    )
    chart = client_of(people.admin).get("/cost/daily.json?group=model").json()
    names = [trace["name"] for trace in chart["figure"]["data"]]
    assert names == ["m12", "m11", "m10", "m9", "m8", "m7", "m6", "Other"]
    assert chart["figure"]["data"][-1]["meta"]["hue"] == "other"
    assert sum(chart["figure"]["data"][-1]["y"]) == 15


def test_a_cost_row_leads_to_its_requests(people: People, story: Story, client_of: Any) -> None:
    client = client_of(people.admin)
    for group in ("team", "model", "provider", "key"):
        for line in client.get(f"/cost/?group={group}").context["report"].lines:
            if line.url:
                rows = client.get(line.url).context["rows"]
                assert len(rows) == line.totals.requests


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("status=error", 1),
        ("error=timeout", 1),
        ("fallback=yes", 1),
        ("fallback=no", 5),
        ("customer=own", 1),
        ("streaming=no", 0),
        ("unpriced=yes", 1),
        ("lane=litellm", 6),
        ("lane=direct", 0),
        ("lane=nonsense", 6),
        ("model=gpt-4o", 6),
        ("since=2020-01-01&until=2020-01-31", 0),
        ("status=nonsense", 6),
        ("since=nonsense", 6),
        ("after=nonsense", 6),
    ],
)
def test_the_log_is_filtered(
    query: str, count: int, people: People, story: Story, client_of: Any
) -> None:
    response = client_of(people.admin).get(f"/requests/?{query}")
    assert response.status_code == 200
    assert len(response.context["rows"]) == count
    if "nonsense" in query and "after" not in query:
        assert "Not understood" in response.content.decode()


def test_the_log_is_paged_without_gaps(people: People, client_of: Any) -> None:
    at = datetime.now(UTC).isoformat()
    take_in(usage_event(started_at=at) for _ in range(120))
    client, url, seen = client_of(people.admin), "/requests/", []
    while url:
        page = client.get(url).context["page"]
        seen += [event.pk for event in page.rows]
        url = page.next_url
    assert len(seen) == len(set(seen)) == 120


def test_exports_hold_no_formulas_and_are_audited(
    people: People, story: Story, client_of: Any
) -> None:
    response = client_of(people.finance).get("/requests/export.csv?team=&fallback=yes")
    text = b"".join(response.streaming_content).decode()
    assert ",'=cmd()," in text
    assert len(text.splitlines()) == 2
    audited = AuditEvent.objects.get(action="usage.export")
    assert audited.actor == people.finance
    assert audited.changes["fallback"] == [None, "yes"]


def test_csv_of_cost_is_exact(people: People, story: Story, client_of: Any) -> None:
    response = client_of(people.admin).get("/cost/export.csv?group=key")
    lines = b"".join(response.streaming_content).decode().splitlines()
    assert lines[0].startswith("day,group,group_id,cost_usd")
    assert any(",search bot," in line and ",3,1," in line for line in lines)


def test_the_detail_explains_cost_and_choice(people: People, story: Story, client_of: Any) -> None:
    page = client_of(people.admin).get(f"/requests/{story.event_id('=cmd()')}/").content.decode()
    assert "its fallback chain names this one next" in page
    assert "gpt-4o in Europe" in page
    assert "outsider@example.com" in page  # whose key it was, beside the reader's own initial
    assert '<span class="gw-avatar" aria-hidden="true">A</span>' in page
    failed = client_of(people.admin).get(f"/requests/{story.event_id('failed')}/")
    assert "The provider did not answer in time." in failed.content.decode()
    tagged = client_of(people.admin).get(f"/requests/{story.event_id('own')}/").content.decode()
    assert "<script>alert" not in tagged


def test_the_detail_tells_the_lane(people: People, story: Story, client_of: Any) -> None:
    deployment = str(story.deployment.pk)
    events = {
        "Direct: the provider speaks OpenAI&#x27;s format": {"lane": "direct"},
        "LiteLLM: the parameter logit_bias is translated": {"lane_reason": "parameter:logit_bias"},
        "LiteLLM: an earlier attempt failed": {"lane_reason": "retry"},
        "LiteLLM: something new": {"lane_reason": "something_new"},
    }
    client = client_of(people.admin)
    for words, fields in events.items():
        event = usage_event(deployment=deployment, **fields)
        event["attempts"][0]["lane"] = event["lane"]
        take_in([event])
        page = client.get(f"/requests/{event['event_id']}/").content.decode()
        assert words in page
        name = "Direct" if event["lane"] == "direct" else "LiteLLM"
        assert f"gpt-4o · {name}</span>" in page


def test_what_called_no_provider_has_no_lane(people: People, story: Story, client_of: Any) -> None:
    deployment = str(story.deployment.pk)
    for fields in ({"status": "refused"}, {"why": "cache"}):
        event = usage_event(deployment=deployment, attempts=[], **fields)
        take_in([event])
        page = client_of(people.admin).get(f"/requests/{event['event_id']}/").content.decode()
        assert "<dt>Lane</dt>" not in page


def test_the_export_tells_the_lane(people: People, client_of: Any) -> None:
    take_in([usage_event(deployment=str(uuid4()), lane_reason="retry")])
    response = client_of(people.finance).get("/requests/export.csv")
    header, line = b"".join(response.streaming_content).decode().splitlines()
    assert header.endswith(",lane,lane_reason")
    assert line.endswith(",litellm,retry")


def test_cached_and_reasoning_tokens_are_priced_apart(db: None) -> None:
    take_in(
        [
            usage_event(
                input_tokens=1_000,
                cache_read_tokens=400,
                output_tokens=200,
                reasoning_tokens=50,
                unit_prices={
                    "input_token": "0.000002",
                    "output_token": "0.00001",
                    "cache_read_token": "0.000001",
                },
                cost="0.0036",
            )
        ]
    )
    event = UsageEvent.objects.get()
    parts = cost_parts(event)
    assert [(part.words, int(part.quantity)) for part in parts] == [
        ("Input tokens", 600),
        ("Input tokens read from cache", 400),
        ("Output tokens", 200),
    ]
    assert sum(part.amount or 0 for part in parts) == event.cost


def test_deleted_things_keep_their_usage(people: People, story: Story, client_of: Any) -> None:
    take_in([usage_event(team_id="99999999-9999-4999-8999-999999999999", cost="7")])
    page = client_of(people.admin).get("/cost/?group=team").content.decode()
    assert "Deleted team 99999999" in page
    assert "$7.00" in page


def test_charts_say_when_there_is_nothing(people: People, client_of: Any) -> None:
    client = client_of(people.admin)
    for path in (
        "/overview/requests.json",
        "/cost/daily.json",
        "/latency/latency.json",
        "/latency/errors.json",
    ):
        assert client.get(path).json()["empty"]["text"]


def test_usage_of_another_environment_is_elsewhere(
    people: People, story: Story, client_of: Any
) -> None:
    take_in([usage_event()], builders.environment("dev"))
    assert len(client_of(people.admin).get("/requests/?environment=dev").context["rows"]) == 1
