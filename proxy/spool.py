"""Usage events on disk until the control plane has them.

One directory per worker process, `<spool>/<owner>/`, locked with flock for as long as the
process lives: a directory whose lock can be taken belongs to the dead and is adopted.
Segments `<sequence>.seg` hold records of

    4 bytes length | 4 bytes CRC-32 of the payload | payload (one event as JSON)

written with one write(2) to a file opened O_APPEND. A record that write(2) accepted
survives kill -9 (the page cache is the kernel's); a torn last record fails its length or
CRC and is skipped. A segment is deleted only after the control plane committed its events.
When the disk refuses, events wait in a bounded queue in memory; what does not fit there is
counted as dropped, never silently lost.
"""

import fcntl
import os
import struct
import time
import uuid
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from proxy.packing import Batch, pack
from proxy.state import DIRECTORY_MODE, FILE_MODE

HEADER = struct.Struct("<II")
SEGMENT_MAX_BYTES = 4 * 1024 * 1024
MAX_RECORD_BYTES = 1024 * 1024
MEMORY_MAX_EVENTS = 20_000
PACKED_MAX = 4  # segments; each holds some 256 KB for each thousand of its events
SUFFIX = ".seg"
LOCK = "lock"


@dataclass(frozen=True, slots=True)
class SpoolDepth:
    """How much waits to be shipped."""

    events: int
    size_bytes: int
    oldest_at: float | None  # time.time() of the oldest event that waits
    dropped: int
    disk_error: str | None


@dataclass(slots=True, eq=False)
class Segment:
    """What is known of a file that waits to be shipped."""

    path: Path
    events: int = 0
    size_bytes: int = 0
    first_at: float = 0.0  # time.time() of its first event
    batches: list[Batch] | None = None  # of its events, packed since; None: read the file

    def pack(self, record: bytes) -> None:
        """Take an event that was written into its batches, when there is time for it."""
        if self.batches is not None:
            pack(self.batches, record)


