"""One request as admission sees it: what it asks for, and where it may go."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from proxy.estimate import Demand, demand_of
from proxy.snapshot import Deployment
from proxy.trace import Trace

LIKELY_BYTES_PER_TOKEN_MAX = 8  # no usual text is denser than that


@dataclass(slots=True)
class AdmissionRequest:
    """A request, every deployment it may reach, and the one it would begin with."""

    trace: Trace
    targets: Sequence[Deployment]
    first: Deployment
    meanwhile: Callable[[], None] | None = None  # while the shared counters are asked
    demand: Demand = field(init=False)
    counted: bool = False  # its tokens were counted instead of bounded

    def __post_init__(self) -> None:
        """The edge measured the request; nothing else knows the size of a form."""
        trace = self.trace
        kind = trace.inference.kind if trace.inference is not None else "chat"
        if trace.demand is None:
            size = trace.body_bytes
            trace.demand = demand_of(trace.body, kind, body_bytes=size, form=False)
        self.demand = trace.demand

    def refine(self, demand: Demand) -> None:
        """Go on with a truer demand."""
        self.demand = self.trace.demand = demand

    def least_demand(self) -> Demand:
        """The least that counting tokens could make of it."""
        tokens = self.demand.input_tokens // LIKELY_BYTES_PER_TOKEN_MAX
        return self.demand._replace(input_tokens=tokens)
