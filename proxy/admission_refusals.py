"""What a caller is told when a rule refuses: which one, how much, until when."""

import math
from dataclasses import dataclass
from datetime import UTC
from decimal import ROUND_HALF_UP, Decimal

from proxy.admission_rules import BudgetRule, Owner, ParallelRule, WindowRule
from proxy.contract.counters import dollars
from proxy.refusals import Refusal
from proxy.snapshot import Deployment

OUTAGE_RETRY_S = 2
_SCOPE_WORDS = {"user": "person"}
_PERIOD_WORDS = {
    "d": "per day",
    "w": "per week",
    "m": "per month",
    "q": "per quarter",
    "y": "per year",
    "l": "in all",
}


class TargetRefused(Exception):
    """Only the chosen deployment's own rules refuse: another one may do."""

    def __init__(self, deployment: Deployment, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.deployment = deployment
        self.refusal = refusal  # what the caller is told when there is no other
        self.reason = refusal.reason
        self.retry_after_s = refusal.retry_after_s


@dataclass(frozen=True, slots=True)
class Spending:
    """A budget's state as far as known, nano-dollars."""

    spent: int
    held: int
    wanted: int
    share: int | None = None  # when the worker counts alone: what it may still spend


def money(nano: int) -> str:
    """Nano-dollars as "$12.34"; small amounts with as many places as they need."""
    amount = dollars(nano)
    places = 2 if abs(amount) >= 1 or not amount else min(9, 3 - amount.adjusted())
    text = f"{amount.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP):,f}"
    whole, _, fraction = text.partition(".")
    return f"${whole}.{fraction.rstrip('0').ljust(2, '0')}"


def _whose(owner: Owner, model: str | None) -> str:
    what = _SCOPE_WORDS.get(owner.scope, owner.scope)
    of_model = f" for the model {model!r}" if model else ""
    return f"the {what} {owner.name!r}{of_model}"


_Words = tuple[str, tuple[tuple[bytes, bytes], ...]]
_said: dict[tuple[object, ...], _Words] = {}
SAID_MAX = 1_000


def over_budget(rule: BudgetRule, found: Spending) -> Refusal:
    """The request could cost more than is left. Not to be retried: time alone rarely helps."""
    # Whoever has used up a budget often asks on, and is told the same each time.
    amounts = (rule.limit_nano, found.spent, found.held, found.wanted, found.share)
    key = (rule.counter, rule.name, rule.owner.name, amounts)
    words = _said.get(key)
    if words is None:
        if len(_said) >= SAID_MAX:
            _said.clear()
        words = _said[key] = _over_budget(rule, found), tuple(_budget_headers(rule, found))
    return Refusal(
        429,
        "budget",
        words[0],
        kind="insufficient_quota",
        code="insufficient_quota",
        error_class="budget",
        headers=words[1],
    )


def _over_budget(rule: BudgetRule, found: Spending) -> str:
    ends = rule.period.end
    if rule.period.bucket_s is not None:
        hours = rule.period.bucket_s * 60 // 3600
        period, resets = f"in any {hours} h", "It frees up as the oldest spending leaves the window"
    else:
        period = _PERIOD_WORDS[rule.period.id[0]]
        moment = ends.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if ends else None
        resets = f"It resets at {moment}" if moment else "It does not reset"
    alone = ""
    if found.share is not None:
        alone = (
            f" The shared counters are away, so this worker may spend {money(max(found.share, 0))} "
            "of it."
        )
    return (
        f"The budget {rule.name!r} of {_whose(rule.owner, rule.model)} does not cover this "
        f"request: limit {money(rule.limit_nano)} {period}, spent {money(found.spent)}, held "
        f"{money(found.held)} by running requests, this one may cost up to "
        f"{money(found.wanted)}.{alone} {resets}. Ask an admin to raise it or to grant an override."
    )


def _budget_headers(rule: BudgetRule, found: Spending) -> list[tuple[bytes, bytes]]:
    left = max(rule.limit_nano - found.spent - found.held, 0)
    headers = [
        (b"x-should-retry", b"false"),
        (b"x-gateway-budget", _printable(rule.name)),
        (b"x-gateway-budget-scope", rule.owner.scope.encode()),
        (b"x-gateway-budget-remaining", format(dollars(left), "f").encode()),
    ]
    ends = rule.period.end
    if ends is not None:
        resets_at = ends.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        headers.append((b"x-gateway-budget-reset", resets_at.encode()))
    return headers


def _printable(name: str) -> bytes:
    """People choose names; headers take no line ends."""
    return "".join(c if c.isprintable() else " " for c in name).encode("latin-1", "replace")


def over_rate(rule: WindowRule, kind: str, *, used: int, wanted: int, wait_ms: int) -> Refusal:
    """Too many requests ("rpm") or tokens ("tpm") in the last minute."""
    limit = (rule.rpm if kind == "rpm" else rule.tpm) or 0
    unit = "requests" if kind == "rpm" else "tokens"
    needs = f", this request needs {wanted}" if kind == "tpm" else ""
    wait_s = max(math.ceil(wait_ms / 1000), 1)
    message = (
        f"Rate limit of {_whose(rule.owner, rule.model)} reached: {limit} {unit} per minute, "
        f"{max(limit - used, 0)} remaining{needs}. Try again in {wait_s} s."
    )
    remaining = str(max(limit - used, 0)).encode()
    return Refusal(
        429,
        f"limit_{kind}",
        message,
        kind=unit,
        code="rate_limit_exceeded",
        error_class="rate_limit",
        retry_after_s=wait_s,
        headers=[
            (f"x-ratelimit-limit-{unit}".encode(), str(limit).encode()),
            (f"x-ratelimit-remaining-{unit}".encode(), remaining),
            (f"x-ratelimit-reset-{unit}".encode(), f"{wait_s}s".encode()),
            (b"x-gateway-limit-scope", rule.owner.scope.encode()),
        ],
    )


def too_many_at_once(rule: ParallelRule, *, running: int, wait_ms: int) -> Refusal:
    """Too many requests run at this moment."""
    wait_s = max(math.ceil(wait_ms / 1000), 1)
    return Refusal(
        429,
        "limit_parallel",
        f"Limit of parallel requests of {_whose(rule.owner, rule.model)} reached: {rule.limit} at "
        f"once, {running} are running. Try again when one has ended.",
        kind="requests",
        code="rate_limit_exceeded",
        error_class="rate_limit",
        retry_after_s=wait_s,
        headers=[
            (b"x-gateway-limit-parallel", str(rule.limit).encode()),
            (b"x-gateway-limit-scope", rule.owner.scope.encode()),
        ],
    )


def counters_unavailable() -> Refusal:
    """The owner chose to refuse rather than to count on shares."""
    return Refusal(
        503,
        "counters_unavailable",
        "Budgets and limits cannot be counted at the moment, and this environment refuses "
        "requests rather than to estimate. Retry shortly.",
        kind="server_error",
        code="counters_unavailable",
        error_class="internal",
        retry_after_s=OUTAGE_RETRY_S,
    )
