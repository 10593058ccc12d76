"""Health, readiness and metrics: answered by the edge, without a key."""

from typing import Literal

import orjson

from proxy.worker import Send, Worker

Probe = Literal["liveliness", "ready", "health", "metrics"]

PROBES: dict[bytes, Probe] = {
    b"/health/liveliness": "liveliness",
    b"/health/liveness": "liveliness",
    b"/health/readiness": "ready",
    b"/ready": "ready",
    b"/health": "health",
    b"/metrics": "metrics",
}
PROMETHEUS_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


async def answer_probe(worker: Worker, probe: Probe, method: str, send: Send) -> None:
    """Answer a probe of an orchestrator or a scraper."""
    content_type = b"application/json"
    status = 200
    if method not in ("GET", "HEAD"):
        status, body = 405, b'{"status":"use GET"}'
    elif probe == "liveliness":
        body = b'{"status":"alive"}'
    elif probe == "ready":
        status, body = _ready(worker)
    elif probe == "health":
        status, body = _health(worker)
    else:
        content_type, body = PROMETHEUS_TYPE, worker.metrics.render()
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})


def _ready(worker: Worker) -> tuple[int, bytes]:
    if worker.ready:
        return 200, b'{"status":"ready"}'
    missing = []
    if worker.backend is None:
        missing.append("still starting")
    if worker.snapshot is None:
        missing.append("no revision yet: publish the environment")
    if not worker.policies_known:
        missing.append("no virtual keys yet: is the control plane reachable?")
    return 503, orjson.dumps({"status": "not ready", "reasons": missing})


def _health(worker: Worker) -> tuple[int, bytes]:
    """Degraded is still 200: a replica that serves must not be restarted for its surroundings."""
    reasons = worker.reasons()
    if worker.is_porter:
        reasons = ["still starting", *reasons]
    depth = worker.spool.depth()
    snapshot = worker.snapshot
    document = {
        "status": "degraded" if reasons else "healthy",
        "reasons": reasons,
        "environment": worker.settings.fleet.environment,
        "replica": worker.replica_id,
        "worker": worker.slot,
        "workers": worker.settings.workers,
        "revision": snapshot.revision if snapshot else None,
        "policy_version": worker.policies.version,
        "spool_events": depth.events,
        "spool_bytes": depth.size_bytes,
        "dropped_events": depth.dropped,
    }
    return 200, orjson.dumps(document)
