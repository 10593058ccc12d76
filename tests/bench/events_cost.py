"""What the record of one request costs a worker, in microseconds of its CPU.

    python -m tests.bench.events_cost [--requests 20000] [--rounds 7]

An ordinary request: one attempt that went well, priced tokens, a grant that charges three
budgets. Each stage runs alone, `requests` times in a row; the median of the rounds is told,
and the quickest one beside it. The spool is a real directory (--spool names another disk),
the metrics are prometheus_client's of several processes, as in a replica.
"""

import argparse
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

BUDGET_US = 30.0
FLUSH = "(both, and a flush)"  # twice a second, not part of a request
Stage = Callable[[], object]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time what the record of a request costs.")
    parser.add_argument("--requests", type=int, default=20_000, help="in each round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--spool", type=Path, default=None, help="a directory on the disk to try")
    return parser.parse_args()


def price() -> Any:
    """Tokens at a price of our own."""
    from proxy.snapshot import Price

    units = {
        "input_token": "0.0000025",
        "output_token": "0.00001",
        "cache_read_token": "0.00000125",
    }
    return Price(
        "6f1c2d3e-0000-4000-8000-000000000001", "own", {u: Decimal(p) for u, p in units.items()}
    )


def traced() -> tuple[Any, Any]:
    """Trace and capture of a request that is about to be settled."""
    from proxy.capture import Capture
    from proxy.grant import Charge, Grant
    from proxy.metering import usage_from_openai
    from proxy.routes import INFERENCE
    from proxy.snapshot import Deployment, Snapshot
    from proxy.trace import Trace
    from tests.proxy.documents import policy

    row = Deployment(
        id="11111111-1111-4111-8111-111111111111", name="gpt", model="gpt-4o", provider="openai",
        provider_kind="openai", credential="openai", weight=1, rpm=None, tpm=None, timeout_s=600.0,
        stream_timeout_s=60.0, price=price(), params={"model": "openai/gpt-4o"}, secrets=(),
    )  # fmt: skip
    environment: Any = {"slug": "prod"}
    snapshot = Snapshot(7, "", environment, {}, {}, {row.id: row}, {row.model: (row,)}, {})
    path = "/v1/chat/completions"
    trace = Trace(path, policy("alpha"), INFERENCE[path.encode()], snapshot)
    trace.requested_model = trace.model = row.model
    trace.customer = "customer-7"
    trace.grant = Grant("shared", "7c1c2d3e")
    for scope in ("environment", "team", "key"):
        counter = f"22222222-2222-4222-8222-222222222222:{scope}:m2026-11-01"
        trace.grant.charges[counter] = Charge(counter, 10_000, None, 0, 0, None, None)
    trace.attempts.append({
        "deployment": row.id, "model": row.model, "why": "first",
        "started_at": "2026-11-20T21:40:25.123456+00:00", "latency_ms": 0.8, "status": 200,
        "error_class": None, "error": None, "cost": None,
    })  # fmt: skip
    capture = Capture(trace)
    capture.status, capture.finished = 200, True
    capture.usage = usage_from_openai({"prompt_tokens": 1000, "completion_tokens": 200})
    return trace, capture


def stages(spool_at: Path) -> dict[str, Stage]:
    """What happens to each request, by name."""
    from proxy.metrics import Metrics
    from proxy.spool import Spool
    from proxy.usage import encode, finished_event

    trace, capture = traced()
    spool = Spool(spool_at, max_bytes=64 * 1024**3)
    spool.open()
    metrics = Metrics()
    event = finished_event(trace, capture, aborted=False, count_tokens=None)
    record = encode(event)
    left = Decimal("12.5")

    def beside() -> None:
        """The instruments that the relay and admission touch for each request."""
        metrics.in_flight.inc()
        metrics.admission.latency.observe(0.0004)
        metrics.admission.holds.set(17)
        for scope in ("environment", "team", "key"):
            metrics.budgets.remaining(scope, "subject", "name", left)
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
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = home  # read when prometheus_client is imported
        named = stages(Path(home) / "spool")
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        figures: dict[str, list[float]] = {name: [] for name in named}
        for _ in range(options.rounds + 1):
            for name, run in named.items():
                figures[name].append(cpu_us(run, options.requests))
                for segment in (Path(home) / "spool").rglob("*.seg"):
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
