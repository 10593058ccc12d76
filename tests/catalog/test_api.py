"""The REST API: the services' rules with one error shape."""

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from gateway_admin.catalog.models import Credential, CredentialSecret, Deployment, ModelAlias
from tests.catalog import build
from tests.people import People

pytestmark = pytest.mark.django_db


def made(response: Any) -> dict[str, Any]:
    assert response.status_code == 201, response.content
    body: dict[str, Any] = response.json()
    return body


@pytest.fixture
def api(api_of: Any, people: People) -> Any:
    return api_of(people.admin)


def credential_of(api: Any) -> dict[str, Any]:
    provider = made(
        api.post("/api/v1/providers/", {"kind": "openai", "name": "OpenAI"}, format="json")
    )
    return made(
        api.post(
            "/api/v1/credentials/",
            {
                "environment": "prod",
                "provider": provider["id"],
                "name": "openai-main",
                "secret": {"api_key": build.SECRET},
            },
            format="json",
        )
    )


def deployment_of(api: Any, **fields: Any) -> dict[str, Any]:
    credential = credential_of(api)
    made(api.post("/api/v1/models/", {"name": "gpt-4o"}, format="json"))
    return made(
        api.post(
            "/api/v1/deployments/",
            {
                "environment": "prod",
                "name": "d1",
                "model": "gpt-4o",
                "credential": credential["id"],
                "upstream_model": "gpt-4o",
                "price": {"source": "own", "units": {"input_token": "0.000000123456789"}},
                **fields,
            },
            format="json",
        )
    )


def test_the_whole_way_from_provider_to_chain(api: Any) -> None:
    deployment = deployment_of(api)
    assert deployment["provider"] == "openai"
    assert deployment["price"]["units"] == {"input_token": "0.000000123456789"}
    made(api.post("/api/v1/models/", {"name": "gpt-4o-mini"}, format="json"))
    made(
        api.post(
            "/api/v1/deployments/",
            {
                "environment": "prod",
                "name": "d2",
                "model": "gpt-4o-mini",
                "credential": deployment["credential"],
                "upstream_model": "gpt-4o-mini",
            },
            format="json",
        )
    )
    chain = made(
        api.post(
            "/api/v1/chains/",
            {"environment": "prod", "model": "gpt-4o", "targets": ["gpt-4o-mini"]},
            format="json",
        )
    )
    assert chain["targets"] == ["gpt-4o-mini"]
    assert chain["kind"] == "general"
    alias = {"environment": "prod", "name": "default", "model": "gpt-4o"}
    made(api.post("/api/v1/aliases/", alias, format="json"))
    changed = api.patch("/api/v1/environments/prod/", {"default_model": "default"}, format="json")
    assert changed.json()["default_model"] == "default"
    [first, _] = api.get("/api/v1/models/?environment=prod").json()["results"][::-1]
    assert first["availability"][0]["environment"] == "prod"


def test_a_secret_is_never_returned(api: Any) -> None:
    credential = credential_of(api)
    url = f"/api/v1/credentials/{credential['id']}/"
    for response in (api.get(url), api.get("/api/v1/credentials/"), api.get("/api/v1/schema/")):
        assert build.SECRET not in response.content.decode()
    assert "secret" not in credential
    assert credential["hints"] == {"api_key": build.SECRET[-4:]}


def test_a_patch_without_the_secret_keeps_its_ciphertext(api: Any) -> None:
    credential = credential_of(api)
    before = bytes(CredentialSecret.objects.get().ciphertext)
    url = f"/api/v1/credentials/{credential['id']}/"
    assert api.patch(url, {"name": "renamed"}, format="json").json()["name"] == "renamed"
    assert bytes(CredentialSecret.objects.get().ciphertext) == before


def test_a_patch_with_the_secret_adds_a_version(api: Any) -> None:
    credential = credential_of(api)
    url = f"/api/v1/credentials/{credential['id']}/"
    changed = api.patch(url, {"secret": {"api_key": "sk-new-secret-000"}}, format="json").json()
    assert changed["secret_version"] == 2
    assert changed["fingerprint"] != credential["fingerprint"]


def test_a_refused_secret_changes_nothing_else(api: Any) -> None:
    credential = credential_of(api)
    url = f"/api/v1/credentials/{credential['id']}/"
    body = {"name": "renamed", "secret": {"nonsense": "x"}}
    assert api.patch(url, body, format="json").status_code == 422
    assert Credential.objects.get().name == "openai-main"


