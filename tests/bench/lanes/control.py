"""A server that computes for so long for each request, at once, and does nothing else.

    python -m tests.bench.lanes.control PORT CPU_MS

It waits for nobody, keeps nothing and has one step where a gateway has three. Loaded at the same
share of its own maximum, it shows how long requests stand in line because of that share and the
machine's own pauses. It is a comparison and no bound: a tight loop needs no caches, and it takes
its requests one by one where a gateway shares work among those that wait.
"""

import sys
import time

import uvloop

from tests.bench.lanes.mock import Provider, serve

LOOPS = 20_000  # that are timed
TRIES = 9


def compute(loops: int) -> int:
    """Work that takes as much longer as the core is slower."""
    total = 0
    for number in range(loops):
        total += number
    return total


def loops_of(cpu_ms: float) -> int:
    """How many loops take so long while nobody disturbs."""
    best_s = float("inf")
    for _ in range(TRIES):
        began = time.thread_time()
        compute(LOOPS)
        best_s = min(best_s, time.thread_time() - began)
    return max(1, round(LOOPS * cpu_ms / (best_s * 1000)))


class Computing(Provider):
    """One connection."""

    loops = 0

    def _answer(self, head: bytes, body: bytes) -> None:
        compute(self.loops)
        super()._answer(head, body)


if __name__ == "__main__":
    Computing.loops = loops_of(float(sys.argv[2]))
    uvloop.run(serve(int(sys.argv[1]), Computing))
