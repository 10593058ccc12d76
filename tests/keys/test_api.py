"""REST API of teams and keys."""

from typing import Any

import pytest

from gateway_admin.accounts.models import ApiToken
from gateway_admin.catalog.models import Environment
from gateway_admin.keys.models import Membership, VirtualKey
from gateway_admin.keys.services import key_digest
from tests.keys.conftest import IssueKey
from tests.people import People

pytestmark = pytest.mark.django_db


def test_create_returns_the_whole_key_once(people: People, prod: Environment, api_of: Any) -> None:
    api = api_of(people.owner)
    body = {
        "name": "ci",
        "environment": "prod",
        "team": "search",
        "allowed_models": ["gpt-4o", "default"],
        "tags": {"stage": "test"},
        "expires_at": "2031-01-01T00:00:00Z",
    }
    answer = api.post("/api/v1/keys/", body, format="json")
    assert answer.status_code == 201, answer.json()
    document = answer.json()
    key = VirtualKey.objects.get()
    assert key.digest == key_digest(environment=prod, text=document["key"])
    assert document["owner"] == "owner@example.com"
    assert document["allowed_models"] == ["default", "gpt-4o"]
    assert document["state"] == "active"
    for address in ("/api/v1/keys/", f"/api/v1/keys/{key.pk}/"):
        shown = api.get(address).content.decode()
        assert document["key"] not in shown
        assert key.digest not in shown


@pytest.mark.parametrize(
    ("change", "attr"),
    [
        ({"name": ""}, "name"),
        ({"environment": "moon"}, "environment"),
        ({"team": "ads"}, "team"),
        ({"owner": "outsider@example.com"}, "owner"),
        ({"allowed_models": ["gpt-5"]}, "allowed_models"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"tags": {"a b": "c"}}, "tags"),
    ],
)
def test_wrong_input_is_422_at_its_field(
    change: dict[str, Any], attr: str, people: People, prod: Environment, api_of: Any
) -> None:
    body = {"name": "ci", "environment": "prod", "team": "search", **change}
    answer = api_of(people.owner).post("/api/v1/keys/", body, format="json")
    assert answer.status_code == 422, answer.content
    assert answer.json()["errors"][0]["attr"] == attr


def test_patch_keeps_what_is_left_out(people: People, issue: IssueKey, api_of: Any) -> None:
    key, _ = issue(tags={"a": "1"}, allowed_models=["gpt-4o"])
    api = api_of(people.owner)
    answer = api.patch(f"/api/v1/keys/{key.pk}/", {"name": "renamed"}, format="json").json()
    assert (answer["name"], answer["tags"], answer["allowed_models"]) == (
        "renamed",
        {"a": "1"},
        ["gpt-4o"],
    )
    answer = api.patch(f"/api/v1/keys/{key.pk}/", {"allowed_models": None}, format="json").json()
    assert answer["allowed_models"] is None


def test_block_unblock_revoke(people: People, issue: IssueKey, api_of: Any) -> None:
    key, _ = issue()
    api = api_of(people.owner)
    address = f"/api/v1/keys/{key.pk}"
    assert api.post(f"{address}/block/", {}, format="json").status_code == 422
    blocked = api.post(f"{address}/block/", {"reason": "leak"}, format="json").json()
    assert (blocked["state"], blocked["reason"]) == ("blocked", "leak")
    assert api.post(f"{address}/unblock/").json()["state"] == "active"
    assert api.post(f"{address}/unblock/").status_code == 409
    assert api.post(f"{address}/revoke/").json()["state"] == "revoked"
    again = api.patch(f"{address}/", {"name": "n"}, format="json")
    assert again.status_code == 409
    assert again.json()["errors"][0]["code"] == "conflict"


def test_list_filters_and_pages(people: People, issue: IssueKey, api_of: Any) -> None:
    for number in range(5):
        issue(f"k{number}")
    VirtualKey.objects.filter(name="k0").update(state="revoked")
    api = api_of(people.admin)
    page = api.get("/api/v1/keys/?page_size=3").json()
    assert [row["name"] for row in page["results"]] == ["k4", "k3", "k2"]
    assert [row["name"] for row in api.get(page["next"]).json()["results"]] == ["k1"]
    for query, count in (
        ("state=revoked", 1),
        ("state=all", 5),
        ("team=search", 4),
        ("team=ads", 0),
        ("environment=dev", 0),
        ("owner=owner@example.com", 4),
        ("model=gpt-4o", 4),
        ("q=k3", 1),
    ):
        assert len(api.get(f"/api/v1/keys/?{query}").json()["results"]) == count, query


