"""What the record of one request costs a worker, in microseconds of its CPU.

    python -m tests.bench.events_cost [--requests 20000] [--rounds 7]

An ordinary request: one attempt that went well, priced tokens, a grant that charges three
budgets. Each stage runs alone, `requests` times in a row; the median of the rounds is told,
and the quickest one beside it. The spool is a real directory (--spool names another disk),
the metrics are prometheus_client's of several processes, as in a replica.
"""

import argparse
import asyncio
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

BUDGET_US = 30.0
FLUSH = "(both, and a flush)"  # twice a second, not part of a request
Stage = Callable[[], object]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time what the record of a request costs.")
    parser.add_argument("--requests", type=int, default=20_000, help="in each round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--spool", type=Path, default=None, help="a directory on the disk to try")
    return parser.parse_args()


def stages(home: Path) -> dict[str, Stage]:
    """What happens to each request, by name."""
    # Late, since prometheus_client reads the environment when it is imported.
    from proxy.usage import encode, finished_event
    from tests.proxy.answered import answered, worker_in

    worker = worker_in(home)
    trace, capture = asyncio.run(answered(worker))
    spool, metrics = worker.spool, worker.metrics
    event = finished_event(trace, capture, aborted=False, count_tokens=None)
    record = encode(event)

    def beside() -> None:
        """The instruments that the relay and admission touch for each request."""
        metrics.in_flight.inc()
        metrics.admission.latency.observe(0.0004)
        metrics.admission.holds.set(17)
        for scope in ("environment", "team", "key"):
            metrics.budgets.remaining(scope, "subject", "name", 12.5)
        metrics.admission.holds.set(16)
        metrics.in_flight.dec()

    def flushed() -> None:
        metrics.observe(event)
        beside()
        metrics.flush()

    return {
        "event": lambda: finished_event(trace, capture, aborted=False, count_tokens=None),
        "encode": lambda: encode(event),
        "spool.append": lambda: spool.append(record),
        "metrics.observe": lambda: metrics.observe(event),
        "other instruments": beside,
        FLUSH: flushed,
    }


def cpu_us(run: Stage, requests: int) -> float:
    """CPU of the whole process for one run."""
    started = time.process_time()
    for _ in range(requests):
        run()
    return (time.process_time() - started) / requests * 1e6


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory(dir=options.spool) as home:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = home
        named = stages(Path(home) / "state")
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        figures: dict[str, list[float]] = {name: [] for name in named}
        for _ in range(options.rounds + 1):
            for name, run in named.items():
                figures[name].append(cpu_us(run, options.requests))
                for segment in Path(home).rglob("*.seg"):
                    os.truncate(segment, 0)
    report({name: took[1:] for name, took in figures.items()})  # the first round warms up


def report(figures: dict[str, list[float]]) -> None:
    """Print the table; fail when the whole costs more than it may."""
    print("| stage | CPU us | quickest |\n|---|---|---|")  # noqa: T201
    for name, took in figures.items():
        print(f"| {name} | {statistics.median(took):.2f} | {min(took):.2f} |")  # noqa: T201
    of_request = [took for name, took in figures.items() if name != FLUSH]
    whole = sum(statistics.median(took) for took in of_request)
    quickest = sum(min(took) for took in of_request)
    print(f"| together | {whole:.2f} | {quickest:.2f} |")  # noqa: T201
    assert quickest < BUDGET_US, f"{quickest:.1f} us of CPU for one request"


if __name__ == "__main__":
    main()
