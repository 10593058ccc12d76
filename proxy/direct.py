"""Calls a provider that speaks OpenAI's wire format, without LiteLLM in between.

Same process, same admission, same event as on LiteLLM's lane; what it sends is what LiteLLM
would have sent (direct_request.py). It makes one attempt; an answer that is not a plain
success is a Failure before anything reached the client, and what comes after a failure is
LiteLLM's (lanes.py). Streams pass event by event as bytes; capture.py reads what it has to.
"""

from typing import Any

import orjson

from proxy.attempt import Call, Failure, Headers, Sink
from proxy.direct_request import Endpoint
from proxy.errors import class_of_status, error_text, refine, scrub
from proxy.reset import reset_s
from proxy.sse import error_in, first_event
from proxy.upstream import Exchange, StaleConnection, Upstream, UpstreamError

_HELD_MAX_BYTES = 64 * 1024  # of an error's body, or of a stream before its first event
_JSON = (b"content-type", b"application/json")
_EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
_SAID_MAX_BYTES = 500
# A client that left had not taken more than this: what the provider made since is read for
# its usage, what it would make only because we read on is not.
_UNREAD_MAX_BYTES = 256 * 1024


class DirectLane:
    """The executor for OpenAI's wire format."""

    lane = "direct"

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream

    async def attempt(self, call: Call, sink: Sink) -> Failure | None:
        """Make one call; see Executor."""
        assert call.direct is not None
        exchange: Exchange | None = None
        passing = _Passing(call, sink)
        try:
            exchange = await self._send(call, call.direct)
            status = await exchange.head()
            if status != 200:
                return await _refused(call, exchange)
            if call.trace.streaming:
                return await passing.stream(exchange)
            return await passing.whole(exchange)
        except UpstreamError as error:
            return None if call.gave_up else passing.failed(error, exchange)
        finally:
            call.over, call.stop = True, None
            if exchange is not None:
                exchange.end()

    async def _send(self, call: Call, endpoint: Endpoint) -> Exchange:
        """The request on its way; on a new connection, if a kept one was already closed."""
        assert call.trace.inference is not None
        head = endpoint.heads[call.trace.inference.kind]
        request = b"%b%d\r\n\r\n%b" % (head, len(call.payload), call.payload)
        origin = self.upstream.origin(*endpoint.origin)
        for fresh in (False, True):
            exchange = await self.upstream.send(
                origin, request, timeout_s=call.timeout_s, fresh=fresh
            )
            call.stop = exchange.leave
            if call.gave_up:
                exchange.leave()
            try:
                await exchange.head()
            except StaleConnection:
                exchange.end()
                if fresh:
                    raise
                continue
            break
        return exchange


