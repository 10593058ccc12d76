"""Calls a deployment through LiteLLM's own app, which translates between providers.

Each deployment is a group of its own in LiteLLM's Router, named by its id, so `model` in
the body chooses it and nothing else can. The answer is held back until the attempt is known
to have succeeded: a status below 400 and, of a stream, a first event that is not an error.
"""

import asyncio
import logging
import time
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

import orjson
from starlette.requests import ClientDisconnect

from proxy.attempt import CALL, Call, Failure, Headers, Reported, Sink
from proxy.errors import class_of_exception, class_of_status, error_text, refine, scrub
from proxy.reset import reset_s
from proxy.sse import error_in, first_event
from proxy.trace import Trace

if TYPE_CHECKING:
    from proxy.worker import Backend, Receive

logger = logging.getLogger("gateway.litellm")

_HELD_MAX_BYTES = 64 * 1024  # of an error's body, or of a stream before its first event
_PROVIDER_PREFIX = b"llm_provider-"
_PASSED_ON = frozenset({b"accept", b"user-agent", b"anthropic-version", b"anthropic-beta"})
# A provider that sends faster than LiteLLM translates would keep the event loop to itself.
_YIELD_EVERY_S = 0.002
_YIELD_ABANDONED_EVERY_S = 0.05  # what is read for its usage alone has little time


class _TooLate(Exception):
    """LiteLLM went on although it was cancelled."""


class LiteLlmLane:
    """The executor that knows every provider."""

    lane = "litellm"

    def __init__(self, backend: "Backend") -> None:
        self.backend = backend

    async def attempt(self, call: Call, sink: Sink) -> Failure | None:
        """Make one call; see Executor."""
        CALL.set(call)
        held = _Held(call, sink)
        body = _body_for(call.trace, call.body, call.deployment.id)
        try:
            async with asyncio.timeout(call.timeout_s) as clock:
                held.clock = clock
                await self.backend.app(self._scope(call, len(body)), _body_once(body), held.take)
        except TimeoutError:
            if held.passed or not clock.expired():
                raise
            held.expired = True
        except Exception as error:  # noqa: BLE001  # whatever LiteLLM did not handle itself
            if not held.expired:  # else it may be anything that LiteLLM made of _TooLate
                return held.crashed(error)
        finally:
            call.over = True
        return held.failure()

    def _scope(self, call: Call, size: int) -> dict[str, Any]:
        route = call.trace.route
        headers = [
            *((name, value) for name, value in call.client_headers if name in _PASSED_ON),
            (b"host", b"gateway"),
            (b"content-type", call.content_type),
            (b"content-length", str(size).encode()),
            (b"authorization", b"Bearer " + self.backend.internal_token.encode()),
        ]
        return {
            "type": "http",
            # From 2.4 on Starlette streams in the request's own task. Before, in one beside it,
            # which ends when the client leaves: ours never does, and what ends our attempt left
            # that task, its exception and their frames to the garbage collector.
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": route,
            "raw_path": route.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": headers,
            "client": ("127.0.0.1", 0),
            "server": ("gateway", 80),
            "state": dict(self.backend.state),
        }


