"""Whether Redis answers this process, and since when it does not."""

import threading
import time
from datetime import UTC, datetime
from functools import cache

import redis
from django.conf import settings

TIMEOUT_S = 0.5
ASKED_AGAIN_AFTER_S = 2.0  # many pages at once ask once


class _Sight:
    """What this process saw last."""

    lock = threading.Lock()
    asked_at = float("-inf")  # time.monotonic()
    away_since: datetime | None = None


@cache
def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(
        url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry_on_timeout=False
    )


def redis_away_since() -> datetime | None:
    """When this process first saw Redis away; None: it answers."""
    with _Sight.lock:
        if time.monotonic() - _Sight.asked_at >= ASKED_AGAIN_AFTER_S:
            try:
                _client(settings.REDIS_URL).ping()
                _Sight.away_since = None
            except redis.RedisError:  # told by whoever shows it; each use of Redis logs its own
                _Sight.away_since = _Sight.away_since or datetime.now(UTC)
            _Sight.asked_at = time.monotonic()
        return _Sight.away_since


def look_again() -> None:
    """The next question is asked at once."""
    with _Sight.lock:
        _Sight.asked_at, _Sight.away_since = float("-inf"), None
