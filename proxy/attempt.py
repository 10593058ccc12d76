"""One call to one deployment: what an executor is asked for, and what it answers.

    relay ── Call ──► executor (LiteLLM is one) ──► provider
      ▲                  │ Failure: nothing of it was sent to the client yet
      └──── Answer ◄─────┘ else the answer's start and body, as they come

An executor makes exactly one call. Retries, fallbacks and the choice of deployment are the
relay's: an answer is held back until it is known whether the attempt succeeded.
"""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from proxy.direct_request import Endpoint
from proxy.snapshot import Deployment
from proxy.trace import Trace

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that failed before anything of it was sent to the client."""

    error_class: str  # one of the contract's ERROR_CLASSES
    status: int | None  # HTTP status of the provider; None: it gave none
    message: str  # the provider's words, scrubbed
    client_status: int = 500  # what the client is told if this failure is the last
    headers: Headers = ()  # the answer's
    reset_s: float | None = None  # the provider asks to be left alone for so long
    charged: bool = False  # the provider had accepted the request, its input is charged


@dataclass(frozen=True, slots=True)
class Reported:
    """An exception of LiteLLM's, as its hooks told of it."""

    error_class: str
    status: int | None
    message: str
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True, eq=False)
class Call:
    """What an executor is to do."""

    trace: Trace
    deployment: Deployment
    body: bytes  # as the edge passes it on, with the public name as `model`
    content_type: bytes
    client_headers: Headers
    timeout_s: float  # until the whole answer, of streams until their first event
    refusals_fail: bool = False  # an answer cut by the provider's content filter is a failure
    reported: Reported | None = field(default=None)
    provider_started: float = 0.0  # perf_counter; 0: the provider was not called yet
    provider_ended: float = 0.0
    answered: bool = False  # by the provider; what fails after that is LiteLLM's own affair
    abandoned: bool = False  # the client left: read on for the usage, before the time is over
    over: bool = False  # late callbacks change nothing
    direct: Endpoint | None = None  # where the direct lane calls
    payload: bytes = b""  # what it sends there
    stop: Callable[[], None] | None = None  # ends the call to the provider
    gave_up: bool = False  # nobody waits any more
    on_sent: Callable[[], None] | None = None  # called once the request is on its way

    def sent(self) -> None:
        """The provider has the request, or it may take a while until it has."""
        if self.on_sent is not None:
            on_sent, self.on_sent = self.on_sent, None
            on_sent()

    def give_up(self) -> None:
        """Read on no longer."""
        self.gave_up = True
        if self.stop is not None:
            self.stop()


class Sink(Protocol):
    """Where an answer that succeeded goes."""

    async def start(self, status: int, headers: Headers) -> None:
        """Status and headers; from here on, there is no other attempt."""

    async def body(self, chunk: bytes, *, last: bool) -> None:
        """A part of the body. Returns when the client can take more.

        Raises BrokenStream when a stream cannot be passed on any further.
        """

    async def whole(
        self, status: int, headers: Headers, body: bytes, document: dict[str, Any] | None
    ) -> None:
        """An answer in one piece; `document` is what it says, where that was read already."""


class BrokenStream(Exception):
    """The provider sent something that no client could read."""


class Executor(Protocol):
    """Makes calls to deployments."""

    lane: str  # what usage events say

    async def attempt(self, call: Call, sink: Sink) -> Failure | None:
        """Make the call; when it succeeds, pass the answer on to its end.

        A Failure after `sink.start` says how the answer broke off.
        """


CALL: ContextVar[Call | None] = ContextVar("gateway_call", default=None)
