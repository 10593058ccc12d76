"""Half an hour of everything at once: memory stays, nothing is left open.

make soak
GATEWAY_SOAK_S=900 python -m pytest tests/chaos/test_soak.py -s

The first 450 s warm up and are not measured, however long the run is: what happens then happens
once, by time and not by share. Connections and threads are made, and each worker doubles Python's
table of interned strings for itself (4 MB), one to four minutes after the load began. What is
measured is anonymous resident memory. Pages that are shared with the launcher count in it from the
start, so writing to one is no growth.

Each call names another customer: whatever remembers callers would grow.
"""

import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.acceptance.counters import Counters
from tests.acceptance.stack import Stack, running_stack
from tests.chaos.load import Caller, Load, tally

SOAK_S = float(os.environ.get("GATEWAY_SOAK_S", "1800"))
WARM_S = 450.0
SAMPLE_S = 10.0
SLOPE_MB_PER_10_MIN = 1.0


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack(workers=2) as running:
        yield running


def test_memory_files_and_holds_do_not_grow(stack: Stack) -> None:
    assert SOAK_S >= 2 * WARM_S, "too short to tell a slope from a step"
    counters = Counters.of(stack)
    pids = [worker["pid"] for worker in stack.workers()]
    samples: dict[int, list[tuple[float, float]]] = {pid: [] for pid in pids}
    callers = mixed_callers(stack)
    began = time.monotonic()
    files: dict[int, int] = {}
    with Load(callers, threads=1):
        while (elapsed_s := time.monotonic() - began) < SOAK_S:
            if elapsed_s >= WARM_S:
                for pid in pids:
                    samples[pid].append((elapsed_s, resident_mb(pid)))
                files = files or {pid: open_files(pid) for pid in pids}
            time.sleep(SAMPLE_S)
    assert {worker["pid"] for worker in stack.workers()} == set(pids)  # nobody was replaced
    stack.wait_for(lambda: counters.holds() == 0, "no hold is left", timeout_s=60)
    outcomes = [outcome for caller in callers for outcome in caller.outcomes]
    for pid in pids:
        grown = slope_per_s(samples[pid]) * 600
        opened = open_files(pid) - files[pid]
        print(  # noqa: T201
            f"worker {pid}: {samples[pid][0][1]:.1f} to {samples[pid][-1][1]:.1f} MB, "
            f"{grown:+.2f} MB in 10 min, {opened:+d} open files"
        )
    print(f"{len(outcomes)} calls in {SOAK_S:.0f} s: {tally(outcomes)}")  # noqa: T201
    assert all(slope_per_s(samples[pid]) * 600 < SLOPE_MB_PER_10_MIN for pid in pids)
    assert all(open_files(pid) - files[pid] < 10 for pid in pids)
    assert 0 < tasks_left(stack) < 40 * len(pids)


def mixed_callers(stack: Stack) -> list[Caller]:
    """Whole answers and streams of all providers, failures, refusals, answers from the cache."""
    stack.simulator.control(
        {"kind": "gemini", "faults": [{"type": "overload", "every": 5}]},
        {"kind": "azure", "faults": [{"type": "cut_stream", "after_chunks": 3, "every": 7}]},
    )
    poor = stack.issue_key("nothing left")
    stack.api.post("budgets/", environment="prod", scope="key", subject=poor["id"],
                   limit_usd="0.000001", period="lifetime")  # fmt: skip
    cached = stack.issue_key("cached", cache="all")
    models = ("openai-chat", "anthropic-chat", "gemini-chat", "azure-chat", "bedrock-chat")
    urls = [stack.proxy]
    return [
        *(Caller(urls, stack.key, model=model, pause_s=0.3) for model in models),
        Caller(urls, poor["key"], pause_s=0.3),
        Caller(urls, cached["key"], pause_s=0.3),
    ]


def resident_mb(pid: int) -> float:
    """Anonymous resident memory: what the process itself has, without shared pages of files."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("the kernel does not say")


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def slope_per_s(samples: list[tuple[float, float]]) -> float:
    """Megabytes a second, by least squares."""
    return statistics.linear_regression([t for t, _ in samples], [mb for _, mb in samples]).slope


def tasks_left(stack: Stack) -> float:
    """asyncio tasks of all workers, once nobody calls."""
    time.sleep(10)
    text = httpx.get(f"{stack.proxy}/metrics").text
    return sum(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("gateway_proxy_tasks")
    )
