"""What the rounds do not show: a fixed rate, the first token, a second worker."""

import contextlib
import statistics
import sys
from dataclasses import replace
from pathlib import Path

from tests.bench.lanes import machine, ours, pace, wrk
from tests.bench.lanes.machine import BenchError
from tests.bench.lanes.matrix import Matrix
from tests.bench.lanes.measure import Bench
from tests.bench.lanes.variants import BY_NAME, Case
from tests.proxy.replica import Replica, free_port

PLAIN_64 = Case(False, 0, 64)
STREAM_16 = Case(True, 0, 16)
SHARE_OF_MAXIMUM = 0.7
SHARE_FOR_FIRST_TOKEN = 0.5
# Enough for a tail, of variants that answer tens of streams a second.
FIRST_TOKENS_MIN = 150
FIRST_TOKENS_MAX_S = 12.0
WORKERS_S = 5.0
MAXIMUM_S = 2.0


def paced(bench: Bench, matrix: Matrix, home: Path) -> None:
    """Direct lane and mock at the same share of the lane's own maximum rate.

    Beside them, at that share of its own, a server that only computes, for as long as the lane
    does when it is loaded to its maximum: what that share alone costs on this machine. Each
    maximum is measured just before: a core that has slowed down meanwhile has another one.
    """
    if bench.results.rate(PLAIN_64, "direct") is None or not matrix.paced_rounds:
        return
    cpu_ms = bench.results.median(PLAIN_64, "direct", lambda sample: sample.cpu_ms or 0.0) or 0.0
    bench.results.control_cpu_ms = cpu_ms
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.lanes.control", str(port), str(cpu_ms)]
    with machine.process(command, home / "control.log", cores=bench.cores.gateway, port=port):
        for number in range(matrix.paced_rounds):
            rate = SHARE_OF_MAXIMUM * _maximum(bench)
            bench.results.paced_rates.append(rate)
            for name in ("mock", "direct"):
                told = _pace(bench, name, PLAIN_64, rate, matrix.paced_seconds)
                bench.results.paced.setdefault(name, []).append(told)
                _say_paced(bench, number, name, rate, told)
            _control(bench, port, number, matrix.paced_seconds)


def _maximum(bench: Bench) -> float:
    """What the direct lane can do now, with 64 connections."""
    variant = BY_NAME["direct"]
    bench.peer.forget()
    most = wrk.run(
        bench.site.request(variant, PLAIN_64),
        connections=64, seconds=MAXIMUM_S, cores=bench.cores.load,
    )  # fmt: skip
    if most.broken or most.not_2xx:
        bench.note(variant, PLAIN_64, [f"failed at its maximum: {most}"])
    bench.wait_events(variant, most.requests)
    return most.rate


def _control(bench: Bench, port: int, number: int, seconds: float) -> None:
    request = bench.site.request(BY_NAME["mock"], PLAIN_64)
    path = request.url.removeprefix(bench.site.provider)
    request = replace(request, url=f"http://127.0.0.1:{port}{path}")
    most = wrk.run(request, connections=64, seconds=MAXIMUM_S, cores=bench.cores.load)
    rate = SHARE_OF_MAXIMUM * most.rate
    told = pace.run(
        request, stream=False, rate=rate, connections=64, seconds=seconds, cores=bench.cores.load
    )
    bench.results.control.append(told)
    if told.wrong:
        bench.results.problems.append(f"control: {told.wrong} wrong answers at {rate:,.0f}/s")
    _say_paced(bench, number, "control", rate, told)


def _say_paced(bench: Bench, number: int, name: str, rate: float, told: pace.Paced) -> None:
    bench.log(
        f"{rate:,.0f}/s at 64 connections, round {number + 1}, {name}: "
        f"p50 {told.p50_ms:.2f} ms, p99 {told.p99_ms:.2f} ms"
    )


