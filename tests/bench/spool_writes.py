"""Three ways to have an event in the kernel before its answer ends, in CPU of the process.

    python -m tests.bench.spool_writes [--requests 20000] [--spool DIRECTORY]

    at once       each request writes its own record, and goes on
    by turn       records of one turn of the loop are written together; requests wait for it
    by thread     a thread writes what waits, as much as there is; requests wait for it

Some requests run side by side; each takes two turns of the loop, writes its record and ends.
Variants in turn, medians of the rounds.
"""

import argparse
import asyncio
import os
import queue
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

RECORD = os.urandom(1_250)
ROUNDS = 7
CONCURRENT = (1, 16, 64)


class AtOnce:
    """What the spool does."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    async def append(self, record: bytes) -> None:
        os.write(self.descriptor, record)

    def close(self) -> None:
        """Nothing is open."""


class ByTurn:
    """One write for all records of a turn."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.records: list[bytes] = []
        self.written: asyncio.Future[None] | None = None

    async def append(self, record: bytes) -> None:
        self.records.append(record)
        if self.written is None:
            loop = asyncio.get_running_loop()
            self.written = loop.create_future()
            loop.call_soon(self.write)
        await self.written

    def write(self) -> None:
        os.write(self.descriptor, b"".join(self.records))
        self.records.clear()
        assert self.written is not None
        self.written.set_result(None)
        self.written = None

    def close(self) -> None:
        """Nothing is open."""


class ByThread:
    """A thread writes what waits."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.waiting: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]] | None] = (
            queue.SimpleQueue()
        )
        self.loop = asyncio.get_running_loop()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    async def append(self, record: bytes) -> None:
        written: asyncio.Future[None] = self.loop.create_future()
        self.waiting.put((record, written))
        await written

    def run(self) -> None:
        while (first := self.waiting.get()) is not None:
            batch = [first]
            while not self.waiting.empty():
                if (other := self.waiting.get()) is None:
                    return
                batch.append(other)
            os.write(self.descriptor, b"".join(record for record, _ in batch))
            self.loop.call_soon_threadsafe(_tell, [written for _, written in batch])

    def close(self) -> None:
        self.waiting.put(None)
        self.thread.join()


def _tell(all_written: list["asyncio.Future[None]"]) -> None:
    for written in all_written:
        written.set_result(None)


Writer = AtOnce | ByTurn | ByThread


async def cpu_us(
    make: Callable[[int], Writer], path: Path, side_by_side: int, requests: int
) -> float:
    """CPU of the process for one request."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC)
    writer = make(descriptor)

    async def client(count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await writer.append(RECORD)

    try:
        started = time.process_time()
        await asyncio.gather(*(client(requests // side_by_side) for _ in range(side_by_side)))
        return (time.process_time() - started) / requests * 1e6
    finally:
        writer.close()
        os.close(descriptor)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare ways to write events.")
    parser.add_argument("--requests", type=int, default=20_000, help="in each round")
    parser.add_argument("--spool", type=Path, default=None, help="a directory on the disk to try")
    options = parser.parse_args()
    print("| side by side | " + " | ".join(f"{n} requests" for n in CONCURRENT) + " |")  # noqa: T201
    print("|---|" + "---|" * len(CONCURRENT))  # noqa: T201
    ways: dict[str, Callable[[int], Writer]] = {
        "at once": AtOnce,
        "by turn": ByTurn,
        "by thread": ByThread,
    }
    took: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory(dir=options.spool) as home:
        for _ in range(ROUNDS):
            for count in CONCURRENT:
                for name, make in ways.items():
                    work = cpu_us(make, Path(home) / "segment", count, options.requests)
                    took.setdefault((name, count), []).append(uvloop.run(work))
    for name in ways:
        row = (f"{statistics.median(took[name, n]):.1f}" for n in CONCURRENT)
        print(f"| {name} | " + " | ".join(row) + " |")  # noqa: T201


if __name__ == "__main__":
    main()
