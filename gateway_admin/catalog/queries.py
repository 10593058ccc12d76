"""Reads across the tables of supply."""

from collections import defaultdict
from collections.abc import Iterable
from uuid import UUID

from django.db.models import Count, Prefetch, Q, QuerySet
from django.utils import timezone

from gateway_admin.catalog.kinds import KINDS
from gateway_admin.catalog.models import (
    ChainTarget,
    Credential,
    Deployment,
    Environment,
    FallbackChain,
    Model,
    Price,
    PriceBookEntry,
    Provider,
)


def current_price(deployment: Deployment) -> Price | None:
    """The price in force now; None: unpriced."""
    return current_prices([deployment.pk]).get(deployment.pk)


def current_prices(deployments: Iterable[UUID]) -> dict[UUID, Price]:
    """Prices in force now, by deployment, in one query. Unpriced deployments are absent."""
    newest = (
        Price.objects.filter(deployment__in=list(deployments), effective_from__lte=timezone.now())
        .order_by("deployment_id", "-effective_from", "-pk")
        .distinct("deployment_id")
    )
    return {price.deployment_id: price for price in newest if price.units}


def has_working_credential(deployment: Deployment) -> str | None:
    """None when the deployment can be called, else the reason why not, as a clause."""
    credential = deployment.credential
    if not deployment.enabled:
        return f"deployment “{deployment}” is disabled"
    if not credential.enabled:
        return f"credential “{credential}” is disabled"
    if KINDS[deployment.provider.kind].needs_secret and credential.secret_id is None:
        return f"credential “{credential}” has no secret"
    if credential.is_refused:
        return f"the provider refused credential “{credential}” at the last contact"
    return None


def why_not_callable(model: Model, deployments: Iterable[Deployment]) -> str | None:
    """None when one of the model's deployments works, else one sentence with all reasons."""
    reasons = []
    for deployment in deployments:
        reason = has_working_credential(deployment)
        if reason is None:
            return None
        reasons.append(reason)
    if not reasons:
        return f"“{model}” has no deployment in this environment."
    return f"“{model}” cannot be called: {'; '.join(dict.fromkeys(reasons))}."


def deployments_of(environment: Environment) -> QuerySet[Deployment]:
    """The environment's deployments with all that has_working_credential looks at."""
    return Deployment.objects.filter(environment=environment).select_related(
        "environment", "model", "provider", "credential__secret", "credential__provider"
    )


def unmet_targets(environment: Environment) -> dict[tuple[UUID, UUID], str]:
    """Chain steps that could not answer now: (chain id, model id) -> reason. Two queries."""
    by_model: dict[UUID, list[Deployment]] = defaultdict(list)
    for deployment in deployments_of(environment):
        by_model[deployment.model_id].append(deployment)
    steps = ChainTarget.objects.filter(chain__environment=environment).select_related("model")
    unmet = {}
    for step in steps:
        reason = why_not_callable(step.model, by_model[step.model_id])
        if reason is not None:
            unmet[(step.chain_id, step.model_id)] = reason
    return unmet


def chains_of(environment: Environment) -> QuerySet[FallbackChain]:
    steps = ChainTarget.objects.select_related("model").order_by("position")
    return (
        FallbackChain.objects.filter(environment=environment)
        .select_related("model", "environment")
        .prefetch_related(Prefetch("steps", queryset=steps))
    )


def credentials_of(environment: Environment) -> QuerySet[Credential]:
    """The environment's credentials; `deployment_count` says how many deployments use each."""
    return (
        Credential.objects.filter(environment=environment)
        .select_related("provider", "secret", "secret__created_by", "environment")
        .annotate(deployment_count=Count("deployments"))
        .order_by("provider__name", "name")  # counting drops the default order
    )


def models_in(environment: Environment) -> QuerySet[Model]:
    """All models; those of this environment know their deployments (`here`)."""
    here = deployments_of(environment).order_by("name")
    counted = Count("deployments", filter=Q(deployments__environment=environment), distinct=True)
    return (
        Model.objects.annotate(deployment_count=counted)
        .prefetch_related(Prefetch("deployments", queryset=here, to_attr="here"))
        .order_by("name")
    )


def deployments_here(model: Model) -> list[Deployment]:
    """The model's deployments in the environment that `models_in` was asked for."""
    here: list[Deployment] = model.here  # type: ignore[attr-defined]
    return here


def is_here(model: Model) -> bool:
    return bool(deployments_here(model))


def providers_with_counts() -> QuerySet[Provider]:
    return Provider.objects.annotate(
        credential_count=Count("credentials", distinct=True),
        deployment_count=Count("deployments", distinct=True),
    ).order_by("name")


def names_in(environment: Environment) -> list[str]:
    """What a client may ask for: models with an enabled deployment here, and aliases."""
    served = Model.objects.filter(
        deployments__environment=environment, deployments__enabled=True
    ).distinct()
    aliases = environment.aliases.values_list("name", flat=True)
    return sorted({*served.values_list("name", flat=True), *aliases})


def served_models(environment: Environment) -> set[UUID]:
    """Models with an enabled deployment here."""
    rows = Deployment.objects.filter(environment=environment, enabled=True)
    return set(rows.values_list("model_id", flat=True))


def environments_serving(model: Model) -> QuerySet[Environment]:
    return Environment.objects.filter(deployments__model=model).distinct()


def environments_with_counts() -> QuerySet[Environment]:
    return Environment.objects.annotate(
        deployment_count=Count("deployments", distinct=True),
        credential_count=Count("credentials", distinct=True),
    ).order_by("position", "slug")


def credentials_of_provider(provider: Provider) -> QuerySet[Credential]:
    return (
        Credential.objects.filter(provider=provider)
        .select_related("environment", "secret")
        .annotate(deployment_count=Count("deployments"))
        .order_by("environment__position", "name")
    )


def litellm_providers() -> list[str]:
    """LiteLLM's names of providers that the price book knows, for suggestions."""
    names = PriceBookEntry.objects.values_list("litellm_provider", flat=True).distinct()
    return sorted({name.split("-")[0] for name in names if name})


def prices_in_force() -> "Prefetch[str]":
    """Prefetch of a deployment's newest price as `in_force`, a list of at most one."""
    newest = (
        Price.objects.filter(effective_from__lte=timezone.now())
        .order_by("deployment_id", "-effective_from", "-pk")
        .distinct("deployment_id")
    )
    return Prefetch("prices", queryset=newest, to_attr="in_force")


def deployments_everywhere() -> QuerySet[Deployment]:
    """Deployments of all environments with their prices in force."""
    return Deployment.objects.select_related(
        "environment", "model", "provider", "credential__secret"
    ).prefetch_related(prices_in_force())


def models_everywhere() -> QuerySet[Model]:
    """Models with their deployments in all environments and the prices of these."""
    return Model.objects.prefetch_related(
        Prefetch("deployments", queryset=deployments_everywhere())
    )