@pytest.mark.parametrize(
    ("path", "body", "attr"),
    [
        ("providers", {"kind": "nope", "name": "x"}, "kind"),
        ("providers", {"kind": "other", "name": "x"}, "litellm_provider"),
        ("models", {"name": "no spaces please"}, "name"),
        ("models", {}, "name"),
        ("aliases", {"environment": "prod", "name": "a", "model": "unknown"}, "model"),
        ("aliases", {"environment": "nowhere", "name": "a", "model": "gpt-4o"}, "environment"),
        ("chains", {"environment": "prod", "model": "gpt-4o", "targets": []}, "targets"),
        ("chains", {"environment": "prod", "model": "gpt-4o", "targets": ["gpt-4o"]}, "targets"),
        ("environments", {"slug": "UPPER", "name": "x"}, "slug"),
        ("environments", {"slug": "prod", "name": "x"}, "slug"),
        ("environments", {"slug": "qa", "name": "x", "default_model": "nope"}, "default_model"),
    ],
)
def test_wrong_input_is_422_and_names_the_field(
    api: Any, path: str, body: dict[str, Any], attr: str
) -> None:
    build.model("gpt-4o")
    response = api.post(f"/api/v1/{path}/", body, format="json")
    assert response.status_code == 422, response.content
    problem = response.json()
    assert problem["type"] == "validation_error"
    assert problem["errors"][0]["attr"].split(".")[0] == attr


def test_what_is_fixed_at_creation_cannot_be_patched(api: Any) -> None:
    credential = credential_of(api)
    url = f"/api/v1/credentials/{credential['id']}/"
    response = api.patch(url, {"environment": "dev"}, format="json")
    assert response.status_code == 422
    assert response.json()["errors"][0]["attr"] == "environment"


def test_deleting_what_is_used_is_409_and_says_by_what(api: Any) -> None:
    deployment = deployment_of(api)
    response = api.delete(f"/api/v1/credentials/{deployment['credential']}/")
    assert response.status_code == 409
    assert "“d1”" in response.json()["errors"][0]["detail"]


def test_a_price_can_be_taken_away(api: Any) -> None:
    deployment = deployment_of(api)
    url = f"/api/v1/deployments/{deployment['id']}/"
    assert api.patch(url, {"price": None}, format="json").json()["price"] is None
    assert Deployment.objects.get().prices.count() == 2


def test_lanes(api: Any) -> None:
    deployment = deployment_of(api, lane="litellm")
    assert deployment["lane"] == "litellm"
    url = f"/api/v1/deployments/{deployment['id']}/"
    assert api.patch(url, {"lane": "auto"}, format="json").json()["lane"] == "auto"
    assert api.patch(url, {"lane": "direct"}, format="json").status_code == 422
    (model,) = api.get("/api/v1/models/").json()["results"]
    assert model["lane"] == "auto"
    changed = api.patch(f"/api/v1/models/{model['id']}/", {"lane": "litellm"}, format="json")
    assert changed.json()["lane"] == "litellm"


def test_deletion(api: Any) -> None:
    deployment = deployment_of(api)
    for path in (f"deployments/{deployment['id']}", f"credentials/{deployment['credential']}"):
        assert api.delete(f"/api/v1/{path}/").status_code == 204
        assert api.get(f"/api/v1/{path}/").status_code == 404
    assert not CredentialSecret.objects.exists()


PATHS = ("environments", "providers", "credentials", "models", "aliases", "deployments", "chains")
OPEN_TO_ALL = {"environments", "models", "aliases", "chains"}


@pytest.mark.parametrize("path", PATHS)
def test_who_may_read_and_write(api_of: Any, people: People, path: str) -> None:
    for name, person in people.everybody().items():
        api = api_of(person)
        expected = 200 if name == "admin" or path in OPEN_TO_ALL else 403
        assert api.get(f"/api/v1/{path}/").status_code == expected, name
        status = api.post(f"/api/v1/{path}/", {}, format="json").status_code
        assert status == (422 if name == "admin" else 403), name


def test_a_read_token_cannot_write(api_of: Any, people: People) -> None:
    api = api_of(people.admin, scope="read")
    assert api.post("/api/v1/models/", {"name": "x"}, format="json").status_code == 403


def test_without_a_token_nothing(client: Any) -> None:
    assert client.get("/api/v1/models/").status_code == 401


@pytest.mark.parametrize("path", ["models", "deployments", "credentials", "aliases", "chains"])
def test_lists_take_the_same_queries_for_many_rows(api: Any, path: str) -> None:
    def rows(numbers: range) -> None:
        for number in numbers:
            behind = build.credential(f"c{number}")
            build.deployment(model_name=f"m{number}", behind=behind)
            ModelAlias.objects.create(
                environment=build.prod(), name=f"a{number}", model=build.model(f"m{number}")
            )

    def count() -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert api.get(f"/api/v1/{path}/").status_code == 200
        return len(captured)

    rows(range(2))
    few = count()
    rows(range(2, 9))
    assert count() <= few


def test_filters(api: Any) -> None:
    build.deployment(model_name="m1")
    assert len(api.get("/api/v1/deployments/?environment=prod").json()["results"]) == 1
    assert api.get("/api/v1/deployments/?environment=dev").json()["results"] == []
    assert api.get("/api/v1/deployments/?model=other").json()["results"] == []
    assert len(api.get("/api/v1/credentials/?provider=openai&enabled=true").json()["results"]) == 1
