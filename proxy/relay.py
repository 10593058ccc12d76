"""Passes one checked request to LiteLLM and its answer back, and settles it whatever happens.

The client's connection is watched beside LiteLLM's work: when the client leaves, a stream
is read on for a moment (`abort_drain_s`) to learn its true usage, a whole answer until its
time-out, since the provider charges for all of it. Then LiteLLM's task is cancelled, which
closes the connection to the provider.

The usage event is written before the last bytes of the answer are sent, so an answered
request is never unaccounted, not even by kill -9.
"""

import asyncio
import logging
from collections.abc import Iterable, MutableMapping
from decimal import Decimal, InvalidOperation
from typing import Any

from proxy.capture import Capture
from proxy.errors import class_of_exception, code_of, scrub, type_of
from proxy.refusals import error_body
from proxy.trace import CURRENT, Trace
from proxy.usage import finished_event, needs_estimate
from proxy.worker import Receive, Scope, Send, Worker

logger = logging.getLogger("gateway.relay")

CANCEL_GRACE_S = 2.0

_REQUEST_HEADERS = frozenset({b"accept", b"user-agent", b"anthropic-version", b"anthropic-beta"})
_RESPONSE_HEADERS = frozenset(
    {b"content-type", b"content-disposition", b"cache-control", b"retry-after", b"x-should-retry"}
)
_PROVIDER_PREFIX = b"llm_provider-"


