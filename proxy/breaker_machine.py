"""The circuit breaker of one deployment, as a pure state machine.

    closed ──(failures in a row, or too large a part of the window)──► open
    open ──(after open_s, at the first call that asks)──► half_open
    half_open ──(enough trial calls succeeded)──► closed
    half_open ──(a trial call failed)──► open

Every state has a generation, higher than the last one. A result counts only in the
generation that its call began under, so nothing late can close or open a breaker. While
half-open, a call needs a permit; at most `half_open_permits` are out at once, and one whose
worker died comes back by its expiry.

`proxy/lua/breaker.lua` is this same machine on Redis, shared by the fleet. This one is what
a worker runs alone when Redis is away, and what the shared one is tested against. All times
are milliseconds of one clock (of the Redis server, as far as it is known).
"""

from dataclasses import dataclass, field
from typing import Literal

from proxy.contract import BreakerDocument, BreakerState

BUCKETS = 10  # of the window in which failures are counted

Action = Literal["open", "close", "reset"]


@dataclass(slots=True)
class Machine:
    """State of one deployment's breaker. Methods take the present moment."""

    state: BreakerState = "closed"
    generation: int = 0
    since_ms: int = 0
    held: bool = False  # opened by hand: stays until another order
    reason: str = ""  # of the last transition
    paused_ms: int = 0  # the provider asked to be left alone until then
    failures: int = 0  # in a row, while closed
    successes: int = 0  # of trial calls, while half-open
    order: int = 0  # the last order that was followed
    bucket_ms: int = 0
    buckets: dict[int, list[int]] = field(default_factory=dict)  # index -> calls, failures
    permits: dict[str, int] = field(default_factory=dict)  # token -> expiry

    # --- calls -----------------------------------------------------------------------------

    def acquire(self, rules: BreakerDocument, now_ms: int, token: str, lease_ms: int) -> bool:
        """Ask whether a call may begin. A permit is handed out only while half-open."""
        if self.state == "open":
            if self.held:
                return False
            if not rules["enabled"]:
                self._move("closed", now_ms, "breakers were switched off")
            elif now_ms < self.since_ms + rules["open_s"] * 1000:
                return False
            else:
                self._move("half_open", now_ms, f"open for {rules['open_s']} s: trial calls")
        elif self.state == "half_open" and not rules["enabled"]:
            self._move("closed", now_ms, "breakers were switched off")
        if self.state == "closed":
            return True
        self.permits = {held: until for held, until in self.permits.items() if until > now_ms}
        if len(self.permits) >= rules["half_open_permits"]:
            return False
        self.permits[token] = now_ms + lease_ms
        return True

    def renew(self, now_ms: int, generation: int, token: str, lease_ms: int) -> None:
        """The permit's call is still under way."""
        if generation == self.generation and self.permits.get(token, 0) > now_ms:
            self.permits[token] = now_ms + lease_ms

    def record(
        self,
        rules: BreakerDocument,
        now_ms: int,
        generation: int,
        token: str,
        outcomes: str,
        last: str,
    ) -> None:
        """Calls ended: `s` succeeded, `f` failed, `n` says nothing of the deployment.

        `token` is the permit of a trial call, else "". `last` is the last failure's class.
        """
        for outcome in outcomes:
            if generation != self.generation:
                return
            if self.state == "closed":
                self._count(rules, now_ms, outcome, last)
            elif self.state == "half_open":
                self._try(rules, now_ms, token, outcome, last)

    def _count(self, rules: BreakerDocument, now_ms: int, outcome: str, last: str) -> None:
        if outcome == "n" or not rules["enabled"]:
            return
        bucket = self._bucket(rules, now_ms)
        bucket[0] += 1
        if outcome == "s":
            self.failures = 0
            return
        bucket[1] += 1
        self.failures += 1
        calls = sum(one[0] for one in self.buckets.values())
        failed = sum(one[1] for one in self.buckets.values())
        if self.failures >= rules["consecutive_failures"]:
            self._move("open", now_ms, f"{self.failures} failures in a row: {last}")
        elif calls >= rules["minimum_calls"] and failed * 100 >= rules["failure_percent"] * calls:
            text = f"{failed} of {calls} calls failed in {rules['window_s']} s: {last}"
            self._move("open", now_ms, text)

    def _bucket(self, rules: BreakerDocument, now_ms: int) -> list[int]:
        """Counts of the present part of the window; parts that left it are forgotten."""
        length_ms = rules["window_s"] * 1000 // BUCKETS
        if length_ms != self.bucket_ms:
            self.bucket_ms, self.buckets = length_ms, {}
        index = now_ms // length_ms
        self.buckets = {
            at: counts for at, counts in self.buckets.items() if index - BUCKETS < at <= index
        }
        return self.buckets.setdefault(index, [0, 0])

    def _try(
        self, rules: BreakerDocument, now_ms: int, token: str, outcome: str, last: str
    ) -> None:
        if self.permits.pop(token, 0) <= now_ms or outcome == "n":
            return
        if outcome == "f":
            self._move("open", now_ms, f"a trial call failed: {last}")
            return
        self.successes += 1
        if self.successes >= rules["close_after_successes"]:
            self._move("closed", now_ms, f"{self.successes} trial calls succeeded")

    # --- from outside ----------------------------------------------------------------------

    def pause(self, until_ms: int) -> None:
        """The provider's rate limit is used up until then."""
        self.paused_ms = max(self.paused_ms, until_ms)

    def follow(self, now_ms: int, order: int, action: Action) -> None:
        """Do what a person said, once."""
        if order <= self.order:
            return
        self.order = order
        if action == "open":
            self._move("open", now_ms, "opened by hand")
            self.held = True
        elif action == "reset":
            self._move("closed", now_ms, "reset by hand")
            self.paused_ms = 0
        elif self.state != "closed":
            self._move("closed", now_ms, "closed by hand")

    def _move(self, state: BreakerState, now_ms: int, reason: str) -> None:
        self.state, self.since_ms, self.reason = state, now_ms, reason
        self.generation = max(self.generation + 1, now_ms)
        self.held = False
        self.failures = self.successes = 0
        self.buckets, self.permits = {}, {}
