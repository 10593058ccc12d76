"""One request as admission sees it: what it may cost where, and what its hold says."""

from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from proxy.admission_rules import BudgetRule, RuleSet
from proxy.admission_scripts import Reservation
from proxy.contract.counters import nano_dollars
from proxy.estimate import Demand, demand_of, least_cost, worst_cost
from proxy.grant import Grant
from proxy.snapshot import Deployment
from proxy.trace import Trace

LIKELY_BYTES_PER_TOKEN_MAX = 8  # no usual text is denser than that


@dataclass(slots=True)
class AdmissionRequest:
    """A request, every deployment it may reach, and the one it would begin with."""

    trace: Trace
    targets: tuple[Deployment, ...]
    first: Deployment
    demand: Demand = field(init=False)
    counted: bool = False  # its tokens were counted instead of bounded
    _worst: dict[tuple[str | None, str | None], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """The edge measured the request; nothing else knows the size of a form."""
        trace = self.trace
        kind = trace.inference.kind if trace.inference is not None else "chat"
        self.demand = trace.demand or demand_of(trace.body, kind, body_bytes=0, form=False)

    def worst_nano(self, rule: BudgetRule) -> int:
        """The most that the request can cost within a budget: of the targets it speaks of."""
        speaks_of = (rule.model, rule.credential)
        if speaks_of not in self._worst:
            models = self.trace.snapshot.models if self.trace.snapshot is not None else {}
            costs = [
                worst_cost(self.demand, row.price, models.get(row.model))
                for row in ((self.first,) if rule.credential is not None else self.targets)
                if row.price is not None and rule.model in (None, row.model)
            ]
            self._worst[speaks_of] = nano_dollars(max(costs, default=Decimal(0)))
        return self._worst[speaks_of]

    def refine(self, demand: Demand) -> None:
        """Go on with a truer demand."""
        self.demand = self.trace.demand = demand
        self._worst.clear()

    def could_fit(self, missing_nano: int) -> bool:
        """Whether counting tokens could lower the estimate by that much at all."""
        tokens = self.demand.input_tokens // LIKELY_BYTES_PER_TOKEN_MAX
        least = replace(self.demand, input_tokens=tokens)
        models = self.trace.snapshot.models if self.trace.snapshot is not None else {}
        saved = [
            worst_cost(self.demand, row.price, models.get(row.model))
            - worst_cost(least, row.price, models.get(row.model))
            for row in self.targets
            if row.price is not None
        ]
        return nano_dollars(max(saved, default=Decimal(0))) >= missing_nano


def estimated(
    request: AdmissionRequest, rules: RuleSet, first_target: tuple[int, int]
) -> Reservation:
    """What to reserve for each rule. Tokens never exceed a limit, so that one can always pass."""
    snapshot = request.trace.snapshot
    model = snapshot.models.get(request.first.model) if snapshot is not None else None
    tokens = request.demand.rough_tokens(model)
    return Reservation(
        rules=rules,
        nano=[request.worst_nano(rule) for rule in rules.budgets],
        tokens=[min(tokens, window.tpm or tokens) for window in rules.windows],
        first_target=first_target,
    )


def hold_document(request: AdmissionRequest, grant: Grant, wanted: Reservation) -> dict[str, Any]:
    """A HoldDocument without the parts that the script knows: epoch, limits, expiry."""
    trace, row = request.trace, request.first
    policy = trace.policy
    budgets = [(c.counter, c.estimate, c.bucket) for c in grant.charges.values()]
    budgets += [
        (rule.counter, nano, rule.bucket)
        for rule, nano in zip(wanted.rules.budgets, wanted.nano, strict=True)
    ]
    return {
        "id": trace.event_id,
        "budgets": budgets,
        "parallel": [*grant.parallel, *(rule.key for rule in wanted.rules.parallel)],
        "abandon_nano": nano_dollars(least_cost(request.demand, row)),
        "event": {
            "started_at": trace.started_at.isoformat(),
            "key_id": policy["key_id"],
            "public_id": policy["public_id"],
            "user_id": policy["user_id"],
            "team_id": policy["team_id"],
            "customer": trace.customer,
            "tags": policy["tags"],
            "route": trace.route,
            "requested_model": trace.requested_model,
            "model": row.model,
            "deployment": row.id,
            "streaming": trace.streaming,
            "revision": trace.snapshot.revision if trace.snapshot is not None else None,
        },
    }
