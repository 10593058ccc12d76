"""Writes on fallback chains."""

from collections.abc import Iterable, Sequence

from django.db import transaction

from gateway_admin.accounts.models import User
from gateway_admin.accounts.services import audit
from gateway_admin.catalog.drafts import check_and_save, draft_changed, draft_lock
from gateway_admin.catalog.models import ChainTarget, Environment, FallbackChain, Model
from gateway_admin.catalog.queries import deployments_of, why_not_callable
from gateway_admin.lib.errors import InvalidInput

MAX_TARGETS = 10


@transaction.atomic
def chain_create(
    *,
    actor: User | None,
    environment: Environment,
    model: Model,
    targets: Sequence[Model],
    kind: str = FallbackChain.Kind.GENERAL,
) -> FallbackChain:
    """When `model` fails, try `targets` in order. InvalidInput names what stands against it."""
    environment = draft_lock(environment)
    chain = FallbackChain(environment=environment, model=model, kind=kind)
    taken = FallbackChain.objects.filter(environment=environment, model=model, kind=kind)
    if taken.exists():
        raise InvalidInput(
            f"“{model}” already has a {chain.get_kind_display().lower()} chain. "
            "Change that one instead.",
            field="model",
        )
    _check_targets(chain, targets)
    check_and_save(chain)
    _write_targets(chain, targets)
    audit(
        actor=actor,
        action="chain.create",
        target=chain,
        environment=environment.slug,
        changes={"targets": [None, _names(targets)]},
    )
    draft_changed(environment=environment, actor=actor)
    return chain


@transaction.atomic
def chain_update(
    *, actor: User | None, chain: FallbackChain, targets: Sequence[Model]
) -> FallbackChain:
    """Replace the steps."""
    environment = draft_lock(chain.environment)
    before = [step.model for step in chain.steps.select_related("model").order_by("position")]
    if before == list(targets):
        return chain
    _check_targets(chain, targets)
    chain.steps.all().delete()
    _write_targets(chain, targets)
    audit(
        actor=actor,
        action="chain.update",
        target=chain,
        environment=environment.slug,
        changes={"targets": [_names(before), _names(targets)]},
    )
    draft_changed(environment=environment, actor=actor)
    return chain


@transaction.atomic
def chain_delete(*, actor: User | None, chain: FallbackChain) -> None:
    environment = draft_lock(chain.environment)
    steps = [step.model for step in chain.steps.select_related("model").order_by("position")]
    audit(
        actor=actor,
        action="chain.delete",
        target=chain,
        environment=environment.slug,
        changes={"targets": [_names(steps), None]},
    )
    chain.delete()
    draft_changed(environment=environment, actor=actor)


def _check_targets(chain: FallbackChain, targets: Sequence[Model]) -> None:
    if not targets:
        raise InvalidInput("Add at least one step.", field="targets")
    if len(targets) > MAX_TARGETS:
        raise InvalidInput(f"A chain has at most {MAX_TARGETS} steps.", field="targets")
    seen: set[Model] = set()
    for model in targets:
        if model == chain.model:
            raise InvalidInput(f"“{model}” cannot fall back to itself.", field="targets")
        if model in seen:
            raise InvalidInput(f"“{model}” is in this chain twice.", field="targets")
        if model.mode != chain.model.mode:
            raise InvalidInput(
                f"“{model}” answers {model.get_mode_display().lower()} requests, "
                f"“{chain.model}” {chain.model.get_mode_display().lower()} requests.",
                field="targets",
            )
        seen.add(model)
    _refuse_cycle(chain, targets)
    _refuse_uncallable(chain, targets)


def _refuse_cycle(chain: FallbackChain, targets: Iterable[Model]) -> None:
    """Follow the chains of the same kind from each target; none may lead back."""
    others = FallbackChain.objects.filter(environment=chain.environment, kind=chain.kind).exclude(
        pk=chain.pk
    )
    leads_to: dict[Model, list[Model]] = {
        other.model: [step.model for step in other.steps.all()]
        for other in others.select_related("model").prefetch_related("steps__model")
    }
    paths = [[model] for model in targets]
    visited: set[Model] = set()
    while paths:
        path = paths.pop()
        for following in leads_to.get(path[-1], []):
            if following == chain.model:
                way = " → ".join(str(model) for model in (chain.model, *path, chain.model))
                raise InvalidInput(
                    f"This would go in a circle: {way}. Remove one of these steps.",
                    field="targets",
                )
            if following not in visited:
                visited.add(following)
                paths.append([*path, following])


def _refuse_uncallable(chain: FallbackChain, targets: Iterable[Model]) -> None:
    for model in targets:
        candidates = deployments_of(chain.environment).filter(model=model)
        reason = why_not_callable(model, candidates)
        if reason is not None:
            raise InvalidInput(f"{reason} Put that right or choose another model.", field="targets")


def _write_targets(chain: FallbackChain, targets: Sequence[Model]) -> None:
    ChainTarget.objects.bulk_create(
        ChainTarget(chain=chain, position=position, model=model)
        for position, model in enumerate(targets, start=1)
    )


def _names(targets: Iterable[Model]) -> list[str]:
    return [model.name for model in targets]
