"""Server-sent events as bytes (WHATWG HTML, 9.2), as providers write them."""

from typing import Any

import orjson

# Codes and types that providers give instead of a status.
_STATUS = {
    "authentication_error": 401,
    "context_length_exceeded": 400,
    "insufficient_quota": 429,
    "invalid_api_key": 401,
    "invalid_request_error": 400,
    "overloaded_error": 529,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "server_overloaded": 503,
}


def first_event(held: bytes, *, last: bool) -> bytes | None:
    """Payload of the first event that carries one; None: not there yet. `last`: no more comes."""
    *events, rest = held.replace(b"\r\n", b"\n").split(b"\n\n")
    for event in [*events, rest] if last else events:
        payload = payload_of(event)
        if payload is not None:
            return payload
    return None


def payload_of(event: bytes) -> bytes | None:
    """Payload of one event, joined when it spans lines; None: it carries none."""
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:].strip()
    lines = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def with_payload(event: bytes, document: dict[str, Any]) -> bytes:
    """The event with another payload; its other lines stay."""
    others = [line for line in event.split(b"\n") if line and not line.startswith(b"data:")]
    return b"\n".join([*others, b"data: " + orjson.dumps(document)])


def error_in(payload: bytes) -> tuple[int, str] | None:
    """Status and words of an event that tells of an error; None: it does not."""
    if b'"error"' not in payload and b"response.failed" not in payload:
        return None
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document, dict):
        return None
    found = document.get("error")
    if not found and document.get("type") not in ("error", "response.failed"):
        return None
    error = found if isinstance(found, dict) else document
    code = str(error.get("code") or error.get("type") or "")
    status = int(code) if code.isdigit() and 400 <= int(code) < 600 else _STATUS.get(code, 500)
    text = found if isinstance(found, str) else error.get("message")
    return status, str(text or payload.decode("utf-8", "replace"))
