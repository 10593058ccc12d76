"""Names and units of the shared counters in Redis. They are derived; the ledger is the truth.

All keys of an environment carry one hash tag, so that one script may touch them all, also
on a cluster. Money is counted in nano-dollars (1e-9 USD): exact up to 9 million dollars in
Lua's numbers, and a request's cost is rounded up to the next one.

    epoch       string   id of the present counters; absent: they must be rebuilt first
    budget      hash     s spent, h held, p settled but not yet in the ledger
                         rolling periods also: o oldest bucket, b<index> spent in a bucket
    limit       hash     sliding window of 60 s in buckets of 1 s: requests and tokens
    parallel    zset     hold ids by expiry (ms)
    hold        string   JSON: what a request reserved, and what its event would say
    holds       zset     hold ids by expiry (ms)
    abandoned   list     JSON holds that expired: their worker died or lost its way
    workers     zset     live workers by time of their last sign (ms)
    breaker     hash     state of one deployment's circuit breaker

A hold ends exactly once: settled by its worker, or moved to `abandoned` after it expired.
At any moment, for each budget's counter: s = (sum of the ledger) + p.
"""

import hashlib
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal

NANO = Decimal("1e9")
WINDOW_S = 60
HOLD_TTL_S = 45  # renewed by the worker's heartbeat while the request runs
HEARTBEAT_S = 5
WORKER_LOST_AFTER_S = 20


def nano_dollars(cost: Decimal) -> int:
    """US dollars -> nano-dollars, rounded up."""
    return int((cost * NANO).to_integral_value(ROUND_CEILING))


def dollars(nano: int) -> Decimal:
    """Nano-dollars -> US dollars, exact."""
    return Decimal(nano).scaleb(-9)


def subject_ref(scope: str, subject: str) -> str:
    """A subject inside a key's name. Customers are hashed: they may be anything, even names."""
    if scope != "customer":
        return subject
    return hashlib.blake2b(subject.encode(), digest_size=12).hexdigest()


def tag(environment: str) -> str:
    """Common beginning, with the hash tag, of all keys of an environment."""
    return f"{{gw:{environment}}}:"


def epoch_key(environment: str) -> str:
    """Where the id of the present counters stands."""
    return f"{tag(environment)}epoch"


def counter_name(budget_id: str, subject: str, period_id: str) -> str:
    """What events call a budget's counter. `subject` is a `subject_ref`."""
    return f"{budget_id}:{subject}:{period_id}"


def budget_key(environment: str, counter: str) -> str:
    """Hash of one budget's counter."""
    return f"{tag(environment)}b:{counter}"


def limit_key(environment: str, scope: str, subject: str, model: str | None) -> str:
    """Hash of one sliding window. Deployments count here, too, with scope "deployment"."""
    return f"{tag(environment)}w:{scope}:{subject}:{model or '*'}"


def parallel_key(environment: str, scope: str, subject: str, model: str | None) -> str:
    """Sorted set of the requests that run now."""
    return f"{tag(environment)}c:{scope}:{subject}:{model or '*'}"


def hold_key(environment: str, event_id: str) -> str:
    """What one running request reserved."""
    return f"{tag(environment)}hold:{event_id}"


def holds_key(environment: str) -> str:
    """All holds by their expiry."""
    return f"{tag(environment)}holds"


def abandoned_key(environment: str) -> str:
    """Holds that expired, for the control plane to account for."""
    return f"{tag(environment)}abandoned"


def workers_key(environment: str) -> str:
    """Live workers."""
    return f"{tag(environment)}workers"


def breaker_key(environment: str, deployment: str) -> str:
    """State of one deployment's breaker."""
    return f"{tag(environment)}br:{deployment}"


def breaker_channel(environment: str) -> str:
    """Where workers tell each other of a breaker's new state."""
    return f"gateway:breaker:{environment}"


def moment_ms(at: datetime) -> int:
    """Milliseconds since the epoch of an aware moment."""
    return int(at.astimezone(UTC).timestamp() * 1000)
