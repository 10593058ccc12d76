"""Pages of supply: who sees them, what they show, what comes back when something is wrong."""

import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from gateway_admin.accounts.models import AuditEvent
from gateway_admin.catalog.models import (
    Credential,
    CredentialSecret,
    Deployment,
    Environment,
    FallbackChain,
    Model,
    ModelAlias,
    Provider,
)
from gateway_admin.catalog.queries import current_price
from tests.catalog import build, seed
from tests.people import People

pytestmark = pytest.mark.django_db

LISTS = ("environment", "provider", "credential", "model", "alias", "deployment", "chain")


@pytest.fixture
def admin(client_of: Any, people: People) -> Client:
    client: Client = client_of(people.admin)
    return client


def text(response: Any) -> str:
    content: str = response.content.decode()
    return content


@pytest.mark.parametrize("name", LISTS)
def test_who_sees_the_lists(client_of: Any, people: People, name: str) -> None:
    url = reverse(f"catalog:{name}-list")
    for who, person in people.everybody().items():
        expected = 200 if who == "admin" or name == "model" else 403
        assert client_of(person).get(url).status_code == expected, who
    assert Client().get(url).status_code == 302


def test_who_writes(client_of: Any, people: People) -> None:
    deployment = build.deployment()
    urls = [
        reverse("catalog:provider-create", args=["openai"]),
        reverse("catalog:credential-create", args=["openai"]),
        reverse("catalog:credential-edit", args=[deployment.credential_id]),
        reverse("catalog:credential-replace", args=[deployment.credential_id]),
        reverse("catalog:credential-enable", args=[deployment.credential_id]),
        reverse("catalog:credential-delete", args=[deployment.credential_id]),
        reverse("catalog:model-edit", args=[deployment.model_id]),
        reverse("catalog:model-delete", args=[deployment.model_id]),
        reverse("catalog:deployment-edit", args=[deployment.pk]),
        reverse("catalog:deployment-test", args=[deployment.pk]),
        reverse("catalog:deployment-delete", args=[deployment.pk]),
        reverse("catalog:chain-create"),
        reverse("catalog:alias-create"),
        reverse("catalog:environment-edit", args=["prod"]),
        reverse("catalog:environment-delete", args=["prod"]),
    ]
    before = AuditEvent.objects.count()
    for person in (people.owner, people.teammate, people.outsider, people.finance):
        for url in urls:
            assert client_of(person).post(url, {"confirm": "x"}).status_code == 403, url
    assert AuditEvent.objects.count() == before


def test_a_developer_reads_models_without_credentials(client_of: Any, people: People) -> None:
    seed.supply(environment=build.prod(), actor=people.admin)
    model = Model.objects.get(name="gpt-4o")
    for person in (people.owner, people.finance):
        for url in ("/models/", f"/models/{model.pk}/"):
            page = text(client_of(person).get(url))
            assert "$2.50" in page
            assert "openai-prod" not in page
            assert "azure-prod" not in page
            assert "acme-eu" not in page


@pytest.mark.parametrize("kind", [kind for kind in Provider.Kind.values if kind != "other"])
def test_every_kind_can_be_added(admin: Client, kind: str) -> None:
    url = reverse("catalog:provider-create", args=[kind])
    assert admin.get(url).status_code == 200
    response = admin.post(url, {"name": f"My {kind}"})
    provider = Provider.objects.get()
    create = reverse("catalog:credential-create", args=[provider.slug])
    assert response.headers["Location"] == create
    page = text(admin.get(create))
    for field in ("api_key",) if kind != "bedrock" else ("aws_access_key_id", "aws_region_name"):
        assert f'name="{field}"' in page


def test_another_provider_names_itself(admin: Client) -> None:
    url = reverse("catalog:provider-create", args=["other"])
    assert admin.post(url, {"name": "Mistral"}).status_code == 422
    admin.post(url, {"name": "Mistral", "litellm_provider": "mistral"})
    create = reverse("catalog:credential-create", args=["mistral"])
    wrong = {"name": "m", "api_key": build.SECRET, "params": '{"safe": 1, "token": "abc"}'}
    response = admin.post(create, wrong)
    assert response.status_code == 422
    assert "looks like a secret" in text(response)
    admin.post(create, {**wrong, "params": '{"safe": 1}'})
    assert Credential.objects.get().params == {"safe": 1}


def test_a_wrong_form_comes_back_with_all_but_the_secret(admin: Client) -> None:
    build.provider("azure", "Azure")
    url = reverse("catalog:credential-create", args=["azure"])
    response = admin.post(
        url,
        {
            "name": "eu-main",
            "api_key": build.SECRET,
            "api_base": "not an address",
            "api_version": "2024-06-01",
        },
    )
    page = text(response)
    assert response.status_code == 422
    assert "begins with http:// or https://" in page
    for kept in ("eu-main", "not an address", "2024-06-01"):
        assert kept in page
    assert build.SECRET not in page
    assert not Credential.objects.exists()


