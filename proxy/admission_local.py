"""Counting alone: what one worker may admit while the shared counters are away.

Of each budget a worker may spend its share: what remained when it last heard, divided by
the workers that lived then. Of each limit it may admit its share, exactly. The shares of
all workers together never exceed what they divide, as far as they last heard the same.

The book is kept up to date while the shared counters work: every answer tells balances,
and this worker's own requests are entered in its windows, so that the first minute of an
outage begins with what was just admitted.
"""

import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxy.admission_plan import Ending, Plan, Reservation
from proxy.admission_rules import BudgetRule
from proxy.contract.counters import WINDOW_S
from proxy.grant import Grant

BALANCES_MAX = 5_000
WINDOWS_MAX = 20_000
PARALLEL_WAIT_MS = 1_000
LATELY_MS = 1_000  # what was used lately need not be moved to the end again
NO_SHARE_WAIT_MS = 2_000  # there are more workers than the limit has requests

JUST_SEEN_MS = 500  # a budget's balance is not asked for again so soon, once it was used up


@dataclass(slots=True)
class Balance:
    """One budget's counter as last seen, and what this worker did without it. Nano-dollars."""

    key: str
    bucket_s: int
    spent: int = 0
    held: int = 0
    seen_ms: int = 0
    heard_s: float = 0.0  # time.monotonic() when that was heard
    local_spent: int = 0  # since the shared counters were lost
    local_held: int = 0  # of requests admitted alone that still run
    unreported: int = 0  # spent alone, and not yet known to have reached the ledger
    on_its_way: int = 0  # of that: in events whose delivery is being watched


