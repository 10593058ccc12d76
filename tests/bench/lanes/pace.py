"""Load at a fixed rate, whatever the answers do: no request waits for another's answer.

    python -m tests.bench.lanes.pace < request.json

Requests become due at even intervals and are counted from then on, also while all
connections are taken: a gateway that stalls is charged for everybody who would have come.
Every answer is read whole and looked at.
"""

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

import uvloop

from tests.bench.lanes.answers import CHUNKS, PIECES
from tests.bench.lanes.machine import BenchError, pinned
from tests.bench.lanes.wrk import Request

WARM_UP_S = 0.5
TICK_S = 0.001  # uvloop's timers know milliseconds
PATIENCE_S = 30.0


@dataclass(frozen=True)
class Paced:
    """What the generator saw. Times are from when a request was due."""

    answered: int
    wrong: int
    p50_ms: float
    p99_ms: float
    first_p50_ms: float  # to the first event of a stream
    first_p99_ms: float


def run(
    request: Request,
    *,
    stream: bool,
    rate: float,
    connections: int,
    seconds: float,
    cores: frozenset[int],
) -> Paced:
    """Run the generator in a process of its own."""
    spec = {
        "url": request.url,
        "headers": request.headers,
        "body": request.body.decode(),
        "stream": stream,
        "rate": rate,
        "connections": connections,
        "seconds": seconds,
    }
    with pinned(cores):
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.lanes.pace"],
            input=json.dumps(spec),
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise BenchError(f"the generator failed: {done.stderr[-1000:]}")
    return Paced(**json.loads(done.stdout))


@dataclass
class _Seen:
    """Of all connections together."""

    answered: int = 0
    wrong: int = 0
    whole_ms: list[float] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)


class _Line(asyncio.Protocol):
    """A connection that is kept; one request at a time."""

    def __init__(self, load: "_Load") -> None:
        self.load = load
        self.transport: asyncio.Transport | None = None
        self.due: float | None = None
        self.first: float | None = None
        self.got = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready."""
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, error: Exception | None) -> None:
        """Before the end it is an error, and the line stays out."""
        self.transport = None
        if self in self.load.free:
            self.load.free.remove(self)
        if self.due is not None:
            self.load.finish(self, right=False)

    def ask(self, due: float) -> None:
        """Send the request that was due then."""
        assert self.transport is not None
        self.due, self.first, self.got = due, None, bytearray()
        self.transport.write(self.load.request)

    def data_received(self, data: bytes) -> None:
        """Part of the answer."""
        if self.due is None:
            return
        self.got += data
        if self.first is None and b"data: " in self.got:
            self.first = time.perf_counter() - self.due
        body = _whole_body(self.got)
        if body is not None:
            right = self.got.startswith(b"HTTP/1.1 200 ") and _is_right(body, self.load.stream)
            self.load.finish(self, right=right)


class _Load:
    """What is due, who is free, what was seen."""

    def __init__(self, spec: dict[str, Any]) -> None:
        url, body = urlsplit(spec["url"]), spec["body"].encode()
        lines = [f"POST {url.path} HTTP/1.1", f"host: {url.netloc}"]
        lines += [f"{name}: {value}" for name, value in spec["headers"].items()]
        lines += [f"content-length: {len(body)}", "", ""]
        self.address = (url.hostname, url.port)
        self.request = "\r\n".join(lines).encode() + body
        self.stream: bool = spec["stream"]
        self.rate: float = spec["rate"]
        self.seconds: float = spec["seconds"]
        self.connections: int = spec["connections"]
        self.free: list[_Line] = []
        self.due: deque[float] = deque()
        self.seen = _Seen()
        self.began = 0.0
        self.total: int | None = None
        self.complete = asyncio.Event()

    async def run(self) -> Paced:
        """Connect, send everything when it is due, wait for the last answer."""
        loop = asyncio.get_running_loop()
        for _ in range(self.connections):
            _, line = await loop.create_connection(lambda: _Line(self), *self.address)
            self.free.append(line)
        self.began = time.perf_counter()
        total, sent = max(2, round(self.rate * self.seconds)), 0
        while sent < total:
            ready = min(total, int((time.perf_counter() - self.began) * self.rate) + 1)
            self.due.extend(self.began + number / self.rate for number in range(sent, ready))
            sent = ready
            self.pump()
            await asyncio.sleep(TICK_S)
        self.total = total
        if self.seen.answered + self.seen.wrong == total:
            self.complete.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await self.complete.wait()
        self.seen.wrong += total - self.seen.answered - self.seen.wrong
        return _summary(self.seen)

    def pump(self) -> None:
        """Hand what is due to who is free."""
        while self.due and self.free:
            self.free.pop().ask(self.due.popleft())

    def finish(self, line: _Line, *, right: bool) -> None:
        """An answer is complete, or will never be."""
        assert line.due is not None
        now, due, line.due = time.perf_counter(), line.due, None
        if right:
            self.seen.answered += 1
        else:
            self.seen.wrong += 1
        if due - self.began >= WARM_UP_S:
            self.seen.whole_ms.append((now - due) * 1000)
            self.seen.first_ms.append((line.first or 0.0) * 1000)
        if self.seen.answered + self.seen.wrong == self.total:
            self.complete.set()
        if line.transport is not None and not line.transport.is_closing():
            self.free.append(line)
            self.pump()


def _whole_body(got: bytearray) -> bytes | None:
    """The body, once it is complete."""
    start = got.find(b"\r\n\r\n") + 4
    if start < 4:
        return None
    head = bytes(got[:start]).lower()
    if b"transfer-encoding: chunked" in head:
        return _joined(bytes(got[start:])) if got.endswith(b"0\r\n\r\n") else None
    length = int(head.partition(b"content-length: ")[2].split(b"\r\n", 1)[0] or 0)
    return bytes(got[start:]) if len(got) - start >= length else None


def _joined(framed: bytes) -> bytes | None:
    """A chunked body without its frames; None while the last one is missing."""
    parts: list[bytes] = []
    position = 0
    while (end := framed.find(b"\r\n", position)) >= 0:
        size = int(framed[position:end], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(framed[end + 2 : end + 2 + size])
        position = end + 4 + size
    return None


def _is_right(body: bytes, stream: bool) -> bool:
    if stream:
        return body.count(b"data: ") == CHUNKS + 1 and body.rstrip().endswith(b"data: [DONE]")
    return PIECES[-2].encode() + PIECES[-1].encode() in body


def _summary(seen: _Seen) -> Paced:
    whole, first = (statistics.quantiles(ms, n=100) for ms in (seen.whole_ms, seen.first_ms))
    return Paced(seen.answered, seen.wrong, whole[49], whole[98], first[49], first[98])


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(uvloop.run(_Load(json.load(sys.stdin)).run()))))
