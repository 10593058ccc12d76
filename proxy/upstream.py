"""HTTP/1.1 to providers: one request at a time on connections that are kept.

    answer    a request, and the head of its answer                         -> Exchange
    send      the request alone, on an idle connection or on a new one      -> Exchange
    Exchange  its answer: `head`, then `whole` or `chunk` after `chunk`; `end` in any case

Parsing is httptools' (llhttp, as in the server in front), transport and TLS are asyncio's.
There is no queue: how many requests run at once is admission's business. An answer that is
read by pieces stops the provider when nobody takes them (back-pressure). Everything that
goes wrong is one exception, UpstreamError, that says at which point it did.
"""

import asyncio
import os
import ssl
import zlib
from collections import deque
from collections.abc import Callable
from typing import Literal, cast

import certifi
import httptools

from proxy.ticker import Ticker

Kind = Literal["connect", "timeout", "closed", "protocol"]

CONNECT_MAX_S = 10.0
IDLE_MAX = 512  # connections kept per origin
IDLE_S = 30.0  # kept for so long where the provider does not say
HEADERS_MAX_BYTES = 128 * 1024
BUFFERED_MAX_BYTES = 128 * 1024  # of an answer that is read by pieces
_MARGIN_S = 1.0  # before the moment at which the provider closes an idle connection


