"""Batches of usage events on their way to the control plane, compressed while they come.

A thousand events at once take some milliseconds of zlib, in which nobody is served; a few take
some microseconds, after an answer has left. A batch is one gzip stream of

    {"events":[…,…],"replica_id":"…","batch_id":"…"}

Whatever is packed lies in the spool as well: packing may be given up at any time.
"""

import json
import zlib
from collections.abc import Iterable

import orjson

from proxy.contract import MAX_BATCH_BYTES, MAX_BATCH_EVENTS

BATCH_EVENTS = min(1_000, MAX_BATCH_EVENTS)
# Before compression, with room for the envelope around the events.
BATCH_BYTES = MAX_BATCH_BYTES // 2
TOGETHER = 16  # events that are compressed at once: zlib's tables are cold for each new call
_LEVEL = 1
_GZIP = 16 + zlib.MAX_WBITS


class Batch:
    """Events that are sent together."""

    __slots__ = ("_content", "_parts", "_size_bytes", "_waiting", "_zip", "count")

    def __init__(self) -> None:
        self.count = 0
        self._size_bytes = 0
        self._zip = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        self._parts = [self._zip.compress(b'{"events":[')]
        self._waiting: list[bytes] = []
        self._content: bytes | None = None

    def takes(self, record: bytes) -> bool:
        """Whether there is room for one more event."""
        room = not self.count or self._size_bytes + len(record) <= BATCH_BYTES
        return room and self.count < BATCH_EVENTS and self._content is None

    def add(self, record: bytes) -> None:
        """One event, as JSON."""
        self._size_bytes += len(record) + 1
        self.count += 1
        self._waiting.append(record)
        if len(self._waiting) == TOGETHER:
            self._compress()

    def _compress(self) -> None:
        records, self._waiting = b",".join(self._waiting), []
        is_first = len(self._parts) == 1
        self._parts.append(self._zip.compress(records if is_first else b"," + records))

    def content(self, *, replica_id: str, batch_id: str) -> bytes:
        """The whole batch as it is sent; the same bytes each time."""
        if self._content is None:
            names = json.dumps({"replica_id": replica_id, "batch_id": batch_id}).encode()
            if self._waiting:
                self._compress()
            self._parts.append(self._zip.compress(b"]," + names[1:]))
            self._parts.append(self._zip.flush())
            self._content = b"".join(self._parts)
            self._parts = []
        return self._content


def pack(batches: list[Batch], record: bytes) -> None:
    """Add an event to the last of some batches, or to a new one."""
    if not batches or not batches[-1].takes(record):
        batches.append(Batch())
    batches[-1].add(record)


def packed(records: Iterable[bytes]) -> list[Batch]:
    """Batches of events that are all there."""
    batches: list[Batch] = []
    for record in records:
        pack(batches, record)
    return batches


def unpacked(content: bytes) -> list[bytes]:
    """The events of a batch's content."""
    document = orjson.loads(zlib.decompress(content, _GZIP))
    return [orjson.dumps(event) for event in document["events"]]
