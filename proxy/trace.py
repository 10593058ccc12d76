"""What is known of the request that is being served."""

import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from proxy.cache_use import CacheUse
from proxy.contract import AttemptDocument, KeyPolicy
from proxy.estimate import Demand
from proxy.grant import Grant
from proxy.routes import InferenceRoute
from proxy.snapshot import Deployment, Snapshot


@dataclass(slots=True)
class Trace:
    """One client request on its way through this worker."""

    route: str
    policy: KeyPolicy
    inference: InferenceRoute | None = None
    snapshot: Snapshot | None = None
    event_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started: float = field(default_factory=time.perf_counter)
    requested_model: str = ""
    model: str = ""
    customer: str = ""
    streaming: bool = False
    usage_wanted: bool = False  # the client asked for stream_options.include_usage
    body: dict[str, Any] = field(default_factory=dict)  # as passed on; for estimates
    lane_reason: str = ""  # why the answering attempt did not take the direct lane
    attempts: list[AttemptDocument] = field(default_factory=list)
    attempt_started: float = 0.0
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
