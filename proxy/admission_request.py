"""One request as admission sees it: what it asks for, and where it may go."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from proxy.contract.counters import nano_dollars
from proxy.estimate import Demand, demand_of, worst_cost
from proxy.snapshot import Deployment
from proxy.trace import Trace

LIKELY_BYTES_PER_TOKEN_MAX = 8  # no usual text is denser than that


@dataclass(slots=True)
class AdmissionRequest:
    """A request, every deployment it may reach, and the one it would begin with."""

    trace: Trace
    targets: Sequence[Deployment]
    first: Deployment
    demand: Demand = field(init=False)
    counted: bool = False  # its tokens were counted instead of bounded

    def __post_init__(self) -> None:
        """The edge measured the request; nothing else knows the size of a form."""
        trace = self.trace
        kind = trace.inference.kind if trace.inference is not None else "chat"
        self.demand = trace.demand or demand_of(trace.body, kind, body_bytes=0, form=False)

    def refine(self, demand: Demand) -> None:
        """Go on with a truer demand."""
        self.demand = self.trace.demand = demand

    def could_fit(self, missing_nano: int) -> bool:
        """Whether counting tokens could lower the estimate by that much at all."""
        tokens = self.demand.input_tokens // LIKELY_BYTES_PER_TOKEN_MAX
        least = self.demand._replace(input_tokens=tokens)
        models = self.trace.snapshot.models if self.trace.snapshot is not None else {}
        saved = [
            worst_cost(self.demand, row.price, models.get(row.model))
            - worst_cost(least, row.price, models.get(row.model))
            for row in self.targets
            if row.price is not None
        ]
        return nano_dollars(max(saved, default=Decimal(0))) >= missing_nano
