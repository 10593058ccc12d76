"""What is known of the request that is being served."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from proxy.cache_use import CacheUse
from proxy.contract import AttemptDocument, KeyPolicy
from proxy.estimate import Demand
from proxy.grant import Grant
from proxy.routes import InferenceRoute
from proxy.snapshot import Deployment, Snapshot


class _Ids:
    """Random ids as of uuid4 (RFC 9562), drawn many at a time."""

    AT_ONCE = 256

    def __init__(self) -> None:
        self._drawn = ""
        self._at = 0

    def forget(self) -> None:
        """A child must not draw what its parent drew."""
        self._drawn, self._at = "", 0

    def next(self) -> str:
        """An id that nobody else has."""
        if self._at >= len(self._drawn):
            self._drawn, self._at = os.urandom(16 * self.AT_ONCE).hex(), 0
        d = self._drawn[self._at : self._at + 32]
        self._at += 32
        variant = "89ab"[int(d[16], 16) & 3]
        return f"{d[:8]}-{d[8:12]}-4{d[13:16]}-{variant}{d[17:20]}-{d[20:]}"


_ids = _Ids()
os.register_at_fork(after_in_child=_ids.forget)


@dataclass(slots=True)
class Trace:
    """One client request on its way through this worker."""

    route: str
    policy: KeyPolicy
    inference: InferenceRoute | None = None
    snapshot: Snapshot | None = None
    event_id: str = field(default_factory=lambda: _ids.next())
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started: float = field(default_factory=time.perf_counter)
    requested_model: str = ""
    model: str = ""
    customer: str = ""
    streaming: bool = False
    usage_wanted: bool = False  # the client asked for stream_options.include_usage
    body: dict[str, Any] = field(default_factory=dict)  # as passed on; for estimates
    seal_id: Callable[[str], str] | None = None  # ids of responses that are not sealed yet
    lane_reason: str = ""  # why the answering attempt did not take the direct lane
    attempts: list[AttemptDocument] = field(default_factory=list)
    attempt_started: float = 0.0
    body_bytes: int = 0  # of the body as text; bounds its tokens
    demand: Demand | None = None  # the most it can ask of a provider
    grant: Grant | None = None  # what it has reserved
    cache: CacheUse | None = None  # None: not offered
    closed: bool = False  # the event is written; late callbacks change nothing

    def elapsed_ms(self) -> float:
        """Milliseconds since the request arrived."""
        return (time.perf_counter() - self.started) * 1000

    def deployment(self, deployment_id: str | None) -> Deployment | None:
        """A deployment of the snapshot this request runs on."""
        if self.snapshot is None or deployment_id is None:
            return None
        return self.snapshot.deployments.get(deployment_id)

    def served_by(self) -> AttemptDocument | None:
        """The attempt that answered, else the last that was made."""
        return self.attempts[-1] if self.attempts else None
