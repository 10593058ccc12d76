"""The worker's idea of the time: Redis's, else its own, and never set back.

Between two answers of Redis time advances with the monotonic clock, so somebody who sets
the machine's clock changes no budget period, no expiry and no event.
"""

import time
from datetime import UTC, datetime

import orjson


def text_of(moment: datetime) -> str:
    """The same as `isoformat()` of a moment in UTC, in a third of the time."""
    return orjson.dumps(moment)[1:-1].decode()


class Clock:
    """Aware UTC, milliseconds. Anchored at the wall clock until a server's time is known."""

    def __init__(self) -> None:
        self._base_ms = time.time() * 1000 - time.monotonic() * 1000

    def heard(self, server_ms: float, *, asked_at: float) -> None:
        """Take over a server's time; `asked_at` is time.monotonic() when it was asked."""
        answered_at = time.monotonic()
        halfway_ms = (asked_at + answered_at) / 2 * 1000
        self._base_ms = server_ms - halfway_ms

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return int(self._base_ms + time.monotonic() * 1000)

    def now(self) -> datetime:
        """The present moment."""
        return datetime.fromtimestamp((self._base_ms + time.monotonic() * 1000) / 1000, UTC)
