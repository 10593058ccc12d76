"""The list of keys: search, filters, paging that costs the same on every page."""

import csv
import io
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from gateway_admin.catalog.models import Environment
from gateway_admin.keys.models import VirtualKey
from tests.keys.conftest import IssueKey
from tests.people import People

pytestmark = pytest.mark.django_db


@pytest.fixture
def many(prod: Environment, people: People) -> int:
    start = timezone.now() - timedelta(days=30)
    VirtualKey.objects.bulk_create(
        VirtualKey(
            environment=prod,
            public_id=f"p{number:05}",
            digest="0" * 64,
            name=f"service-{number:05}",
            owner=people.owner,
            team=people.search,
            created_at=start + timedelta(seconds=number // 3),  # three share each moment
        )
        for number in range(5_000)
    )
    return 5_000


def _names(client: Any, query: str = "") -> list[str]:
    return [key.name for key in client.get(f"/keys/{query}").context["page"].rows]


def test_all_pages_together_show_each_key_once(people: People, many: int, client_of: Any) -> None:
    client = client_of(people.admin)
    address, seen, queries = "/keys/", [], set()
    while address:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            page = client.get(address, headers={"HX-Request": "true"}).context["page"]
        queries.add(len(captured))
        seen += [key.name for key in page.rows]
        address = page.next_url
    assert len(seen) == many
    assert seen == [f"service-{number:05}" for number in _newest_first(seen)]
    assert len(set(seen)) == many
    assert len(queries) == 1, queries


def _newest_first(seen: list[str]) -> list[int]:
    """Numbers in the order of their moments; keys of one moment in the order that was shown."""
    numbers = [int(name.removeprefix("service-")) for name in seen]
    return sorted(numbers, key=lambda number: (-(number // 3), numbers.index(number)))


def test_back_leads_to_the_same_rows(people: People, many: int, client_of: Any) -> None:
    client = client_of(people.admin)
    first = client.get("/keys/?sort=name").context["page"]
    second = client.get(first.next_url).context["page"]
    third = client.get(second.next_url).context["page"]
    assert [key.pk for key in client.get(third.previous_url).context["page"].rows] == [
        key.pk for key in second.rows
    ]
    back = client.get(second.previous_url).context["page"]
    assert [key.pk for key in back.rows] == [key.pk for key in first.rows]
    assert back.previous_url == ""


def test_a_cursor_that_does_not_read_is_the_first_page(
    people: People, many: int, client_of: Any
) -> None:
    client = client_of(people.admin)
    by_name = client.get("/keys/?sort=name").context["page"].next_url.split("after=")[1]
    for cursor in ("x", "W10", "WzEsMl0", by_name):
        assert _names(client, f"?after={cursor}") == _names(client), cursor


def test_a_search_among_many_finds_the_right_ones(
    people: People, many: int, client_of: Any
) -> None:
    found = _names(client_of(people.admin), "?q=service-04")
    assert found
    assert all(name.startswith("service-04") for name in found)


def test_search(people: People, issue: IssueKey, client_of: Any) -> None:
    key, text = issue("indexer-nightly")
    issue("other", owner=people.teammate)
    client = client_of(people.admin)
    assert _names(client, "?q=NIGHTLY") == ["indexer-nightly"]
    assert _names(client, f"?q={key.public_id}") == ["indexer-nightly"]
    assert _names(client, f"?q={text}") == ["indexer-nightly"]
    assert _names(client, "?q=teammate@example.com") == ["other"]
    assert "No key matches" in client.get("/keys/?q=nothing").content.decode()


def test_filters(people: People, issue: IssueKey, client_of: Any) -> None:
    issue("plain")
    issue("haiku", allowed_models=["claude-haiku"])
    issue("ads", owner=people.outsider, team=people.ads)
    issue("dev", environment=Environment.objects.get(slug="dev"))
    for state in ("blocked", "revoked"):
        VirtualKey.objects.filter(pk=issue(state)[0].pk).update(state=state)
    VirtualKey.objects.filter(pk=issue("expired")[0].pk).update(
        expires_at=timezone.now() - timedelta(days=1)
    )
    client = client_of(people.admin)
    assert set(_names(client, "?team=ads")) == {"ads"}
    assert "haiku" not in _names(client, "?model=gpt-4o")
    assert "plain" in _names(client, "?model=gpt-4o")
    assert _names(client, "?state=blocked") == ["blocked"]
    assert _names(client, "?state=revoked") == ["revoked"]
    assert _names(client, "?state=expired") == ["expired"]
    assert "revoked" not in _names(client)
    assert "revoked" in _names(client, "?state=all")
    assert len(_names(client, "?used=never&state=all")) == 6
    assert _names(client, "?environment=dev") == ["dev"]
    assert _names(client) == ["dev"]  # it is remembered


def test_csv_honours_the_filters_and_cannot_run_formulas(
    people: People, issue: IssueKey, client_of: Any
) -> None:
    issue("=HYPERLINK(1)")
    issue("other")
    answer = client_of(people.admin).get("/keys/export.csv?q=HYPER")
    rows = list(csv.DictReader(io.StringIO(answer.getvalue().decode())))
    assert [row["name"] for row in rows] == ["'=HYPERLINK(1)"]
    assert rows[0]["team"] == "search"


def test_the_fragment_is_part_of_the_page(people: People, issue: IssueKey, client_of: Any) -> None:
    issue("indexer")
    fragment = client_of(people.admin).get("/keys/", headers={"HX-Request": "true"})
    assert "<html" not in fragment.content.decode()
    assert "indexer" in fragment.content.decode()
