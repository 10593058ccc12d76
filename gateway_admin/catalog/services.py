"""Writes on environments, providers, models and aliases; the front door to all others.

Other apps call what is listed in `__all__`. Every write locks its environment's draft,
checks, saves, audits and announces the change, in one transaction.
"""

from typing import Any

from django.db import transaction
from django.db.models import ProtectedError
from django.utils.text import slugify

from gateway_admin.accounts.models import User
from gateway_admin.accounts.services import audit
from gateway_admin.catalog.chains import chain_create, chain_delete, chain_update
from gateway_admin.catalog.connection_test import connection_test
from gateway_admin.catalog.credentials import (
    credential_change,
    credential_create,
    credential_delete,
    credential_replace_secret,
    credential_update,
    credentials_seen,
    secret_open,
)
from gateway_admin.catalog.deployments import (
    deployment_clone,
    deployment_create,
    deployment_delete,
    deployment_update,
)
from gateway_admin.catalog.drafts import (
    assign,
    check_and_save,
    draft_changed,
    draft_lock,
    draft_lock_all,
)
from gateway_admin.catalog.kinds import KINDS
from gateway_admin.catalog.models import ChainTarget, Environment, Model, ModelAlias, Provider
from gateway_admin.catalog.prices import price_book_load, price_for
from gateway_admin.catalog.reliance import list_of
from gateway_admin.lib.errors import Conflict, InvalidInput

__all__ = [
    "alias_create",
    "alias_delete",
    "alias_update",
    "chain_create",
    "chain_delete",
    "chain_update",
    "connection_test",
    "credential_change",
    "credential_create",
    "credential_delete",
    "credential_replace_secret",
    "credential_update",
    "credentials_seen",
    "deployment_clone",
    "deployment_create",
    "deployment_delete",
    "deployment_update",
    "draft_changed",
    "environment_create",
    "environment_delete",
    "environment_update",
    "model_create",
    "model_delete",
    "model_update",
    "price_book_load",
    "price_for",
    "provider_create",
    "provider_delete",
    "provider_update",
    "secret_open",
]

ENVIRONMENT_FIELDS = frozenset(
    {
        "name",
        "colour",
        "position",
        "auto_publish",
        "default_model",
        "fallback_enabled",
        "timeout_s",
        "stream_timeout_s",
        "num_retries",
        "total_timeout_s",
        "retry_backoff_s",
        "default_output_tokens",
        "on_counter_outage",
        "breaker_enabled",
        "breaker_consecutive_failures",
        "breaker_failure_percent",
        "breaker_minimum_calls",
        "breaker_window_s",
        "breaker_open_s",
        "breaker_half_open_permits",
        "breaker_close_after_successes",
        "breaker_slow_call_s",
        "breaker_all_open",
        "cache_enabled",
        "cache_ttl_s",
        "cache_max_entry_bytes",
    }
)
MODEL_FIELDS = frozenset(
    {"name", "mode", "description", "context_window", "max_output_tokens", "cache", "lane"}
)


@transaction.atomic
def environment_create(*, actor: User | None, slug: str, name: str, **fields: Any) -> Environment:
    """Add an environment; `fields` are further ones of ENVIRONMENT_FIELDS."""
    environment = Environment(slug=slug.strip())
    cleaned = _only(ENVIRONMENT_FIELDS, {"name": name, **fields})
    cleaned.setdefault("position", Environment.objects.count() + 1)
    changes = assign(environment, cleaned)
    _check_default_model(environment)
    _save_unique(environment, Environment.objects.filter(slug=environment.slug), "slug")
    audit(
        actor=actor,
        action="environment.create",
        target=environment,
        environment=environment.slug,
        changes=changes,
    )
    draft_changed(environment=environment, actor=actor)
    return environment


@transaction.atomic
def environment_update(
    *, actor: User | None, environment: Environment, **fields: Any
) -> Environment:
    environment = draft_lock(environment)
    changes = assign(environment, _only(ENVIRONMENT_FIELDS, fields))
    if not changes:
        return environment
    if "default_model" in changes:
        _check_default_model(environment)
    check_and_save(environment, update_fields=changes)
    audit(
        actor=actor,
        action="environment.update",
        target=environment,
        environment=environment.slug,
        changes=changes,
    )
    draft_changed(environment=environment, actor=actor)
    return environment


