"""What an admitted request has reserved, until it is settled."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from proxy.admission_plan import Reservation
from proxy.admission_rules import BudgetRule
from proxy.contract import AdmissionDocument, ChargedCounter
from proxy.snapshot import Deployment


@dataclass(frozen=True, slots=True)
class WindowUse:
    """A sliding window that the request was counted in."""

    key: str
    second: int  # of Redis's clock, or of the worker's when it counted alone
    tokens: int


@dataclass(slots=True, eq=False)
class Grant:
    """Grows by further targets; ends once."""

    mode: Literal["shared", "local"]
    epoch: str
    parts: list[Reservation] = field(default_factory=list)
    target: Deployment | None = None  # what the hold speaks of
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    certain: bool = True  # no answer about it was lost: the hold is what the parts say
    closed: bool = False
    untold: Any = None  # (Reservation, Reply) that the worker's own book has yet to learn of

    def budgets(self) -> Iterator[tuple[BudgetRule, int]]:
        """The budgets it is reserved on, and what each holds for it, nano-dollars."""
        for part in self.parts:
            yield from zip(part.rules.budgets, part.nano, strict=True)

    @property
    def windows(self) -> list[WindowUse]:
        """The windows it was counted in."""
        return [
            WindowUse(rule.key, part.second, tokens)
            for part in self.parts
            for rule, tokens in zip(part.rules.windows, part.tokens, strict=True)
        ]

    @property
    def parallel(self) -> list[str]:
        """Keys of the sets it is a member of."""
        return [rule.key for part in self.parts for rule in part.rules.parallel]

    def charged(self, model: str, served: Deployment | None) -> list[ChargedCounter]:
        """The counters that the cost belongs to; what others had reserved is released."""
        if len(self.parts) == 1:
            return self.parts[0].plan.ending(model, served).document
        found = [part.plan.ending(model, served).document for part in self.parts]
        return [counter for counters in found for counter in counters]


def admission_document(
    grant: Grant | None, *, model: str, served: Deployment | None
) -> AdmissionDocument:
    """The event's words for it. `model` is the event's model."""
    if grant is None or (grant.mode == "local" and not any(grant.budgets())):
        return {"mode": "none", "epoch": "", "charged": []}
    return {"mode": grant.mode, "epoch": grant.epoch, "charged": grant.charged(model, served)}
