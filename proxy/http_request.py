"""One request of a client and its answer: ASGI's `receive` and `send` on a connection.

The head of an answer leaves with the first piece of its body. Names and values of headers are
written as they are, but never with a line end in them.
"""

import asyncio
import logging
from collections.abc import MutableMapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxy.http_server import ClientConnection

logger = logging.getLogger("gateway.http")

UNREAD_MAX_BYTES = 64 * 1024  # of a body that nobody reads; then the client has to wait
ONE_WRITE_MAX_BYTES = 64 * 1024  # larger bodies are not copied to stand behind their head
_NO_BODY = frozenset({204, 304})
_DISCONNECT: dict[str, Any] = {"type": "http.disconnect"}


def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


STATUS_LINES = {status: _status_line(status) for status in range(100, 600)}


class InvalidAnswer(Exception):
    """The application's answer cannot be written as HTTP."""


class Request:
    """One request and its answer."""

    __slots__ = (
        "_body", "_chunked", "_connection", "_ended", "_is_whole", "_left",
        "_rest_bytes", "_scope", "_start", "_told", "_unread", "_waiter", "_written",
        "expects", "keep_alive", "task",
    )  # fmt: skip

    def __init__(
        self, connection: "ClientConnection", scope: dict[str, Any], *, keep_alive: bool
    ) -> None:
        self.keep_alive = keep_alive and scope["http_version"] != "1.0"
        self.task: asyncio.Task[None] | None = None
        self._connection = connection
        self._scope = scope
        self._body: list[bytes] = []
        self._unread = 0
        self._is_whole = False  # the body
        self._told = False  # that it is
        self._waiter: asyncio.Future[None] | None = None
        self.expects = False
        self._start: MutableMapping[str, Any] | None = None  # the answer's, not written yet
        self._written = False  # its head
        self._chunked = False
        self._rest_bytes: int | None = None  # of the announced length
        self._ended = False
        self._left = False

    # --- from the connection ---------------------------------------------------------------

    def came(self, body: bytes) -> None:
        """A part of the body."""
        if self._ended:
            return
        self._body.append(body)
        self._unread += len(body)
        if self._unread > UNREAD_MAX_BYTES:
            self._connection.pause_reading()
        self._wake()

    def whole(self) -> None:
        """All of the body is there."""
        self._is_whole = True
        self._wake()

    def left(self) -> None:
        """The client is gone."""
        self._left = True
        self._wake()

    @property
    def is_begun(self) -> bool:
        """Whether some of the answer was written."""
        return self._written

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def run(self) -> None:
        """Have it answered."""
        connection = self._connection
        try:
            await connection.app(self._scope, self.receive, self.send)
            if not self._ended and not self._left:
                logger.error("the application left a request without an answer")
                await self._fail()
        except asyncio.CancelledError:
            connection.transport.close()  # the server's patience with running requests is over
            raise
        except Exception:
            logger.exception("the application failed")
            await self._fail()
        finally:
            if self.task is not None:
                connection.state.tasks.discard(self.task)
                self.task = None

    async def _fail(self) -> None:
        """A 500 if nothing was written yet; else the client sees an answer that is not whole."""
        if self._written or self._left or self._ended:
            self._connection.transport.close()
            return
        self.keep_alive, self._rest_bytes, self._chunked = False, None, False
        body = b"Internal Server Error"
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
        ]
        self._start = {"type": "http.response.start", "status": 500, "headers": headers}
        await self.send({"type": "http.response.body", "body": body})

    # --- ASGI ------------------------------------------------------------------------------

    async def receive(self) -> MutableMapping[str, Any]:
        """The body's next part; after its end, that the client is gone."""
        if self.expects and not self._is_whole:
            self.expects = False
            self._connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not (self._body or (self._is_whole and not self._told)):
            if self._left or self._ended:
                return _DISCONNECT
            self._waiter = self._connection.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body, self._unread, self._told = [], 0, self._is_whole
        self._connection.resume_reading()
        return {"type": "http.request", "body": body, "more_body": not self._is_whole}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """The answer's start, or a part of its body."""
        if message["type"] == "http.response.start":
            if self._start is not None or self._written:
                raise InvalidAnswer("an answer begins once")
            self._start = message
            return
        if self._ended:
            raise InvalidAnswer("the answer has ended")
        if self._connection.is_full and not self._left:
            await self._connection.writable()
        if self._left:
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        head = b"" if self._written else self._head(body, more=more)
        self._write(head, self._framed(body, more=more))
        if not more:
            self._end()

    def _head(self, body: bytes, *, more: bool) -> bytes:
        """Status and header lines."""
        if self._start is None:
            raise InvalidAnswer("an answer begins with its start")
        self.expects = False
        status, headers = self._start["status"], self._start.get("headers", ())
        has_length, closes = False, False
        for name, value in headers:
            if name == b"content-length":
                has_length, self._rest_bytes = True, int(value)
            elif name == b"connection" and b"close" in value.lower():
                self.keep_alive, closes = False, True
        own = b"" if self.keep_alive or closes else b"connection: close\r\n"
        if self._scope["method"] == "HEAD" or status in _NO_BODY:
            self._rest_bytes = None
        elif not has_length and self._scope["http_version"] == "1.0":
            pass  # its end is the connection's
        elif not has_length:
            self._chunked, own = True, own + b"transfer-encoding: chunked\r\n"
        lines = b"".join([b"%b: %b\r\n" % pair for pair in headers])
        if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers):
            raise InvalidAnswer("a header with a line end in it")
        self._written = True
        return b"%b%b%b%b\r\n" % (STATUS_LINES[status], self._connection.date(), lines, own)

    def _framed(self, body: bytes, *, more: bool) -> bytes:
        if self._chunked:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return chunk if more else chunk + b"0\r\n\r\n"
        if self._scope["method"] == "HEAD":
            return b""
        if self._rest_bytes is not None:
            self._rest_bytes -= len(body)
            if self._rest_bytes < 0 or (self._rest_bytes and not more):
                raise InvalidAnswer("the body is not as long as announced")
        return body

    def _write(self, head: bytes, body: bytes) -> None:
        transport = self._connection.transport
        if head and len(body) <= ONE_WRITE_MAX_BYTES:
            transport.write(head + body)
            return
        if head:
            transport.write(head)
        if body:
            transport.write(body)

    def _end(self) -> None:
        self._ended, self._body = True, []
        self._wake()
        self._connection.answered()