def first_token(bench: Bench, matrix: Matrix) -> None:
    """Streams at half of each variant's own maximum rate, the mock's at that of the lane."""
    rounds = min(2, max((plan.rounds for plan in matrix.plans), default=0))
    for number in range(rounds):
        for name in matrix.first_token:
            maximum = bench.results.rate(STREAM_16, "direct" if name == "mock" else name)
            if not maximum:
                continue
            rate = SHARE_FOR_FIRST_TOKEN * maximum
            seconds = min(FIRST_TOKENS_MAX_S, max(3.0, FIRST_TOKENS_MIN / rate))
            told = _pace(bench, name, STREAM_16, rate, seconds)
            bench.results.first_token.setdefault(name, []).append(told)
            bench.log(
                f"first token at {rate:,.0f} streams/s, round {number + 1}, {name}: "
                f"p50 {told.first_p50_ms:.2f} ms"
            )


def _pace(bench: Bench, name: str, case: Case, rate: float, seconds: float) -> pace.Paced:
    variant = BY_NAME[name]
    bench.quiet()
    bench.peer.forget()
    told = pace.run(
        bench.site.request(variant, case),
        stream=case.stream, rate=rate, connections=case.connections, seconds=seconds,
        cores=bench.cores.load,
    )  # fmt: skip
    bench.results.bodies += told.answered
    found = [f"{told.wrong} wrong answers at {rate:,.0f}/s"] if told.wrong else []
    if variant.event:
        bench.wait_events(variant, told.answered)
        events = bench.peer.counted().get(variant.event, 0)
        bench.results.events += events
        if events != told.answered:
            found.append(f"{told.answered} paced answers and {events} events")
    bench.note(variant, case, found)
    return told


def two_workers(bench: Bench, matrix: Matrix, one: Replica, redis_url: str, home: Path) -> None:
    """How much more two workers can carry than one.

    With four cores or more it is measured: each worker has a core, the load has the others.
    With two, gateway and load would compete for them, so it is computed from CPU time: one
    worker carries 1 / (CPU seconds per request) on its core. Two carry what their busiest
    can, on a core of its own: 1 / (CPU seconds per request * share of the busiest). Both are
    loaded in turn. Two workers run beside the load here, which makes their requests dearer.

    Twice the workers are asked by twice the connections: how many requests a worker does in a
    turn of its loop, and so what each of them costs, goes with the connections it has. What
    the same connections cost when two workers share them is told beside it.
    """
    if not matrix.worker_rounds or bench.results.rate(PLAIN_64, "direct") is None:
        return
    everything = sorted(bench.cores.all)
    spare = len(everything) >= 4
    cores = frozenset(everything[-2:]) if spare else bench.cores.all
    load = bench.cores.all - cores if spare else bench.cores.all
    figures: dict[str, list[float]] = {}
    each = PLAIN_64.connections
    with ours.replica(bench.peer, redis_url, home, cores=cores, workers=2) as two:
        ours.wait_ready(bench.peer, workers=3)
        _loaded(bench, two, load, 2 * each, 2.0)
        for _ in range(matrix.worker_rounds):
            for name, found, where, connections in (
                ("one", one, bench.cores.load, each),
                ("two", two, load, 2 * each),
                ("halved", two, load, each),
            ):
                for part, value in _loaded(bench, found, where, connections, WORKERS_S).items():
                    figures.setdefault(f"{name} {part}", []).append(value)
    told = {name: statistics.median(values) for name, values in figures.items()}
    for name in ("two", "halved"):
        told[f"{name} computed"] = told["one cpu_ms"] / (
            told[f"{name} cpu_ms"] * told[f"{name} busiest"]
        )
        told[f"{name} measured"] = told[f"{name} rate"] / told["one rate"]
    told["ratio"] = told["two measured" if spare else "two computed"]
    bench.results.workers = told
    bench.log(f"two workers against one: {told}")


def _loaded(
    bench: Bench, replica: Replica, load: frozenset[int], connections: int, seconds: float
) -> dict[str, float]:
    """Rate, CPU of all its processes per request, and the busiest worker's share."""
    variant = BY_NAME["direct"]
    bench.peer.forget()
    request = bench.site.request(variant, PLAIN_64)
    port = bench.site.ports["ours"]
    request = wrk.Request(
        request.url.replace(f":{port}/", f":{replica.port}/"), request.headers, request.body
    )
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
        bench.note(variant, PLAIN_64, [f"{figures.requests} answers and {events} events"])
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
