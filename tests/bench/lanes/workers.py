"""How much more two workers carry than one."""

import contextlib
import os
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.bench.lanes import machine, ours, wrk
from tests.bench.lanes.machine import BenchError
from tests.bench.lanes.matrix import Matrix
from tests.bench.lanes.measure import Bench
from tests.bench.lanes.variants import BY_NAME, Case
from tests.proxy.replica import Replica

CASE = Case(False, 0, 64)
SECONDS = 3.0
WARM_UP_S = 2.0


def two_workers(bench: Bench, matrix: Matrix, one: Replica, redis_url: str, home: Path) -> None:
    """Load one worker and two in turn: everything twice, workers, cores and connections.

    With four cores or more each worker has a core, and what surrounds the gateway the others.
    With fewer, each worker shares its core with its part of provider, counters and load: one
    worker on one core to which all of them are moved, two on both. A request's part of that is
    the same on either side, so none of it has to be left out by calculation.

    Beside it the connections of one worker, shared by two.
    """
    if not matrix.worker_rounds or bench.results.rate(CASE, "direct") is None:
        return
    everything = sorted(bench.cores.all)
    spare = len(everything) >= 4
    pair = frozenset(everything[-2:]) if spare else bench.cores.all
    around_one = bench.cores.all - pair if spare else bench.cores.gateway
    around_two = bench.cores.all - pair if spare else pair
    each = CASE.connections
    rounds: list[dict[str, float]] = []
    with ours.replica(bench.peer, redis_url, home, cores=pair, workers=2) as two:
        ours.wait_ready(bench.peer, workers=3)
        with _surroundings(bench, one, two) as around:
            _loaded(bench, two, around_two, 2 * each, WARM_UP_S)
            for _ in range(matrix.worker_rounds):
                found: dict[str, float] = {}
                for name, replica, where, connections in (
                    ("one", one, around_one, each),
                    ("two", two, around_two, 2 * each),
                    ("halved", two, around_two, each),
                ):
                    machine.move(around, where)
                    told = _loaded(bench, replica, where, connections, SECONDS)
                    found |= {f"{name} {part}": value for part, value in told.items()}
                for name in ("two", "halved"):
                    found[f"{name} times"] = found[f"{name} rate"] / found["one rate"]
                rounds.append(found)
    medians = {name: statistics.median(found[name] for found in rounds) for name in rounds[0]}
    bench.results.workers = medians
    bench.log(f"two workers against one: {medians}")


@contextlib.contextmanager
def _surroundings(bench: Bench, *replicas: Replica) -> Iterator[list[int]]:
    """The bench's processes that are no gateway; they are back on their cores at the end."""
    gateways = {*bench.site.pids.values(), *map(ours.pid_of, replicas)}
    apart = {os.getpid(), *(member for pid in gateways for member in machine.tree(pid))}
    around = [pid for pid in machine.tree(os.getpid()) if pid not in apart]
    try:
        yield around
    finally:
        machine.move(around, bench.cores.load)


def _loaded(
    bench: Bench, replica: Replica, load: frozenset[int], connections: int, seconds: float
) -> dict[str, float]:
    """Rate, CPU of all its processes per request, and the busiest worker's share."""
    variant = BY_NAME["direct"]
    bench.peer.forget()
    request = bench.site.request(variant, CASE)
    port = bench.site.ports["ours"]
    request = replace(request, url=request.url.replace(f":{port}/", f":{replica.port}/"))
    pid = ours.pid_of(replica)
    before, each = machine.tree_cpu_s(pid), _cpu_of_children(replica)
    figures = wrk.run(request, connections=connections, seconds=seconds, cores=load)
    bench.wait_events(variant, figures.requests)
    used = machine.tree_cpu_s(pid) - before
    after = _cpu_of_children(replica)
    shares = [after[worker] - each.get(worker, 0.0) for worker in after]
    if not figures.requests or figures.broken or figures.not_2xx:
        raise BenchError(f"the replica failed under load: {figures}")
    events = bench.peer.counted().get(variant.event, 0)
    if not figures.requests <= events <= figures.requests + connections:
        bench.note(variant, CASE, [f"{figures.requests} answers and {events} events"])
    return {
        "rate": figures.rate,
        "cpu_ms": used * 1000 / figures.requests,
        "busiest": max(shares) / max(sum(shares), 1e-9),
    }


def _cpu_of_children(replica: Replica) -> dict[int, float]:
    """Seconds by process; the porter of the start may leave at any time."""
    found = {}
    for child in replica.children():
        with contextlib.suppress(OSError):
            found[child] = machine.cpu_s(child)
    return found