class _Held:
    """LiteLLM's answer on its way, until it may pass."""

    def __init__(self, call: Call, sink: Sink) -> None:
        self.call = call
        self.sink = sink
        self.clock: asyncio.Timeout | None = None
        self.expired = False  # the time until the first byte is over
        self.passed = False
        self.status = 0
        self.headers: Headers = ()
        self._sse = False
        self._held = b""
        self._stream_error: str | None = None
        self._stream_status = 500
        self._yielded = time.perf_counter()

    async def take(self, message: MutableMapping[str, Any]) -> None:
        """A message of the app's answer."""
        pause_s = _YIELD_ABANDONED_EVERY_S if self.call.abandoned else _YIELD_EVERY_S
        if time.perf_counter() - self._yielded > pause_s:
            await asyncio.sleep(0)
            self._yielded = time.perf_counter()
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message["headers"])
            content_type = dict(self.headers).get(b"content-type", b"")
            self._sse = content_type.startswith(b"text/event-stream")
        elif message["type"] == "http.response.body":
            chunk, last = message.get("body", b""), not message.get("more_body", False)
            if self.passed:
                await self.sink.body(chunk, last=last)
            else:
                await self._hold(chunk, last=last)

    async def _hold(self, chunk: bytes, *, last: bool) -> None:
        if self.status < 400 and not self._sse:
            if last and chunk.strip() == b"null":
                # What LiteLLM makes of a provider's 422: it gave up without saying so.
                self.status, self._held = 422, b"The provider refused the request (422)."
                return
            await self._pass()
            await self.sink.body(chunk, last=last)
            return
        if len(self._held) < _HELD_MAX_BYTES:
            self._held += chunk
        if self.status >= 400 or self._stream_error is not None:
            return
        event = first_event(self._held, last=last or len(self._held) >= _HELD_MAX_BYTES)
        if event is None:
            if last:
                self._stream_error = "the stream ended before its first event"
            return
        error = error_in(event)
        if error is not None:
            self._stream_status, self._stream_error = error
            return
        await self._pass()
        await self.sink.body(self._held, last=last)
        self._held = b""

    async def _pass(self) -> None:
        self.expired = self.clock is not None and self.clock.expired()
        if self.call.over or self.expired:
            raise _TooLate
        if self.clock is not None:
            self.clock.reschedule(None)
        self.passed = True
        await self.sink.start(self.status, self.headers)

    # --- what became of it -----------------------------------------------------------------

    def failure(self) -> Failure | None:
        """Why nothing was passed on; None when the answer was."""
        if self.passed:
            return None
        if self.expired:
            text = f"The provider did not answer within {self.call.timeout_s:g} s."
            return Failure("timeout", None, text, client_status=408)
        if self._stream_error is not None:
            return self._failed_stream(self._stream_error)
        if not self.status:
            return Failure("internal", None, "LiteLLM ended without an answer.")
        return self._refused()

    def _refused(self) -> Failure:
        """The app answered with an error; its exception, where told, knows more."""
        if self.status < 500 and not self.call.provider_started and not self.call.reported:
            # LiteLLM itself refused: no word of the provider's, nor of its credential.
            said = self._reported_by_body().message
            return Failure("invalid_request", None, said, client_status=400)
        reported = self.call.reported or self._reported_by_body()
        if self.call.answered and self.call.reported is not None and reported.status is None:
            # An answer came, is charged, and was lost here: nothing to blame the provider for.
            return Failure("internal", None, reported.message, charged=True)
        return Failure(
            reported.error_class,
            # LiteLLM calls a provider that gave no answer a 500.
            None if reported.error_class == "connection" else reported.status,
            reported.message,
            client_status=self.status,
            headers=self.headers,
            reset_s=reset_s([*reported.headers, *_text_headers(self.headers)]),
            charged=reported.error_class == "cut_stream",
        )

    def _reported_by_body(self) -> Reported:
        document = _loads(self._held)
        found = document.get("error") if isinstance(document, dict) else None
        said = found.get("message") if isinstance(found, dict) else None
        text = str(said or self._held[:500].decode("utf-8", "replace"))
        return Reported(
            refine(class_of_status(self.status), text),
            self.status,
            error_text(text, self.call.deployment.secrets),
        )

    def _failed_stream(self, text: str) -> Failure:
        error_class = refine(class_of_status(self._stream_status), text)
        cut = error_class in ("connection", "server_error") and not self._held
        return Failure(
            "cut_stream" if cut else error_class,
            self.status,
            error_text(text, self.call.deployment.secrets),
            client_status=self._stream_status,
            headers=[(n, v) for n, v in self.headers if n.startswith(_PROVIDER_PREFIX)],
            charged=True,
        )

    def crashed(self, error: BaseException) -> Failure:
        """LiteLLM raised what it should have handled."""
        while isinstance(error, ImportError | ClientDisconnect) and error.__context__ is not None:
            # Not the story: its handlers import its database client while handling, and
            # Starlette takes an OSError within a stream for one of the client's connection.
            error = error.__context__
        text = f"{type(error).__name__}: {error}"
        logger.error("litellm failed: %s", scrub(text, self.call.deployment.secrets)[:500])
        if self.passed:
            told = error_text(str(error) or type(error).__name__, self.call.deployment.secrets)
            return Failure(class_of_exception(error), self.status, told)
        return Failure("internal", None, type(error).__name__)


def _loads(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _text_headers(headers: Headers) -> list[tuple[str, str]]:
    """The provider's own among the answer's headers."""
    found = []
    for name, value in headers:
        if name == b"retry-after" or name.startswith(_PROVIDER_PREFIX):
            own = name.removeprefix(_PROVIDER_PREFIX)
            found.append((own.decode("latin-1"), value.decode("latin-1")))
    return found


def _body_for(trace: Trace, body: bytes, deployment_id: str) -> bytes:
    """The request with the deployment's id in the place of the model's name."""
    if trace.body:
        return orjson.dumps({**trace.body, "model": deployment_id})
    # A form: body.py writes `model` as its first part.
    mark = b'name="model"\r\n\r\n'
    head, _, rest = body.partition(mark + trace.model.encode() + b"\r\n")
    return head + mark + deployment_id.encode() + b"\r\n" + rest


def _body_once(body: bytes) -> "Receive":
    """LiteLLM's view of the client: a whole body, and a connection that never closes."""
    pending = [body]
    forever = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        await forever.wait()
        return {"type": "http.disconnect"}

    return receive
