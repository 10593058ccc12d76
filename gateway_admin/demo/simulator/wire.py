"""What passes between the engine and the providers: requests, replies, streams, failures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Protocol

import orjson

Headers = list[tuple[str, str]]

# Bytes as they go over the wire, and how many output tokens they carry.
Chunk = tuple[bytes, int]


@dataclass(slots=True)
class Request:
    """One HTTP request. `segments` is the decoded path after the provider's prefix."""

    method: str
    segments: tuple[str, ...]
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    body: bytes

    def bearer(self) -> str:
        """Return the token of `Authorization: Bearer`, or an empty string."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""


@dataclass(slots=True)
class Usage:
    """Tokens. Input includes cached reads and writes; output includes reasoning."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(slots=True)
class Reply:
    """A whole answer."""

    body: bytes
    usage: Usage = field(default_factory=Usage)
    status: int = 200
    content_type: str = "application/json"
    headers: Headers = field(default_factory=list)
    response_id: str = ""


@dataclass(slots=True)
class Stream:
    """An answer in pieces. The sum of the chunks' tokens is `usage.output_tokens`."""

    chunks: Sequence[Chunk]
    usage: Usage
    content_type: str = "text/event-stream; charset=utf-8"
    headers: Headers = field(default_factory=list)
    response_id: str = ""


@dataclass(slots=True)
class Failure:
    """A failure to be told in a provider's own words. `case` is one of CASES."""

    case: str
    status: int | None = None  # None: the status that the provider uses for the case
    message: str | None = None
    retry_after_s: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    model: str = ""
    serial: int = 0


# Failure cases that every provider module can put into words.
CASES = (
    "bad_request",
    "auth",
    "permission",
    "not_found",
    "rate_limit",
    "quota",
    "overload",
    "server_error",
    "context_window",
    "content_policy",
)


class RequestError(Exception):
    """The request cannot be served; carries the failure that the provider would report."""

    def __init__(self, case: str, message: str) -> None:
        super().__init__(message)
        self.case = case
        self.message = message


class PromptCache(Protocol):
    """Remembers prompts, as providers with prompt caching do."""

    def seen(self, key: str) -> bool:
        """Return whether the prompt was seen before, and remember it."""


@dataclass(slots=True)
class Ask:
    """A parsed request on its way to a provider's answer function."""

    request: Request
    payload: dict[str, Any]
    model: str
    credential: str  # masked
    serial: int  # unique per request; ids are derived from it
    created: int  # seconds since 1970
    cache: PromptCache
    output_tokens: int | None = None  # scripted length of the answer
    reasoning_tokens: int = 0  # scripted, billed as output and not shown

    def ident(self, prefix: str, length: int) -> str:
        """Return an id that is unique per request and prefix, `length` hex digits long."""
        return prefix + unique_hex(f"{prefix}{self.serial}", length)


@dataclass(slots=True)
class Endpoint:
    """One operation of a provider. Not metered: lists and look-ups that nobody is billed for."""

    name: str
    model: str
    answer: Callable[[Ask], Reply | Stream]
    metered: bool = True
    json_body: bool = True


@dataclass(frozen=True, slots=True)
class Provider:
    """All that the engine knows of a provider kind."""

    kind: str
    credential: Callable[[Request], str]
    endpoint: Callable[[Request, dict[str, Any]], Endpoint | None]
    error: Callable[[Failure], Reply]
    stream_error: Callable[[Failure], bytes]
    needs_credential: bool = True


def unique_hex(text: str, length: int) -> str:
    """Return `length` (at most 64) hex digits derived from the text."""
    return blake2b(text.encode(), digest_size=32).hexdigest()[:length]


def dump(value: Any) -> bytes:
    """Compact JSON."""
    return orjson.dumps(value)


def sse(value: Any, event: str | None = None) -> bytes:
    """One server-sent event with a JSON payload."""
    head = b"event: %s\n" % event.encode() if event else b""
    return head + b"data: " + orjson.dumps(value) + b"\n\n"


def integer(payload: Mapping[str, Any], *names: str) -> int | None:
    """Return the first of the named fields that is set; it must be a positive integer."""
    for name in names:
        value = payload.get(name)
        if value is None:
            continue
        if type(value) is not int or value < 1:
            raise RequestError("bad_request", f"'{name}' must be a positive integer.")
        return value
    return None
