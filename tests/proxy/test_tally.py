"""Counts kept in plain Python tell exactly what prometheus_client's own would have told."""

import subprocess
import sys
from pathlib import Path

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from proxy.tally import Counter, Gauge, Histogram, Tally

ROOT = Path(__file__).resolve().parents[2]
BUCKETS = (0.005, 0.01, 0.25, 1.0, 30.0)
AMOUNTS = st.floats(min_value=0, max_value=1e9) | st.sampled_from([*BUCKETS, 0.0, float("inf")])
# What happens, in order: so many observations of a label, then a flush or none.
ROUNDS = st.lists(st.tuples(st.sampled_from("ab"), st.lists(AMOUNTS), st.booleans()))


def told(registry: CollectorRegistry) -> set[tuple[str, str, float]]:
    """Every sample of a registry."""
    return {
        (sample.name, repr(sorted(sample.labels.items())), sample.value)
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@given(ROUNDS)
def test_histograms_are_those_of_prometheus(rounds: list[tuple[str, list[float], bool]]) -> None:
    tally, registry = Tally(), CollectorRegistry()
    ours = Histogram("h", "h", ["l"], registry=tally, buckets=BUCKETS)
    theirs = prometheus_client.Histogram("h", "h", ["l"], registry=registry, buckets=BUCKETS)
    for label, amounts, flush in rounds:
        for amount in amounts:
            ours.labels(label).observe(amount)
            theirs.labels(label).observe(amount)
        if flush:
            tally.flush()
    tally.flush()
    assert told(tally) == told(registry)


@given(ROUNDS)
def test_counters_are_those_of_prometheus(rounds: list[tuple[str, list[float], bool]]) -> None:
    tally, registry = Tally(), CollectorRegistry()
    ours = Counter("c", "c", ["l"], registry=tally)
    theirs = prometheus_client.Counter("c", "c", ["l"], registry=registry)
    for label, amounts, flush in rounds:
        for amount in amounts:
            ours.labels(label).inc(amount)
            theirs.labels(label).inc(amount)
        if flush:
            tally.flush()
    tally.flush()
    assert told(tally) == told(registry)


def test_gauges_go_up_and_down() -> None:
    tally = Tally()
    running = Gauge("g", "g", registry=tally, multiprocess_mode="livesum")
    running.inc()
    running.inc()
    running.dec()
    assert told(tally) == {("g", "[]", 0.0)}
    tally.flush()
    assert told(tally) == {("g", "[]", 1.0)}
    running.set(7)
    tally.flush()
    assert told(tally) == {("g", "[]", 7.0)}


def test_misuse_is_an_error_where_it_happens() -> None:
    tally = Tally()
    with pytest.raises(ValueError, match="rises"):
        Counter("c", "c", registry=tally).inc(-1)
    with pytest.raises(AttributeError):
        Counter("of_labels", "c", ["l"], registry=tally).inc()
    with pytest.raises(AttributeError):
        Histogram("h", "h", ["l"], registry=tally, buckets=BUCKETS).observe(1)
    with pytest.raises(ValueError, match="label"):
        Counter("of_one_label", "c", ["l"], registry=tally).labels("a", "b")


WORKER = """
import os, signal, sys
from proxy.metrics import Metrics

metrics = Metrics()
metrics.refusals.labels("no_key").inc(3)
metrics.admission.latency.observe(0.003)
metrics.routing.breaker("openai", "d", sys.argv[1])
if sys.argv[2] == "flush":
    metrics.flush()
metrics.refusals.labels("no_key").inc(2)
if sys.argv[2] != "end":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def start(directory: Path, code: str, *arguments: str) -> "subprocess.Popen[str]":
    """A process of its own, one of those whose figures are in the directory."""
    environ = {"PROMETHEUS_MULTIPROC_DIR": str(directory), "PYTHONPATH": "."}
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environ, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


def run(directory: Path, code: str, *arguments: str) -> str:
    """Start one and wait for its end; gives what it printed."""
    printed, complaints = start(directory, code, *arguments).communicate()
    assert not complaints, complaints
    return printed


def read(directory: Path, count: int = 0) -> dict[str, float]:
    """What a further worker tells of all, after it counted something itself."""
    code = f"""
from proxy.metrics import Metrics
metrics = Metrics()
if {count}:
    metrics.refusals.labels("no_key").inc({count})
print(metrics.render().decode())
"""
    lines = run(directory, code).splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines if line[:1] not in ("#", ""))
    }


REFUSED = 'gateway_proxy_refusals_total{reason="no_key"}'
ADMITTED = "gateway_proxy_admission_latency_seconds_count"
STATE = 'llm_circuit_breaker_state{deployment="d",provider="openai"}'


def test_two_workers_are_summed_and_a_third_is_exact_at_once(tmp_path: Path) -> None:
    run(tmp_path, WORKER, "open", "end")
    run(tmp_path, WORKER, "half_open", "end")
    found = read(tmp_path, count=4)
    assert found[REFUSED] == 14
    assert found[ADMITTED] == 2
    assert found[STATE] == 2  # the most recent one's


def test_kill_loses_what_came_after_the_last_flush(tmp_path: Path) -> None:
    run(tmp_path, WORKER, "open", "flush")
    assert read(tmp_path)[REFUSED] == 3
    run(tmp_path, WORKER, "open", "none")
    assert read(tmp_path)[REFUSED] == 3


def test_the_state_learned_last_is_told_whoever_tells_it_last(tmp_path: Path) -> None:
    code = """
from proxy.metrics import Metrics
metrics = Metrics()
metrics.routing.breaker("openai", "d", "open")
print("learned", flush=True)
input()
"""
    early = start(tmp_path, code)
    assert early.stdout is not None
    assert early.stdout.readline() == "learned\n"
    run(tmp_path, WORKER, "half_open", "end")
    _, complaints = early.communicate("go on\n")
    assert not complaints
    assert read(tmp_path)[STATE] == 2


def test_a_worker_that_stops_has_told_everything(tmp_path: Path) -> None:
    code = """
import asyncio, base64, os, signal, sys
from proxy.metrics import Metrics
from proxy.settings import load_settings
from proxy.worker import Worker

async def live() -> None:
    settings = load_settings({
        "GATEWAY_CONTROL_PLANE_URL": "http://127.0.0.1:1",
        "GATEWAY_PROXY_ENVIRONMENT": "prod",
        "GATEWAY_FLEET_TOKEN": "token",
        "GATEWAY_FLEET_KEY": base64.b64encode(bytes(32)).decode(),
        "GATEWAY_PROXY_STATE_DIR": sys.argv[1],
    })
    settings.state_dir.mkdir()
    worker = Worker(settings, slot=0, metrics=Metrics(), backend=None)
    await worker.start()
    worker.metrics.refusals.labels("no_key").inc(5)
    await worker.stop()

asyncio.run(live())
os.kill(os.getpid(), signal.SIGKILL)
"""
    run(tmp_path, code, str(tmp_path / "state"))
    assert read(tmp_path)[REFUSED] == 5
