"""What is left after an admitted request, as response headers."""

from collections.abc import Iterable

from proxy.admission_local import LocalBook
from proxy.admission_scripts import Reply, Reservation
from proxy.contract.counters import dollars

Headers = list[tuple[bytes, bytes]]


def remaining_headers(book: LocalBook, wanted: Reservation, reply: Reply | None) -> Headers:
    """Of each kind the tightest rule of the request (not of its deployment)."""
    if not wanted.rules:
        return []
    found: Headers = []
    windows = wanted.rules.windows[: wanted.first_target[1]]
    if reply is not None:
        rates = [(w.rpm, r + 1) for w, (r, _) in zip(windows, reply.windows, strict=False)]
        sizes = [
            (w.tpm, t + wanted.tokens[i])
            for i, (w, (_, t)) in enumerate(zip(windows, reply.windows, strict=False))
        ]
        found += _tightest("requests", rates) + _tightest("tokens", sizes)
    budgets = wanted.rules.budgets[: wanted.first_target[0]]
    if reply is not None:
        left = [
            rule.limit_nano - spent - held - nano - book.own(rule.counter)
            for rule, nano, (spent, held) in zip(budgets, wanted.nano, reply.balances, strict=False)
        ]
    else:
        left = [book.left(rule) for rule in budgets]
    if left:
        amount = format(dollars(max(min(left), 0)), "f")
        found.append((b"x-gateway-budget-remaining", amount.encode()))
    return found


def _tightest(unit: str, uses: Iterable[tuple[int | None, int]]) -> Headers:
    known = [(limit - used, limit) for limit, used in uses if limit]
    if not known:
        return []
    left, limit = min(known)
    return [
        (f"x-ratelimit-limit-{unit}".encode(), str(limit).encode()),
        (f"x-ratelimit-remaining-{unit}".encode(), str(max(left, 0)).encode()),
    ]
