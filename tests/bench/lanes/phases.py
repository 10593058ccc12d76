"""What the rounds do not show: a fixed rate, and the first token."""

import sys
from dataclasses import replace
from pathlib import Path

from tests.bench.lanes import machine, pace, wrk
from tests.bench.lanes.matrix import Matrix
from tests.bench.lanes.measure import Bench
from tests.bench.lanes.variants import BY_NAME, Case
from tests.proxy.replica import free_port

PLAIN_64 = Case(False, 0, 64)
STREAM_16 = Case(True, 0, 16)
SHARE_OF_MAXIMUM = 0.7
SHARE_FOR_FIRST_TOKEN = 0.5
# Enough for a tail, of variants that answer tens of streams a second.
FIRST_TOKENS_MIN = 150
FIRST_TOKENS_MAX_S = 12.0
MAXIMUM_S = 2.0


def paced(bench: Bench, matrix: Matrix, home: Path) -> None:
    """Direct lane and mock at the same share of the lane's own maximum rate.

    Beside them, at that share of its own, a server that only computes, for as long as the lane
    does when it is loaded to its maximum: what that share alone costs on this machine. Each
    maximum is measured just before: a core that has slowed down meanwhile has another one.

    In earnest provider and Valkey have cores of their own. Here they share one with the load,
    whose turns of milliseconds would be their tail: they are let in at once.
    """
    if bench.results.rate(PLAIN_64, "direct") is None or not matrix.paced_rounds:
        return
    cpu_ms = bench.results.median(PLAIN_64, "direct", lambda sample: sample.cpu_ms or 0.0) or 0.0
    bench.results.control_cpu_ms = cpu_ms
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.lanes.control", str(port), str(cpu_ms)]
    with (
        machine.process(command, home / "control.log", cores=bench.cores.gateway, port=port),
        machine.first_in_line(bench.servers) as bench.results.paced_first_in_line,
    ):
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
