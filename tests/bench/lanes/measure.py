"""The rounds: each variant loaded in turn, watched, and its books balanced afterwards."""

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.bench.lanes import machine, pace, verify, wrk
from tests.bench.lanes.machine import Cores
from tests.bench.lanes.matrix import Plan
from tests.bench.lanes.variants import BY_NAME, Case, Site, Variant

WARM_UP_S = 2.0
SETTLE_MAX_S = 30.0
SILENCE_MAX_S = 6.0  # events that have not come by then are lost
# What runs on after an answer: callbacks, spools, reads of streams that were abandoned.
REST_S = 1.2
WATCH_EVERY_S = 0.5
# So slow a variant is loaded until each connection was answered some times.
TURNS = 6
SECONDS_MAX = 12.0
MISSES_MAX = 0.01


@dataclass(frozen=True)
class Sample:
    """One variant, once."""

    round: int  # of its case, from 0; the variants of a round ran moments apart
    figures: wrk.Figures
    cpu_ms: float | None  # of the gateway's processes, per request
    memory_mb: float | None
    busy: float | None  # cores' worth of CPU while it was loaded


@dataclass
class Results:
    """Of the whole run."""

    samples: dict[tuple[Case, str], list[Sample]] = field(default_factory=dict)
    paced: dict[str, list[pace.Paced]] = field(default_factory=dict)  # plain, at 70%
    paced_rates: list[float] = field(default_factory=list)  # requests/s, by round
    paced_first_in_line: bool = False  # provider and Valkey never waited for the load
    control: list[pace.Paced] = field(default_factory=list)  # a server that only computes
    control_cpu_ms: float = 0.0  # so long for each request
    first_token: dict[str, list[pace.Paced]] = field(default_factory=dict)
    workers: dict[str, float] = field(default_factory=dict)  # one, two, halved: medians
    problems: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)  # variant -> why
    events: int = 0
    bodies: int = 0
    errors: int = 0

    def median(self, case: Case, name: str, figure: Callable[[Sample], float]) -> float | None:
        """Over the rounds; None when it was not measured."""
        samples = self.samples.get((case, name))
        return statistics.median(figure(sample) for sample in samples) if samples else None

    def rates(self, case: Case, name: str) -> dict[int, float]:
        """Requests per second by round."""
        samples = self.samples.get((case, name), [])
        return {sample.round: sample.figures.rate for sample in samples}

    def rounds(self, case: Case) -> int:
        """How many there were so far; not all of them had every variant."""
        return 1 + max(
            (samples[-1].round for (of, _), samples in self.samples.items() if of == case),
            default=-1,
        )

    def rate(self, case: Case, name: str) -> float | None:
        """Requests per second."""
        return self.median(case, name, lambda sample: sample.figures.rate)


class Watch:
    """Compares bodies while the load runs."""

    def __init__(self, site: Site, variant: Variant, case: Case) -> None:
        self._asked = (site, variant, case)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.wrong: list[str] = []
        self.count = 0

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(WATCH_EVERY_S):
            self.wrong += verify.check(*self._asked)
            self.count += verify.asks(*self._asked[1:])


