"""Takes a request through pace, faults and ledger. All waiting happens here.

A failure that stands in for the answer is told by the provider's module in its own words.
`sent` is counted after each write to the socket, so a stream that ends early is booked with
the tokens that left this process.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from gateway_admin.demo.simulator.ledger import Entry, Ledger, mask
from gateway_admin.demo.simulator.script import Behaviour, Fault, Script
from gateway_admin.demo.simulator.wire import (
    CASES,
    Ask,
    Endpoint,
    Failure,
    Headers,
    Provider,
    Reply,
    Request,
    RequestError,
    Stream,
)

# Faults that break an answer off in the middle of its stream, and what they are without one.
_BREAKING = ("cut_stream", "stream_error", "malformed")
_WITHOUT_STREAM = {"cut_stream": "disconnect", "stream_error": "overload"}

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_CASE_OF_STATUS = {
    400: "bad_request",
    401: "auth",
    403: "permission",
    404: "not_found",
    429: "rate_limit",
    503: "overload",
    529: "overload",
}


class ClientGone(Exception):
    """The client closed the connection."""


class Prompts:
    """Prompts seen so far; the oldest are forgotten beyond the limit."""

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self._seen: dict[str, None] = {}

    def seen(self, key: str) -> bool:
        """Return whether the prompt was seen before, and remember it."""
        known = key in self._seen
        self._seen[key] = None
        if len(self._seen) > self._limit:
            del self._seen[next(iter(self._seen))]
        return known

    def reset(self) -> None:
        """Forget all prompts."""
        self._seen.clear()


class Connection:
    """One exchange with a client: sends, waits, and notices when the client has gone."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._watch: asyncio.Task[None] | None = None

    async def whole(self, status: int, content_type: str, headers: Headers, body: bytes) -> None:
        """Send a complete response."""
        await self.begin(status, content_type, [*headers, ("content-length", str(len(body)))])
        await self.write(body, more=False)

    async def begin(self, status: int, content_type: str, headers: Headers) -> None:
        """Send the status line and headers."""
        fields = [(name.encode(), value.encode()) for name, value in headers]
        fields.append((b"content-type", content_type.encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": fields})

    async def write(self, data: bytes, *, more: bool = True) -> None:
        """Send a part of the body."""
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def pause(self, milliseconds: float) -> None:
        """Wait; raise ClientGone as soon as the client has gone."""
        if milliseconds <= 0:
            return
        watch = self.watch()
        if milliseconds < 20:
            await asyncio.sleep(milliseconds / 1000)
        else:
            await asyncio.wait((watch,), timeout=milliseconds / 1000)
        self.check()

    def watch(self) -> asyncio.Task[None]:
        """Begin to notice when the client goes."""
        if self._watch is None:
            self._watch = asyncio.create_task(self._wait_for_end())
        return self._watch

    def check(self) -> None:
        """Raise ClientGone if the client was seen to go."""
        if self._watch is not None and self._watch.done():
            raise ClientGone

    def close(self) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.cancel()

    async def _wait_for_end(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


class Engine:
    """The state of the simulator: ledger, script, prompts seen."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.script = Script()
        self.prompts = Prompts()

    async def serve(self, provider: Provider, request: Request, connection: Connection) -> None:
        """Answer one request to a provider."""
        try:
            payload = _parse(request)
            endpoint = provider.endpoint(request, payload)
        except RequestError as problem:
            failure = Failure(problem.case, message=problem.message)
            await _send_reply(connection, provider.error(failure))
            return
        if endpoint is None:
            failure = Failure("not_found", message=f"Unknown path: {'/'.join(request.segments)}")
            await _send_reply(connection, provider.error(failure))
            return
        credential = provider.credential(request)
        if not endpoint.metered:
            await self._serve_unmetered(provider, endpoint, request, payload, connection)
            return
        entry = self.ledger.open(
            kind=provider.kind,
            endpoint=endpoint.name,
            model=endpoint.model,
            credential=mask(credential),
        )
        exchange = _Exchange(self, provider, endpoint, request, payload, connection, entry)
        if provider.needs_credential and not credential:
            await exchange.fail(Failure("auth", model=endpoint.model, serial=entry.serial))
            return
        await exchange.run()

    async def _serve_unmetered(
        self,
        provider: Provider,
        endpoint: Endpoint,
        request: Request,
        payload: dict[str, Any],
        connection: Connection,
    ) -> None:
        ask = Ask(request, payload, endpoint.model, "", 0, int(time.time()), self.prompts)
        try:
            reply = endpoint.answer(ask)
        except RequestError as problem:
            reply = provider.error(Failure(problem.case, message=problem.message))
        if not isinstance(reply, Reply):
            raise TypeError(f"{endpoint.name} is not metered and must not stream")
        await _send_reply(connection, reply)


class _Exchange:
    """One metered request."""

    def __init__(
        self,
        engine: Engine,
        provider: Provider,
        endpoint: Endpoint,
        request: Request,
        payload: dict[str, Any],
        connection: Connection,
        entry: Entry,
    ) -> None:
        self.engine = engine
        self.provider = provider
        self.endpoint = endpoint
        self.request = request
        self.payload = payload
        self.connection = connection
        self.entry = entry

    async def run(self) -> None:
        """Answer or fail as scripted; the entry is closed whatever happens."""
        entry = self.entry
        behaviour = self.engine.script.behaviour(entry.kind, entry.model, entry.credential)
        fault = behaviour.fault
        entry.fault = fault.type if fault else None
        try:
            await self.connection.pause(behaviour.latency_ms)
            if fault is not None and await self._failed_before_answer(fault, fault.type):
                return
            try:
                answer = self.endpoint.answer(self._ask(behaviour))
            except RequestError as problem:
                await self.fail(self._failure(problem.case, message=problem.message))
                return
            except (AttributeError, KeyError, TypeError) as problem:
                # A field of another type than the format has: real providers say 400 as well.
                text = f"The request has an unexpected shape: {problem!r}"
                await self.fail(self._failure("bad_request", message=text))
                return
            entry.response_id = answer.response_id
            if isinstance(answer, Stream):
                await self._send_stream(answer, behaviour)
            else:
                await self._send_whole(answer, behaviour)
        except ClientGone:
            self._close("aborted")
        finally:
            self.connection.close()
            if entry.outcome == "in_flight":
                self._close("error")

    async def fail(self, failure: Failure) -> None:
        """Send the failure in the provider's words."""
        reply = self.provider.error(failure)
        self.entry.status = reply.status
        await _send_reply(self.connection, reply)
        self._close("error")

    def _ask(self, behaviour: Behaviour) -> Ask:
        return Ask(
            request=self.request,
            payload=self.payload,
            model=self.endpoint.model,
            credential=self.entry.credential,
            serial=self.entry.serial,
            created=int(self.entry.started_at),
            cache=self.engine.prompts,
            output_tokens=behaviour.output_tokens,
            reasoning_tokens=behaviour.reasoning_tokens,
        )

    def _failure(
        self, case: str, fault: Fault | None = None, message: str | None = None
    ) -> Failure:
        failure = Failure(case, message=message, model=self.entry.model, serial=self.entry.serial)
        if fault is not None:
            failure.status = fault.status
            failure.message = fault.message
            failure.retry_after_s = fault.retry_after_s
            failure.headers = fault.headers
        return failure

    async def _failed_before_answer(self, fault: Fault, kind: str) -> bool:
        """Fail, unless the kind of fault is one of the answer itself; return whether it did."""
        if kind == "timeout":
            await self.connection.pause(fault.hang_s * 1000)
            await self.fail(self._failure("server_error", fault))
            return True
        if kind == "disconnect":
            await self.connection.begin(200, "application/json", [("content-length", "1000")])
            self.entry.status = 200
            self._close("error")
            return True
        if kind == "empty":
            content_type = "text/event-stream" if self.payload.get("stream") else "application/json"
            self.entry.status = 200
            self._close("error")
            await self.connection.whole(200, content_type, [], b"")
            return True
        case = _case_of(fault) if kind == "status" else kind
        if case not in CASES:
            return False
        await self.fail(self._failure(case, fault))
        return True

    async def _send_whole(self, reply: Reply, behaviour: Behaviour) -> None:
        """Send the reply after the time that its tokens take."""
        fault = behaviour.fault
        if fault is not None and fault.type in _WITHOUT_STREAM:
            await self._failed_before_answer(fault, _WITHOUT_STREAM[fault.type])
            return
        tokens = max(0, reply.usage.output_tokens - 1)
        pause_ms = _first_token_ms(behaviour) + tokens * behaviour.token_interval_ms
        await self.connection.pause(pause_ms)
        self.entry.status = reply.status
        if fault is not None and fault.type == "malformed":
            reply.body = reply.body[: len(reply.body) // 2]
            self._close("error")
            await _send_reply(self.connection, reply)
            return
        await _send_reply(self.connection, reply)
        self.entry.charge(reply.usage)
        self._close("ok")

    async def _send_stream(self, stream: Stream, behaviour: Behaviour) -> None:
        entry, connection, fault = self.entry, self.connection, behaviour.fault
        entry.streaming, entry.status = True, 200
        breaking = fault is not None and fault.type in _BREAKING
        first_token_ms = _first_token_ms(behaviour)
        await connection.begin(200, stream.content_type, stream.headers)
        if not (breaking or first_token_ms or behaviour.token_interval_ms):
            await connection.write(b"".join([data for data, _ in stream.chunks]), more=False)
            entry.chunks_sent = len(stream.chunks)
            entry.charge(stream.usage)
            self._close("ok")
            return
        connection.watch()
        limit = fault.after_chunks if breaking and fault is not None else None
        try:
            unsent = await self._send_chunks(stream, behaviour, limit)
        except ClientGone:
            entry.charge(stream.usage, entry.output_tokens)
            raise
        if unsent is None:
            await connection.write(b"", more=False)
            entry.charge(stream.usage)
            self._close("ok")
            return
        entry.charge(stream.usage, entry.output_tokens)
        self._close("error")
        await self._break_stream(fault, unsent)

    async def _send_chunks(
        self, stream: Stream, behaviour: Behaviour, limit: int | None
    ) -> bytes | None:
        """Send chunk by chunk; return the one at which the limit of token chunks stopped it."""
        entry, connection, spoken = self.entry, self.connection, 0
        for data, tokens in stream.chunks:
            if spoken == limit:
                return data
            if tokens:
                first = spoken == 0
                pause_ms = _first_token_ms(behaviour) if first else behaviour.token_interval_ms
                await connection.pause(pause_ms)
                spoken += 1
            connection.check()
            await connection.write(data)
            entry.chunks_sent += 1
            entry.output_tokens += tokens
        await asyncio.sleep(0)  # lets a disconnect be seen before the end is claimed
        connection.check()
        return None

    async def _break_stream(self, fault: Fault | None, unsent: bytes) -> None:
        if fault is None or fault.type == "cut_stream":
            return  # returning without the end of the body closes the connection
        if fault.type == "stream_error":
            case = "overload" if fault.status is None else _case_of(fault)
            data = self.provider.stream_error(self._failure(case, fault))
        else:
            data = unsent[: len(unsent) // 2] + b"\n\n"
        await self.connection.write(data, more=False)

    def _close(self, outcome: Any) -> None:
        self.engine.ledger.close(self.entry, outcome, self.entry.status)


def _parse(request: Request) -> dict[str, Any]:
    """Return the JSON body; an empty object where there is none or it is not JSON by type."""
    content_type = request.headers.get("content-type", "")
    if not request.body or content_type.startswith("multipart/"):
        return {}
    try:
        payload = orjson.loads(request.body)
    except orjson.JSONDecodeError as problem:
        raise RequestError("bad_request", f"The body is not valid JSON: {problem}") from problem
    if not isinstance(payload, dict):
        raise RequestError("bad_request", "The body must be a JSON object.")
    return payload


def _case_of(fault: Fault) -> str:
    """Return the failure case that fits the fault's status."""
    status = fault.status or 500
    return _CASE_OF_STATUS.get(status) or ("server_error" if status >= 500 else "bad_request")


def _first_token_ms(behaviour: Behaviour) -> float:
    fault = behaviour.fault
    slow = fault is not None and fault.type == "slow_first_token"
    return fault.first_token_ms if slow and fault is not None else behaviour.first_token_ms


async def _send_reply(connection: Connection, reply: Reply) -> None:
    await connection.whole(reply.status, reply.content_type, reply.headers, reply.body)
