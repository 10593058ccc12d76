"""Calls a provider that speaks OpenAI's wire format, without LiteLLM in between.

Same process, same admission, same event as on LiteLLM's lane; what it sends is what LiteLLM
would have sent (direct_request.py). It makes one attempt; an answer that is not a plain
success is a Failure before anything reached the client, and what comes after a failure is
LiteLLM's (lanes.py). Streams pass event by event as bytes; capture.py reads what it has to.
"""

import asyncio
from typing import Any

import orjson

from proxy.attempt import BrokenStream, Call, Failure, Headers, Sink
from proxy.direct_request import Endpoint
from proxy.errors import class_of_status, error_text, refine, scrub
from proxy.exchange import Exchange, UpstreamError
from proxy.reset import reset_s
from proxy.scan import SCAN_FROM_BYTES, SCANNED_KINDS
from proxy.sse import error_in, first_event
from proxy.upstream import Upstream

_HELD_MAX_BYTES = 64 * 1024  # of an error's body, or of a stream before its first event
_JSON = (b"content-type", b"application/json")
_EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
_NO_CACHE = (b"cache-control", b"no-cache")
_LIST_OF = {"chat": b'"choices":', "completion": b'"choices":', "embedding": b'"data":'}
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
            if not 200 <= exchange.status < 300:
                return await _refused(call, exchange)
            if call.trace.streaming:
                return await passing.stream(exchange)
            return await passing.whole(exchange)
        except BrokenStream:
            return Failure("server_error", 200, "The provider sent an event that is not JSON.")
        except UpstreamError as error:
            return None if call.gave_up else passing.failed(error, exchange)
        finally:
            call.over, call.stop = True, None
            if exchange is not None:
                exchange.end()

    async def _send(self, call: Call, endpoint: Endpoint) -> Exchange:
        """The request, and the head of its answer."""
        assert call.trace.inference is not None
        head = endpoint.heads[call.trace.inference.kind]
        request = b"%b%d\r\n\r\n%b" % (head, len(call.payload), call.payload)
        origin = self.upstream.origin(*endpoint.origin)

        def begun(exchange: Exchange) -> None:
            call.stop = exchange.leave
            call.sent()
            if call.gave_up:
                exchange.leave()

        if not origin.is_at_hand(asyncio.get_running_loop().time()):
            call.sent()  # connecting may take a while

        return await self.upstream.answer(origin, request, timeout_s=call.timeout_s, begun=begun)


class _Passing:
    """An answer on its way to the client."""

    def __init__(self, call: Call, sink: Sink) -> None:
        self.call = call
        self.sink = sink
        self.passed = False

    async def whole(self, exchange: Exchange) -> Failure | None:
        """An answer in one piece."""
        body = await exchange.whole()
        document = None
        if not self._may_be_scanned(body):
            document = _loads(body)
            failure = self._unfit(exchange, body, document)
            if failure is not None:
                return failure
        self.passed = True
        headers = [_JSON, *_rate_limits(exchange)]
        await self.sink.whole(exchange.status, headers, body, document)
        return None

    def _may_be_scanned(self, body: bytes) -> bool:
        """Whether it is large, and an answer by the look of it."""
        inference = self.call.trace.inference
        assert inference is not None
        return (
            len(body) >= SCAN_FROM_BYTES
            and inference.kind in SCANNED_KINDS
            and not self.call.refusals_fail
            and body.lstrip()[:1] == b"{"
            and body.rstrip()[-1:] == b"}"
            and _LIST_OF[inference.kind] in body
            and b'"error":' not in body
            and b'"reasoning":' not in body
            and b"<think>" not in body
        )

    def _unfit(self, exchange: Exchange, body: bytes, document: Any) -> Failure | None:
        """Why an answer that calls itself a success is none."""
        if not isinstance(document, dict):
            return _no_answer("The provider's answer is not a JSON object.")
        if document.get("error") and document.get("object") != "response":
            return _told(self.call, 500, body, exchange)
        inference = self.call.trace.inference
        assert inference is not None
        wanted = _LIST_OF.get(inference.kind)
        if wanted is not None and not isinstance(document.get(wanted[1:-2].decode()), list):
            return _no_answer("The provider's answer lacks what was asked for.")
        if self.call.refusals_fail and _is_filtered(document):
            said = "The provider's content filter ended the answer."
            return Failure("content_policy", 200, said, client_status=400, charged=True)
        return None

    async def stream(self, exchange: Exchange) -> Failure | None:
        """Event by event, from the first one that is none of an error."""
        if dict(exchange.headers).get(b"content-type", b"").startswith(b"application/json"):
            body = await exchange.whole()
            return self._unfit(exchange, body, _loads(body)) or _no_answer(
                "The provider gave a whole answer where a stream was asked for."
            )
        exchange.by_pieces()
        held = b""
        while True:
            chunk = await exchange.chunk()
            held += chunk
            last = not chunk or len(held) >= _HELD_MAX_BYTES
            event = first_event(held, last=last)
            if event is not None or last:
                break
        if event is None or event == b"[DONE]":
            raise UpstreamError("closed", "the stream ended before its first event", began=True)
        error = error_in(event)
        if error is not None:
            return self._failed_stream(exchange, *error)
        if self.call.gave_up:
            return None
        self.passed = True
        await self.sink.start(200, [_EVENTS, _NO_CACHE, *_rate_limits(exchange)])
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
            return Failure("server_error", status, text, client_status=500)
        if status is not None and self.call.trace.streaming:
            return Failure("cut_stream", status, text, client_status=500, charged=True)
        return Failure("connection", None, text, client_status=500)


def _no_answer(text: str) -> Failure:
    return Failure("server_error", 500, text, client_status=500)


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
    return [
        (n, v) for n, v in exchange.headers if n == b"retry-after" or n.startswith(b"x-ratelimit-")
    ]


def _loads(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