def test_a_read_token_does_not_write(people: People, issue: IssueKey, api_of: Any) -> None:
    key, _ = issue()
    api = api_of(people.owner, scope=ApiToken.Scope.READ)
    assert api.get(f"/api/v1/keys/{key.pk}/").status_code == 200
    assert api.post(f"/api/v1/keys/{key.pk}/revoke/").status_code == 403


def test_without_a_token_it_is_401(client: Any, db: None) -> None:
    assert client.get("/api/v1/keys/").status_code == 401
    bad = client.get("/api/v1/keys/", headers={"Authorization": "Bearer gwt-x-y"})
    assert bad.status_code == 401


def test_an_id_that_is_none_is_404(people: People, api_of: Any) -> None:
    assert api_of(people.admin).get("/api/v1/keys/not-an-id/").status_code == 404


class TestTeams:
    def test_admin_adds_renames_deletes(self, people: People, api_of: Any) -> None:
        api = api_of(people.admin)
        body = {"name": "Data", "owner": "teammate@example.com"}
        team = api.post("/api/v1/teams/", body, format="json")
        assert team.status_code == 201, team.content
        assert team.json()["slug"] == "data"
        renamed = api.patch("/api/v1/teams/data/", {"name": "Data & AI"}, format="json").json()
        assert (renamed["slug"], renamed["name"]) == ("data", "Data & AI")
        assert api.delete("/api/v1/teams/data/").status_code == 204

    def test_a_team_with_keys_stays(self, people: People, issue: IssueKey, api_of: Any) -> None:
        issue()
        assert api_of(people.admin).delete("/api/v1/teams/search/").status_code == 409

    @pytest.mark.parametrize(
        ("who", "read", "manage", "create"),
        [
            ("admin", 200, 201, 201),
            ("owner", 200, 201, 403),
            ("teammate", 200, 403, 403),
            ("finance", 200, 403, 403),
            ("outsider", 404, 404, 403),
        ],
    )
    def test_access(
        self, who: str, read: int, manage: int, create: int, people: People, api_of: Any
    ) -> None:
        api = api_of(getattr(people, who))
        assert api.get("/api/v1/teams/search/").status_code == read
        assert api.get("/api/v1/teams/search/members/").status_code == read
        body = {"email": "outsider@example.com"}
        added = api.post("/api/v1/teams/search/members/", body, format="json")
        assert added.status_code == manage
        created = api.post("/api/v1/teams/", {"name": "Mine"}, format="json")
        assert created.status_code == create

    def test_members(self, people: People, api_of: Any) -> None:
        api = api_of(people.owner)
        members = api.get("/api/v1/teams/search/members/").json()
        assert [row["email"] for row in members] == ["owner@example.com", "teammate@example.com"]
        address = f"/api/v1/teams/search/members/{members[1]['id']}/"
        assert api.patch(address, {"role": "owner"}, format="json").json()["role"] == "owner"
        assert api.delete(address).status_code == 204
        assert Membership.objects.filter(team=people.search).count() == 1
        foreign = Membership.objects.get(team=people.ads)
        assert api.delete(f"/api/v1/teams/search/members/{foreign.pk}/").status_code == 404


def test_the_schema_describes_keys_and_teams(people: People, api_of: Any) -> None:
    schema = api_of(people.admin).get("/api/v1/schema/?format=json").json()
    paths = schema["paths"]
    for path in (
        "/api/v1/keys/",
        "/api/v1/keys/{id}/",
        "/api/v1/keys/{id}/block/",
        "/api/v1/keys/{id}/revoke/",
        "/api/v1/teams/{slug}/members/",
        "/api/v1/teams/{slug}/members/{member_id}/",
    ):
        assert path in paths, sorted(paths)
    created = paths["/api/v1/keys/"]["post"]["responses"]["201"]["content"]["application/json"]
    assert created["schema"]["$ref"].endswith("KeyCreated")
