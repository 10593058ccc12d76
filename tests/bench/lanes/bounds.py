"""What a run has to show."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.lanes.measure import Results
from tests.bench.lanes.variants import Case

PLAIN, STREAM = Case(False, 0, 16), Case(True, 0, 16)
ALONE = Case(False, 0, 1)


@dataclass(frozen=True)
class Bound:
    """One promise. `figure` gives None when the run did not measure it."""

    text: str
    limit: float
    unit: str  # "x": at least; "ms": at most
    figure: Callable[[Results], float | None]

    def met(self, value: float) -> bool:
        """Whether the promise holds."""
        return value >= self.limit if self.unit == "x" else value <= self.limit


def ratio(results: Results, case: Case, name: str, to: str) -> float | None:
    """Requests per second of one variant in those of another: median of each round's ratio.

    Within a round the two ran moments apart, so what else the machine did weighs on both.
    """
    above, below = results.rates(case, name), results.rates(case, to)
    found = [above[number] / below[number] for number in above if below.get(number)]
    return statistics.median(found) if found else None


def _against(case: Case, name: str, to: str) -> Callable[[Results], float | None]:
    return lambda results: ratio(results, case, name, to)


def _added_alone_ms(results: Results) -> float | None:
    ours = results.median(ALONE, "direct", lambda sample: sample.figures.p50_ms)
    mock = results.median(ALONE, "mock", lambda sample: sample.figures.p50_ms)
    return ours - mock if ours is not None and mock is not None else None


def _added_p99_ms(results: Results) -> float | None:
    """Median over the rounds of the difference within a round."""
    pairs = list(zip(results.paced.get("direct", []), results.paced.get("mock", []), strict=False))
    added = [ours.p99_ms - mock.p99_ms for ours, mock in pairs]
    return statistics.median(added) if added else None


BOUNDS = (
    Bound("direct lane / LiteLLM tuned, plain, 16 connections", 20, "x",
          _against(PLAIN, "direct", "tuned")),
    Bound("direct lane / LiteLLM tuned, streams, 16 connections", 40, "x",
          _against(STREAM, "direct", "tuned")),
    Bound("direct lane / Portkey, plain, 16 connections", 3.5, "x",
          _against(PLAIN, "direct", "portkey")),
    Bound("added latency, p50 at 1 connection", 0.5, "ms", _added_alone_ms),
    Bound("added latency, p99 at 64 connections and 70% of its maximum rate", 5, "ms",
          _added_p99_ms),
    Bound("cache hit / LiteLLM tuned", 60, "x", _against(PLAIN, "hit", "tuned")),
    Bound("refusal of an unknown key / LiteLLM tuned", 60, "x",
          _against(PLAIN, "unknown", "tuned")),
    Bound("refusal over budget / LiteLLM tuned", 60, "x", _against(PLAIN, "broke", "tuned")),
    Bound("two workers on two cores / one on one, 64 connections each", 1.8, "x",
          lambda results: results.workers.get("two times")),
    Bound("LiteLLM lane with all rules / LiteLLM tuned, plain", 0.95, "x",
          _against(PLAIN, "lane", "tuned")),
)  # fmt: skip


def judged(results: Results) -> list[tuple[Bound, float | None, str]]:
    """Each bound, its figure, and `met`, `MISSED` or `not measured`."""
    found = []
    for bound in BOUNDS:
        value = bound.figure(results)
        word = "not measured" if value is None else "met" if bound.met(value) else "MISSED"
        found.append((bound, value, word))
    return found
