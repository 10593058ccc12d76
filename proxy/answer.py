"""What the client receives of the attempt that succeeded.

Streams pass event by event as they come; each send waits until the client can take more,
so a slow reader holds the provider back instead of filling memory. The usage event is
written before the last bytes leave, so an answered request is never unaccounted, not even
by kill -9.
"""

import time
from collections.abc import Awaitable, Callable, Iterable
from decimal import Decimal, InvalidOperation
from typing import Any

from proxy.attempt import BrokenStream, Headers
from proxy.capture import Capture
from proxy.errors import scrub
from proxy.refusals import error_body
from proxy.trace import Trace
from proxy.worker import Send

_RESPONSE_HEADERS = frozenset(
    {b"content-type", b"content-disposition", b"cache-control", b"retry-after", b"x-should-retry"}
)
_PROVIDER_PREFIX = b"llm_provider-"


class Answer:
    """The Sink of a request: its client, and what was learned on the way there."""

    def __init__(self, trace: Trace, send: Send, settle: Callable[..., Awaitable[None]]) -> None:
        self.trace = trace
        self.capture = Capture(trace)
        self.client_gone = False
        self.started = False  # an attempt succeeded: there will be no other
        self.began = 0.0  # perf_counter then
        self.extra_headers: Callable[[], list[tuple[bytes, bytes]]] = list
        self._send = send
        self._settle = settle
        self._sse = False
        self._passthrough = False
        self._headers: list[tuple[bytes, bytes]] = []
        self._whole: list[bytes] = []
        self._over = False

    # --- from the executor -----------------------------------------------------------------

    async def start(self, status: int, headers: Headers) -> None:
        """The attempt succeeded."""
        self.started, self.began = True, time.perf_counter()
        self.capture.status = status
        self._read_headers(headers)
        own = [*gateway_headers(self.trace), *self.extra_headers()]
        names = {name for name, _ in own}  # our limits, where the provider tells its own, too
        self._headers = [h for h in kept_headers(headers) if h[0] not in names] + own
        if self.trace.cache is not None:
            self.trace.cache.begin(self._headers)
        content_type = dict(headers).get(b"content-type", b"")
        self._sse = content_type.startswith(b"text/event-stream")
        self.capture.sse_began = self._sse
        kind = self.trace.inference.kind if self.trace.inference else ""
        self._passthrough = kind == "speech" and not self._sse
        if self._sse or self._passthrough:
            await self._send_start()

    def _read_headers(self, headers: Headers) -> None:
        for name, value in headers:
            if name == b"x-litellm-model-id":
                self.capture.header_deployment = value.decode("latin-1")
            elif name == b"x-litellm-response-cost":
                # At the start of a stream it is a zero that means nothing yet.
                amount = _decimal(value.decode("latin-1"))
                self.capture.litellm_cost = amount or None

    async def body(self, chunk: bytes, *, last: bool) -> None:
        """A part of the answer."""
        self.capture.bytes_out += len(chunk)
        if self._sse:
            await self._on_stream(chunk, last=last)
        elif self._passthrough:
            if self.capture.ttft_ms is None and chunk:
                self.capture.ttft_ms = self.trace.elapsed_ms()
            if last:
                self.capture.read_whole(b"")
                await self._settle()
            await self._forward(chunk, more=not last)
        else:
            self._whole.append(chunk)
            if last:
                await self._on_whole(b"".join(self._whole))

    async def whole(
        self, status: int, headers: Headers, body: bytes, document: dict[str, Any] | None
    ) -> None:
        """The attempt succeeded with all of its answer."""
        await self.start(status, headers)
        self.capture.bytes_out += len(body)
        await self._on_whole(body, document)

    async def _on_whole(self, body: bytes, document: dict[str, Any] | None = None) -> None:
        body = self.capture.read_whole(body, document)
        await self._settle(book=False)
        self._headers.append((b"content-length", str(len(body)).encode()))
        await self._send_start()
        await self._forward(body, more=False)

    async def _on_stream(self, chunk: bytes, *, last: bool) -> None:
        events = self.capture.feed(chunk)
        if last and (rest := self.capture.rest()):
            events += self.capture.feed(rest + b"\n\n")
        if last and not self.capture.malformed:
            events += self.capture.end()
        if self.capture.error_class is not None:
            events = [self._scrubbed(event) for event in events]
        uncounted = self.capture.finished and self.capture.usage is None
        if len(events) > 1 and uncounted and not self.trace.closed:
            # All but the end may leave; the end waits until its tokens are counted.
            await self._forward(b"".join(events[:-1]), more=True)
            del events[:-1]
        if self.capture.finished or last:
            await self._settle()
        if events:
            await self._forward(b"".join(events), more=True)
        if self.capture.malformed:
            raise BrokenStream
        if last:
            await self._forward(b"", more=False)

    def _scrubbed(self, body: bytes) -> bytes:
        """Errors quote what providers said, which can quote credentials."""
        tried = [self.trace.deployment(one["deployment"]) for one in self.trace.attempts]
        secrets = [secret for row in tried if row is not None for secret in row.secrets]
        return scrub(body.decode("utf-8", "replace"), secrets).encode()

    # --- from the relay --------------------------------------------------------------------

    async def end_broken(self) -> None:
        """Tell the client that the answer is not whole, in the stream's own words."""
        if self._over or self.client_gone:
            return
        if self.trace.cache is not None:
            self.trace.cache.spoil()
        shape = anthropic_shape(self.trace)
        body = error_body(
            scrub(self.capture.error or "the answer ended before its end"),
            status=502,
            kind="server_error",
            code=self.capture.error_class,
            param=None,
            anthropic_shape=shape,
        )
        if self._sse:
            event = b"event: error\n" if shape else b""
            await self._forward(event + b"data: " + body + b"\n\n", more=True)
        elif not self._passthrough:  # nothing was sent yet
            self._over = True
            await respond(self._send, 502, body, gateway_headers(self.trace))
            return
        await self._forward(b"", more=False)

    def release(self) -> None:
        """The request is over. What it was made of can go at once, without a search for cycles."""
        self.extra_headers, self._settle = list, _nothing

    # --- towards the client ----------------------------------------------------------------

    async def _send_start(self) -> None:
        if not self.client_gone:
            status = self.capture.status
            await self._send(
                {"type": "http.response.start", "status": status, "headers": self._headers}
            )

    async def _forward(self, chunk: bytes, *, more: bool) -> None:
        self._over = self._over or not more
        if self.trace.cache is not None:
            self.trace.cache.add(chunk, last=not more)
        if not self.client_gone and (chunk or not more):
            await self._send({"type": "http.response.body", "body": chunk, "more_body": more})


