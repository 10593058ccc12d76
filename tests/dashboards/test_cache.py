"""The Cache page: figures of the ledger, who keeps answers, purging."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway_admin.keys.models import VirtualKey
from tests import builders
from tests.dashboards.conftest import Story
from tests.people import People
from tests.usage.ledger import take_in, usage_event

pytestmark = pytest.mark.django_db


def hit(key: VirtualKey, saved: str | None, **fields: Any) -> Any:
    """A request of the key that the cache answered."""
    at = datetime.now(UTC) - timedelta(minutes=5)
    team = str(key.team_id) if key.team_id else None
    return usage_event(
        **{
            "started_at": at.isoformat(),
            "key_id": str(key.pk),
            "public_id": key.public_id,
            "team_id": team,
            "user_id": str(key.owner_id),
            "why": "cache",
            "cost": "0",
            "saved_cost": saved,
            "attempts": [],
            "input_tokens": 0,
            "output_tokens": 0,
            **fields,
        }
    )


def keeps(key: VirtualKey, mode: str = "all", **changes: Any) -> VirtualKey:
    for name, value in {"cache": mode, **changes}.items():
        setattr(key, name, value)
    key.save()
    return key


def test_hit_rate_and_savings_by_group(people: People, story: Story, client_of: Any) -> None:
    take_in(
        [hit(story.search_key, "0.5"), hit(story.search_key, None), hit(story.ads_key, "0.125")]
    )
    client = client_of(people.admin)
    report = client.get("/cache/?group=key").context["report"]
    lines = {line.name: (line.totals.cache_hits, str(line.totals.saved_cost.normalize()))
             for line in report.lines}  # fmt: skip
    assert lines == {"search bot": (2, "0.5"), "ads writer": (1, "0.125"), "tinkering": (0, "0")}
    assert report.total.cache_hits == 3
    assert report.rate == pytest.approx(3 / 9)
    for group in ("team", "model"):
        lines = client.get(f"/cache/?group={group}").context["report"].lines
        assert sum(line.totals.cache_hits for line in lines) == 3
    narrowed = client.get(f"/cache/?key={story.search_key.pk}").context["report"]
    assert (narrowed.total.cache_hits, narrowed.total.requests) == (2, 3)


def test_the_chart_says_the_share_and_the_saving(
    people: People, story: Story, client_of: Any
) -> None:
    take_in([hit(story.search_key, "1.25"), hit(story.search_key, "1.25")])
    chart = client_of(people.admin).get("/cache/daily.json?range=7d").json()
    assert chart["title"] == "25% of 8 requests from the cache, $2.50 saved"
    assert [sum(trace["y"]) for trace in chart["figure"]["data"]] == [2, 6]


def test_developers_see_their_own(people: People, story: Story, client_of: Any) -> None:
    take_in([hit(story.search_key, "0.5"), hit(story.ads_key, "4")])
    keeps(story.search_key)
    keeps(story.ads_key)
    page = client_of(people.teammate).get("/cache/?group=key")
    assert [line.name for line in page.context["report"].lines] == ["search bot"]
    assert [row.key for row in page.context["keeping"].keys] == [story.search_key]
    assert "ads writer" not in page.content.decode()
    assert "$4" not in page.content.decode()


def test_who_may_purge_what(people: People, story: Story, client_of: Any) -> None:
    keeps(story.search_key)
    keeps(story.ads_key)

    def offered(person: Any) -> tuple[int, list[str], bool]:
        page = client_of(person).get("/cache/")
        keeping = page.context["keeping"]
        everything = "Purge environment" in page.content.decode()
        return (
            sum(row.may_purge for row in keeping.keys),
            [team.name for team in keeping.teams],
            everything,
        )

    assert offered(people.admin) == (2, ["Ads", "Search"], True)
    assert offered(people.owner) == (1, ["Search"], False)
    assert offered(people.teammate) == (0, [], False)
    assert offered(people.finance) == (0, [], False)


def test_purging_from_the_page(people: People, story: Story, client_of: Any) -> None:
    keeps(story.search_key)
    client = client_of(people.admin)

    def version() -> int:
        story.search_key.refresh_from_db()
        return story.search_key.cache_version

    first = version()
    client.post(f"/keys/{story.search_key.pk}/purge/")
    client.post(f"/teams/{people.search.slug}/purge/")
    assert version() == first + 2
    environment = story.search_key.environment
    client.post("/cache/purge/", {"confirm": "something else", "next": "/cache/"})
    assert version() == first + 2
    back = client.post("/cache/purge/", {"confirm": environment.name, "next": "/cache/"})
    assert back["Location"] == "/cache/"
    assert version() == first + 3


def test_keys_tell_for_how_long(people: People, story: Story, client_of: Any) -> None:
    keeps(story.search_key, "deterministic")
    keeps(story.own_key, "all", cache_ttl_s=300)
    builders.key(people.owner, name="keeps nothing")
    page = client_of(people.admin).get("/cache/")
    rows = {row.key.name: row.ttl for row in page.context["keeping"].keys}
    assert rows == {"search bot": "1 h", "tinkering": "5 min"}
    text = page.content.decode()
    assert "Deterministic requests" in text
    assert "as the environment" in text


def test_it_says_how_to_turn_it_on(people: People, client_of: Any) -> None:
    page = client_of(people.admin).get("/cache/").content.decode()
    assert "No key keeps answers" in page
    assert "Choose a key" in page
    assert "No requests in this time" in page
    assert "Choose a key<" not in client_of(people.finance).get("/cache/").content.decode()
    environment = builders.environment("prod")
    environment.cache_enabled = False
    environment.save()
    page = client_of(people.admin).get("/cache/").content.decode()
    assert "Answers are not kept in this environment" in page


def test_models_that_are_never_kept_are_named(people: People, client_of: Any) -> None:
    model = builders.model("tarot")
    model.cache = False
    model.save()
    story_key, _ = builders.key(people.owner, name="any")
    keeps(story_key)
    assert "Never kept: answers of tarot" in client_of(people.admin).get("/cache/").content.decode()


def test_the_export_is_exact(people: People, story: Story, client_of: Any) -> None:
    take_in([hit(story.search_key, "0.000000000123")])
    response = client_of(people.admin).get("/cache/export.csv?group=key")
    lines = b"".join(response.streaming_content).decode().splitlines()
    assert lines[0] == "day,group,group_id,requests,refused,from_cache,saved_usd"
    assert any(
        ",search bot," in line and ",2,0,1," in line and "0.000000000123" in line for line in lines
    )


def test_a_row_leads_to_its_hits(people: People, story: Story, client_of: Any) -> None:
    take_in([hit(story.search_key, "0.5"), hit(story.ads_key, "0.125")])
    client = client_of(people.admin)
    for group in ("team", "model", "key"):
        for line in client.get(f"/cache/?group={group}").context["report"].lines:
            if line.url:
                rows = client.get(line.url).context["rows"]
                assert len(rows) == line.totals.cache_hits
    assert len(client.get("/requests/?cached=no").context["rows"]) == 6
