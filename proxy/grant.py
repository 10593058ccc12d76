"""What an admitted request has reserved, until it is settled."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from proxy.contract import AdmissionDocument, ChargedCounter
from proxy.snapshot import Deployment


@dataclass(frozen=True, slots=True)
class Charge:
    """A budget's counter that the request is reserved on. Money in nano-dollars."""

    counter: str  # "<budget id>:<subject>:<period id>"
    estimate: int
    bucket: int | None  # of a rolling period
    bucket_s: int
    life_s: int  # how long the counter is kept; 0: for ever
    model: str | None  # only what this model costs
    credential: str | None  # only what this credential's deployments cost


@dataclass(frozen=True, slots=True)
class WindowUse:
    """A sliding window that the request was counted in."""

    key: str
    bucket: int  # second of Redis's clock, or of the worker's when it counted alone
    tokens: int
    model: str | None
    deployment: str | None


@dataclass(slots=True)
class Grant:
    """Grows by further targets; ends once."""

    mode: Literal["shared", "local"]
    epoch: str
    charges: dict[str, Charge] = field(default_factory=dict)  # by counter
    windows: list[WindowUse] = field(default_factory=list)
    parallel: list[str] = field(default_factory=list)
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    closed: bool = False

    def charged(self, model: str, served: Deployment | None) -> list[Charge]:
        """The counters that the cost belongs to; what others had reserved is released."""
        credential = served.credential if served is not None else None
        return [
            charge
            for charge in self.charges.values()
            if charge.model in (None, model)
            and (charge.credential is None or charge.credential == credential)
        ]

    def counted(self, model: str, served: Deployment | None) -> Iterable[WindowUse]:
        """The windows that the consumed tokens belong to."""
        deployment = served.id if served is not None else None
        for use in self.windows:
            if use.model in (None, model) and use.deployment in (None, deployment):
                yield use


def admission_document(
    grant: Grant | None, *, model: str, served: Deployment | None
) -> AdmissionDocument:
    """The event's words for it. `model` is the event's model."""
    if grant is None or (grant.mode == "local" and not grant.charges):
        return {"mode": "none", "epoch": "", "charged": []}
    charged: list[ChargedCounter] = [
        {"counter": charge.counter, "bucket": charge.bucket}
        for charge in grant.charged(model, served)
    ]
    return {"mode": grant.mode, "epoch": grant.epoch, "charged": charged}
