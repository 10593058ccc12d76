"""Rows of supply, made through the services as an administrator would."""

from typing import Any

from gateway_admin.catalog import services
from gateway_admin.catalog.models import Credential, Deployment, Environment, Model, Provider

SECRET = "sk-canary-5f2b8c91d4e7a063"


def prod() -> Environment:
    return Environment.objects.get(slug="prod")


def provider(kind: str = "openai", name: str = "OpenAI", **fields: Any) -> Provider:
    existing = Provider.objects.filter(name=name).first()
    return existing or services.provider_create(actor=None, kind=kind, name=name, **fields)


def credential(
    name: str = "openai-main",
    *,
    secret: dict[str, Any] | None = None,
    of: Provider | None = None,
    environment: Environment | None = None,
    params: dict[str, Any] | None = None,
) -> Credential:
    return services.credential_create(
        actor=None,
        environment=environment or prod(),
        provider=of or provider(),
        name=name,
        params=params,
        secret={"api_key": SECRET} if secret is None else secret,
    )


def model(name: str = "gpt-4o", **fields: Any) -> Model:
    existing = Model.objects.filter(name=name).first()
    return existing or services.model_create(actor=None, name=name, **fields)


def deployment(
    name: str = "",
    *,
    model_name: str = "gpt-4o",
    behind: Credential | None = None,
    **fields: Any,
) -> Deployment:
    behind = behind or Credential.objects.first() or credential()
    fields.setdefault("price_source", "own")
    fields.setdefault("price_units", {"input_token": "0.0000025", "output_token": "0.00001"})
    return services.deployment_create(
        actor=None,
        environment=behind.environment,
        name=name or f"{model_name}-{behind.name}",
        model=model(model_name),
        credential=behind,
        upstream_model=fields.pop("upstream_model", model_name),
        **fields,
    )
