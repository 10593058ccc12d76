"""How the simulator behaves in a demonstration: usual speeds, and now and then a fault."""

from typing import Any

from gateway_admin.demo import organisation as tables
from gateway_admin.demo.profiles import REASONING, SPEEDS

_KINDS = {row.slug: row.kind for row in tables.PROVIDERS}

# Faults per kind of provider; chances are per call.
_FAULTS: dict[str, list[dict[str, Any]]] = {
    "openai": [
        {"type": "rate_limit", "probability": 0.012},
        {"type": "cut_stream", "after_chunks": 8, "probability": 0.002},
    ],
    "anthropic": [{"type": "overload", "probability": 0.04}],
    "gemini": [
        {"type": "content_policy", "probability": 0.004},
        {"type": "overload", "probability": 0.01},
    ],
    "azure": [{"type": "rate_limit", "probability": 0.02}],
    "bedrock": [{"type": "server_error", "probability": 0.008}],
    "ollama": [{"type": "slow_first_token", "first_token_ms": 2_500, "probability": 0.02}],
}


def simulator_rules() -> list[dict[str, Any]]:
    """One rule per provider's model."""
    return [_rule(row) for row in tables.DEPLOYMENTS]


def _rule(row: tables.DeploymentRow) -> dict[str, Any]:
    speed = SPEEDS[row.model]
    rule: dict[str, Any] = {
        "kind": _KINDS[row.provider],
        "model": row.upstream,
        "first_token_ms": speed.first_ms,
        "token_interval_ms": speed.token_ms,
        "faults": _FAULTS[_KINDS[row.provider]],
    }
    if row.model in REASONING:
        rule["reasoning_tokens"] = 60
    return rule
