"""Answers that this worker has just read from the response cache, for a moment.

What is asked for again and again is answered without asking Redis and deciphering each time.
A moment is NEAR_S: so long, another worker's `refresh` of the same request may go unseen. A
purge changes the names of entries, so nothing purged is ever found here. Pure but for the clock.
"""

import time
from collections import OrderedDict

from proxy.cache_entry import CachedAnswer

NEAR_S = 0.5
NEAR_MAX_BYTES = 8 * 1024 * 1024  # of bodies
ENTRY_MAX_BYTES = 256 * 1024


class NearAnswers:
    """The answers of the last moment, within a bound of memory."""

    def __init__(self) -> None:
        # By name, oldest first: read at this moment (monotonic), answer.
        self._kept: OrderedDict[str, tuple[float, CachedAnswer]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, name: str) -> CachedAnswer | None:
        """The answer, if it was read within the last NEAR_S."""
        found = self._kept.get(name)
        if found is None:
            return None
        if time.monotonic() - found[0] < NEAR_S:
            return found[1]
        self.forget(name)
        return None

    def keep(self, name: str, answer: CachedAnswer) -> None:
        """It was read right now."""
        self.forget(name)
        if len(answer.body) > ENTRY_MAX_BYTES:
            return
        now = time.monotonic()
        self._kept[name] = (now, answer)
        self._bytes += len(answer.body)
        while self._bytes > NEAR_MAX_BYTES or now - next(iter(self._kept.values()))[0] >= NEAR_S:
            self.forget(next(iter(self._kept)))

    def forget(self, name: str) -> None:
        """There is another answer now, or none."""
        found = self._kept.pop(name, None)
        if found is not None:
            self._bytes -= len(found[1].body)
