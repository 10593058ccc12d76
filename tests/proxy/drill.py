"""Workers of a replica inside the test's process, on a real Redis, at a moment of its choice."""

import asyncio
import base64
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import redis.asyncio as redis

from proxy.contract import CalendarDocument, KeyPolicy, RevisionDocument, SubjectPolicy
from proxy.contract.counters import abandoned_key, budget_key, epoch_key, holds_key, moment_ms
from proxy.estimate import demand_of
from proxy.metrics import Metrics
from proxy.refusals import Refusal
from proxy.routes import INFERENCE
from proxy.settings import ProxySettings, load_settings
from proxy.snapshot import build_snapshot
from proxy.trace import Trace
from proxy.worker import Worker
from tests.proxy.documents import (
    ENVIRONMENT,
    FLEET_KEY,
    FLEET_TOKEN,
    PEPPER,
    credential,
    deployment,
    document,
    envelope,
    new_key,
    policy,
    sealed,
)

UTC_CALENDAR: CalendarDocument = {"time_zone": "UTC", "week_start": 1, "fiscal_year_month": 1}
NOWHERE = "http://127.0.0.1:9"


def small_document(**environment: Any) -> RevisionDocument:
    """Two priced models, one that is free, one without a price."""
    rows = [
        deployment("dep-1", "chat", "openai/gpt-4o", "cred-1"),
        deployment("dep-2", "chat", "openai/gpt-4o", "cred-2"),
        deployment("dep-dear", "dear", "openai/gpt-4", "cred-1", price=price("0.00003", "0.00006")),
        deployment("dep-free", "free", "ollama/llama", None, price=price("0", "0")),
        deployment("dep-unpriced", "unpriced", "openai/new", None, price=None),
    ]
    credentials = [credential("cred-1", None), credential("cred-2", None)]
    return document(rows, credentials, **environment)


def price(per_input: str, per_output: str) -> dict[str, Any]:
    """A price of our own per token."""
    units = {"input_token": per_input, "output_token": per_output}
    return {"version": "price-2", "source": "own", "units": units}


