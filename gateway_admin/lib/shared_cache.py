"""The cache of all web processes, in Redis; while Redis is away, each process has its own.

What is kept here may be lost (remembered counts) or be counted per process for a while (the
limits on signing in), but no page fails for it.
"""

import time
from collections.abc import Callable
from typing import Any

import redis
import structlog
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache
from prometheus_client import Counter

log = structlog.get_logger(__name__)
failures = Counter("gateway_cache_failures_total", "Operations that Redis did not answer")

TRIED_AGAIN_AFTER_S = 5.0  # a page does not wait for a time-out that is known
# By server, until when it is not asked (time.monotonic()). Each thread has its own SharedCache.
_away_until: dict[str, float] = {}

_OPERATIONS = (
    "add",
    "get",
    "set",
    "touch",
    "delete",
    "get_many",
    "set_many",
    "delete_many",
    "has_key",
    "incr",
    "clear",
)


class SharedCache(RedisCache):
    """RedisCache whose every operation is made in this process alone while Redis is away."""

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        own = {name: value for name, value in params.items() if name != "OPTIONS"}
        self._own = LocMemCache(server, own)
        self._server = server
        super().__init__(server, params)

    def outlive(self, operation: str, *args: Any, **kwargs: Any) -> Any:
        """The operation in Redis, else in this process."""
        if time.monotonic() >= _away_until.get(self._server, 0.0):
            try:
                answer = getattr(super(), operation)(*args, **kwargs)
            except redis.RedisError as error:
                failures.inc()
                if self._server not in _away_until:
                    log.warning("cache_away", error=str(error), consequence="each process alone")
                _away_until[self._server] = time.monotonic() + TRIED_AGAIN_AFTER_S
            else:
                _away_until.pop(self._server, None)
                return answer
        return getattr(self._own, operation)(*args, **kwargs)


def _outliving(operation: str) -> Callable[..., Any]:
    def call(self: SharedCache, *args: Any, **kwargs: Any) -> Any:
        return self.outlive(operation, *args, **kwargs)

    call.__name__ = operation
    return call


for _operation in _OPERATIONS:
    setattr(SharedCache, _operation, _outliving(_operation))
