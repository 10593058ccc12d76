"""Requests, asked, admitted and answered, without a server, a provider or Redis around them."""

import base64
from pathlib import Path
from uuid import UUID

from proxy.capture import Capture
from proxy.estimate import demand_of
from proxy.metering import usage_from_openai
from proxy.metrics import Metrics
from proxy.routes import INFERENCE
from proxy.settings import load_settings
from proxy.snapshot import build_snapshot
from proxy.trace import Trace
from proxy.worker import Worker
from tests.proxy.documents import (
    ENVIRONMENT,
    FLEET_KEY,
    PEPPER,
    budget,
    envelope,
    new_key,
    policy,
    sealed,
    subject,
)
from tests.proxy.drill import NOWHERE, UTC_CALENDAR, attempt, small_document


def worker_in(home: Path) -> Worker:
    """A worker that counts alone, with three budgets on the path of its key."""
    settings = load_settings(
        {
            "GATEWAY_CONTROL_PLANE_URL": NOWHERE,
            "GATEWAY_PROXY_ENVIRONMENT": ENVIRONMENT,
            "GATEWAY_FLEET_TOKEN": "token",
            "GATEWAY_FLEET_KEY": base64.b64encode(FLEET_KEY).decode(),
            "GATEWAY_PROXY_STATE_DIR": str(home),
            "GATEWAY_SPOOL_MAX_BYTES": str(64 * 1024**3),
        }
    )
    home.mkdir(parents=True, exist_ok=True)
    worker = Worker(settings, slot=0, metrics=Metrics(), backend=None)
    revision = envelope(1, small_document(), {})
    worker.snapshot = build_snapshot(revision, environment=ENVIRONMENT, fleet_key=FLEET_KEY)
    owners = (("environment", ENVIRONMENT), ("team", "team-1"), ("key", "key-alpha"))
    budgets = [budget(str(UUID(int=number + 1)), "1000000") for number in range(len(owners))]
    worker.apply_policies(
        {
            "version": 1, "full": True, "pepper": sealed("pepper", PEPPER), "removed": [],
            "keys": [policy("alpha")], "removed_subjects": [], "calendar": UTC_CALENDAR,
            "subjects": [subject(*o, budgets=[b]) for o, b in zip(owners, budgets, strict=True)],
            "breaker_orders": [],
        }
    )  # fmt: skip
    worker.spool.open()
    return worker


def asked(worker: Worker) -> Trace:
    """A request that the edge has read and checked."""
    key, snapshot = worker.policies.find(new_key("alpha")), worker.snapshot
    assert key is not None
    assert snapshot is not None
    route = INFERENCE[b"/v1/chat/completions"]
    trace = Trace(route.name, key, route, snapshot)
    trace.requested_model = trace.model = "chat"
    trace.customer = "customer-7"
    trace.body = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
    trace.body["max_tokens"] = 100
    trace.demand = demand_of(trace.body, route.kind, body_bytes=100, form=False)
    return trace


async def answered(worker: Worker) -> tuple[Trace, Capture]:
    """A request that was admitted, and answered by its first attempt."""
    trace, snapshot = asked(worker), worker.snapshot
    assert snapshot is not None
    rows = snapshot.by_model["chat"]
    await worker.admission.admit(trace, targets=rows, first=rows[0])
    assert trace.grant is not None
    trace.grant.mode, trace.grant.epoch = "shared", "7c1c2d3e"  # as with Redis
    attempt(trace, rows[0].id)
    trace.attempts[0]["cost"] = None
    capture = Capture(trace)
    capture.status, capture.finished = 200, True
    capture.usage = usage_from_openai({"prompt_tokens": 1000, "completion_tokens": 200})
    return trace, capture
