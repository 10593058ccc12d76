"""The bell: tells replicas through Redis that something newer exists.

A lost bell costs seconds, never correctness: replicas poll over HTTP as well. So a failure
to ring is counted (`gateway_bell_failures_total`), logged once per outage, and never fails
the write that rang.
"""

import json
import threading
from functools import cache

import redis
import structlog
from django.conf import settings
from prometheus_client import Counter

from proxy.contract import bell_channel

log = structlog.get_logger(__name__)
failures = Counter("gateway_bell_failures_total", "Bells that could not be rung", ["environment"])
TIMEOUT_S = 0.5

_silent = threading.Event()  # set while Redis is known to be away


@cache
def _client() -> redis.Redis:
    return redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
    )


def ring(environment_slug: str, **news: int) -> bool:
    """Publish for example `ring("prod", policy=812)`; False when Redis is not reachable."""
    try:
        _client().publish(bell_channel(environment_slug), json.dumps(news))
    except redis.RedisError as error:
        failures.labels(environment_slug).inc()
        if not _silent.is_set():
            _silent.set()
            log.warning("bell_silent", error=str(error), consequence="replicas learn by polling")
        return False
    _silent.clear()
    return True
