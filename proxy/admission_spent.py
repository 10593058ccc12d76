"""Who has used up a budget often asks on: refused before a route is planned.

Remembers of a refusal which budget of which plan had not enough left. As long as that plan holds
and the budget's balance was seen a moment ago (admission_local.py), the next request of the
same kind is measured and refused, and nothing else is done for it.
"""

from dataclasses import dataclass

from proxy.admission_plan import Plan
from proxy.contract import KeyPolicy
from proxy.trace import Trace

KINDS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class SpentBudget:
    """The budget at a place of a plan. The policy is held, so that no other takes its place."""

    plan: Plan
    index: int
    policy: KeyPolicy


class SpentBudgets:
    """By key, customer and model: the budget that refused last."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str, str], SpentBudget] = {}

    def __len__(self) -> int:
        return len(self._known)

    def remember(self, trace: Trace, plan: Plan, index: int) -> None:
        """The budget has not enough left for the request."""
        if len(self._known) >= KINDS_MAX:
            self._known.clear()
        self._known[_kind(trace)] = SpentBudget(plan, index, trace.policy)

    def find(self, trace: Trace) -> SpentBudget | None:
        """The budget that refused the last request of this kind."""
        return self._known.get(_kind(trace)) if self._known else None

    def forget(self, trace: Trace) -> None:
        """It is to be asked for again."""
        self._known.pop(_kind(trace), None)


def _kind(trace: Trace) -> tuple[int, str, str]:
    return (id(trace.policy), trace.customer, trace.model)
