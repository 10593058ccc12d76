"""HTTP/1.1 from clients: what stands between a socket and the edge, within uvicorn's server.

uvicorn starts, accepts, counts and stops; this takes the place of its protocol, which makes two
writes of an answer instead of one, two regular expressions over each of a dozen headers, a timer
and an event for every request. Parsing is httptools' (llhttp), as there. See decision 13.

    ClientConnection   one connection: parses, hands requests to the app one after another
    Request            one request: ASGI's `receive` and `send` (http_request.py)

Upgrades are not followed.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, cast
from urllib.parse import unquote

import httptools
import uvicorn
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from proxy.http_request import STATUS_LINES, Request
from proxy.watch import EXTENSION

if TYPE_CHECKING:
    from proxy.worker import AsgiApp

logger = logging.getLogger("gateway.http")

HEADERS_MAX_BYTES = 64 * 1024


class ClientConnection(asyncio.Protocol):
    """One connection of a client. The constructor's arguments are uvicorn's."""

    _date: ClassVar[tuple[object, bytes]] = (None, b"")  # uvicorn's headers, and as they are sent

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self._on_close = on_close
        self.app = cast("AsgiApp", config.loaded_app)
        self.state = server_state
        self.loop = _loop or asyncio.get_running_loop()
        self.transport = cast(asyncio.Transport, None)
        self._parser: Any = httptools.HttpRequestParser(self)
        self._idle_max_s = config.timeout_keep_alive
        self._idle_since = self.loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._about: dict[str, Any] = {}
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._header_bytes = 0
        self._in_head = True  # what comes belongs to a request's line and headers
        self._head_bytes = 0  # that came meanwhile; a line that never ends is told nowhere else
        self._is_too_large = False
        self._expects = False  # to be told that its body is wanted
        self._incoming: Request | None = None  # its body is being read
        self._unparsed_bytes = 0  # of its body
        self._is_deaf = False  # the parser has stopped: no further request is read
        self._running: Request | None = None
        self._waiting: deque[Request] = deque()  # asked before the last answer was given
        self._reading_paused = False
        self._writable: asyncio.Future[None] | None = None  # set while the client takes nothing
        self.has_left = False
        self.on_leave: Callable[[], None] | None = None  # of the running request

    # --- asyncio ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is here."""
        self.transport = cast(asyncio.Transport, transport)
        self.state.connections.add(cast(Any, self))
        self._about = {
            "client": get_remote_addr(self.transport),
            "server": get_local_addr(self.transport),
            "scheme": "https" if is_ssl(self.transport) else "http",
            "extensions": {EXTENSION: self},
        }
        self._timer = self.loop.call_later(self._idle_max_s, self._close_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: whoever waits for it is told."""
        self.state.connections.discard(cast(Any, self))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._on_close is not None:
            self._on_close()
        self._waiting.clear()
        self.resume_writing()
        for request in (self._running, self._incoming):
            if request is not None:
                request.left()
        self._incoming = self._running = None
        self._parser, self._about = None, {}  # they know us
        self.has_left = True
        if self.on_leave is not None:
            self.on_leave()

    def data_received(self, data: bytes) -> None:
        """Bytes of requests."""
        if self._is_deaf:
            self._take_unparsed(data)
            return
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._is_deaf = True
            self._take_unparsed(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self._refuse(400, "Invalid HTTP request received.")
            return
        too_long = self._in_head and self._head_bytes > HEADERS_MAX_BYTES
        if too_long or self._is_too_large or self._header_bytes > HEADERS_MAX_BYTES:
            self._refuse(431, "The request's headers are too large.")

    def pause_writing(self) -> None:
        """The client does not keep up."""
        if self._writable is None:
            self._writable = self.loop.create_future()

    def resume_writing(self) -> None:
        """It does again, or is gone."""
        if self._writable is not None:
            self._writable.set_result(None)
            self._writable = None

    async def writable(self) -> None:
        """Wait until the client can take more."""
        while self._writable is not None:
            await asyncio.shield(self._writable)

    @property
    def is_full(self) -> bool:
        """Whether the client has to take something first."""
        return self._writable is not None

    # --- httptools -------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        self._url, self._headers, self._header_bytes, self._expects = b"", [], 0, False
        self._in_head, self._idle_since = True, self.loop.time()

    def on_url(self, url: bytes) -> None:
        """Its target, or a part of it."""
        self._url += url
        self._header_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header line."""
        name = name.lower()
        self._header_bytes += len(name) + len(value)
        if not self._in_head:
            return  # after a body in chunks: nothing that the request could still be about
        self._headers.append((name, value))
        if name == b"expect":
            self._expects = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        """All but the body is there."""
        self._is_too_large = self._is_too_large or self._header_bytes > HEADERS_MAX_BYTES
        if self._is_too_large:
            return  # refused as soon as the parser returns
        self._in_head, self._header_bytes, self._head_bytes = False, 0, 0
        parser, url = self._parser, self._url
        if url.startswith(b"/") and b"?" not in url and b"#" not in url:
            raw_path, query = url, b""
        else:
            parsed = httptools.parse_url(url)
            raw_path, query = parsed.path or b"/", parsed.query or b""
        path = raw_path.decode("ascii", "replace")
        version = parser.get_http_version()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "method": parser.get_method().decode("ascii"),
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": self._headers,
            "state": {},
            **self._about,
        }
        request = Request(self, scope, keep_alive=parser.should_keep_alive())
        request.expects = self._expects
        self._incoming = request
        if self._running is None:
            self._begin(request)
        else:
            self._waiting.append(request)
            self.pause_reading()

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        if self._incoming is not None:
            self._incoming.came(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        request, self._incoming = self._incoming, None
        self._idle_since = self.loop.time()
        if request is None:
            return
        if self._parser.should_upgrade():
            # The parser stops here, before the body that some clients send all the same (Java's,
            # when it would rather speak HTTP/2). We go on without it; nothing may follow.
            request.keep_alive = False
            told = dict(self._headers)
            if b"transfer-encoding" in told:
                self._incoming = request
                self._refuse(501, "A body in chunks cannot come with a wish to upgrade.")
                return
            length = told.get(b"content-length", b"0")
            if length.isdigit() and int(length):
                self._incoming, self._unparsed_bytes = request, int(length)
                return
        request.whole()

    def _take_unparsed(self, data: bytes) -> None:
        """Bytes of a body that the parser does not read."""
        request = self._incoming
        if request is None or not data or not self._unparsed_bytes:
            return
        request.came(data[: self._unparsed_bytes])
        self._unparsed_bytes = max(self._unparsed_bytes - len(data), 0)
        if not self._unparsed_bytes:
            self._incoming = None
            request.whole()

    # --- requests --------------------------------------------------------------------------

    def _begin(self, request: "Request") -> None:
        self._running = request
        request.task = task = self.loop.create_task(request.run())
        self.state.tasks.add(task)

    def answered(self) -> None:
        """The answer of the running request was written to its end."""
        request, self._running = self._running, None
        self.state.total_requests += 1
        if self.transport.is_closing():
            return
        if request is None or not request.keep_alive:
            self.transport.close()
            return
        self.resume_reading()
        if self._waiting:
            self._begin(self._waiting.popleft())
            return
        self._idle_since = self.loop.time()
        if self._timer is None:
            self._timer = self.loop.call_later(self._idle_max_s, self._close_if_idle)

    def _close_if_idle(self) -> None:
        """One timer for many requests: it looks again instead of being set anew by each."""
        self._timer = None
        if self._running is not None:
            return  # `answered` sets it again
        if self._incoming is not None:
            self._idle_since = self.loop.time()  # what is left of a refused body
        left_s = self._idle_since + self._idle_max_s - self.loop.time()
        if left_s <= 0:
            self.transport.close()
        else:
            self._timer = self.loop.call_later(left_s, self._close_if_idle)

    def shutdown(self) -> None:
        """The server stops: a request that runs is the last one."""
        self._waiting.clear()
        if self._running is None:
            self.transport.close()
        else:
            self._running.keep_alive = False

    def _refuse(self, status: int, text: str) -> None:
        """What came cannot be served. A whole request before it gets its answer."""
        logger.debug(text)
        self._is_deaf, self._unparsed_bytes = True, 0
        self._waiting.clear()
        running, broken, self._incoming = self._running, self._incoming, None
        if running is not None and running is not broken:
            running.keep_alive = False
            return
        if running is not None:
            running.left()  # the rest of its body will never come
        if running is None or not running.is_begun:
            body = text.encode()
            self.transport.write(
                b"%bcontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
                b"connection: close\r\n\r\n%b" % (STATUS_LINES[status], len(body), body)
            )
        self.transport.close()

    def pause_reading(self) -> None:
        """The client has to wait with what it wants to send."""
        if not self._reading_paused and not self.transport.is_closing():
            self._reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """It may go on."""
        if self._reading_paused and not self.transport.is_closing():
            self._reading_paused = False
            self.transport.resume_reading()

    def date(self) -> bytes:
        """The header lines that uvicorn makes once a second."""
        made_of = self.state.default_headers
        if ClientConnection._date[0] is not made_of:
            lines = b"".join([b"%b: %b\r\n" % pair for pair in made_of])
            ClientConnection._date = (made_of, lines)
        return ClientConnection._date[1]
