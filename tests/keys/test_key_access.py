"""Who sees and who changes a key: the fixed cast against every address."""

from typing import Any

import pytest

from gateway_admin.keys import queries
from gateway_admin.keys.models import VirtualKey
from tests.keys.conftest import IssueKey
from tests.people import People

pytestmark = pytest.mark.django_db

READS = {"admin": 200, "owner": 200, "teammate": 200, "finance": 200, "outsider": 404}
WRITES = {"admin": 302, "owner": 302, "teammate": 403, "finance": 403, "outsider": 404}


@pytest.mark.parametrize(("who", "status"), READS.items())
def test_detail(who: str, status: int, people: People, issue: IssueKey, client_of: Any) -> None:
    key, _ = issue()
    assert client_of(getattr(people, who)).get(f"/keys/{key.pk}/").status_code == status


@pytest.mark.parametrize(("who", "status"), READS.items())
def test_list_and_csv(
    who: str, status: int, people: People, issue: IssueKey, client_of: Any
) -> None:
    key, _ = issue("indexer-of-search")
    client = client_of(getattr(people, who))
    assert (key.name in client.get("/keys/").content.decode()) == (status == 200)
    assert (key.name.encode() in client.get("/keys/export.csv").getvalue()) == (status == 200)


@pytest.mark.parametrize(("who", "status"), WRITES.items())
@pytest.mark.parametrize(
    ("action", "data"),
    [
        ("block", {"reason": "leaked"}),
        ("revoke", {"confirm": "indexer"}),
        (
            "edit",
            {
                "name": "renamed",
                "team": "search",
                "owner": "owner@example.com",
                "models_mode": "all",
                "expires": "",
                "tags": "",
            },
        ),
    ],
)
def test_writes(
    who: str,
    status: int,
    action: str,
    data: dict[str, str],
    people: People,
    issue: IssueKey,
    client_of: Any,
) -> None:
    key, _ = issue()
    answer = client_of(getattr(people, who)).post(f"/keys/{key.pk}/{action}/", data)
    assert answer.status_code == status
    changed = VirtualKey.objects.get(pk=key.pk)
    assert (changed.state != key.state or changed.name != key.name) == (status == 302)


@pytest.mark.parametrize(("who", "status"), WRITES.items())
def test_unblock(who: str, status: int, people: People, issue: IssueKey, client_of: Any) -> None:
    key, _ = issue()
    VirtualKey.objects.update(state="blocked", reason="x")
    assert client_of(getattr(people, who)).post(f"/keys/{key.pk}/unblock/").status_code == status
    assert (VirtualKey.objects.get().state == "active") == (status == 302)


def test_a_member_manages_own_keys(people: People, issue: IssueKey, client_of: Any) -> None:
    key, _ = issue(owner=people.teammate)
    answer = client_of(people.teammate).post(f"/keys/{key.pk}/block/", {"reason": "mine"})
    assert answer.status_code == 302


def test_bulk_takes_only_what_one_manages(people: People, issue: IssueKey, client_of: Any) -> None:
    key, _ = issue()
    data = {"action": "revoke", "key": [key.pk], "confirmed": "1", "confirm": "revoke 1 key"}
    for who in ("teammate", "finance", "outsider"):
        client_of(getattr(people, who)).post("/keys/bulk/", data)
        assert VirtualKey.objects.get().state == "active", who
    client_of(people.owner).post("/keys/bulk/", data)
    assert VirtualKey.objects.get().state == "revoked"


@pytest.mark.parametrize(("who", "status"), READS.items())
def test_api_reads(who: str, status: int, people: People, issue: IssueKey, api_of: Any) -> None:
    key, _ = issue()
    api = api_of(getattr(people, who))
    assert api.get(f"/api/v1/keys/{key.pk}/").status_code == status
    listed = api.get("/api/v1/keys/").json()["results"]
    assert [row["id"] for row in listed] == ([str(key.pk)] if status == 200 else [])


@pytest.mark.parametrize(
    ("who", "status"),
    {"admin": 200, "owner": 200, "teammate": 403, "finance": 403, "outsider": 404}.items(),
)
def test_api_writes(who: str, status: int, people: People, issue: IssueKey, api_of: Any) -> None:
    key, _ = issue()
    api = api_of(getattr(people, who))
    answers = [
        api.patch(f"/api/v1/keys/{key.pk}/", {"name": "n"}, format="json"),
        api.post(f"/api/v1/keys/{key.pk}/block/", {"reason": "x"}, format="json"),
        api.post(f"/api/v1/keys/{key.pk}/unblock/"),
        api.post(f"/api/v1/keys/{key.pk}/revoke/"),
    ]
    assert [answer.status_code for answer in answers] == [status] * 4


def test_strangers_are_sent_to_the_login(issue: IssueKey, client: Any) -> None:
    key, _ = issue()
    answer = client.get(f"/keys/{key.pk}/")
    assert answer.status_code == 302
    assert answer["Location"].startswith("/account/login/")


def test_a_developer_without_a_team_sees_own_keys_only(people: People, issue: IssueKey) -> None:
    own, _ = issue("own", owner=people.outsider, team=None)
    issue("other")
    assert list(queries.visible_keys(people.outsider)) == [own]
