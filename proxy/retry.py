"""What may follow a failed attempt, and after how long.

Retries wait by exponential back-off with full jitter (a random part of a doubling bound,
as described in "Exponential Backoff And Jitter", AWS Architecture Blog, 2015), never less
than the provider asked for. Where it asks for longer than WAIT_MAX_S, the request goes
elsewhere instead.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from proxy.contract import ChainKind

BACKOFF_MAX_S = 8.0
WAIT_MAX_S = 10.0


@dataclass(frozen=True, slots=True)
class Rule:
    """What a class of failure allows."""

    again: bool  # the same deployment may be called again
    others: Literal["any", "credential", "none"]  # further deployments of the model
    chain: ChainKind | None  # then the models of this chain; None: the failure is the answer
    counts: bool = True  # against the retries on one model


_TRANSIENT = Rule(again=True, others="any", chain="general")
# The account failed, not the request: only another credential can do better.
_ACCOUNT = Rule(again=False, others="credential", chain="general", counts=False)

_RULES: dict[str, Rule] = {
    "rate_limit": _TRANSIENT,
    "overloaded": _TRANSIENT,
    "timeout": _TRANSIENT,
    "connection": _TRANSIENT,
    "server_error": _TRANSIENT,
    "cut_stream": _TRANSIENT,
    "authentication": _ACCOUNT,
    "quota": _ACCOUNT,
    "not_found": Rule(again=False, others="any", chain="general"),
    "internal": Rule(again=False, others="none", chain="general"),
    "context_window": Rule(again=False, others="none", chain="context_window"),
    "content_policy": Rule(again=False, others="none", chain="content_policy"),
    "invalid_request": Rule(again=False, others="none", chain=None),
}


def rule_of(error_class: str) -> Rule:
    """What may follow a failure of this class."""
    return _RULES.get(error_class, _RULES["internal"])


# Failures that speak of the deployment's health. The others speak of the request, of the
# account or of us, and leave its breaker alone.
UNHEALTHY = frozenset({"overloaded", "timeout", "connection", "server_error", "cut_stream"})


def backoff_s(base_s: float, retry: int, draw: Callable[[], float]) -> float:
    """Seconds before the given retry (0 is the first): a random part of base * 2**retry."""
    return draw() * min(BACKOFF_MAX_S, base_s * 2.0 ** min(retry, 16))


def wait_s(
    base_s: float, retry: int, reset_s: float | None, draw: Callable[[], float]
) -> float | None:
    """Seconds before calling a deployment again; None: too long, go elsewhere."""
    pause_s = backoff_s(base_s, retry, draw)
    if reset_s is None:
        return pause_s
    # Everybody was told the same moment: jitter comes on top of it, never before it.
    return None if reset_s > WAIT_MAX_S else reset_s + min(pause_s, 1.0)