@dataclass
class Drill:
    """Some workers that share counters."""

    subjects: list[SubjectPolicy] = field(default_factory=list)
    keys: list[KeyPolicy] = field(default_factory=lambda: [policy("alpha")])
    calendar: CalendarDocument = field(default_factory=lambda: UTC_CALENDAR.copy())
    url: str = field(default_factory=lambda: os.environ["REDIS_URL"])
    content: RevisionDocument = field(default_factory=small_document)
    timeout_s: float = 2.0
    workers: list[Worker] = field(default_factory=list)
    version: int = 0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.redis = redis.from_url(self.url, decode_responses=True)
        self._home = tempfile.TemporaryDirectory(prefix="gwd-")

    async def __aenter__(self) -> "Drill":
        await self.redis.set(epoch_key(ENVIRONMENT), "epoch-1")
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for worker in self.workers:
            assert worker.link is not None
            await worker.link.stop()
            await worker.control.close()
        await self.redis.aclose()
        self._home.cleanup()

    async def worker(self, count: int = 1) -> Worker:
        """One more worker of a replica of `count`, connected and counting with the others."""
        slot = len(self.workers)
        settings = _settings(self.url, Path(self._home.name), count, self.timeout_s)
        worker = Worker(settings, slot=slot, metrics=Metrics(), backend=None)
        worker.state.prepare()
        assert worker.link is not None
        await worker.link.start()
        worker.snapshot = build_snapshot(
            envelope(1, self.content, {}), environment=ENVIRONMENT, fleet_key=FLEET_KEY
        )
        self.workers.append(worker)
        self.tell(worker)
        await worker.heartbeat.beat()
        return worker

    async def fleet(self, count: int) -> list[Worker]:
        """So many workers that know of each other."""
        found = [await self.worker(count) for _ in range(count)]
        for worker in found:
            await worker.heartbeat.beat()
        return found

    def live(self) -> None:
        """From now on the workers' own loops run."""
        for worker in self.workers:
            assert worker.admission.settlements is not None
            self.tasks.append(asyncio.create_task(worker.heartbeat.run()))
            self.tasks.append(asyncio.create_task(worker.admission.settlements.run()))

    async def until(self, what: str, check: Callable[[], bool], timeout_s: float = 15.0) -> None:
        """Wait until something holds, or fail naming it."""
        deadline = time.monotonic() + timeout_s
        while not check():
            assert time.monotonic() < deadline, what
            await asyncio.sleep(0.02)

    async def until_mode(self, mode: str) -> None:
        """Wait until every worker counts in a way."""
        await self.until(mode, lambda: all(w.admission.state.mode == mode for w in self.workers))

    def tell(self, worker: Worker) -> None:
        """Give a worker the policies as they are now."""
        self.version += 1
        worker.apply_policies(
            {
                "version": self.version,
                "full": True,
                "pepper": sealed("pepper", PEPPER),
                "keys": self.keys,
                "removed": [],
                "subjects": self.subjects,
                "removed_subjects": [],
                "calendar": self.calendar,
                "breaker_orders": [],
            }
        )

    def at(self, moment: datetime | int) -> None:
        """From now on it is this moment for the counters; milliseconds or aware."""
        ms = moment if isinstance(moment, int) else moment_ms(moment)
        for worker in self.workers:
            assert worker.admission.counters is not None
            worker.admission.counters.moment = ms
            for balance in worker.admission.book.balances.values():
                balance.seen_ms -= 1_000  # time has passed for the workers, too

    async def clocks(self) -> None:
        """Let every worker learn what time it is."""
        for worker in self.workers:
            await worker.heartbeat.beat()

    # --- requests --------------------------------------------------------------------------

    def request(
        self, worker: Worker, *, key: str = "alpha", model: str = "chat", **body: Any
    ) -> Trace:
        """A request as the edge hands it on. `max_tokens` is 100 unless stated."""
        route = INFERENCE[b"/v1/chat/completions"]
        content = {
            "model": model,
            "messages": [{"role": "user", "content": "hello"}],
            "max_tokens": 100,
            **body,
        }
        found = worker.policies.find(new_key(key))
        assert found is not None
        size = len(orjson.dumps(content))
        return Trace(
            route=route.name,
            policy=found,
            inference=route,
            snapshot=worker.snapshot,
            event_id=str(uuid.uuid4()),
            started_at=worker.clock.now(),
            requested_model=model,
            model=model,
            customer=str(body.get("user", "")),
            body=content,
            demand=demand_of(content, route.kind, body_bytes=size, form=False),
        )

    async def admit(self, worker: Worker, trace: Trace | None = None, **request: Any) -> Trace:
        """Admit a request to the first deployment of its model; raises what it raises."""
        trace = trace or self.request(worker, **request)
        assert trace.snapshot is not None
        rows = trace.snapshot.by_model[trace.model]
        await worker.admission.admit(trace, targets=rows, first=rows[0])
        attempt(trace, rows[0].id)
        return trace

    async def try_admit(self, worker: Worker, **request: Any) -> Trace | Refusal:
        """The admitted request, or the refusal."""
        try:
            return await self.admit(worker, **request)
        except Refusal as refusal:
            return refusal

    async def finish(self, worker: Worker, trace: Trace, usd: str = "0", tokens: int = 0) -> None:
        """The request ended; its settlement has arrived when this returns."""
        worker.admission.settle(trace, cost=Decimal(usd), tokens=tokens)
        await self.settled(worker)

    async def settled(self, worker: Worker) -> None:
        """Deliver what waits."""
        assert worker.admission.settlements is not None
        await worker.admission.settlements.drain()

    # --- what the counters say ---------------------------------------------------------------

    async def budget(self, counter: str) -> tuple[int, int, int]:
        """Spent, held, pending: nano-dollars."""
        found = await self.redis.hmget(budget_key(ENVIRONMENT, counter), ["s", "h", "p"])
        spent, held, pending = (int(value or 0) for value in found)
        return spent, held, pending

    async def counters(self, budget_id: str) -> list[str]:
        """Names of a budget's counters."""
        prefix = budget_key(ENVIRONMENT, "")
        names = [name async for name in self.redis.scan_iter(f"{prefix}{budget_id}:*")]
        return sorted(name.removeprefix(prefix) for name in names)

    async def abandoned(self) -> list[dict[str, Any]]:
        """The holds that wait for the control plane."""
        return [
            orjson.loads(raw) for raw in await self.redis.lrange(abandoned_key(ENVIRONMENT), 0, -1)
        ]

    async def holds(self) -> int:
        """How many there are."""
        return int(await self.redis.zcard(holds_key(ENVIRONMENT)))


def attempt(trace: Trace, deployment_id: str) -> None:
    """Note an attempt as the relay does."""
    row = trace.deployment(deployment_id)
    assert row is not None
    trace.attempts.append(
        {
            "deployment": row.id,
            "model": row.model,
            "why": "first",
            "started_at": datetime.now(UTC).isoformat(),
            "latency_ms": 0.0,
            "status": 200,
            "error_class": None,
            "error": None,
        }
    )


def admitted(found: Sequence[Trace | Refusal]) -> list[Trace]:
    """Those that passed."""
    return [one for one in found if isinstance(one, Trace)]


def refused(found: Sequence[Trace | Refusal]) -> list[Refusal]:
    """Those that did not."""
    return [one for one in found if isinstance(one, Refusal)]


def _settings(url: str, home: Path, workers: int, timeout_s: float) -> ProxySettings:
    return load_settings(
        {
            "GATEWAY_CONTROL_PLANE_URL": NOWHERE,
            "GATEWAY_PROXY_ENVIRONMENT": ENVIRONMENT,
            "GATEWAY_FLEET_TOKEN": FLEET_TOKEN,
            "GATEWAY_FLEET_KEY": base64.b64encode(FLEET_KEY).decode(),
            "GATEWAY_PROXY_STATE_DIR": str(home),
            "GATEWAY_PROXY_WORKERS": str(workers),
            "GATEWAY_COUNTER_TIMEOUT_S": str(timeout_s),
            "REDIS_URL": url,
        }
    )