class Relay:
    """One request on its way through LiteLLM."""

    def __init__(
        self, worker: Worker, trace: Trace, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self.worker = worker
        self.trace = trace
        self.scope = scope
        self.receive = receive
        self.send = send
        self.capture = Capture(trace)
        self.client_gone = False
        self.settled = False
        self._started = False  # response.start was sent to the client
        self._sse = False
        self._passthrough = False
        self._headers: list[tuple[bytes, bytes]] = []
        self._whole: list[bytes] = []

    async def run(self, body: bytes, content_type: bytes) -> None:
        """Serve the request to its end, then make sure that it is accounted for."""
        assert self.worker.backend is not None
        self.worker.metrics.in_flight.inc()
        CURRENT.set(self.trace)
        scope = self._inner_scope(len(body), content_type)
        work = asyncio.create_task(
            self.worker.backend.app(scope, _body_once(body), self._from_litellm)
        )
        watch = asyncio.create_task(self._until_client_leaves())
        try:
            await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.client_gone = True
                await asyncio.wait({work}, timeout=self._drain_s())
            await self._end(work)
        finally:
            work.cancel()
            watch.cancel()
            self.worker.metrics.in_flight.dec()
            if not self.settled:
                self._settle_now(aborted=True)

    def _drain_s(self) -> float:
        if self.trace.streaming or self.trace.snapshot is None:
            return self.worker.settings.abort_drain_s
        return self.trace.snapshot.environment["timeout_s"]

    async def _until_client_leaves(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def _end(self, work: "asyncio.Task[Any]") -> None:
        """After LiteLLM finished, failed, or has to be stopped."""
        if not work.done():
            work.cancel()
            await asyncio.wait({work}, timeout=CANCEL_GRACE_S)
        error = None if work.cancelled() or not work.done() else work.exception()
        if error is not None:
            logger.error("litellm failed: %s", scrub(f"{type(error).__name__}: {error}")[:500])
        if self.settled:
            return
        if not self._started:
            await self._fail_internally(error)
            return
        if error is not None:
            cause = _cause(error)
            text = str(cause) or type(cause).__name__
            self.capture.break_off(class_of_exception(cause), text)
        await self._settle()
        if not self.client_gone:
            await self._end_broken_stream()

    async def _end_broken_stream(self) -> None:
        """Tell the client that the answer is not whole, in the stream's own words."""
        if self._sse:
            message = scrub(self.capture.error or "the stream ended before its last event")
            body = error_body(
                message,
                status=502,
                kind="server_error",
                code=self.capture.error_class,
                param=None,
                anthropic_shape=self._anthropic_shape,
            )
            event = b"event: error\n" if self._anthropic_shape else b""
            await self._forward(event + b"data: " + body + b"\n\n", more=True)
        await self._forward(b"", more=False)

    @property
    def _anthropic_shape(self) -> bool:
        return self.trace.inference is not None and self.trace.inference.anthropic_shape

    async def _fail_internally(self, error: BaseException | None) -> None:
        if not self.client_gone:
            self.capture.status = self.capture.status or 500
            self.capture.error_class = self.capture.error_class or "internal"
            self.capture.error = self.capture.error or (type(error).__name__ if error else None)
        await self._settle()
        if self.client_gone:
            return
        message = "The gateway failed to answer this request. Retry; if it stays, tell an admin."
        body = error_body(
            message, status=500, kind="server_error", code="internal", param=None,
            anthropic_shape=self._anthropic_shape,
        )  # fmt: skip
        await respond(self.send, 500, body, self._gateway_headers())

    # --- towards LiteLLM -----------------------------------------------------------------

    def _inner_scope(self, length: int, content_type: bytes) -> dict[str, Any]:
        assert self.worker.backend is not None
        headers = [(n, v) for n, v in self.scope["headers"] if n in _REQUEST_HEADERS]
        token = self.worker.backend.internal_token
        headers += [
            (b"host", b"gateway"),
            (b"content-type", content_type),
            (b"content-length", str(length).encode()),
            (b"authorization", b"Bearer " + token.encode()),
        ]
        return {
            **self.scope,
            "path": self.trace.route,
            "raw_path": self.trace.route.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": headers,
            "state": dict(self.worker.backend.state),
        }

    # --- towards the client --------------------------------------------------------------

    async def _from_litellm(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            await self._on_start(message)
        elif message["type"] == "http.response.body":
            await self._on_body(message.get("body", b""), last=not message.get("more_body", False))

    async def _on_start(self, message: MutableMapping[str, Any]) -> None:
        self.capture.status = message["status"]
        headers = list(message["headers"])
        self._read_headers(headers)
        self._headers = [*_kept_headers(headers), *self._gateway_headers()]
        content_type = dict(headers).get(b"content-type", b"")
        self._sse = content_type.startswith(b"text/event-stream")
        self.capture.sse_began = self._sse
        kind = self.trace.inference.kind if self.trace.inference else ""
        self._passthrough = kind == "speech" and message["status"] < 400 and not self._sse
        if self._sse or self._passthrough:
            await self._send_start()

    def _read_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        for name, value in headers:
            if name == b"x-litellm-model-id":
                self.capture.header_deployment = value.decode("latin-1")
            elif name == b"x-litellm-response-cost":
                # At the start of a stream it is a zero that means nothing yet.
                amount = _decimal(value.decode("latin-1"))
                self.capture.litellm_cost = amount or None

    def _gateway_headers(self) -> list[tuple[bytes, bytes]]:
        found = [(b"x-gateway-request-id", self.trace.event_id.encode())]
        served = self.trace.served_by()
        if served is not None:
            found.append((b"x-gateway-model", served["model"].encode("latin-1", "replace")))
            found.append((b"x-gateway-deployment", (served["deployment"] or "").encode()))
            found.append((b"x-gateway-attempts", str(len(self.trace.attempts)).encode()))
        return found

    async def _on_body(self, chunk: bytes, *, last: bool) -> None:
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

    async def _on_whole(self, body: bytes) -> None:
        body = self.capture.read_whole(body)
        if self.capture.status >= 400:
            body = self._provider_error()
        await self._settle()
        self._headers.append((b"content-length", str(len(body)).encode()))
        await self._send_start()
        await self._forward(body, more=False)

    async def _on_stream(self, chunk: bytes, *, last: bool) -> None:
        events = self.capture.feed(chunk)
        if last and (rest := self.capture.rest()):
            events += self.capture.feed(rest + b"\n\n")
        if self.capture.error_class is not None:
            events = [self._scrubbed(event) for event in events]
        if events and self.capture.finished and not self.settled:
            # All but the end may leave; the end waits until the event is on disk.
            for event in events[:-1]:
                await self._forward(event, more=True)
            events = events[-1:]
        if (self.capture.finished or last) and not self.settled:
            await self._settle()
        if events:
            await self._forward(b"".join(events), more=True)
        if last:
            await self._forward(b"", more=False)

    def _provider_error(self) -> bytes:
        """A provider's failure, told in the shape and with the codes that clients know."""
        error_class = self.capture.error_class or "server_error"
        message = self.capture.error or "The provider failed without saying why."
        if error_class == "authentication":
            # Not the caller's key: a 401 would send people looking in the wrong place.
            self.capture.status = 502
            message = (
                f"The provider refused this gateway's credential for {self.trace.model!r}: "
                f"{message} Tell an admin: the virtual key is fine."
            )
        self._headers = [(n, v) for n, v in self._headers if n != b"content-type"]
        self._headers.append((b"content-type", b"application/json"))
        return error_body(
            message,
            status=self.capture.status,
            kind=type_of(error_class),
            code=code_of(error_class),
            param=None,
            anthropic_shape=self._anthropic_shape,
        )

    def _scrubbed(self, body: bytes) -> bytes:
        """Errors quote what providers said, which can quote credentials."""
        secrets = [s for a in self.trace.attempts for s in self._secrets_of(a["deployment"])]
        return scrub(body.decode("utf-8", "replace"), secrets).encode()

    def _secrets_of(self, deployment_id: str | None) -> tuple[str, ...]:
        deployment = self.trace.deployment(deployment_id)
        return deployment.secrets if deployment is not None else ()

    async def _send_start(self) -> None:
        self._started = True
        if not self.client_gone:
            status = self.capture.status
            await self.send(
                {"type": "http.response.start", "status": status, "headers": self._headers}
            )

    async def _forward(self, chunk: bytes, *, more: bool) -> None:
        if not self.client_gone and (chunk or not more):
            await self.send({"type": "http.response.body", "body": chunk, "more_body": more})

    # --- settlement ----------------------------------------------------------------------

    async def _settle(self) -> None:
        """Write the usage event; counting tokens ourselves is done outside the loop."""
        if self.settled:
            return
        self.settled = True
        aborted = self.client_gone
        count = self.worker.backend.count_tokens if self.worker.backend else None
        if needs_estimate(self.capture, aborted=aborted):
            counting = asyncio.to_thread(
                finished_event, self.trace, self.capture, aborted=aborted, count_tokens=count
            )
            event = await asyncio.shield(counting)
        else:
            event = finished_event(self.trace, self.capture, aborted=aborted, count_tokens=None)
        self.trace.closed = True
        self.worker.record(event)

    def _settle_now(self, *, aborted: bool) -> None:
        """Last resort when this task itself is being cancelled."""
        self.settled = True
        count = self.worker.backend.count_tokens if self.worker.backend else None
        event = finished_event(self.trace, self.capture, aborted=aborted, count_tokens=count)
        self.trace.closed = True
        self.worker.record(event)


def _cause(error: BaseException) -> BaseException:
    """LiteLLM's handlers import its database client while handling; that is not the story."""
    while isinstance(error, ImportError) and error.__context__ is not None:
        error = error.__context__
    return error


def _body_once(body: bytes) -> Receive:
    """LiteLLM's view of the client: a whole body, and a connection that never closes."""
    pending = [body]
    forever = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        await forever.wait()
        return {"type": "http.disconnect"}

    return receive


def _kept_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
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