class _Passing:
    """An answer on its way to the client."""

    def __init__(self, call: Call, sink: Sink) -> None:
        self.call = call
        self.sink = sink
        self.passed = False

    async def whole(self, exchange: Exchange) -> Failure | None:
        """An answer in one piece."""
        body = await exchange.whole()
        failure = self._unfit(exchange, body)
        if failure is not None:
            return failure
        self.passed = True
        await self.sink.start(200, [_JSON, *_rate_limits(exchange)])
        await self.sink.body(body, last=True)
        return None

    def _unfit(self, exchange: Exchange, body: bytes) -> Failure | None:
        """Why an answer with status 200 is none."""
        text = body.strip()
        if not (text.startswith(b"{") and text.endswith(b"}")):
            said = "The provider's answer is not JSON."
            return Failure("server_error", 200, said, client_status=500, charged=True)
        if b'"error"' in body or self.call.refusals_fail:
            document = _loads(body)
            found = document.get("error") if isinstance(document, dict) else None
            if found:
                return _told(self.call, 500, body, exchange)
            if self.call.refusals_fail and _is_filtered(document):
                said = "The provider's content filter ended the answer."
                return Failure("content_policy", 200, said, client_status=400, charged=True)
        return None

    async def stream(self, exchange: Exchange) -> Failure | None:
        """Event by event, from the first one that is none of an error."""
        exchange.by_pieces()
        held = b""
        while True:
            chunk = await exchange.chunk()
            held += chunk
            last = not chunk or len(held) >= _HELD_MAX_BYTES
            event = first_event(held, last=last)
            if event is not None:
                break
            if last:
                raise UpstreamError("closed", "the stream ended before its first event", began=True)
        error = error_in(event)
        if error is not None:
            return self._failed_stream(exchange, *error)
        if self.call.gave_up:
            return None
        self.passed = True
        await self.sink.start(200, [_EVENTS, *_rate_limits(exchange)])
        unread = 0
        while held:
            if self.call.abandoned:
                unread += len(held)
                if unread > _UNREAD_MAX_BYTES:
                    exchange.leave()
            await self.sink.body(held, last=False)
            held = await exchange.chunk()
        await self.sink.body(b"", last=True)
        return None

    def _failed_stream(self, exchange: Exchange, status: int, text: str) -> Failure:
        return Failure(
            refine(class_of_status(status), text),
            200,
            error_text(text, self.call.deployment.secrets),
            client_status=status,
            headers=_rate_limits(exchange),
            charged=True,
        )

    def failed(self, error: UpstreamError, exchange: Exchange | None) -> Failure:
        """The exchange did not come to its end."""
        status = exchange.status or None if exchange is not None else None
        if error.kind == "timeout" and not self.passed:
            text = f"The provider did not answer within {self.call.timeout_s:g} s."
            return Failure("timeout", None, text, client_status=408)
        if error.kind == "timeout":
            return Failure("timeout", status, "The provider fell silent in the middle of a stream.")
        text = scrub(str(error), self.call.deployment.secrets)
        if error.kind == "protocol":
            return Failure("server_error", status, text, client_status=500, charged=error.began)
        accepted = status == 200
        error_class = "cut_stream" if accepted and self.call.trace.streaming else "connection"
        return Failure(error_class, status, text, client_status=500, charged=accepted)


async def _refused(call: Call, exchange: Exchange) -> Failure:
    """The provider answered with an error."""
    exchange.by_pieces()
    body = b""
    while len(body) < _HELD_MAX_BYTES and (chunk := await exchange.chunk()):
        body += chunk
    return _told(call, exchange.status, body, exchange)


def _told(call: Call, status: int, body: bytes, exchange: Exchange) -> Failure:
    """What an error's body and headers say."""
    text = _words(body)
    reported = exchange.status if exchange.status >= 400 else status
    return Failure(
        refine(class_of_status(reported), text),
        exchange.status,
        error_text(text, call.deployment.secrets),
        client_status=client_status(reported),
        headers=_kept(exchange),
        reset_s=reset_s([(n.decode("latin-1"), v.decode("latin-1")) for n, v in exchange.headers]),
    )


def client_status(status: int) -> int:
    """What the client is told for a provider's status, as LiteLLM does."""
    return status if status >= 400 else 500


def _words(body: bytes) -> str:
    document = _loads(body)
    found: Any = document.get("error") if isinstance(document, dict) else None
    said = found.get("message") if isinstance(found, dict) else found
    if not said and isinstance(document, dict):
        said = document.get("message") or document.get("detail")
    return str(said or body[:_SAID_MAX_BYTES].decode("utf-8", "replace"))


def _is_filtered(document: Any) -> bool:
    choices = document.get("choices") if isinstance(document, dict) else None
    return any(
        isinstance(choice, dict) and choice.get("finish_reason") == "content_filter"
        for choice in (choices if isinstance(choices, list) else [])
    )


def _rate_limits(exchange: Exchange) -> Headers:
    """Of the provider's headers those that a client may see."""
    return [(n, v) for n, v in exchange.headers if n.startswith(b"x-ratelimit-")]


def _kept(exchange: Exchange) -> Headers:
    names = (b"retry-after", b"x-should-retry")
    return [(n, v) for n, v in exchange.headers if n in names or n.startswith(b"x-ratelimit-")]


def _loads(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
