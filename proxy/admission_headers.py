"""What is left after an admitted request, as response headers."""

from proxy.admission_local import LocalBook
from proxy.admission_plan import Reservation
from proxy.admission_rules import WindowRule
from proxy.admission_scripts import FOUND, Reply

Headers = list[tuple[bytes, bytes]]
NANO = 10**9


def remaining_headers(book: LocalBook, wanted: Reservation, reply: Reply | None) -> Headers:
    """Of each kind the tightest rule of the request (not of its deployment).

    What is held in the reply counts this request already.
    """
    plan, headers, left = wanted.plan, [], None
    budgets = plan.rules.budgets
    first_budget, first_window = plan.first_target
    if reply is None:
        left = min((book.left(rule) for rule in budgets[:first_budget]), default=None)
    else:
        raw = reply.raw
        if first_window:
            headers = _rates(plan.rules.windows[:first_window], raw, len(budgets), wanted.tokens)
        at = FOUND
        for index in range(first_budget):
            rest = budgets[index].limit_nano - raw[at] - raw[at + 1]
            if book.owes:
                rest -= book.own(budgets[index].counter)
            if left is None or rest < left:
                left = rest
            at += 2
    if left is not None:
        left = max(left, 0)
        amount = b"%d.%09d" % (left // NANO, left % NANO)
        headers.append((b"x-gateway-budget-remaining", amount))
    return headers


def _rates(windows: list[WindowRule], raw: list[int], budgets: int, tokens: list[int]) -> Headers:
    requests: tuple[int, int] | None = None  # left, limit
    size: tuple[int, int] | None = None
    at = FOUND + 2 * budgets
    for index, window in enumerate(windows):
        if window.rpm:
            found = (window.rpm - raw[at] - 1, window.rpm)
            requests = found if requests is None else min(requests, found)
        if window.tpm:
            found = (window.tpm - raw[at + 1] - tokens[index], window.tpm)
            size = found if size is None else min(size, found)
        at += 2
    headers = []
    if requests is not None:
        headers.append((b"x-ratelimit-limit-requests", b"%d" % requests[1]))
        headers.append((b"x-ratelimit-remaining-requests", b"%d" % max(requests[0], 0)))
    if size is not None:
        headers.append((b"x-ratelimit-limit-tokens", b"%d" % size[1]))
        headers.append((b"x-ratelimit-remaining-tokens", b"%d" % max(size[0], 0)))
    return headers
