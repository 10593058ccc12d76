"""Reads of the shared counters for pages: one round trip, and no page fails without Redis."""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import redis
import structlog
from django.conf import settings
from redis.client import Pipeline

TIMEOUT_S = 0.5

log = structlog.get_logger(__name__)


@cache
def _client() -> "redis.Redis":
    return redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        decode_responses=True,
    )


def read(asks: Iterable[Callable[["Pipeline"], Any]]) -> list[Any] | None:
    """The answers to several reads; None when Redis is away."""
    try:
        with _client().pipeline(transaction=False) as pipeline:
            for ask in asks:
                ask(pipeline)
            return list(pipeline.execute())
    except redis.RedisError as error:
        log.warning("counters_unread", error=str(error), consequence="pages show stored balances")
        return None
