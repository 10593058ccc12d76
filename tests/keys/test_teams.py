"""Teams and their members: pages, services and who may."""

from typing import Any

import pytest

from gateway_admin.accounts.models import AuditEvent
from gateway_admin.catalog.models import Environment
from gateway_admin.keys import team_services
from gateway_admin.keys.models import Membership, Team, VirtualKey
from gateway_admin.keys.policies import changed_since, current_version
from gateway_admin.lib.errors import Conflict, InvalidInput
from tests.keys.conftest import IssueKey
from tests.people import People

pytestmark = pytest.mark.django_db

READS = {"admin": 200, "owner": 200, "teammate": 200, "finance": 200, "outsider": 404}
MANAGES = {"admin": 302, "owner": 302, "teammate": 403, "finance": 403, "outsider": 404}
ADMINS = {"admin": 302, "owner": 403, "teammate": 403, "finance": 403, "outsider": 403}


@pytest.mark.parametrize(("who", "status"), READS.items())
def test_detail(who: str, status: int, people: People, client_of: Any) -> None:
    assert client_of(getattr(people, who)).get("/teams/search/").status_code == status


@pytest.mark.parametrize(("who", "status"), READS.items())
def test_list(who: str, status: int, people: People, client_of: Any) -> None:
    page = client_of(getattr(people, who)).get("/teams/").content.decode()
    assert ("/teams/search/" in page) == (status == 200)


@pytest.mark.parametrize(("who", "status"), MANAGES.items())
def test_edit(who: str, status: int, people: People, client_of: Any) -> None:
    data = {"name": "Search & Find", "description": "Ranking"}
    answer = client_of(getattr(people, who)).post("/teams/search/edit/", data)
    assert answer.status_code == status
    assert Team.objects.filter(name="Search & Find").exists() == (status == 302)


@pytest.mark.parametrize(("who", "status"), MANAGES.items())
def test_member_add(who: str, status: int, people: People, client_of: Any) -> None:
    data = {"user": "outsider@example.com", "role": "member"}
    answer = client_of(getattr(people, who)).post("/teams/search/members/add/", data)
    assert answer.status_code == status
    joined = Membership.objects.filter(team=people.search, user=people.outsider)
    assert joined.exists() == (status == 302)


@pytest.mark.parametrize(("who", "status"), MANAGES.items())
def test_member_change_and_remove(who: str, status: int, people: People, client_of: Any) -> None:
    membership = Membership.objects.get(team=people.search, user=people.teammate)
    client = client_of(getattr(people, who))
    address = f"/teams/search/members/{membership.pk}/"
    assert client.post(address, {"role": "owner"}).status_code == status
    if status == 302:
        membership.refresh_from_db()
        assert membership.role == "owner"
    assert client.post(f"{address}remove/").status_code == status
    assert Membership.objects.filter(pk=membership.pk).exists() == (status != 302)


@pytest.mark.parametrize(("who", "status"), ADMINS.items())
def test_create_and_delete(who: str, status: int, people: People, client_of: Any) -> None:
    client = client_of(getattr(people, who))
    data = {"name": "Data Platform", "owner": "teammate@example.com"}
    assert client.post("/teams/new/", data).status_code == status
    assert Team.objects.filter(slug="data-platform").exists() == (status == 302)
    Team.objects.get_or_create(slug="data-platform", defaults={"name": "Data Platform"})
    client.post("/teams/data-platform/delete/", {"confirm": "wrong"})
    assert Team.objects.filter(slug="data-platform").exists()
    answer = client.post("/teams/data-platform/delete/", {"confirm": "Data Platform"})
    assert answer.status_code == status
    assert Team.objects.filter(slug="data-platform").exists() == (status != 302)


def test_the_first_owner_is_a_member(people: People) -> None:
    team = team_services.team_create(actor=people.admin, name="Ünïted", owner=people.teammate)
    assert team.slug == "united"
    assert Membership.objects.get(team=team).role == "owner"


@pytest.mark.parametrize(
    ("name", "slug", "field"),
    [("", "", "name"), ("search", "", "name"), ("X", "search", "slug"), ("X", "9x", "slug")],
)
def test_wrong_names(name: str, slug: str, field: str, people: People) -> None:
    with pytest.raises(InvalidInput) as caught:
        team_services.team_create(actor=people.admin, name=name, slug=slug)
    assert caught.value.field == field


def test_slugs_stay_apart_from_each_other_and_from_addresses(people: People) -> None:
    slugs = [
        team_services.team_create(actor=people.admin, name=name).slug
        for name in ("New", "A b", "A-B", "42", "日本")
    ]
    assert slugs == ["new-2", "a-b", "a-b-2", "team-42", "team"]


def test_a_team_with_keys_is_not_deleted(people: People, issue: IssueKey, client_of: Any) -> None:
    key, _ = issue()
    VirtualKey.objects.filter(pk=key.pk).update(state="revoked")
    with pytest.raises(Conflict, match="1 key,"):
        team_services.team_delete(actor=people.admin, team=people.search)
    client = client_of(people.admin)
    page = client.post("/teams/search/delete/", {"confirm": "Search"}, follow=True)
    assert "has 1 key" in page.content.decode()


def test_who_leaves_takes_no_keys_along(people: People, issue: IssueKey, prod: Environment) -> None:
    inside, _ = issue("inside", owner=people.teammate)
    own, _ = issue("own", owner=people.teammate, team=None)
    since = current_version(prod)
    membership = Membership.objects.get(team=people.search, user=people.teammate)
    assert team_services.member_remove(actor=people.owner, membership=membership) == 1
    inside.refresh_from_db()
    own.refresh_from_db()
    assert (inside.owner, inside.team) == (None, people.search)
    assert own.owner == people.teammate
    assert changed_since(environment=prod, since=since).keys == {inside.pk}
    event = AuditEvent.objects.get(action="team.remove_member")
    assert event.changes["keys without an owner"] == [None, [str(inside)]]


def test_nobody_is_added_twice(people: People) -> None:
    with pytest.raises(InvalidInput, match="already"):
        team_services.member_add(actor=people.admin, team=people.search, user=people.owner)


def test_team_pages_cost_the_same_with_more_teams(
    people: People, client_of: Any, django_assert_max_num_queries: Any
) -> None:
    Team.objects.bulk_create(Team(slug=f"t{n}", name=f"Team {n}") for n in range(50))
    client = client_of(people.admin)
    with django_assert_max_num_queries(14):
        client.get("/teams/")
