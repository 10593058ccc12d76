"""What an environment's document means where it says nothing.

Revisions published by an earlier version stay on the replicas' disks and are served from
there when the control plane is away.
"""

from typing import Any, cast

from proxy.contract import BreakerDocument, CacheDocument, EnvironmentDocument

BREAKER: BreakerDocument = {
    "enabled": True,
    "consecutive_failures": 5,
    "failure_percent": 50,
    "minimum_calls": 20,
    "window_s": 60,
    "open_s": 30,
    "half_open_permits": 3,
    "close_after_successes": 3,
    "slow_call_s": None,
    "all_open": "refuse",
}
CACHE: CacheDocument = {"enabled": False, "ttl_s": 3600, "max_entry_bytes": 1024 * 1024}
ENVIRONMENT: dict[str, Any] = {
    "total_timeout_s": 600.0,
    "retry_backoff_s": 0.5,
    "default_output_tokens": None,
    "on_counter_outage": "share",
}


def with_defaults(environment: EnvironmentDocument) -> EnvironmentDocument:
    """The environment with every field that this version reads."""
    stated: dict[str, Any] = {**environment}
    return cast(
        EnvironmentDocument,
        ENVIRONMENT
        | stated
        | {
            "breaker": {**BREAKER, **stated.get("breaker", {})},
            "cache": {**CACHE, **stated.get("cache", {})},
        },
    )
