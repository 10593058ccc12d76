"""The breaker as a state machine: its promises, and that Redis keeps the very same ones."""

import asyncio
import os
import uuid
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.breaker import apply
from proxy.breaker_machine import Machine
from proxy.breaker_shared import SharedBreakers, Told
from proxy.contract import BreakerDocument
from proxy.contract.counters import tag
from proxy.redis_link import RedisLink

RULES: BreakerDocument = {
    "enabled": True,
    "consecutive_failures": 4,
    "failure_percent": 50,
    "minimum_calls": 6,
    "window_s": 10,
    "open_s": 5,
    "half_open_permits": 2,
    "close_after_successes": 3,
    "slow_call_s": None,
    "all_open": "refuse",
}
LEASE_MS = 4_000


class OneBreaker(RuleBasedStateMachine):
    """Calls begin, end, end late and never end; people give orders; time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine()
        self.rules: BreakerDocument = dict(RULES)  # type: ignore[assignment]
        self.now_ms = 1_000_000
        self.serial = 0
        self.steps = 0
        # (generation, token) of calls that are under way
        self.calls: list[tuple[int, str]] = []

    def do(self, *todo: list[Any]) -> bool:
        """Apply to the machine; whether a call was granted."""
        self.steps += 1
        return apply(self.machine, self.rules, self.now_ms, todo)

    @rule(seconds=st.sampled_from([0.001, 0.5, 1, 3, 4.999, 5, 9, 60]))
    def time_passes(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1000)

    @precondition(lambda self: self.machine.state == "open")
    @rule(early_ms=st.integers(0, 1))
    def the_open_time_is_just_over(self, early_ms: int) -> None:
        self.now_ms = max(self.now_ms, self.machine.since_ms + 5_000 - early_ms)
        self.a_call_begins()

    @rule()
    def a_call_begins(self) -> None:
        self.serial += 1
        token = f"t{self.serial}"
        before = self.machine.state
        if self.do(["a", token, LEASE_MS]):
            trial = self.machine.state == "half_open"
            self.calls.append((self.machine.generation, token if trial else ""))
        else:
            assert before != "closed"

    @precondition(lambda self: self.machine.permits)
    @rule(early_ms=st.integers(0, 1))
    def a_permit_just_expires(self, early_ms: int) -> None:
        self.now_ms = max(self.now_ms, min(self.machine.permits.values()) - early_ms)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), outcome=st.sampled_from("ssfn"))
    def a_call_ends(self, data: st.DataObject, outcome: str) -> None:
        self.end(data.draw(st.integers(0, len(self.calls) - 1)), outcome)

    @precondition(lambda self: self.machine.permits and self.calls)
    @rule()
    def the_last_call_succeeds(self) -> None:
        self.end(-1, "s")

    def end(self, number: int, outcome: str) -> None:
        """A call comes back, early or late."""
        generation, token = self.calls.pop(number)
        before, of_this_state = self.machine.state, generation == self.machine.generation
        self.do(["r", generation, token, outcome, "timeout"])
        if not of_this_state or outcome == "n":
            assert self.machine.state == before
        if before != "closed" and self.machine.state == "closed":
            assert of_this_state
            assert outcome == "s"
            assert token

    @rule(outcomes=st.sampled_from(["sfsfsfsf", "ffff", "f", "sss", "n"]), ago=st.integers(0, 1))
    def results_arrive_in_a_batch(self, outcomes: str, ago: int) -> None:
        self.do(["r", self.machine.generation - ago, "", outcomes, "connection"])

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def a_long_call_keeps_its_permit(self, data: st.DataObject) -> None:
        generation, token = data.draw(st.sampled_from(self.calls))
        self.do(["w", generation, token, LEASE_MS])

    @precondition(lambda self: len(self.calls) > 3)
    @rule()
    def a_worker_dies(self) -> None:
        self.calls.pop()

    @rule(wait_ms=st.integers(0, 5_000))
    def the_provider_asks_for_a_pause(self, wait_ms: int) -> None:
        self.do(["p", wait_ms])

    @precondition(lambda self: self.steps % 10 == 9)
    @rule(order=st.integers(1, 6), action=st.sampled_from(["open", "close", "reset"]))
    def somebody_orders(self, order: int, action: str) -> None:
        new = order > self.machine.order
        self.do(["o", order, action])
        if new:
            assert self.machine.state == ("open" if action == "open" else "closed")

    @precondition(lambda self: self.steps % 7 == 6)
    @rule(enabled=st.booleans(), permits=st.integers(1, 3), window_s=st.sampled_from([10, 20]))
    def settings_change(self, enabled: bool, permits: int, window_s: int) -> None:
        self.rules["enabled"], self.rules["window_s"] = enabled, window_s
        if self.machine.state == "closed":
            self.rules["half_open_permits"] = permits

    @invariant()
    def no_more_permits_than_allowed(self) -> None:
        live = [until for until in self.machine.permits.values() if until > self.now_ms]
        assert len(live) <= self.rules["half_open_permits"]
        assert not live or self.machine.state == "half_open"

    @invariant()
    def opened_by_hand_stays_open(self) -> None:
        assert not self.machine.held or self.machine.state == "open"


class SameBreakerOnRedis(OneBreaker):
    """Everything is done twice; the machine and the script must agree on all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.link = RedisLink(os.environ["REDIS_URL"], 5.0)
        self.loop.run_until_complete(self.link.start())
        self.environment = uuid.uuid4().hex
        self.shared = SharedBreakers(self.link, self.environment, "me")

    def do(self, *todo: list[Any]) -> bool:
        granted = super().do(*todo)
        told = self.told(list(todo))
        machine = self.machine
        who = "me" if machine.generation else ""
        assert told == Told(
            machine.state, machine.generation, machine.since_ms, machine.held,
            machine.paused_ms, granted, machine.reason, who,
        )  # fmt: skip
        assert self.fields() == self.expected_fields()
        return granted

    def told(self, todo: list[Any]) -> Told:
        """What the script says."""
        work = self.shared.work(self.rules, {"dep": todo}, now_ms=self.now_ms)
        return self.loop.run_until_complete(work)[1]["dep"]

    def fields(self) -> dict[str, str]:
        """What Redis keeps."""
        call = self.link.call("HGETALL", f"{tag(self.environment)}br:dep")
        flat = [part.decode() for part in self.loop.run_until_complete(call)]
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def expected_fields(self) -> dict[str, str]:
        """The machine's counters as Redis keeps them."""
        machine = self.machine
        found = {
            "st": machine.state, "g": machine.generation, "t": machine.since_ms,
            "h": int(machine.held), "y": machine.reason, "p": machine.paused_ms,
            "w": "me" if machine.generation else "", "f": machine.failures,
            "n": machine.successes, "o": machine.order, "m": machine.bucket_ms,
        }  # fmt: skip
        found |= {f"b{at}": f"{calls}:{bad}" for at, (calls, bad) in machine.buckets.items()}
        found |= {f"k{token}": until for token, until in machine.permits.items()}
        return {name: str(value) for name, value in found.items()}

    def teardown(self) -> None:
        self.loop.run_until_complete(self.link.stop())
        self.loop.close()


SETTINGS = settings(
    max_examples=120,
    stateful_step_count=80,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestOneBreaker = OneBreaker.TestCase
TestOneBreaker.settings = settings(SETTINGS, max_examples=300)
TestSameBreakerOnRedis = SameBreakerOnRedis.TestCase
TestSameBreakerOnRedis.settings = SETTINGS