@dataclass(slots=True)
class _Window:
    """Requests and tokens of this worker in the last 60 s, by second."""

    # by second, oldest first: second, requests, tokens, moment (ms) of the last one
    buckets: dict[int, list[int]] = field(default_factory=dict)
    leaves_ms: int = 0  # nothing has to be dropped before
    requests: int = 0
    tokens: int = 0

    def expire(self, now_ms: int) -> None:
        if now_ms < self.leaves_ms:
            return
        buckets = self.buckets
        while buckets:
            oldest = buckets[next(iter(buckets))]
            self.leaves_ms = oldest[3] + WINDOW_S * 1000
            if self.leaves_ms > now_ms:
                return
            self.requests -= oldest[1]
            self.tokens -= oldest[2]
            del buckets[oldest[0]]

    def add(self, second: int, now_ms: int, tokens: int) -> bool:
        """Count one; whether it is the first of its second."""
        last = self.buckets.get(second)
        is_first = last is None
        if last is None:
            last = self.buckets[second] = [second, 0, 0, now_ms]
        last[1] += 1
        last[2] += tokens
        if now_ms > last[3]:
            last[3] = now_ms
        self.requests += 1
        self.tokens += tokens
        return is_first

    def correct(self, second: int, tokens: int) -> None:
        bucket = self.buckets.get(second)
        if bucket is not None:
            bucket[2] += tokens
            self.tokens += tokens

    def wait_ms(self, now_ms: int, requests: int, tokens: int) -> int:
        for _, made, used, last in self.buckets.values():
            requests -= made
            tokens -= used
            if requests <= 0 and tokens <= 0:
                return max(last + WINDOW_S * 1000 - now_ms, 1)
        return NO_SHARE_WAIT_MS


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the rules of one plan are counted."""

    drops: int  # of the book, when they were looked up
    balances: list[Balance]
    windows: list[_Window]


@dataclass(frozen=True, slots=True)
class LocalRefusal:
    """Which rule refused: kind budget, rpm, tpm or parallel, and its place in the rules."""

    kind: str
    index: int
    wait_ms: int
    used: int  # of `share`: nano-dollars, requests, tokens
    share: int


class LocalBook:
    """Balances, windows and running requests of one worker."""

    def __init__(self) -> None:
        self.workers = 1
        self.rank = 0  # this worker's place among the live ones
        self.balances: OrderedDict[str, Balance] = OrderedDict()
        self._windows: OrderedDict[str, _Window] = OrderedDict()
        self._running: dict[str, int] = {}
        self._alone: dict[str, _Window] = {}  # of the windows: what the others do not know of
        self._unreported: set[str] = set()
        self._held_alone = 0  # of all budgets, nano-dollars
        self._drops = 0  # balances and windows that were forgotten
        self._second = 0

    # --- what the shared counters tell -----------------------------------------------------

    def saw(
        self, wanted: Reservation, found: list[int], at: int, now_ms: int, heard_s: float
    ) -> None:
        """A reply told balances (spent and held of each budget, from a place in it on).

        What was spent alone before is no longer set against them. A reply that is read late
        says nothing of what a later one has told.
        """
        budgets = wanted.plan.rules.budgets
        for index, balance in enumerate(self._places(wanted.plan).balances):
            if heard_s < balance.heard_s:
                at += 2
                continue
            balance.heard_s = heard_s
            if now_ms - balance.seen_ms >= LATELY_MS:
                self.balances.move_to_end(budgets[index].counter)
            balance.spent, balance.held = found[at], found[at + 1]
            balance.seen_ms, balance.local_spent = now_ms, 0
            at += 2

    def knows_better(self, wanted: Reservation, heard_s: float) -> bool:
        """Whether something was heard of one of the budgets since then."""
        return any(heard_s < one.heard_s for one in self._places(wanted.plan).balances)

    def exhausted(self, wanted: Reservation, now_ms: int) -> int | None:
        """The first budget of the request that what was just spent leaves no room in.

        What is spent comes back only by a correction of the ledger, or as a rolling window
        moves on; who asks again within JUST_SEEN_MS would be told the same.
        """
        for index in range(wanted.plan.first_target[0]):
            if self.is_exhausted(wanted, index, now_ms):
                return index
        return None

    def is_exhausted(self, wanted: Reservation, index: int, now_ms: int) -> bool:
        """The same of one budget."""
        balance, nano = self._places(wanted.plan).balances[index], wanted.nano[index]
        return (
            balance.spent + nano > wanted.plan.rules.budgets[index].limit_nano
            and nano > 0
            and now_ms - balance.seen_ms < JUST_SEEN_MS
        )

    def _places(self, plan: Plan) -> "_Places":
        """Where a plan's budgets and windows are counted: looked up once, until one is dropped."""
        places: _Places | None = plan.places
        if places is None or places.drops != self._drops:
            rules = plan.rules
            balances = [self._balance(rule) for rule in rules.budgets]
            windows = [self._window(window.key) for window in rules.windows]
            places = plan.places = _Places(self._drops, balances, windows)
        return places

    def refreshed(self, counters: Iterable[str], found: Sequence[tuple[int, int]], ms: int) -> None:
        """The heartbeat looked at balances."""
        for counter, (spent, held) in zip(counters, found, strict=True):
            balance = self.balances.get(counter)
            if balance is not None:
                balance.spent, balance.held, balance.seen_ms = spent, held, ms
                balance.heard_s = time.monotonic()
                balance.local_spent = 0

    def own(self, counter: str) -> int:
        """What this worker spent or holds that the shared counter cannot know, nano-dollars."""
        balance = self.balances.get(counter)
        return balance.unreported + balance.local_held if balance is not None else 0

    @property
    def owes(self) -> bool:
        """Whether there is any such budget."""
        return bool(self._unreported or self._held_alone)

    @property
    def has_unreported(self) -> bool:
        """Whether anything was spent alone that the ledger may not know."""
        return bool(self._unreported)

    def begin_delivery(self) -> None:
        """From now on it is watched whether all that was spent so far reaches the ledger."""
        for counter in self._unreported:
            balance = self.balances[counter]
            balance.on_its_way = balance.unreported

    def delivered(self) -> None:
        """What was watched has reached the ledger."""
        for counter in list(self._unreported):
            balance = self.balances[counter]
            balance.unreported -= balance.on_its_way
            balance.on_its_way = 0
            if not balance.unreported:
                self._unreported.discard(counter)

    def _balance(self, rule: BudgetRule) -> Balance:
        balance = self.balances.get(rule.counter)
        if balance is None:
            balance = Balance(rule.key, rule.period.bucket_s or 0)
            self.balances[rule.counter] = balance
            if len(self.balances) > BALANCES_MAX:
                self._forget_oldest()
        self.balances.move_to_end(rule.counter)
        return balance

    def _forget_oldest(self) -> None:
        for counter, balance in self.balances.items():
            if not (balance.local_spent or balance.local_held or balance.unreported):
                del self.balances[counter]
                self._drops += 1
                return

    # --- counting alone --------------------------------------------------------------------

    def share(self, limit: int) -> int:
        """This worker's part of a limit; the parts of all workers sum to it."""
        count = max(self.workers, 1)
        return limit // count + (1 if self.rank < limit % count else 0)

    def left(self, rule: BudgetRule) -> int:
        """What this worker may still spend of a budget alone, nano-dollars."""
        balance = self._balance(rule)
        remaining = max(rule.limit_nano - balance.spent - balance.held, 0)
        return self.share(remaining) - balance.local_spent - balance.local_held

    def check(self, wanted: Reservation, now_ms: int) -> LocalRefusal | None:
        """The first rule that this worker's share does not allow."""
        for index, (rule, nano) in enumerate(zip(wanted.rules.budgets, wanted.nano, strict=True)):
            left = self.left(rule)
            if nano > 0 and nano > left:
                return LocalRefusal("budget", index, 0, rule.limit_nano - max(left, 0), left)
        for index, rule_ in enumerate(wanted.rules.windows):
            window = self._window(rule_.key)
            window.expire(now_ms)
            rpm = self.share(rule_.rpm) if rule_.rpm else None
            if rpm is not None and window.requests + 1 > rpm:
                wait_ms = window.wait_ms(now_ms, window.requests + 1 - rpm, 0)
                return LocalRefusal("rpm", index, wait_ms, window.requests, rpm)
            tpm = self.share(rule_.tpm) if rule_.tpm else None
            tokens = min(wanted.tokens[index], tpm) if tpm is not None else 0
            if tpm is not None and (window.tokens + tokens > tpm or tpm == 0):
                wait_ms = window.wait_ms(now_ms, 0, window.tokens + tokens - tpm)
                return LocalRefusal("tpm", index, wait_ms, window.tokens, tpm)
        for index, parallel in enumerate(wanted.rules.parallel):
            share, running = self.share(parallel.limit), self._running.get(parallel.key, 0)
            if running + 1 > share:
                return LocalRefusal("parallel", index, PARALLEL_WAIT_MS, running, share)
        return None

    def hold(self, wanted: Reservation) -> None:
        """Set money aside for a request that was admitted alone."""
        for rule, nano in zip(wanted.rules.budgets, wanted.nano, strict=True):
            self._balance(rule).local_held += nano
            self._held_alone += nano

    def hold_again(self, rule: BudgetRule, nano: int) -> None:
        """A running request that the shared counters forgot."""
        self._balance(rule).local_held += nano
        self._held_alone += nano

    def enter(self, wanted: Reservation, now_ms: int, *, alone: bool) -> None:
        """Count an admitted request."""
        second = now_ms // 1000
        if second < self._second:
            second = self._second
        self._second = wanted.own_second = second
        rules, tokens = wanted.plan.rules, wanted.tokens
        if alone:
            for index, rule in enumerate(rules.windows):
                window = self._alone.setdefault(rule.key, _Window())
                if len(self._alone) > WINDOWS_MAX:
                    del self._alone[next(iter(self._alone))]
                window.expire(now_ms)
                window.add(second, now_ms, tokens[index])
        for index, window in enumerate(self._places(wanted.plan).windows):
            if now_ms >= window.leaves_ms:
                window.expire(now_ms)
            if window.add(second, now_ms, tokens[index]):
                self._windows.move_to_end(rules.windows[index].key)
        for parallel in rules.parallel:
            self._running[parallel.key] = self._running.get(parallel.key, 0) + 1

    def admitted_alone(self) -> dict[str, list[list[int]]]:
        """By window what the shared one has to be told, when it is back."""
        return {key: list(window.buckets.values()) for key, window in self._alone.items()}

    def merged(self) -> None:
        """The shared windows were told."""
        self._alone.clear()

    def _window(self, key: str) -> _Window:
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window()
            if len(self._windows) > WINDOWS_MAX:
                self._windows.popitem(last=False)
                self._drops += 1
        return window

    def leave(self, grant: Grant, endings: Sequence[Ending], tokens: int) -> None:
        """A request ended: correct its tokens, free its places."""
        for part, ending in zip(grant.parts, endings, strict=True):
            reserved, counted = part.tokens, ending.counted
            for index, window in enumerate(self._places(part.plan).windows):
                true = tokens if counted[index] else 0
                if true != reserved[index]:
                    window.correct(part.own_second, true - reserved[index])
            for parallel in part.plan.rules.parallel:
                left = self._running.pop(parallel.key, 1) - 1
                if left > 0:
                    self._running[parallel.key] = left

    def spend(self, rule: BudgetRule, held: int, nano: int | None) -> None:
        """A request admitted alone ended; None: another target was charged."""
        balance = self.balances.get(rule.counter)
        if balance is None:
            return
        balance.local_held -= held
        self._held_alone -= held
        if nano:
            balance.local_spent += nano
            balance.unreported += nano
            self._unreported.add(rule.counter)

    # --- over a restart --------------------------------------------------------------------

    def export(self) -> dict[str, Any]:
        """For the state directory."""
        return {
            "workers": self.workers,
            "rank": self.rank,
            "counters": {
                counter: [
                    b.key,
                    b.bucket_s,
                    b.spent,
                    b.held,
                    b.seen_ms,
                    b.local_spent + b.local_held,
                ]
                for counter, b in self.balances.items()
            },
        }

    def restore(self, own: Any, others: Iterable[Any]) -> None:
        """Take over what this and the neighbouring workers last wrote; raises on nonsense."""
        for saved in (own, *others):
            if not isinstance(saved, dict):
                continue
            self.workers = max(self.workers, int(saved["workers"]))
            for counter, (key, bucket_s, spent, held, seen_ms, alone) in saved["counters"].items():
                balance = self.balances.setdefault(counter, Balance(key, bucket_s))
                if seen_ms > balance.seen_ms or not balance.seen_ms:
                    balance.spent, balance.held, balance.seen_ms = spent, held, seen_ms
                if saved is own:
                    balance.local_spent = alone
        if isinstance(own, dict):
            self.rank = int(own["rank"])