@dataclass
class Bench:
    """Everything that runs, and what came of it so far."""

    site: Site
    cores: Cores
    peer: Any
    results: Results
    log: Callable[[str], None]
    servers: tuple[int, ...] = ()  # processes of the provider and of Valkey
    # By kind and variant: what it can do when the provider takes no time.
    _rates: dict[tuple[bool, str], float] = field(default_factory=dict)

    def can(self, name: str, case: Case) -> bool:
        """Whether a variant takes part in a case. Who cannot is left out; of ours it is wrong."""
        variant = BY_NAME[name]
        place = f"{name} {'streams' if case.stream else 'plain'}"
        if variant.server and variant.server not in self.site.ports:
            return False
        if place in self.results.left_out:
            return False
        wrong = verify.check(self.site, variant, case)
        if not wrong:
            return True
        self.results.left_out[place] = wrong[0]
        self.log(f"left out: {wrong[0]}")
        if variant.server in ("", "ours"):
            self.results.problems.append(wrong[0])
        return False

    def run(self, plan: Plan) -> None:
        """All rounds of a case; every other one backwards, so that nobody is always the later."""
        able = [name for name in plan.variants if self.can(name, plan.case)]
        for name in able:
            self._warm(BY_NAME[name], plan)
        self.quiet()
        first = self.results.rounds(plan.case)
        for number in range(first, first + plan.rounds):
            for name in able if number % 2 == 0 else reversed(able):
                sample = self.once(BY_NAME[name], plan.case, plan.seconds, number)
                self.results.samples.setdefault((plan.case, name), []).append(sample)
                self.log(
                    f"{plan.case.title}, round {number + 1}, {name}: "
                    f"{sample.figures.rate:,.0f}/s, p50 {sample.figures.p50_ms:.2f} ms"
                )

    def _warm(self, variant: Variant, plan: Plan) -> None:
        """Also tells how fast the variant is, so that slow ones are loaded for longer."""
        connections = min(plan.case.connections, 16)
        found = wrk.run(
            self.site.request(variant, plan.case),
            connections=connections, seconds=WARM_UP_S, cores=self.cores.load,
        )  # fmt: skip
        if not plan.case.ms:
            self._rates[plan.case.stream, variant.name] = max(found.rate, 1.0)

    def once(self, variant: Variant, case: Case, seconds: float, number: int) -> Sample:
        """Load a variant in this round; checks everything that can be checked."""
        rate = self._rates.get((case.stream, variant.name))
        if rate:
            seconds = max(seconds, min(SECONDS_MAX, TURNS * case.connections / rate))
        self.peer.forget()
        pid = self.site.pids.get(variant.server)
        before_calls = self.calls()
        before_cpu = machine.tree_cpu_s(pid) if pid else 0.0
        with Watch(self.site, variant, case) as watch:
            figures = wrk.run(
                self.site.request(variant, case),
                connections=case.connections, seconds=seconds, cores=self.cores.load,
            )  # fmt: skip
            loaded = machine.tree_cpu_s(pid) - before_cpu if pid else None
        answered = figures.requests + watch.count
        self.wait_events(variant, answered)
        if variant.server == "ours":
            self._wait_cut(variant, before_calls)
        cpu = machine.tree_cpu_s(pid) - before_cpu if pid else None
        memory = machine.memory_mb(pid) if pid else None
        self.results.bodies += watch.count
        found = watch.wrong + _wrong_figures(variant, figures)
        found += self._balance(variant, case, answered, before_calls)
        self.note(variant, case, found, figures)
        return Sample(
            number,
            figures,
            cpu * 1000 / max(1, answered) if cpu is not None else None,
            memory,
            loaded / figures.seconds if loaded is not None else None,
        )

    def note(
        self, variant: Variant, case: Case, found: list[str], figures: wrk.Figures | None = None
    ) -> None:
        """What was wrong, said once and kept."""
        if figures is not None:
            self.results.errors += figures.broken
        for text in dict.fromkeys(found):
            line = (
                text if text.startswith(variant.name) else f"{variant.name}, {case.title}: {text}"
            )
            self.log(f"WRONG: {line}")
            self.results.problems.append(line)

    # --- books -----------------------------------------------------------------------------

    def calls(self) -> dict[str, int]:
        """Calls that the provider has answered so far, by caller."""
        told = httpx.get(f"{self.site.provider}/counts", trust_env=False).json()
        return {str(name): int(count) for name, count in told.items()}

    def quiet(self) -> None:
        """Wait until events have stopped coming."""
        last, since = -1, time.monotonic()
        deadline = since + SETTLE_MAX_S
        while time.monotonic() < deadline:
            now = self.peer.counted().get("events", 0)
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since >= REST_S:
                return
            time.sleep(0.1)

    def wait_events(self, variant: Variant, answered: int) -> None:
        """Until every answered request has been told of, or nothing comes any more."""
        if variant.event:
            self._wait_count(variant.event, answered)
        self.quiet()

    def _wait_count(self, kind: str, wanted: int) -> None:
        """Until so many events of a kind have come, or nothing comes any more."""
        told, since = -1, time.monotonic()
        while (now := self.peer.counted().get(kind, 0)) < wanted:
            if now != told:
                told, since = now, time.monotonic()
            elif time.monotonic() - since > SILENCE_MAX_S:
                break
            time.sleep(0.1)

    def _wait_cut(self, variant: Variant, before: dict[str, int]) -> None:
        """Requests that were cut are told of, too; with many of them LiteLLM takes its time."""
        called = self.calls().get(variant.model, 0) - before.get(variant.model, 0)
        self._wait_count("events", called)

    def _balance(
        self, variant: Variant, case: Case, answered: int, before: dict[str, int]
    ) -> list[str]:
        """Answers, calls of the provider and events must agree."""
        if variant.server != "ours":
            return []
        after, events = self.calls(), self.peer.counted()
        caller = variant.model
        called = after.get(caller, 0) - before.get(caller, 0)
        by_sdk = after.get(f"{caller}:sdk", 0) - before.get(f"{caller}:sdk", 0)
        total = events.pop("events", 0)
        self.results.events += total
        found = []
        if events.pop("duplicates", 0):
            found.append("events came twice")
        right = events.pop(variant.event, 0) if variant.event else 0
        if variant.event == "hit":
            # A Valkey that is slow for a moment is passed over: a call more, the same answer.
            missed = events.pop("ok:direct", 0)
            if missed > MISSES_MAX * answered:
                found.append(f"{missed} of {answered} answers were not in the cache")
            right, called = right + missed, max(0, called - missed)
        if variant.event and not answered <= right <= answered + case.connections:
            found.append(f"{answered} answers and {right} events {variant.event}")
        cut = events.pop("aborted", 0)  # wrk leaves in the middle of its last requests
        if cut > case.connections:
            found.append(f"{cut} events of requests that were cut")
        if events:
            found.append(f"other events: {events}")
        if called > total:
            found.append(f"{called} calls and {total} events")
        if not variant.calls_provider and called:
            found.append(f"{called} calls of the provider")
        if variant.name == "direct" and by_sdk:
            found.append(f"{by_sdk} of {called} calls were LiteLLM's")
        if variant.name == "lane" and by_sdk < called:
            found.append(f"only {by_sdk} of {called} calls were LiteLLM's")
        return found


def _wrong_figures(variant: Variant, figures: wrk.Figures) -> list[str]:
    found = []
    if figures.broken:
        found.append(f"{figures.broken} connections failed or timed out")
    unexpected = figures.not_2xx if variant.status == 200 else figures.requests - figures.not_2xx
    if unexpected:
        found.append(f"{unexpected} of {figures.requests} answers with another status")
    return found