class Spool:
    """The spool of this worker. Not thread-safe: appended to from the event loop alone."""

    def __init__(self, root: Path, *, max_bytes: int) -> None:
        self.root = root
        self.max_bytes = max_bytes
        self.directory = root / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.dropped = 0
        self.disk_error: str | None = None
        self._memory: deque[bytes] = deque()
        self._pending: dict[Path, Segment] = {}
        self._size_bytes = 0
        self._descriptor = -1
        self._current: Segment | None = None  # what the descriptor writes to
        self._packed: deque[Segment] = deque()
        self.last: Segment | None = None  # where the last event went; None: nowhere on the disk
        self._sequence = 0
        self._lock: int | None = None

    def open(self) -> None:
        """Create and lock this worker's directory; on a full disk start in memory."""
        try:
            self._lock = _make_locked(self.directory)
        except OSError as error:
            self.disk_error = error.strerror or str(error)

    def append(self, record: bytes) -> bool:
        """Keep one event. False when it had to be dropped (disk and memory full)."""
        self.last = None
        if self._memory or self.disk_error is not None:
            return self._append_to_memory(record)
        if self._size_bytes + len(record) > self.max_bytes:
            self.disk_error = f"spool holds its limit of {self.max_bytes} bytes"
            return self._append_to_memory(record)
        try:
            self._write(record)
        except OSError as error:
            self.disk_error = error.strerror or str(error)
            return self._append_to_memory(record)
        return True

    def _write(self, record: bytes) -> None:
        segment = self._current or self._begin_segment()
        framed = HEADER.pack(len(record), zlib.crc32(record)) + record
        size = len(framed)
        if os.write(self._descriptor, framed) != size:
            # A torn record; the reader skips the rest of this segment, so start a new one.
            self.seal()
            raise OSError(28, "No space left on device")
        if not segment.events:
            segment.first_at = time.time()
            self._pending[segment.path] = segment
        segment.events += 1
        segment.size_bytes += size
        self._size_bytes += size
        self.last = segment
        if segment.size_bytes >= SEGMENT_MAX_BYTES:
            self.seal()

    def _begin_segment(self) -> Segment:
        self._sequence += 1
        path = self.directory / f"{self._sequence:012d}{SUFFIX}"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL
        self._descriptor = os.open(path, flags, FILE_MODE)
        self._current = Segment(path, batches=[])
        self._packed.append(self._current)
        if len(self._packed) > PACKED_MAX:
            self._packed.popleft().batches = None
        return self._current

    def seal(self) -> None:
        """Close the current segment, so that it can be shipped and deleted as a whole."""
        if self._current is not None:
            os.close(self._descriptor)
        self._current = None

    def _append_to_memory(self, record: bytes) -> bool:
        if len(self._memory) >= MEMORY_MAX_EVENTS:
            self.dropped += 1
            return False
        self._memory.append(record)
        return True

    def retry_disk(self) -> None:
        """After an error: try to move what waits in memory to the disk."""
        if self.disk_error is None or self._size_bytes >= self.max_bytes:
            return
        try:
            if self._lock is None:
                self._lock = _make_locked(self.directory)
            while self._memory:
                self._write(self._memory[0])
                self._memory.popleft()
        except OSError as error:
            self.disk_error = error.strerror or str(error)
            return
        self.disk_error = None

    def take_memory(self, limit: int) -> list[bytes]:
        """Events that only memory holds, oldest first; `forget_memory` after shipping."""
        return [self._memory[index] for index in range(min(limit, len(self._memory)))]

    def forget_memory(self, count: int) -> None:
        """Drop the oldest `count` events of the memory queue: they were delivered."""
        for _ in range(min(count, len(self._memory))):
            self._memory.popleft()

    def sealed_segments(self) -> list[Path]:
        """Own segments that are complete, oldest first."""
        return [path for path, segment in self._pending.items() if segment is not self._current]

    def batches(self, segment: Path) -> list[Batch] | None:
        """A segment's events as they are sent; None: they have to be read from the disk."""
        known = self._pending.get(segment)
        if known is None or known.batches is None:
            return None
        batches, known.batches = known.batches, None  # what was not packed by now never will be
        return batches if sum(batch.count for batch in batches) == known.events else None

    def delete(self, segment: Path) -> None:
        """Forget a delivered segment."""
        segment.unlink(missing_ok=True)
        known = self._pending.pop(segment, None)
        if known is not None:
            self._size_bytes -= known.size_bytes
            if known in self._packed:
                self._packed.remove(known)

    def adopt(self) -> list[Path]:
        """Take over the segments of dead workers by moving them into this directory."""
        adopted: list[Path] = []
        if self._lock is None:
            return adopted
        for directory in _orphans(self.root, self.directory):
            descriptor = _try_lock(directory)
            if descriptor is None:
                continue
            try:
                adopted.extend(self._take_over(segment) for segment in segments_in(directory))
                (directory / LOCK).unlink(missing_ok=True)
                directory.rmdir()
            except OSError as error:
                self.disk_error = error.strerror or str(error)
            finally:
                os.close(descriptor)
        return adopted

    def _take_over(self, segment: Path) -> Path:
        stat = segment.stat()
        target = self.directory / f"{segment.stem}-{segment.parent.name}{SUFFIX}"
        os.replace(segment, target)
        count = sum(1 for _ in read_segment(target))
        self._pending[target] = Segment(target, count, stat.st_size, stat.st_mtime)
        self._size_bytes += stat.st_size
        return target

    def depth(self) -> SpoolDepth:
        """Numbers for metrics, health and the sync report."""
        waiting = self._pending.values()
        return SpoolDepth(
            events=sum(segment.events for segment in waiting) + len(self._memory),
            size_bytes=self._size_bytes,
            oldest_at=min((segment.first_at for segment in waiting), default=None),
            dropped=self.dropped,
            disk_error=self.disk_error,
        )

    def close(self) -> None:
        """Release the directory; whatever is left is adopted by the next worker."""
        self.seal()
        if self._lock is not None:
            if not segments_in(self.directory):
                (self.directory / LOCK).unlink(missing_ok=True)
                self.directory.rmdir()
            os.close(self._lock)
            self._lock = None


def _make_locked(directory: Path) -> int:
    """Create a directory that no other worker ever sees without its lock."""
    hidden = directory.with_name(f".{directory.name}")
    hidden.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    descriptor = _try_lock(hidden)
    if descriptor is None:
        raise OSError(11, "spool directory is locked by another process")
    os.rename(hidden, directory)
    return descriptor


def _orphans(root: Path, own: Path) -> list[Path]:
    return sorted(
        path
        for path in root.iterdir()
        if path.is_dir() and path != own and not path.name.startswith(".")
    )


def segments_in(directory: Path) -> list[Path]:
    """Segments of a spool directory in the order they were written."""
    return sorted(directory.glob(f"*{SUFFIX}"))


def _try_lock(directory: Path) -> int | None:
    """Descriptor that holds the directory's lock, or None while another process lives."""
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def read_segment(path: Path) -> Iterator[bytes]:
    """Whole records of a segment; stops at a torn or damaged one."""
    content = path.read_bytes()
    offset = 0
    while offset + HEADER.size <= len(content):
        length, checksum = HEADER.unpack_from(content, offset)
        record = content[offset + HEADER.size : offset + HEADER.size + length]
        if length > MAX_RECORD_BYTES or len(record) < length or zlib.crc32(record) != checksum:
            return
        yield record
        offset += HEADER.size + length
