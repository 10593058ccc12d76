"""A deployment together with the model it serves, in one step."""

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from gateway_admin.accounts.models import User
from gateway_admin.catalog import services
from gateway_admin.catalog.deployments import PriceSource
from gateway_admin.catalog.models import Credential, Deployment, Environment, Model
from gateway_admin.catalog.prices import price_for
from gateway_admin.lib.errors import InvalidInput


@transaction.atomic
def deploy(
    *,
    actor: User | None,
    environment: Environment,
    model_name: str,
    credential: Credential,
    name: str = "",
    deployment: Deployment | None = None,
    price_source: PriceSource = "book",
    price_units: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Deployment:
    """Create the deployment (or change the given one); a model of a new name is created too.

    An empty `name` is composed of the model and the credential.
    """
    model = Model.objects.filter(name=model_name).first()
    if model is None:
        model = _model_from_book(actor=actor, name=model_name, credential=credential, fields=fields)
    values = {
        **fields,
        "name": name or _free_name(environment, f"{model_name} · {credential}", deployment),
        "model": model,
        "credential": credential,
        "price_source": price_source,
        "price_units": price_units,
    }
    if deployment is not None:
        return services.deployment_update(actor=actor, deployment=deployment, **values)
    return services.deployment_create(actor=actor, environment=environment, **values)


def _model_from_book(
    *, actor: User | None, name: str, credential: Credential, fields: Mapping[str, Any]
) -> Model:
    """A new model with what the price book knows of it."""
    entry = price_for(
        kind=credential.provider.kind,
        litellm_provider=credential.provider.litellm_provider,
        upstream_model=fields["upstream_model"],
        region=fields.get("region") or "",
    )
    known = entry.mode if entry and entry.mode in Model.Mode.values else Model.Mode.CHAT
    try:
        return services.model_create(
            actor=actor,
            name=name,
            mode=known,
            context_window=entry.context_window if entry else None,
            max_output_tokens=entry.max_output_tokens if entry else None,
        )
    except InvalidInput as error:
        raise InvalidInput(error.message, field="model_name") from error


def _free_name(environment: Environment, base: str, own: Deployment | None) -> str:
    rows = Deployment.objects.filter(environment=environment, name__startswith=base)
    others = rows.exclude(pk=own.pk) if own else rows
    taken = set(others.values_list("name", flat=True))
    number, name = 2, base
    while name in taken:
        name = f"{base} {number}"
        number += 1
    return name
