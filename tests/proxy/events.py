"""A usage event for tests that do not care how it came about."""

import uuid
from typing import Any

from proxy.contract import UsageEventDocument


def event(**changes: Any) -> UsageEventDocument:
    """A valid event with its own id."""
    row: dict[str, Any] = {
        "event_id": str(uuid.uuid4()),
        "started_at": "2026-11-20T21:40:25.123456+00:00",
        "revision": 1,
        "key_id": "key-alpha",
        "public_id": "alpha",
        "user_id": None,
        "team_id": None,
        "customer": "",
        "tags": {},
        "route": "/v1/chat/completions",
        "requested_model": "m",
        "model": "m",
        "deployment": "d",
        "why": "first",
        "status": "ok",
        "http_status": 200,
        "error_class": None,
        "error": None,
        "input_tokens": 1,
        "output_tokens": 2,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
        "reasoning_tokens": 0,
        "other_units": {},
        "price_version": None,
        "unit_prices": {},
        "cost": None,
        "estimated": False,
        "streaming": False,
        "latency_ms": 1.0,
        "ttft_ms": None,
        "overhead_ms": None,
        "attempts": [],
    }
    return row | changes  # type: ignore[return-value]
