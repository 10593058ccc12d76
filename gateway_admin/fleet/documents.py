"""Rows of an environment -> the document that its replicas serve.

The same rows give the same bytes: everything is sorted, amounts are decimal strings, and
nothing of the moment of rendering gets in. What cannot work (an alias without a served
model, a deployment whose credential is switched off) is left out and named in a warning.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal
from uuid import UUID

from django.db.models import Prefetch, QuerySet
from django.utils import timezone

from gateway_admin.catalog import kinds
from gateway_admin.catalog.models import (
    ChainTarget,
    Credential,
    Deployment,
    Environment,
    FallbackChain,
    Lane,
    Model,
    ModelAlias,
    Price,
)
from proxy.contract import (
    SCHEMA_VERSION,
    BreakerDocument,
    CacheDocument,
    ChainDocument,
    ChainKind,
    CredentialDocument,
    DeploymentDocument,
    EnvironmentDocument,
    ModelDocument,
    PriceDocument,
    RevisionDocument,
)

RENDER_QUERIES = 5  # at most: deployments, prices, aliases, chains, their targets


@dataclass(frozen=True)
class Warning:
    """Something of the draft that will not be served as written, and why."""

    thing: Literal["environment", "alias", "chain", "credential", "deployment"]
    id: str
    name: str
    text: str


@dataclass(frozen=True)
class Draft:
    """What a publish would make of the rows as they stand."""

    document: RevisionDocument
    warnings: list[Warning]


def render(environment: Environment) -> RevisionDocument:
    """The document of the environment's rows as they stand, in RENDER_QUERIES queries."""
    return draft(environment).document


def draft(environment: Environment) -> Draft:
    """The document and what was left out of it, in RENDER_QUERIES queries."""
    warnings: list[Warning] = []
    deployments = _served(_deployments(environment), environment, warnings)
    prices = _prices(environment)
    models = {row.model.name: row.model for row in deployments}
    aliases = _aliases(environment, models.keys(), warnings)
    chains = _chains(environment, models.keys(), warnings)
    names = models.keys() | aliases.keys()
    document = RevisionDocument(
        schema=SCHEMA_VERSION,
        environment=_environment(environment, names, warnings),
        models=[_model(models[name]) for name in sorted(models)],
        aliases=aliases,
        credentials=_credentials(deployments),
        deployments=[_deployment(row, prices.get(row.pk)) for row in deployments],
        chains=chains,
    )
    warnings += _unpriced(deployments, prices)
    return Draft(document, warnings)


def _deployments(environment: Environment) -> QuerySet[Deployment]:
    return (
        Deployment.objects.filter(environment=environment, enabled=True)
        .select_related("model", "provider", "credential__secret", "credential__provider")
        .order_by("model__name", "name", "pk")
    )


def _prices(environment: Environment) -> dict[UUID, Price]:
    """The newest price in force of each deployment."""
    rows = (
        Price.objects.filter(
            deployment__environment=environment,
            deployment__enabled=True,
            effective_from__lte=timezone.now(),
        )
        .order_by("deployment_id", "-effective_from", "-pk")
        .distinct("deployment_id")
    )
    return {row.deployment_id: row for row in rows}


def _served(
    rows: Iterable[Deployment], environment: Environment, warnings: list[Warning]
) -> list[Deployment]:
    served = []
    for row in rows:
        credential = row.credential
        reason = ""
        if credential.environment_id != environment.pk:
            reason = f"its credential {credential.name} belongs to another environment"
        elif not credential.enabled:
            reason = f"its credential {credential.name} is disabled"
        elif credential.secret is None and kinds.kind_of(credential.provider).needs_secret:
            reason = f"its credential {credential.name} has no secret"
        if reason:
            text = f"Deployment {row.name} is left out: {reason}."
            warnings.append(Warning("deployment", str(row.pk), row.name, text))
        else:
            served.append(row)
    # Sorted here: the database's order depends on its collation.
    return sorted(served, key=lambda row: (row.model.name, row.name, str(row.pk)))


def _aliases(
    environment: Environment, served: Iterable[str], warnings: list[Warning]
) -> dict[str, str]:
    aliases = {}
    for alias in ModelAlias.objects.filter(environment=environment).select_related("model"):
        reason = ""
        if alias.model.name not in served:
            reason = f"no deployment serves {alias.model.name}"
        elif alias.name in served:
            reason = "a served model has the same name and wins"
        if reason:
            text = f"Alias {alias.name} is left out: {reason}."
            warnings.append(Warning("alias", str(alias.pk), alias.name, text))
        else:
            aliases[alias.name] = alias.model.name
    return dict(sorted(aliases.items()))


def _chains(
    environment: Environment, served: Iterable[str], warnings: list[Warning]
) -> list[ChainDocument]:
    steps = ChainTarget.objects.select_related("model").order_by("position")
    rows = (
        FallbackChain.objects.filter(environment=environment)
        .select_related("model")
        .prefetch_related(Prefetch("steps", queryset=steps))
        .order_by("model__name", "kind")
    )
    chains = (_chain(row, served, warnings) for row in rows)
    served_chains = [chain for chain in chains if chain is not None]
    return sorted(served_chains, key=lambda chain: (chain["model"], chain["kind"]))


