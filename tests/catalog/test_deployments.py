"""Deployments and their prices."""

import pytest

from gateway_admin.accounts.models import AuditEvent
from gateway_admin.catalog import prices, services
from gateway_admin.catalog.models import Deployment, Environment, Price
from gateway_admin.catalog.onboarding import deploy
from gateway_admin.catalog.queries import current_price
from gateway_admin.lib.errors import Conflict, InvalidInput
from tests.catalog import build

pytestmark = pytest.mark.django_db


def test_it_takes_the_price_book_price() -> None:
    prices.price_book_load()
    deployment = build.deployment(price_source="book", price_units=None)
    price = current_price(deployment)
    assert price is not None
    assert (price.source, price.units["input_token"]) == ("book", "0.0000025")


def test_it_is_unpriced_when_the_book_does_not_know_it() -> None:
    prices.price_book_load()
    deployment = build.deployment(
        upstream_model="acme-secret-model", price_source="book", price_units=None
    )
    assert current_price(deployment) is None
    assert not Price.objects.exists()


def test_the_same_price_again_is_no_new_version() -> None:
    deployment = build.deployment()
    services.deployment_update(
        actor=None,
        deployment=deployment,
        price_source="own",
        price_units={"input_token": "0.00000250", "output_token": "0.00001"},
    )
    assert Price.objects.count() == 1


def test_another_price_is_a_new_version() -> None:
    deployment = build.deployment()
    services.deployment_update(
        actor=None, deployment=deployment, price_source="own", price_units={"input_token": "1E-7"}
    )
    price = current_price(deployment)
    assert price is not None
    assert price.units == {"input_token": "0.0000001"}
    assert Price.objects.count() == 2


def test_an_own_price_without_figures_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        build.deployment(price_source="own", price_units={})
    assert caught.value.field == "price"


def test_a_credential_of_another_environment_is_refused() -> None:
    dev = Environment.objects.get(slug="dev")
    other = build.credential("dev-one", environment=dev)
    deployment = build.deployment(behind=build.credential())
    with pytest.raises(InvalidInput, match="belongs to Development") as caught:
        services.deployment_update(actor=None, deployment=deployment, credential=other)
    assert caught.value.field == "credential"


def test_names_are_unique_in_an_environment() -> None:
    build.deployment("same")
    with pytest.raises(InvalidInput, match="already has a deployment") as caught:
        build.deployment("same", model_name="other")
    assert caught.value.field == "name"


def test_nothing_changed_is_nothing_recorded() -> None:
    deployment = build.deployment()
    before = AuditEvent.objects.count()
    services.deployment_update(actor=None, deployment=deployment, weight=1)
    assert AuditEvent.objects.count() == before


def test_a_credential_in_use_is_not_deleted() -> None:
    deployment = build.deployment("the-one")
    with pytest.raises(Conflict, match="“the-one”"):
        services.credential_delete(actor=None, credential=deployment.credential)


def test_deploying_makes_the_model_with_what_the_book_knows() -> None:
    prices.price_book_load()
    deployment = deploy(
        actor=None,
        environment=build.prod(),
        model_name="house-embeddings",
        credential=build.credential(),
        upstream_model="text-embedding-3-small",
    )
    assert deployment.name == "house-embeddings · openai-main"
    assert (deployment.model.mode, deployment.model.context_window) == ("embedding", 8191)


def test_a_clone_keeps_settings_and_own_price() -> None:
    deployment = build.deployment(rpm=100, region="eu", params={"seed": 7})
    dev = Environment.objects.get(slug="dev")
    dev.auto_publish = False
    dev.save()
    copy = services.deployment_clone(
        actor=None,
        deployment=deployment,
        credential=build.credential("dev", environment=dev),
        name="copy",
    )
    price = current_price(copy)
    assert (copy.environment, copy.rpm, copy.params) == (dev, 100, {"seed": 7})
    assert price is not None
    assert price.source == "own"


def test_a_lane_is_set_copied_and_audited() -> None:
    deployment = build.deployment()
    assert deployment.lane == "auto"
    services.deployment_update(actor=None, deployment=deployment, lane="litellm")
    audited = AuditEvent.objects.get(action="deployment.update")
    assert audited.changes == {"lane": ["auto", "litellm"]}
    deployment.refresh_from_db()
    other = build.credential("other")
    copy = services.deployment_clone(
        actor=None, deployment=deployment, credential=other, name="copy"
    )
    assert copy.lane == "litellm"


def test_an_unknown_lane_is_refused() -> None:
    with pytest.raises(InvalidInput, match="not a valid choice") as caught:
        build.deployment(lane="direct")
    assert caught.value.field == "lane"


def test_deleting_takes_its_prices_along() -> None:
    deployment = build.deployment()
    services.deployment_delete(actor=None, deployment=deployment)
    assert not Deployment.objects.exists()
    assert not Price.objects.exists()