@transaction.atomic
def environment_delete(*, actor: User | None, environment: Environment) -> None:
    """Delete an environment that nothing was ever set up in."""
    environment = draft_lock(environment)
    if Environment.objects.count() == 1:
        raise Conflict("The last environment cannot be deleted.")
    audit(
        actor=actor,
        action="environment.delete",
        target=environment,
        environment=environment.slug,
    )
    try:
        environment.delete()
    except ProtectedError as error:
        kinds = {str(row._meta.verbose_name_plural) for row in error.protected_objects}
        raise Conflict(f"“{environment}” still has {', '.join(sorted(kinds))}.") from error


@transaction.atomic
def provider_create(
    *,
    actor: User | None,
    kind: str,
    name: str,
    slug: str = "",
    litellm_provider: str = "",
) -> Provider:
    """Add a provider. Only kind `other` names its LiteLLM provider; the rest have theirs."""
    if kind not in KINDS:
        raise InvalidInput(f"Kinds are {', '.join(KINDS)}.", field="kind")
    own = KINDS[kind].litellm_provider or litellm_provider.strip().lower()
    if not own:
        raise InvalidInput("Enter LiteLLM's name of the provider.", field="litellm_provider")
    _check_litellm_provider(own)
    provider = Provider(
        kind=kind,
        name=name.strip(),
        slug=slug.strip() or _free_slug(name),
        litellm_provider=own,
    )
    _save_unique(provider, Provider.objects.filter(slug=provider.slug), "slug")
    audit(
        actor=actor,
        action="provider.create",
        target=provider,
        changes={"kind": [None, kind], "litellm_provider": [None, own]},
    )
    return provider


@transaction.atomic
def provider_update(*, actor: User | None, provider: Provider, name: str) -> Provider:
    """Rename. Kind and LiteLLM provider stay: credentials and deployments rely on them."""
    environments = draft_lock_all()
    changes = assign(provider, {"name": name.strip()})
    if changes:
        check_and_save(provider, update_fields=changes)
        audit(actor=actor, action="provider.update", target=provider, changes=changes)
        for environment in environments:
            if provider.deployments.filter(environment=environment).exists():
                draft_changed(environment=environment, actor=actor)
    return provider


@transaction.atomic
def provider_delete(*, actor: User | None, provider: Provider) -> None:
    used = list(provider.credentials.order_by("name").values_list("name", flat=True))
    if used:
        raise Conflict(f"“{provider}” has the credentials {list_of(used)}. Delete them first.")
    audit(actor=actor, action="provider.delete", target=provider)
    provider.delete()


@transaction.atomic
def model_create(*, actor: User | None, name: str, **fields: Any) -> Model:
    """Add a public name; `fields` are further ones of MODEL_FIELDS."""
    draft_lock_all()
    model = Model()
    changes = assign(model, _only(MODEL_FIELDS, {"name": name, **fields}))
    _refuse_alias_name(model.name)
    check_and_save(model)
    audit(actor=actor, action="model.create", target=model, changes=changes)
    return model


@transaction.atomic
def model_update(*, actor: User | None, model: Model, **fields: Any) -> Model:
    """Change what is given. A renamed model is asked for by its new name from then on."""
    environments = draft_lock_all()
    changes = assign(model, _only(MODEL_FIELDS, fields))
    if not changes:
        return model
    if "name" in changes:
        _refuse_alias_name(model.name)
        before = changes["name"][0]
        _refuse_default(before, "Renaming")
    if "mode" in changes and model.chains.exists():
        raise Conflict(f"“{model}” has a fallback chain; delete that before changing its mode.")
    check_and_save(model, update_fields=changes)
    audit(actor=actor, action="model.update", target=model, changes=changes)
    for environment in environments:
        if model.deployments.filter(environment=environment).exists():
            draft_changed(environment=environment, actor=actor)
    return model


