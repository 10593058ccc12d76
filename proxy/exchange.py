"""One request's answer, on its way from a connection to whoever reads it.

    Exchange   `head`, then `whole` or `chunk` after `chunk`; `end` in any case

An answer that is read by pieces stops the provider when nobody takes them (back-pressure).
Everything that goes wrong is one exception, UpstreamError, that says at which point it did.
"""

import asyncio
from typing import Literal, Protocol

from proxy.ticker import Ticker

Kind = Literal["connect", "timeout", "closed", "protocol"]

BUFFERED_MAX_BYTES = 128 * 1024  # of an answer that is read by pieces
_HEAD, _CHUNK, _END = 1, 2, 3  # what a reader waits for


class UpstreamError(Exception):
    """No answer, or not all of it. `began`: some bytes of an answer had come."""

    def __init__(self, kind: Kind, message: str, *, began: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.began = began


class StaleConnection(UpstreamError):
    """A kept connection was closed under the request: it was not read by anybody."""


class Busy(Protocol):
    """The connection of an exchange, as far as its reader goes."""

    def pause(self) -> None:
        """Read no more for now."""

    def resume(self) -> None:
        """Read on."""

    def close(self) -> None:
        """Close at once; nobody is told."""


class Exchange:
    """One request's answer on its way."""

    __slots__ = (
        "_buffered", "_chunks", "_connection", "_done", "_error", "_idle_s", "_loop", "_pauses",
        "_ticker", "_waiter", "_wants", "began", "deadline", "headers", "status",
    )  # fmt: skip

    def __init__(
        self,
        connection: Busy,
        loop: asyncio.AbstractEventLoop,
        ticker: Ticker,
        timeout_s: float,
    ) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []  # names in lower case
        self.began = False
        self.deadline = loop.time() + timeout_s  # of what is waited for
        self._idle_s = timeout_s
        self._connection = connection
        self._loop = loop
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._pauses = False
        self._done = False
        self._error: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._wants = 0
        self._ticker = ticker
        ticker.add(self)

    # --- for the reader --------------------------------------------------------------------

    async def head(self) -> int:
        """The status, when all headers are there."""
        while not self.status:
            await self._wait(_HEAD)
        return self.status

    async def whole(self) -> bytes:
        """The whole body."""
        while not self._done:
            await self._wait(_END)
        return self._take()

    async def chunk(self) -> bytes:
        """What has come since the last call, waiting for something; empty at the end."""
        while not self._chunks:
            if self._done:
                return b""
            await self._wait(_CHUNK)
        return self._take()

    def by_pieces(self) -> None:
        """The answer began well: it may take any time, as long as it does not fall silent."""
        self._pauses = True
        self.deadline = self._loop.time() + self._idle_s

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        return self._done

    def fail(self, error: UpstreamError) -> None:
        """Give up; the reader is told."""
        if self._done or self._error is not None:
            return
        self._error = error
        self._ticker.discard(self)
        self._connection.close()
        self._wake(_END)

    def leave(self) -> None:
        """Nobody waits for the answer any more."""
        self.fail(UpstreamError("closed", "The client left.", began=self.began))

    def end(self) -> None:
        """The reader is done. What has not come is not waited for: the connection is closed."""
        self._ticker.discard(self)
        self._error = None  # once raised, it holds its reader's frames, and they hold us
        if not self._done:
            self._done = True
            self._connection.close()

    async def _wait(self, wants: int) -> None:
        if self._error is not None:
            raise self._error
        self._wants = wants
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self._error is not None and not (wants == _CHUNK and self._chunks):
            raise self._error

    def _wake(self, what: int) -> None:
        waiter = self._waiter
        if waiter is not None and what >= self._wants and not waiter.done():
            waiter.set_result(None)

    def _take(self) -> bytes:
        chunks, self._chunks = self._chunks, []
        if self._buffered > BUFFERED_MAX_BYTES and self._pauses:
            self._connection.resume()
        self._buffered = 0
        if self._pauses:
            self.deadline = self._loop.time() + self._idle_s
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def tick(self, now: float) -> None:
        """See whether the provider is late."""
        if now < self.deadline or self._done:
            return
        if self._chunks and self._pauses:
            self.deadline = now + self._idle_s  # it is the reader who takes their time
        else:
            self.fail(UpstreamError("timeout", "timed out", began=self.began))

    # --- from the connection ---------------------------------------------------------------

    def came(self, data: bytes) -> None:
        """A part of the body."""
        self._chunks.append(data)
        self._buffered += len(data)
        if self._pauses and self._buffered > BUFFERED_MAX_BYTES:
            self._connection.pause()
        if self._wants == _CHUNK:
            self._wake(_CHUNK)

    def headed(self, status: int) -> None:
        """Status and headers are there."""
        self.status = status
        self._wake(_HEAD)

    def finished(self) -> None:
        """The whole answer is there."""
        self._done = True
        self._ticker.discard(self)
        self._wake(_END)