async def _nothing(*, book: bool = True) -> None:
    pass


def anthropic_shape(trace: Trace) -> bool:
    """Whether errors are written as Anthropic's clients expect them."""
    return trace.inference is not None and trace.inference.anthropic_shape


def gateway_headers(trace: Trace) -> list[tuple[bytes, bytes]]:
    """Who served a request, and after how many attempts."""
    found = [(b"x-gateway-request-id", trace.event_id.encode())]
    served = trace.served_by()
    if served is not None:
        found.append((b"x-gateway-model", served["model"].encode("latin-1", "replace")))
        found.append((b"x-gateway-deployment", (served["deployment"] or "").encode()))
        found.append((b"x-gateway-attempts", str(len(trace.attempts)).encode()))
    if trace.cache is not None:
        found += trace.cache.headers()
    return found


def kept_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """What a client may see: nothing that names addresses, keys or spend."""
    kept: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _RESPONSE_HEADERS or name.startswith(b"x-ratelimit-"):
            kept[name] = value
        elif name.startswith(_PROVIDER_PREFIX):
            own = name[len(_PROVIDER_PREFIX) :]
            if own == b"retry-after" or own.startswith(b"x-ratelimit-"):
                kept.setdefault(own, value)
    return list(kept.items())


def _decimal(text: str) -> Decimal | None:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and amount >= 0 else None


async def respond(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """One JSON answer."""
    basic = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": [*basic, *headers]})
    await send({"type": "http.response.body", "body": body, "more_body": False})
