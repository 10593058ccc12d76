"""What admission costs: CPU of a worker and of Redis, per request that is admitted and settled.

    python -m tests.bench.admission [--requests 20000] [--at-once 16] [--profile]

One worker on a Valkey of its own. A request has a budget on its key, its team and its
environment, requests, tokens and parallel ones per minute on the key, requests on the
environment. Worker figures are CPU time of this process, everything between a request that
is known and its settlement on the wire; building requests is outside of them. Figures of
two runs cannot be compared on a shared machine: run two versions in turn.
"""

import argparse
import asyncio
import cProfile
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import orjson
import uvloop

from proxy.contract import SubjectPolicy
from proxy.estimate import cap_output, demand_of
from proxy.metrics import MULTIPROC_VARIABLE
from proxy.redis_link import LinkDown, RedisLink
from proxy.trace import Trace
from proxy.worker import Worker
from tests.proxy import own_valkey
from tests.proxy.documents import ENVIRONMENT, budget, limit, policy, subject
from tests.proxy.drill import Drill, attempt, small_document

PART = 2_000  # requests that are built at a time
ALONE = 200  # requests of a part in which Redis does one thing only
COST = Decimal("0.000123")
MANY = 1_000_000_000
BODY: dict[str, Any] = {
    "model": "chat",
    "messages": [
        {"role": "system", "content": "You are a helpful assistant. Answer briefly."},
        {"role": "user", "content": "What is the capital of France? " * 8},
    ],
    "max_tokens": 100,
    "temperature": 0.2,
}
Work = Callable[[list[Trace]], Awaitable[None]]


def rules() -> list[SubjectPolicy]:
    """All that a request has to keep; nothing of it refuses."""
    limits = [limit("key", rpm=MANY, tpm=MANY, parallel=MANY)]
    return [
        subject("environment", ENVIRONMENT, budgets=[budget("env", "1000000")], name="Production",
                limits=[limit("env", rpm=MANY)]),
        subject("team", "team-1", budgets=[budget("team", "1000000")], name="search"),
        subject("key", "key-alpha", budgets=[budget("key", "1000000", period="day")],
                limits=limits),
    ]  # fmt: skip


class Bench:
    """One worker, and what is measured on it."""

    def __init__(self, drill: Drill, worker: Worker, at_once: int) -> None:
        self.drill, self.worker, self.at_once = drill, worker, at_once

    def traces(self, count: int) -> list[Trace]:
        """Requests as the edge hands them on, with the attempt they are going to make."""
        found = [self.drill.request(self.worker, **BODY) for _ in range(count)]
        for trace in found:
            attempt(trace, "dep-1")
        return found

    async def both(self, traces: list[Trace]) -> None:
        """Admit and settle, so many at once."""
        waiting = iter(traces)
        await asyncio.gather(*(self._client(waiting) for _ in range(self.at_once)))

    async def _client(self, waiting: Any) -> None:
        admission = self.worker.admission
        for trace in waiting:
            rows = trace.snapshot.by_model[trace.model]
            await admission.admit(trace, targets=rows, first=rows[0])
            admission.settle(trace, cost=COST, tokens=150)

    async def admit(self, traces: list[Trace]) -> None:
        """Admit all of them at once."""
        admission = self.worker.admission
        await asyncio.gather(*(
            admission.admit(trace, targets=trace.snapshot.by_model[trace.model],
                            first=trace.snapshot.by_model[trace.model][0])
            for trace in traces if trace.snapshot is not None
        ))  # fmt: skip

    async def settle(self, traces: list[Trace]) -> None:
        """Settle all of them."""
        for trace in traces:
            self.worker.admission.settle(trace, cost=COST, tokens=150)
        await self.delivered()

    async def delivered(self) -> None:
        """All settlements have arrived."""
        assert self.worker.admission.settlements is not None
        while len(self.worker.admission.settlements):  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.001)
        assert self.worker.link is not None
        await self.worker.link.call("PING")

    async def age(self) -> None:
        """A minute of requests: windows as they are when somebody is busy."""
        now_ms = self.worker.clock.now_ms()
        for second in range(60, 0, -1):
            self.drill.at(now_ms - second * 1000)
            await self.both(self.traces(1))
        await self.delivered()
        assert self.worker.admission.counters is not None
        self.worker.admission.counters.moment = ""

    async def worker_us(self, requests: int, work: Work) -> float:
        """CPU of the worker per request, the median of the parts."""
        found = []
        for _ in range(max(requests // PART, 1)):
            traces = self.traces(PART)
            before = time.process_time()
            await work(traces)
            await self.delivered()
            found.append((time.process_time() - before) * 1e6 / PART)
        return statistics.median(found)

    async def redis_parts_us(self, parts: int = 40) -> tuple[float, float]:
        """CPU of Redis for admitting, and for settling a request, its network included."""
        found: tuple[list[float], list[float]] = ([], [])
        for _ in range(parts):
            traces = self.traces(ALONE)
            for figures, work in zip(found, (self.admit, self.settle), strict=True):
                before = await self._redis_cpu()
                await work(traces)
                await self.delivered()
                figures.append((await self._redis_cpu() - before) * 1e6 / ALONE)
        return statistics.median(found[0]), statistics.median(found[1])

    async def redis_us(self, requests: int) -> float:
        """CPU of the whole Redis per request, its network included."""
        traces = self.traces(requests)
        before = await self._redis_cpu()
        await self.both(traces)
        await self.delivered()
        return (await self._redis_cpu() - before) * 1e6 / requests

    async def _redis_cpu(self) -> float:
        found = await self.drill.redis.info("cpu")
        return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])

    async def check(self, requests: int) -> None:
        """Nothing is held, everything was spent."""
        assert await self.drill.holds() == 0
        for name in ("env:prod", "team:team-1", "key:key-alpha"):
            for counter in await self.drill.counters(name.split(":")[0]):
                spent, held, pending = await self.drill.budget(counter)
                assert held == 0, counter
                assert spent == pending == requests * 123_000, (counter, spent, requests)


