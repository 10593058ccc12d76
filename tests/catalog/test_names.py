"""Environments, providers, models and aliases."""

from typing import Any

import pytest

from gateway_admin.accounts.models import AuditEvent
from gateway_admin.catalog import services
from gateway_admin.catalog.models import Environment
from gateway_admin.lib.errors import Conflict, InvalidInput
from tests.catalog import build

pytestmark = pytest.mark.django_db


def alias(name: str = "default", model: str = "gpt-4o") -> Any:
    return services.alias_create(
        actor=None, environment=build.prod(), name=name, model=build.model(model)
    )


def test_an_alias_switches() -> None:
    switched = services.alias_update(actor=None, alias=alias(), model=build.model("new"))
    assert switched.model.name == "new"
    event = AuditEvent.objects.get(action="alias.update")
    assert event.changes == {"model": ["gpt-4o", "new"]}


def test_an_alias_is_not_a_models_name_and_the_other_way_round() -> None:
    build.model("taken")
    with pytest.raises(InvalidInput, match="name of a model"):
        alias("taken")
    alias("default")
    with pytest.raises(InvalidInput, match="is an alias in Production"):
        services.model_create(actor=None, name="default")
    with pytest.raises(InvalidInput, match="is an alias in Production"):
        services.model_update(actor=None, model=build.model("taken"), name="default")


def test_the_default_model_exists_and_stays() -> None:
    with pytest.raises(InvalidInput) as caught:
        services.environment_update(actor=None, environment=build.prod(), default_model="nope")
    assert caught.value.field == "default_model"
    created = alias()
    services.environment_update(actor=None, environment=build.prod(), default_model="default")
    with pytest.raises(Conflict, match="default model of Production"):
        services.alias_delete(actor=None, alias=created)
    services.environment_update(actor=None, environment=build.prod(), default_model="gpt-4o")
    with pytest.raises(Conflict, match="without its default model"):
        services.model_update(actor=None, model=build.model(), name="other")


def test_a_model_in_use_is_not_deleted() -> None:
    alias()
    build.deployment("d1")
    with pytest.raises(Conflict, match=r"“d1 \(Production\)”, “default \(Production\)”"):
        services.model_delete(actor=None, model=build.model())
    services.model_delete(actor=None, model=build.model("lonely"))


def test_a_provider_in_use_is_not_deleted() -> None:
    credential = build.credential()
    with pytest.raises(Conflict, match="“openai-main”"):
        services.provider_delete(actor=None, provider=credential.provider)


def test_providers_get_a_slug_of_their_own() -> None:
    one = services.provider_create(actor=None, kind="openai", name="Open AI")
    two = services.provider_create(actor=None, kind="openai", name="Open AI!")
    digits = services.provider_create(actor=None, kind="openai", name="01.AI")
    assert [row.slug for row in (one, two, digits)] == ["open-ai", "open-ai-2", "p-01ai"]


def test_an_environment_with_content_is_not_deleted() -> None:
    build.credential()
    with pytest.raises(Conflict, match="still has credentials"):
        services.environment_delete(actor=None, environment=build.prod())
    services.environment_delete(actor=None, environment=Environment.objects.get(slug="staging"))


def test_each_write_is_audited_with_its_environment() -> None:
    build.deployment()
    events = set(AuditEvent.objects.values_list("action", "environment"))
    assert events == {
        ("provider.create", ""),
        ("credential.create", "prod"),
        ("model.create", ""),
        ("deployment.create", "prod"),
    }