def _chain(
    row: FallbackChain, served: Iterable[str], warnings: list[Warning]
) -> ChainDocument | None:
    def warn(text: str) -> None:
        warnings.append(Warning("chain", str(row.pk), str(row), text))

    if row.model.name not in served:
        warn(f"The chain of {row} is left out: no deployment serves {row.model.name}.")
        return None
    targets = []
    for step in row.steps.all():
        if step.model.name in served:
            targets.append(step.model.name)
        else:
            warn(f"The chain of {row} skips {step.model.name}: no deployment serves it.")
    if not targets:
        warn(f"The chain of {row} is left out: none of its targets is served.")
        return None
    kind: ChainKind = row.kind  # type: ignore[assignment]
    return ChainDocument(model=row.model.name, kind=kind, targets=targets)


def _environment(
    environment: Environment, names: Iterable[str], warnings: list[Warning]
) -> EnvironmentDocument:
    default: str | None = environment.default_model or None
    if default is not None and default not in names:
        text = f"The default model {default} is left out: no deployment serves it."
        warnings.append(Warning("environment", environment.slug, environment.name, text))
        default = None
    return EnvironmentDocument(
        slug=environment.slug,
        name=environment.name,
        default_model=default,
        fallback_enabled=environment.fallback_enabled,
        timeout_s=float(environment.timeout_s),
        stream_timeout_s=float(environment.stream_timeout_s),
        total_timeout_s=float(environment.total_timeout_s),
        num_retries=environment.num_retries,
        retry_backoff_s=float(environment.retry_backoff_s),
        default_output_tokens=environment.default_output_tokens,
        on_counter_outage="refuse" if environment.on_counter_outage == "refuse" else "share",
        breaker=_breaker(environment),
        cache=CacheDocument(
            enabled=environment.cache_enabled,
            ttl_s=environment.cache_ttl_s,
            max_entry_bytes=environment.cache_max_entry_bytes,
        ),
    )


def _breaker(environment: Environment) -> BreakerDocument:
    slow_call_s = environment.breaker_slow_call_s
    return BreakerDocument(
        enabled=environment.breaker_enabled,
        consecutive_failures=environment.breaker_consecutive_failures,
        failure_percent=environment.breaker_failure_percent,
        minimum_calls=environment.breaker_minimum_calls,
        window_s=environment.breaker_window_s,
        open_s=environment.breaker_open_s,
        half_open_permits=environment.breaker_half_open_permits,
        close_after_successes=environment.breaker_close_after_successes,
        slow_call_s=None if slow_call_s is None else float(slow_call_s),
        all_open="try" if environment.breaker_all_open == "try" else "refuse",
    )


def _model(model: Model) -> ModelDocument:
    document = ModelDocument(
        name=model.name,
        mode=model.mode,
        context_window=model.context_window,
        max_output_tokens=model.max_output_tokens,
        cache=model.cache,
    )
    if model.lane == Lane.LITELLM:  # unsaid otherwise, as in documents of earlier versions
        document["lane"] = "litellm"
    return document


def _credentials(deployments: Iterable[Deployment]) -> list[CredentialDocument]:
    """Only those that a served deployment uses: no other secret has to travel."""
    used = {row.credential.pk: row.credential for row in deployments}
    rows = sorted(used.values(), key=lambda row: (row.name, str(row.pk)))
    return [_credential(row) for row in rows]


def _credential(credential: Credential) -> CredentialDocument:
    secret = credential.secret
    return CredentialDocument(
        id=str(credential.pk),
        name=credential.name,
        provider=credential.provider.slug,
        secret_id=str(secret.pk) if secret else None,
        fingerprint=secret.fingerprint if secret else None,
        params=kinds.credential_params(credential),
    )


def _deployment(row: Deployment, price: Price | None) -> DeploymentDocument:
    document = DeploymentDocument(
        id=str(row.pk),
        name=row.name,
        model=row.model.name,
        provider=row.provider.slug,
        provider_kind=row.provider.kind,
        upstream_model=row.upstream_model,
        litellm_model=kinds.litellm_model(
            provider=row.provider, upstream_model=row.upstream_model, mode=row.model.mode
        ),
        credential=str(row.credential_id),
        params=kinds.deployment_params(row),
        rpm=row.rpm,
        tpm=row.tpm,
        weight=row.weight,
        timeout_s=None if row.timeout_s is None else float(row.timeout_s),
        stream_timeout_s=None if row.stream_timeout_s is None else float(row.stream_timeout_s),
        region=row.region,
        price=_price(price),
    )
    if row.lane == Lane.LITELLM:
        document["lane"] = "litellm"
    return document


def _price(price: Price | None) -> PriceDocument | None:
    """None is unpriced; a price of zero is a price."""
    if price is None or not price.units:
        return None
    units = {unit: format(Decimal(amount), "f") for unit, amount in sorted(price.units.items())}
    source: Literal["book", "own"] = "own" if price.source == Price.Source.OWN else "book"
    return PriceDocument(version=str(price.pk), source=source, units=units)


def _unpriced(deployments: Iterable[Deployment], prices: dict[UUID, Price]) -> list[Warning]:
    return [
        Warning(
            "deployment",
            str(row.pk),
            row.name,
            f"Deployment {row.name} is unpriced: its calls are counted but cost no known amount.",
        )
        for row in deployments
        if _price(prices.get(row.pk)) is None
    ]
