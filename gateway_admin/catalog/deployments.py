"""Writes on deployments and their prices."""

from collections.abc import Mapping
from typing import Any, Literal

from django.db import transaction
from django.utils import timezone

from gateway_admin.accounts.models import User
from gateway_admin.accounts.services import audit
from gateway_admin.catalog import kinds, prices
from gateway_admin.catalog.drafts import (
    Changes,
    assign,
    check_and_save,
    draft_changed,
    draft_lock,
)
from gateway_admin.catalog.models import Credential, Deployment, Environment, Model, Price
from gateway_admin.catalog.queries import current_price
from gateway_admin.catalog.reliance import keeping_chains
from gateway_admin.lib.errors import InvalidInput

PriceSource = Literal["book", "own", "none"]

EDITABLE = frozenset(
    {
        "name",
        "model",
        "credential",
        "upstream_model",
        "params",
        "rpm",
        "tpm",
        "weight",
        "timeout_s",
        "stream_timeout_s",
        "region",
        "lane",
        "enabled",
    }
)


@transaction.atomic
def deployment_create(
    *,
    actor: User | None,
    environment: Environment,
    name: str,
    model: Model,
    credential: Credential,
    upstream_model: str,
    price_source: PriceSource = "book",
    price_units: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Deployment:
    """Serve a model from a provider. `fields` are further ones of EDITABLE.

    `price_source` "book" takes the price book's entry, or none when it has none; "own"
    takes `price_units` (US dollars per one unit); "none" leaves it unpriced.
    """
    environment = draft_lock(environment)
    deployment = Deployment(environment=environment, provider=credential.provider)
    fields |= {"name": name, "model": model}
    fields |= {"credential": credential, "upstream_model": upstream_model}
    assign(deployment, _clean(environment, fields))
    check_and_save(deployment)
    price = _price_set(deployment, source=price_source, units=price_units, actor=actor)
    audit(
        actor=actor,
        action="deployment.create",
        target=deployment,
        environment=environment.slug,
        changes={
            "model": [None, model.name],
            "credential": [None, credential.name],
            "upstream_model": [None, deployment.upstream_model],
            **price,
        },
    )
    draft_changed(environment=environment, actor=actor)
    return deployment


@transaction.atomic
def deployment_update(
    *,
    actor: User | None,
    deployment: Deployment,
    price_source: PriceSource | None = None,
    price_units: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Deployment:
    """Change what is given; see `deployment_create` for the price."""
    environment = draft_lock(deployment.environment)
    deployment = Deployment.objects.select_related("model", "provider", "credential").get(
        pk=deployment.pk
    )
    cleaned = _clean(environment, fields)
    if "credential" in cleaned:
        deployment.provider = cleaned["credential"].provider
    changes = assign(deployment, cleaned)
    if changes:
        verb = "Disabling" if changes.keys() == {"enabled"} else "Changing"
        with keeping_chains(environment, because=f"{verb} “{deployment}”"):
            check_and_save(deployment, update_fields=[*changes, "provider", "updated_at"])
    if price_source is not None:
        changes |= _price_set(deployment, source=price_source, units=price_units, actor=actor)
    if not changes:
        return deployment
    audit(
        actor=actor,
        action="deployment.update",
        target=deployment,
        environment=environment.slug,
        changes=changes,
    )
    draft_changed(environment=environment, actor=actor)
    return deployment


@transaction.atomic
def deployment_delete(*, actor: User | None, deployment: Deployment) -> None:
    environment = draft_lock(deployment.environment)
    # A row of our own: a refusal must leave the caller's as it was.
    deployment = Deployment.objects.select_related("model").get(pk=deployment.pk)
    audit(
        actor=actor,
        action="deployment.delete",
        target=deployment,
        environment=environment.slug,
        changes={"model": [deployment.model.name, None]},
    )
    with keeping_chains(environment, because=f"Deleting “{deployment}”"):
        deployment.delete()
    draft_changed(environment=environment, actor=actor)


def deployment_clone(
    *, actor: User | None, deployment: Deployment, credential: Credential, name: str
) -> Deployment:
    """The same deployment behind another credential, usually in another environment."""
    if credential.provider_id != deployment.provider_id:
        raise InvalidInput(
            f"“{credential}” belongs to {credential.provider}, "
            f"the deployment to {deployment.provider}.",
            field="credential",
        )
    price = current_price(deployment)
    return deployment_create(
        actor=actor,
        environment=credential.environment,
        name=name,
        model=deployment.model,
        credential=credential,
        upstream_model=deployment.upstream_model,
        price_source="own" if price and price.source == Price.Source.OWN else "book",
        price_units=price.units if price else None,
        params=deployment.params,
        rpm=deployment.rpm,
        tpm=deployment.tpm,
        weight=deployment.weight,
        timeout_s=deployment.timeout_s,
        stream_timeout_s=deployment.stream_timeout_s,
        region=deployment.region,
        lane=deployment.lane,
    )


def _clean(environment: Environment, fields: Mapping[str, Any]) -> dict[str, Any]:
    unknown = set(fields) - EDITABLE
    if unknown:
        raise TypeError(f"a deployment has no field {sorted(unknown)[0]!r}")
    cleaned: dict[str, Any] = {
        name: value.strip() if isinstance(value, str) else value for name, value in fields.items()
    }
    credential = cleaned.get("credential")
    if credential is not None and credential.environment_id != environment.pk:
        raise InvalidInput(
            f"“{credential}” belongs to {credential.environment}; choose one of {environment}.",
            field="credential",
        )
    if "params" in cleaned:
        cleaned["params"] = kinds.clean_free_params(cleaned["params"] or {})
    return cleaned


def _price_set(
    deployment: Deployment,
    *,
    source: PriceSource,
    units: Mapping[str, Any] | None,
    actor: User | None,
) -> Changes:
    """Write a new price row if the price differs from the one in force."""
    if source == "book":
        wanted = _book_units(deployment)
    elif source == "own":
        wanted = prices.clean_units(units or {})
        if not wanted:
            raise InvalidInput("Enter at least one price, or choose “unpriced”.", field="price")
    else:
        wanted = {}
    stored: Literal["book", "own"] = "book" if source == "book" else "own"
    current = current_price(deployment)
    before = current.units if current else {}
    if wanted == before and (not wanted or (current and current.source == stored)):
        return {}
    Price.objects.create(
        deployment=deployment,
        source=stored,
        units=wanted,
        effective_from=timezone.now(),
        created_by=actor,
    )
    return {"price": [before or "unpriced", wanted or "unpriced"]}


def _book_units(deployment: Deployment) -> dict[str, str]:
    entry = prices.price_for(
        kind=deployment.provider.kind,
        litellm_provider=deployment.provider.litellm_provider,
        upstream_model=deployment.upstream_model,
        region=deployment.region,
    )
    return dict(entry.units) if entry else {}