def demand_us(times: int = 20_000) -> float:
    """CPU of measuring a request, which the edge does before admission."""
    drawn, size = small_document()["environment"], len(orjson.dumps(BODY))
    key = policy("alpha")
    before = time.process_time()
    for _ in range(times):
        cap_output(BODY, "chat", key, drawn)
        demand_of(BODY, "chat", body_bytes=size, form=False)
    return (time.process_time() - before) * 1e6 / times


async def link_us(link: RedisLink, at_once: int, times: int = 20_000) -> float:
    """CPU of two bare commands of a script's size: what the connection alone costs."""
    padding = "x" * 1_000

    async def client() -> None:
        for _ in range(times // at_once):
            await link.call("ECHO", padding)
            link.send("ECHO", padding)

    before = time.process_time()
    await asyncio.gather(*(client() for _ in range(at_once)))
    spent = time.process_time() - before
    await link.call("PING")
    return spent * 1e6 / times


async def measure(url: str, arguments: argparse.Namespace) -> None:
    """Everything, in one run."""
    requests = arguments.requests
    async with Drill(url=url, subjects=rules()) as drill:
        worker = await drill.worker()
        drill.live()
        bench = Bench(drill, worker, arguments.at_once)
        await bench.age()
        await bench.both(bench.traces(PART))  # warm
        await bench.delivered()
        if arguments.profile:
            await _profile(bench, requests)
            return
        both = await bench.worker_us(requests, bench.both)
        scripts = await bench.redis_parts_us()
        redis = await bench.redis_us(PART)
        count = 60 + PART + max(requests // PART, 1) * PART + 40 * ALONE + PART
        await bench.check(count)
        assert worker.link is not None
        link = await link_us(worker.link, arguments.at_once)
        for task in drill.tasks:
            task.cancel()
        await asyncio.sleep(0.1)
        worker.admission.lost(LinkDown("for this measurement"))
        alone = await bench.worker_us(requests, bench.both)
        lines = {
            "worker: admit and settle": both,
            "worker: the same without Redis (alone)": alone,
            "worker: two bare commands": link,
            "worker: measuring the request": demand_us(),
            "redis: admit": scripts[0],
            "redis: settle": scripts[1],
            "redis: both, as they come": redis,
        }
        for what, figure in lines.items():
            print(f"{what:<42}{figure:8.1f} us")  # noqa: T201


async def _profile(bench: Bench, requests: int) -> None:
    profile = cProfile.Profile()
    for _ in range(max(requests // PART, 1)):
        traces = bench.traces(PART)
        profile.enable()
        await bench.both(traces)
        profile.disable()
        await bench.delivered()
    pstats.Stats(profile).sort_stats("tottime").print_stats(45)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the CPU that admission takes.")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--profile", action="store_true", help="where the worker's time goes")
    arguments = parser.parse_args()
    if MULTIPROC_VARIABLE not in os.environ:
        # As in production: metrics lie in files that all workers share. It is read on import.
        with tempfile.TemporaryDirectory(prefix="gwm-") as home:
            again = [sys.executable, "-m", "tests.bench.admission", *sys.argv[1:]]
            raise SystemExit(subprocess.call(again, env={**os.environ, MULTIPROC_VARIABLE: home}))
    with own_valkey.running() as server:
        uvloop.run(measure(server.url, arguments))


if __name__ == "__main__":
    main()