def test_an_edit_in_the_browser_keeps_the_ciphertext(admin: Client) -> None:
    credential = build.credential()
    before = bytes(CredentialSecret.objects.get().ciphertext)
    url = reverse("catalog:credential-edit", args=[credential.pk])
    page = text(admin.get(url))
    assert "api_key" not in page
    admin.post(url, {"name": "renamed", "api_base": "https://x.example.com", "organization": ""})
    credential.refresh_from_db()
    assert credential.name == "renamed"
    assert bytes(CredentialSecret.objects.get().ciphertext) == before


def test_no_page_shows_a_secret(admin: Client, people: People) -> None:
    seed.supply(environment=build.prod(), actor=people.admin)
    urls = [reverse(f"catalog:{name}-list") for name in LISTS]
    urls += [
        reverse(f"catalog:credential-{page}", args=[credential.pk])
        for credential in Credential.objects.all()
        for page in ("detail", "edit", "replace")
    ]
    urls += [
        reverse(f"catalog:deployment-{page}", args=[deployment.pk])
        for deployment in Deployment.objects.all()
        for page in ("detail", "edit", "clone")
    ]
    for url in urls:
        response = admin.get(url)
        assert response.status_code == 200, url
        assert "canary-" not in text(response), url


def test_deleting_asks_for_the_name(admin: Client) -> None:
    credential = build.credential("to-go")
    url = reverse("catalog:credential-delete", args=[credential.pk])
    assert "type “to-go” to confirm" in text(admin.post(url, {"confirm": "nope"}, follow=True))
    admin.post(url, {"confirm": "to-go"})
    assert not Credential.objects.exists()


def test_why_something_cannot_be_deleted_is_said(admin: Client) -> None:
    deployment = build.deployment("needs-it")
    url = reverse("catalog:credential-delete", args=[deployment.credential_id])
    page = text(admin.post(url, {"confirm": deployment.credential.name}, follow=True))
    assert "“needs-it”" in page


def deployment_form(**fields: Any) -> dict[str, Any]:
    return {
        "credential": str(build.credential().pk) if not fields.get("credential") else "",
        "upstream_model": "gpt-4o",
        "model_name": "gpt-4o",
        "weight": "1",
        "lane": "auto",
        "price_source": "own",
        "price_input_token": "0.075",
        "price_output_token": "0.3",
        "params": "",
        **fields,
    }


def test_a_price_typed_per_million_is_stored_per_token(admin: Client) -> None:
    response = admin.post(reverse("catalog:deployment-create"), deployment_form())
    assert response.status_code == 302, text(response)
    deployment = Deployment.objects.get()
    price = current_price(deployment)
    assert price is not None
    assert price.units == {"input_token": "0.000000075", "output_token": "0.0000003"}
    page = text(admin.get(response.headers["Location"]))
    assert "$0.075" in page
    assert "$0.30" in page


def test_the_form_finds_the_price(admin: Client) -> None:
    from gateway_admin.catalog.prices import price_book_load

    price_book_load()
    form = deployment_form(price_source="book")
    url = reverse("catalog:deployment-form-part")
    part = text(admin.post(f"{url}?part=price", form))
    assert "$2.50 / 1M" in part
    assert 'id="id_price_input_token"' in part
    assert "<html" not in part
    unknown = text(admin.post(f"{url}?part=price", {**form, "upstream_model": "acme"}))
    assert "unpriced" in unknown


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("credential", "not-a-uuid", "not a valid UUID"),
        ("upstream_model", "", "required"),
        ("model_name", "two words", "Letters, digits"),
        ("weight", "0", "greater than or equal to 1"),
        ("rpm", "many", "whole number"),
        ("params", "{", "not JSON"),
        ("params", '{"api_key": "x"}', "looks like a secret"),
        ("price_input_token", "cheap", "Enter a number"),
        ("price_source", "free", "Select a valid choice"),
    ],
)
def test_what_is_wrong_stands_at_the_field(
    admin: Client, field: str, value: str, words: str
) -> None:
    form = {**deployment_form(), field: value}
    response = admin.post(reverse("catalog:deployment-create"), form)
    assert response.status_code == 422
    assert words in " ".join(response.context["form"].errors[field])
    assert not Deployment.objects.exists()
    assert not Model.objects.exists()


def test_unpriced_is_a_word(admin: Client) -> None:
    admin.post(reverse("catalog:deployment-create"), deployment_form(price_source="none"))
    for url in ("/models/", "/deployments/", f"/deployments/{Deployment.objects.get().pk}/"):
        page = text(admin.get(url))
        assert "npriced" in page
        assert "$0.00" not in page


