"""Healthy or degraded, and why. Collected per worker, told to the control plane and to probes."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

from proxy.spool import SpoolDepth

# A control plane that restarts is no news; one that stays away is.
UNREACHABLE_AFTER_S = 10.0
SPOOL_OLD_AFTER_S = 120.0


@dataclass(slots=True)
class Health:
    """State of this worker's surroundings. Times are time.time()."""

    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    control_failing_since: float | None = None
    control_error: str | None = None
    token_refused: bool = False
    redis_failing_since: float | None = None
    rejected_revision: int | None = None
    rejected_error: str | None = None
    rejected_deployment: str | None = None
    state_error: str | None = None  # the last good state could not be written
    synced_at: float | None = None
    refused_events: int = 0

    def control_failed(self, message: str, *, token_refused: bool) -> bool:
        """Note a failed round; True when this is news, to be logged once."""
        news = self.control_failing_since is None or token_refused != self.token_refused
        self.control_failing_since = self.control_failing_since or time.time()
        self.control_error, self.token_refused = message, token_refused
        return news

    def control_worked(self) -> bool:
        """Note a good round; True when the control plane was away before."""
        news = self.control_failing_since is not None
        self.control_failing_since = self.control_error = None
        self.token_refused = False
        self.synced_at = time.time()
        return news

    def reasons(self, depth: SpoolDepth) -> list[str]:
        """Why this worker is degraded; empty when it is healthy."""
        now = time.time()
        found = []
        since = self.control_failing_since
        if self.token_refused:
            found.append("control plane refuses this replica's fleet token")
        elif since is not None and now - since >= UNREACHABLE_AFTER_S:
            found.append(f"control plane unreachable since {_clock(since)}: {self.control_error}")
        if self.redis_failing_since is not None:
            found.append(f"redis down since {_clock(self.redis_failing_since)}: changes by polling")
        if self.rejected_revision is not None:
            found.append(f"revision {self.rejected_revision} rejected: {self.rejected_error}")
        if self.state_error is not None:
            found.append(f"last good state cannot be written: {self.state_error}")
        if depth.disk_error is not None:
            found.append(f"usage spool cannot be written: {depth.disk_error}")
        if depth.dropped:
            found.append(f"{depth.dropped} usage events were dropped")
        if depth.oldest_at is not None and now - depth.oldest_at >= SPOOL_OLD_AFTER_S:
            found.append(f"{depth.events} usage events wait since {_clock(depth.oldest_at)}")
        if self.refused_events:
            found.append(f"{self.refused_events} usage events were refused by the control plane")
        return found


def _clock(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
