"""The audit list: filters, paging, export; nothing in it can be altered."""

import csv
import io
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.test.utils import CaptureQueriesContext

from gateway_admin.accounts.models import AuditEvent, Organisation
from gateway_admin.accounts.services import audit
from tests.people import People

pytestmark = pytest.mark.django_db


@pytest.fixture
def events(people: People) -> People:
    for number in range(120):
        audit(
            actor=people.owner if number % 2 else people.admin,
            action="key.block" if number % 3 else "key.revoke",
            target=people.search,
            changes={"state": ["Active", f"={number}"]},
            environment="prod",
        )
    return people


def _rows(client: Any, query: str = "") -> list[AuditEvent]:
    return list(client.get(f"/audit/{query}").context["page"].rows)


def test_filters(events: People, client_of: Any) -> None:
    client = client_of(events.admin)
    newest = _rows(client)
    assert len(newest) == 50
    assert newest[0].pk > newest[-1].pk
    assert {row.actor for row in _rows(client, "?person=owner%40example.com")} == {events.owner}
    assert {row.action for row in _rows(client, "?action=key.revoke")} == {"key.revoke"}
    assert all(row.target_label == "Search" for row in _rows(client, "?target=sear"))
    assert _rows(client, "?until=2020-01-01") == []
    assert len(_rows(client, "?since=2020-01-01")) == 50
    assert len(_rows(client, "?since=yesterday")) == 50  # shown at its field, left out
    assert "No entry matches" in client.get("/audit/?person=nobody").content.decode()


def test_every_page_costs_the_same(events: People, client_of: Any) -> None:
    client = client_of(events.admin)
    address, seen, costs = "/audit/", 0, set()
    total = AuditEvent.objects.count()
    while address:
        with CaptureQueriesContext(connection) as queries:
            page = client.get(address).context["page"]
        costs.add(len(queries))
        seen += len(page.rows)
        address = page.next_url
    assert seen == total
    assert len(costs) == 1


def test_changes_can_be_read(people: People, client_of: Any) -> None:
    audit(
        actor=people.admin,
        action="key.update",
        target=people.search,
        changes={"models": ["all", ["gpt-4o", "default"]], "tags": [{}, {"a": "1"}]},
    )
    page = client_of(people.admin).get("/audit/?action=key.update").content.decode()
    assert "<del>all</del>" in page
    assert "<ins>gpt-4o, default</ins>" in page
    assert "<ins>a=1</ins>" in page


def test_csv_has_the_filtered_rows_and_is_audited_itself(events: People, client_of: Any) -> None:
    client = client_of(events.admin)
    answer = client.get("/audit/export.csv?action=key.revoke")
    rows = list(csv.DictReader(io.StringIO(answer.getvalue().decode())))
    assert len(rows) == 40
    assert {row["action"] for row in rows} == {"key.revoke"}
    assert rows[0]["changes"].startswith("state: Active → =")
    export = AuditEvent.objects.get(action="export.csv")
    assert export.actor == events.admin
    assert export.changes["action"] == [None, "key.revoke"]


@pytest.mark.parametrize("who", ["owner", "teammate", "outsider", "finance"])
def test_only_administrators_read_it(who: str, people: People, client_of: Any) -> None:
    client = client_of(getattr(people, who))
    assert client.get("/audit/").status_code == 403
    assert client.get("/audit/export.csv").status_code == 403


def test_entries_cannot_be_changed_or_deleted(people: People) -> None:
    for attempt in (
        lambda: AuditEvent.objects.update(action="nothing"),
        lambda: AuditEvent.objects.all().delete(),
    ):
        with pytest.raises(DatabaseError), transaction.atomic():
            attempt()


def test_settings_change_the_zone_of_pages(people: People, client_of: Any) -> None:
    client = client_of(people.admin)
    settings = {"name": "ACME", "week_start": "1", "fiscal_year_month": "1"}
    wrong = client.post("/settings/", {**settings, "time_zone": "Mars/Base"})
    assert wrong.status_code == 422
    client.post("/settings/", {**settings, "time_zone": "Europe/Berlin"})
    organisation = Organisation.objects.get()
    assert (organisation.name, organisation.time_zone) == ("ACME", "Europe/Berlin")
    assert "Europe/Berlin" in client.get("/audit/").content.decode()


class TestSwitchEnvironment:
    @pytest.mark.parametrize(
        ("target", "lands"),
        [
            ("/keys/?team=search", "/keys/?team=search"),
            ("/keys/?environment=prod&team=search", "/keys/?team=search"),
            ("https://evil.example/", "/"),
            ("//evil.example/", "/"),
        ],
    )
    def test_it_returns_to_where_one_was(
        self, target: str, lands: str, people: People, client_of: Any
    ) -> None:
        client = client_of(people.owner)
        answer = client.post("/switch-environment/", {"environment": "dev", "next": target})
        assert answer["Location"] == lands
        assert "Development" in client.get("/keys/").content.decode()

    def test_an_unknown_one_changes_nothing_that_is_seen(
        self, people: People, client_of: Any
    ) -> None:
        client = client_of(people.owner)
        client.post("/switch-environment/", {"environment": "moon"})
        assert client.get("/keys/").status_code == 200
