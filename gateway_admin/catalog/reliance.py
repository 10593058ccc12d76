"""Who relies on what: a write that would break a fallback chain is refused with the reason."""

from collections.abc import Iterator
from contextlib import contextmanager

from gateway_admin.catalog.models import Environment, FallbackChain
from gateway_admin.catalog.queries import unmet_targets
from gateway_admin.lib.errors import Conflict


@contextmanager
def keeping_chains(environment: Environment, *, because: str) -> Iterator[None]:
    """Raise Conflict, which rolls the write back, if it leaves a chain's step without answer.

    Steps that were broken before do not stand in the way. `because` begins the sentence:
    "Disabling “openai-main”".
    """
    before = unmet_targets(environment)
    yield
    broken = {step: why for step, why in unmet_targets(environment).items() if step not in before}
    if not broken:
        return
    (chain_id, _), reason = next(iter(broken.items()))
    chain = FallbackChain.objects.select_related("model").get(pk=chain_id)
    raise Conflict(
        f"{because} would break the {chain.get_kind_display().lower()} fallback chain of "
        f"“{chain.model}”: {reason} Remove that step from the chain first."
    )


def list_of(names: list[str], most: int = 5) -> str:
    """“a”, “b” and 3 more"""
    shown = ", ".join(f"“{name}”" for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
