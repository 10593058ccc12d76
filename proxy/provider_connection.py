"""Connections to providers: HTTP/1.1, one request at a time, kept while they are idle.

Parsing is httptools' (llhttp, as in the server in front), transport and TLS are asyncio's.
"""

import asyncio
import zlib
from collections import deque
from typing import Any, cast

import httptools

from proxy.exchange import Exchange, Kind, StaleConnection, UpstreamError

IDLE_MAX = 512  # connections kept per origin
IDLE_S = 30.0  # kept for so long where the provider does not say
HEADERS_MAX_BYTES = 128 * 1024
_MARGIN_S = 1.0  # before the moment at which the provider closes an idle connection


class Origin:
    """Where a provider listens, and the connections to it that are idle."""

    __slots__ = ("host", "idle", "port", "tls")

    def __init__(self, host: str, port: int, *, tls: bool) -> None:
        self.host = host
        self.port = port
        self.tls = tls
        self.idle: deque[ProviderConnection] = deque()  # the one used last at the right end

    def is_at_hand(self, now: float) -> bool:
        """Whether a connection is there that can be used. `now` is the loop's time."""
        return bool(self.idle) and self.idle[-1].usable(now)


class ProviderConnection(asyncio.Protocol):
    """One connection, busy with one exchange or idle."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._parser: Any = httptools.HttpResponseParser(self)
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
        self._parser = None  # they know each other
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
