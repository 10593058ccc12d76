"""/api/v1/: revisions, replicas, draft, publish, roll back."""

from typing import Any

import pytest

from gateway_admin.accounts.models import ApiToken
from gateway_admin.catalog.models import Deployment, Price
from gateway_admin.fleet.models import Revision
from gateway_admin.fleet.services import revision_publish
from tests import builders

pytestmark = pytest.mark.django_db

PUBLISH = "/api/v1/environments/prod/publish/"
DRAFT = "/api/v1/environments/prod/draft/"


@pytest.fixture
def api(api_of: Any, people: Any) -> Any:
    return api_of(people.admin)


def test_the_draft_is_told_in_words(prod: Any, gpt: Any, api: Any, people: Any) -> None:
    revision_publish(environment=prod, actor=people.admin)
    Deployment.objects.filter(pk=gpt.pk).update(weight=5)
    builders.alias("default", builders.model("unserved"), environment=prod)
    draft = api.get(DRAFT).json()
    assert draft["active_revision"] == 1
    assert [change["text"] for change in draft["changes"]] == ["openai-gpt-4o: weight 1 → 5"]
    assert [warning["name"] for warning in draft["warnings"]] == ["default"]


def test_it_publishes(prod: Any, gpt: Any, api: Any, people: Any) -> None:
    answer = api.post(PUBLISH, {"comment": "From a pipeline"}, format="json")
    assert answer.status_code == 201
    body = answer.json()
    assert (body["number"], body["comment"]) == (1, "From a pipeline")
    assert (body["environment"], body["published_by"]) == ("prod", people.admin.email)
    again = api.post(PUBLISH)
    assert (again.status_code, again.json()["number"]) == (200, 1)


def test_a_comment_that_is_too_long_is_422(prod: Any, gpt: Any, api: Any) -> None:
    answer = api.post(PUBLISH, {"comment": "x" * 301}, format="json")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["attr"] == "comment"


def test_a_draft_that_cannot_work_is_409(prod: Any, gpt: Any, api: Any) -> None:
    Price.objects.create(deployment=gpt, source="own", units={"fortnight": "1"})
    answer = api.post(PUBLISH)
    assert answer.status_code == 409
    assert "fortnight" in answer.json()["errors"][0]["detail"]


def test_revisions_are_listed_newest_first(prod: Any, gpt: Any, api: Any, people: Any) -> None:
    revision_publish(environment=prod, actor=people.admin)
    Deployment.objects.filter(pk=gpt.pk).update(weight=5)
    revision_publish(environment=prod, actor=people.admin)
    revision_publish(environment=builders.environment("dev"), actor=people.admin)
    rows = api.get("/api/v1/revisions/?environment=prod").json()["results"]
    assert [row["number"] for row in rows] == [2, 1]
    assert "document" not in rows[0]


def test_a_revision_has_its_document_and_changes_but_no_secret(
    prod: Any, gpt: Any, api: Any, people: Any
) -> None:
    revision = revision_publish(environment=prod, actor=people.admin)
    answer = api.get(f"/api/v1/revisions/{revision.pk}/")
    body = answer.json()
    assert body["document"]["deployments"][0]["name"] == "openai-gpt-4o"
    assert len(body["changes"]) == 3
    assert builders.CANARY_SECRET not in answer.content.decode()


def test_it_rolls_back(prod: Any, gpt: Any, api: Any, people: Any) -> None:
    first = revision_publish(environment=prod, actor=people.admin)
    Deployment.objects.filter(pk=gpt.pk).update(weight=5)
    revision_publish(environment=prod, actor=people.admin)
    answer = api.post(f"/api/v1/revisions/{first.pk}/rollback/", {"comment": "Slow"}, format="json")
    assert answer.status_code == 201
    assert (answer.json()["number"], answer.json()["rolled_back_to"]) == (3, 1)
    refused = api.post(f"/api/v1/revisions/{answer.json()['id']}/rollback/")
    assert refused.status_code == 409


def test_replicas_tell_where_their_workers_stand(
    prod: Any, gpt: Any, api: Any, people: Any, replica_of: Any
) -> None:
    revision_publish(environment=prod, actor=people.admin)
    replica = replica_of(prod)
    replica.sync(worker=0, workers=2, applied_revision=1)
    replica.sync(worker=1, workers=2)
    (row,) = api.get("/api/v1/replicas/?environment=prod").json()["results"]
    assert (row["id"], row["state"], row["desired_revision"]) == (replica.id, "behind", 1)
    assert [worker["applied_revision"] for worker in row["workers"]] == [1, None]
    assert api.get("/api/v1/replicas/?environment=dev").json()["results"] == []
    assert api.get(f"/api/v1/replicas/{replica.id}/").json()["hostname"] == "gw-1"


@pytest.mark.parametrize("name", ["owner", "teammate", "outsider", "finance"])
def test_other_roles_are_refused(prod: Any, gpt: Any, people: Any, api_of: Any, name: Any) -> None:
    api = api_of(people.everybody()[name])
    revision = revision_publish(environment=prod, actor=people.admin)
    reads = [DRAFT, "/api/v1/revisions/", f"/api/v1/revisions/{revision.pk}/", "/api/v1/replicas/"]
    assert {api.get(path).status_code for path in reads} == {403}
    writes = [PUBLISH, f"/api/v1/revisions/{revision.pk}/rollback/"]
    assert {api.post(path).status_code for path in writes} == {403}
    assert Revision.objects.count() == 1


def test_a_reading_token_does_not_publish(prod: Any, gpt: Any, people: Any, api_of: Any) -> None:
    api = api_of(people.admin, scope=ApiToken.Scope.READ)
    assert api.get(DRAFT).status_code == 200
    assert api.post(PUBLISH).status_code == 403


def test_strangers_are_401(prod: Any, client: Any) -> None:
    assert {client.get(path).status_code for path in (DRAFT, "/api/v1/revisions/")} == {401}


def test_what_does_not_exist_is_404(api: Any, prod: Any) -> None:
    paths = ["/api/v1/revisions/99/", "/api/v1/environments/nowhere/draft/"]
    assert {api.get(path).status_code for path in paths} == {404}
    assert api.post("/api/v1/environments/nowhere/publish/").status_code == 404
    assert api.put("/api/v1/revisions/").status_code == 405