def test_a_test_is_begun_and_polled(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway_admin.catalog import tasks

    begun: list[tuple[Any, ...]] = []
    monkeypatch.setattr(tasks.run_connection_test, "delay", lambda *args: begun.append(args))
    deployment = build.deployment()
    url = reverse("catalog:deployment-test", args=[deployment.pk])
    fragment = text(admin.post(url, headers={"HX-Request": "true"}))
    assert "Testing…" in fragment
    assert reverse("catalog:deployment-test-state", args=[deployment.pk]) in fragment
    again = text(admin.post(url, headers={"HX-Request": "true"}))
    assert "running already" in again


def test_steps_of_a_chain_are_edited_without_saving(admin: Client) -> None:
    for name in ("a", "b", "c"):
        build.deployment(model_name=name)
    url = reverse("catalog:chain-create")
    form = {"model": "a", "kind": "general", "target": ["b", "c"]}

    def steps(**fields: Any) -> list[str]:
        response = admin.post(url, {**form, **fields}, headers={"HX-Request": "true"})
        return re.findall(r'name="target" value="(\w+)"', text(response))

    assert steps(op="down:0") == ["c", "b"]
    assert steps(op="up:1") == ["c", "b"]
    assert steps(op="up:0") == ["b", "c"]
    assert steps(op="remove:0") == ["c"]
    assert steps(op="remove:7") == ["b", "c"]
    assert steps(op="add", add="a") == ["b", "c", "a"]
    assert not FallbackChain.objects.exists()
    admin.post(url, form)
    assert [step.model.name for step in FallbackChain.objects.get().steps.all()] == ["b", "c"]


def test_a_refused_chain_keeps_its_steps(admin: Client) -> None:
    build.deployment(model_name="a")
    build.model("dead")
    response = admin.post(
        reverse("catalog:chain-create"), {"model": "a", "kind": "general", "target": ["dead"]}
    )
    assert response.status_code == 422
    assert "“dead” has no deployment in this environment." in text(response)
    assert 'name="target" value="dead"' in text(response)


def test_an_alias_is_switched(admin: Client) -> None:
    build.deployment(model_name="a")
    build.deployment(model_name="b")
    admin.post(reverse("catalog:alias-create"), {"name": "default", "model": "a"})
    alias = ModelAlias.objects.get()
    admin.post(reverse("catalog:alias-edit", args=[alias.pk]), {"model": "b"})
    alias.refresh_from_db()
    assert alias.model.name == "b"
    assert "is the name of a model" in text(
        admin.post(reverse("catalog:alias-create"), {"name": "a", "model": "b"})
    )


def test_searching(admin: Client) -> None:
    build.deployment(model_name="alpha")
    build.deployment(model_name="beta")
    page = text(admin.get("/models/?q=alp", headers={"HX-Request": "true"}))
    assert "alpha" in page
    assert "beta" not in page
    assert "<html" not in page
    assert "No model matches" in text(admin.get("/models/?q=gamma"))
    assert "beta" in text(admin.get("/deployments/?state=untested&provider=openai"))
    assert "No deployment matches" in text(admin.get("/deployments/?state=failed"))
    assert "No credential matches" in text(admin.get("/credentials/?state=refused"))


@pytest.mark.parametrize("name", LISTS)
def test_empty_lists_say_how_to_start(admin: Client, name: str) -> None:
    page = text(admin.get(reverse(f"catalog:{name}-list")))
    assert name == "environment" or "gw-empty" in page


@pytest.mark.parametrize("name", [name for name in LISTS if name != "environment"])
def test_lists_take_the_same_queries_for_many_rows(admin: Client, name: str) -> None:
    def rows(numbers: range) -> None:
        for number in numbers:
            of = build.provider("openai", f"Provider {number}")
            behind = build.credential(f"c{number}", of=of)
            deployment = build.deployment(model_name=f"m{number}", behind=behind)
            ModelAlias.objects.create(
                environment=build.prod(), name=f"a{number}", model=deployment.model
            )
            chain = FallbackChain.objects.create(environment=build.prod(), model=deployment.model)
            chain.steps.create(position=1, model=build.model("m0"))

    def count() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert admin.get(reverse(f"catalog:{name}-list")).status_code == 200
        return len(captured)

    rows(range(2))
    few = count()
    rows(range(2, 9))
    assert count() <= few


def test_a_row_of_another_environment_brings_its_environment_along(admin: Client) -> None:
    dev = Environment.objects.get(slug="dev")
    credential = build.credential("dev-key", environment=dev)
    response = admin.get(reverse("catalog:credential-detail", args=[credential.pk]))
    assert "published to Development by themselves" in text(response)
    create = reverse("catalog:deployment-create")
    assert "dev-key" in text(admin.get(f"{create}?credential={credential.pk}"))