class UpstreamError(Exception):
    """No answer, or not all of it. `began`: some bytes of an answer had come."""

    def __init__(self, kind: Kind, message: str, *, began: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.began = began


class StaleConnection(UpstreamError):
    """A kept connection was closed under the request: it was not read by anybody."""


class Origin:
    """Where a provider listens, and the connections to it that are idle."""

    __slots__ = ("host", "idle", "port", "tls")

    def __init__(self, host: str, port: int, *, tls: bool) -> None:
        self.host = host
        self.port = port
        self.tls = tls
        self.idle: deque[_Connection] = deque()  # the one used last at the right end

    def is_at_hand(self, now: float) -> bool:
        """Whether a connection is there that can be used. `now` is the loop's time."""
        return bool(self.idle) and self.idle[-1].usable(now)


class Upstream:
    """The connections of one worker. All calls from one event loop."""

    def __init__(self, ticker: Ticker) -> None:
        self.ticker = ticker
        self._origins: dict[tuple[str, int, bool], Origin] = {}
        self._tls: ssl.SSLContext | None = None
        self.connects = 0

    def origin(self, scheme: str, host: str, port: int) -> Origin:
        """The origin of an address; the same one for the same address."""
        key = (host, port, scheme == "https")
        found = self._origins.get(key)
        if found is None:
            found = self._origins[key] = Origin(host, port, tls=key[2])
        return found

    async def send(
        self, origin: Origin, request: bytes, *, timeout_s: float, fresh: bool = False
    ) -> "Exchange":
        """Send a whole request; raises UpstreamError. The answer is due within `timeout_s`."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        connection = None
        while origin.idle and connection is None and not fresh:
            connection = origin.idle.pop()
            if not connection.usable(now):
                connection.close()
                connection = None
        if connection is None:
            connection = await self._connect(origin, timeout_s)
        exchange = Exchange(connection, loop, self.ticker, timeout_s)
        connection.begin(exchange, request)
        return exchange

    async def answer(
        self,
        origin: Origin,
        request: bytes,
        *,
        timeout_s: float,
        begun: "Callable[[Exchange], None] | None" = None,
    ) -> "Exchange":
        """Send a request and wait for its answer's head; raises UpstreamError.

        Sent once more, on a new connection, if a kept one was closed before anybody read it.
        `begun` is told of each exchange, so that it can be given up from elsewhere.
        """
        fresh = False
        while True:
            exchange = await self.send(origin, request, timeout_s=timeout_s, fresh=fresh)
            try:
                if begun is not None:
                    begun(exchange)
                await exchange.head()
            except StaleConnection:
                exchange.end()
                if fresh:
                    raise
                fresh = True
            except BaseException:
                exchange.end()
                raise
            else:
                return exchange

    async def _connect(self, origin: Origin, timeout_s: float) -> "_Connection":
        loop = asyncio.get_running_loop()
        self.connects += 1
        try:
            async with asyncio.timeout(min(timeout_s, CONNECT_MAX_S)):
                _, connection = await loop.create_connection(
                    lambda: _Connection(origin),
                    origin.host,
                    origin.port,
                    ssl=self._context() if origin.tls else None,
                    server_hostname=origin.host if origin.tls else None,
                )
        except TimeoutError:
            if timeout_s <= CONNECT_MAX_S:
                raise UpstreamError("timeout", "no connection in time") from None
            text = f"Cannot connect within {CONNECT_MAX_S:g} s."
            raise UpstreamError("connect", text) from None
        except OSError as error:
            text = f"Cannot connect to the provider: {error.strerror or type(error).__name__}."
            raise UpstreamError("connect", text) from None
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            own = os.environ.get("SSL_CERT_FILE", "")  # as LiteLLM reads it
            trusted = own if os.path.exists(own) else certifi.where()
            self._tls = ssl.create_default_context(cafile=trusted)
        return self._tls

    def sweep(self, now: float) -> None:
        """Close what was idle for too long. `now` is the loop's time."""
        for origin in self._origins.values():
            while origin.idle and not origin.idle[0].usable(now):
                origin.idle.popleft().close()

    def close(self) -> None:
        """Close all idle connections."""
        for origin in self._origins.values():
            while origin.idle:
                origin.idle.pop().close()


class Exchange:
    """One request's answer on its way."""

    __slots__ = (
        "_buffered", "_chunks", "_connection", "_done", "_error", "_idle_s", "_loop", "_pauses",
        "_ticker", "_waiter", "_wants", "began", "deadline", "headers", "status",
    )  # fmt: skip

    def __init__(
        self,
        connection: "_Connection",
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


_HEAD, _CHUNK, _END = 1, 2, 3


class _Connection(asyncio.Protocol):
    """One connection, busy with one exchange or idle."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._header_bytes = 0
        self._interim = False
        self._bounded = False  # the answer says where it ends
        self._keep_s = IDLE_S
        self._idle_since = 0.0
        self._used = 0
        self._paused = False
        self._decoder: zlib._Decompress | None = None

    # --- for Upstream and Exchange ---------------------------------------------------------

    def usable(self, now: float) -> bool:
        """Whether a request may leave on it."""
        open_ = self._transport is not None and not self._transport.is_closing()
        return open_ and now - self._idle_since < self._keep_s

    def begin(self, exchange: Exchange, request: bytes) -> None:
        """Send a request."""
        assert self._transport is not None
        self._exchange = exchange
        self._used += 1
        self._transport.write(request)

    def pause(self) -> None:
        """Read no more for now."""
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def close(self) -> None:
        """Close at once; nobody is told."""
        self._exchange = None
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer."""
        exchange = self._exchange
        if exchange is None:
            self.close()  # nobody asked
            return
        exchange.began = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, zlib.error) as error:
            self._fail("protocol", f"The provider's answer is not HTTP: {error}.")

    def connection_lost(self, exc: Exception | None) -> None:
        """The provider is gone."""
        exchange = self._exchange
        if exchange is None:
            if self in self._origin.idle:
                self._origin.idle.remove(self)
            return
        if exchange.status and not self._bounded and exc is None:
            self._exchange = None
            exchange.finished()  # an answer without a length ends with its connection
            return
        self._fail("closed", "The provider closed the connection before its answer was whole.")

    def _fail(self, kind: Kind, text: str) -> None:
        exchange = self._exchange
        if exchange is None:
            self.close()
            return
        if kind == "closed" and self._used > 1 and not exchange.began:
            exchange.fail(StaleConnection(kind, text))
        else:
            exchange.fail(UpstreamError(kind, text, began=exchange.began))
        self._exchange = None

    # --- httptools -------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """An answer begins. One that nobody asked for must not become the next request's."""
        if self._exchange is None:
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header line."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > HEADERS_MAX_BYTES:
            self._fail("protocol", "The provider's headers are too large.")
        elif self._exchange is not None:
            self._exchange.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Headers are there, of an answer or of a 1xx before it."""
        exchange, self._header_bytes = self._exchange, 0
        if exchange is None:
            return
        status = self._parser.get_status_code()
        self._interim = status < 200
        if self._interim:
            exchange.headers.clear()
            return
        self._bounded, self._decoder = status in (204, 304), None
        for name, value in exchange.headers:
            if name in (b"content-length", b"transfer-encoding"):
                self._bounded = True
            elif name == b"content-encoding":
                self._decode(value.strip().lower())
            elif name == b"keep-alive":
                self._keep(value)
        if self._exchange is not None:
            exchange.headed(status)

    def _decode(self, encoding: bytes) -> None:
        """We ask for none; some compress all the same."""
        if encoding in (b"gzip", b"deflate", b"x-gzip"):
            self._decoder = zlib.decompressobj(zlib.MAX_WBITS | 32)
        elif encoding not in (b"", b"identity"):
            self._fail("protocol", "The provider's answer is encoded in a way not asked for.")

    def _keep(self, value: bytes) -> None:
        for part in value.split(b","):
            name, _, seconds = part.strip().partition(b"=")
            if name.lower() == b"timeout" and seconds.isdigit():
                self._keep_s = min(max(int(seconds) - _MARGIN_S, 0.0), IDLE_S)

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        if self._decoder is not None:
            data = self._decoder.decompress(data)
        if self._exchange is not None and data:
            self._exchange.came(data)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        exchange = self._exchange
        if self._interim:
            self._interim = False
            return
        if exchange is None:
            return
        self._exchange = None
        self.resume()
        exchange.finished()
        idle = self._origin.idle
        if self._parser.should_keep_alive() and self._keep_s > 0 and len(idle) < IDLE_MAX:
            self._idle_since = asyncio.get_running_loop().time()
            idle.append(self)
        else:
            self.close()