@transaction.atomic
def model_delete(*, actor: User | None, model: Model) -> None:
    """Delete a model that no deployment, alias or chain names."""
    draft_lock_all()
    deployments = model.deployments.select_related("environment").order_by("name")
    aliases = model.aliases.select_related("environment").order_by("name")
    used = [f"{d.name} ({d.environment})" for d in deployments]
    used += [f"{a.name} ({a.environment})" for a in aliases]
    if used:
        raise Conflict(f"“{model}” is used by {list_of(used)}. Delete or repoint these first.")
    if model.chains.exists() or ChainTarget.objects.filter(model=model).exists():
        raise Conflict(f"“{model}” is part of a fallback chain. Remove it there first.")
    _refuse_default(model.name, "Deleting")
    audit(actor=actor, action="model.delete", target=model)
    model.delete()


@transaction.atomic
def alias_create(
    *, actor: User | None, environment: Environment, name: str, model: Model
) -> ModelAlias:
    """Let a name point to a model of this environment."""
    environment = draft_lock(environment)
    alias = ModelAlias(environment=environment, name=name.strip(), model=model)
    if Model.objects.filter(name=alias.name).exists():
        raise InvalidInput(f"“{alias.name}” is the name of a model.", field="name")
    check_and_save(alias)
    audit(
        actor=actor,
        action="alias.create",
        target=alias,
        environment=environment.slug,
        changes={"model": [None, model.name]},
    )
    draft_changed(environment=environment, actor=actor)
    return alias


@transaction.atomic
def alias_update(*, actor: User | None, alias: ModelAlias, model: Model) -> ModelAlias:
    """Switch what stands behind the name."""
    environment = draft_lock(alias.environment)
    changes = assign(alias, {"model": model})
    if changes:
        check_and_save(alias, update_fields=changes)
        audit(
            actor=actor,
            action="alias.update",
            target=alias,
            environment=environment.slug,
            changes=changes,
        )
        draft_changed(environment=environment, actor=actor)
    return alias


@transaction.atomic
def alias_delete(*, actor: User | None, alias: ModelAlias) -> None:
    environment = draft_lock(alias.environment)
    if environment.default_model == alias.name:
        raise Conflict(
            f"“{alias}” is the default model of {environment}. Choose another default first."
        )
    audit(
        actor=actor,
        action="alias.delete",
        target=alias,
        environment=environment.slug,
        changes={"model": [alias.model.name, None]},
    )
    alias.delete()
    draft_changed(environment=environment, actor=actor)


def _only(allowed: frozenset[str], fields: dict[str, Any]) -> dict[str, Any]:
    unknown = set(fields) - allowed
    if unknown:
        raise TypeError(f"unknown field {sorted(unknown)[0]!r}")
    return {
        name: value.strip() if isinstance(value, str) else value for name, value in fields.items()
    }


def _check_default_model(environment: Environment) -> None:
    name = environment.default_model
    if not name or Model.objects.filter(name=name).exists():
        return
    if not ModelAlias.objects.filter(environment=environment, name=name).exists():
        raise InvalidInput(
            f"“{name}” is neither a model nor an alias of this environment.",
            field="default_model",
        )


def _refuse_default(name: str, doing: str) -> None:
    environment = Environment.objects.filter(default_model=name).first()
    if environment is not None:
        raise Conflict(
            f"{doing} “{name}” would leave {environment} without its default model. "
            "Choose another default there first."
        )


def _refuse_alias_name(name: str) -> None:
    alias = ModelAlias.objects.filter(name=name).select_related("environment").first()
    if alias is not None:
        raise InvalidInput(f"“{name}” is an alias in {alias.environment}.", field="name")


def _save_unique(row: Environment | Provider, taken: Any, field: str) -> None:
    if taken.exists():
        raise InvalidInput(f"“{getattr(row, field)}” is taken.", field=field)
    check_and_save(row)


def _check_litellm_provider(name: str) -> None:
    if not all(sign.isalnum() or sign in "_-" for sign in name):
        raise InvalidInput(
            "LiteLLM's names consist of letters, digits, “_” and “-”.", field="litellm_provider"
        )


def _free_slug(name: str) -> str:
    base = slugify(name)[:34] or "provider"
    if not base[0].isalpha():
        base = f"p-{base}"
    taken = set(Provider.objects.filter(slug__startswith=base).values_list("slug", flat=True))
    number = 2
    slug = base
    while slug in taken:
        slug = f"{base}-{number}"
        number += 1
    return slug
