"""What the edge answers when it does not pass a request on.

Refusal                 status, OpenAI's type and code, a sentence that says what to do
    reason              bounded label for metrics and events
"""

from collections.abc import Sequence
from typing import Any

import orjson

from proxy.contract import KeyPolicy


class Refusal(Exception):
    """A request ends here. `identified` refusals become usage events, others only a count."""

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        error_class: str = "invalid_request",
        retry_after_s: int | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.kind = kind
        self.code = code or reason
        self.param = param
        self.error_class = error_class
        self.retry_after_s = retry_after_s
        self._headers = tuple(headers)

    def body(self, *, anthropic_shape: bool) -> bytes:
        """The answer's JSON in the shape the route's clients parse."""
        return error_body(
            self.message,
            status=self.status,
            kind=self.kind,
            code=self.code,
            param=self.param,
            anthropic_shape=anthropic_shape,
        )

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Extra response headers."""
        if self.retry_after_s is None:
            return [*self._headers]
        return [(b"retry-after", str(self.retry_after_s).encode()), *self._headers]


_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def error_body(
    message: str,
    *,
    status: int,
    kind: str,
    code: str | None,
    param: str | None,
    anthropic_shape: bool,
) -> bytes:
    """An error in OpenAI's or Anthropic's shape."""
    body: dict[str, Any]
    if anthropic_shape:
        error = {"type": _ANTHROPIC_TYPES.get(status, "api_error"), "message": message}
        body = {"type": "error", "error": error}
    else:
        body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return orjson.dumps(body)


def no_such_route(path: str) -> Refusal:
    """Everything that is not on the allowlist, whoever asks."""
    return Refusal(
        404,
        "unknown_route",
        f"Unknown request URL: {path[:200]}. This gateway serves inference routes only, "
        "such as POST /v1/chat/completions and GET /v1/models.",
        code="unknown_url",
        error_class="not_found",
    )


def wrong_method(method: str, path: str, allowed: str) -> Refusal:
    """A known route with another method."""
    return Refusal(
        405,
        "method_not_allowed",
        f"{path} does not accept {method[:16]}: use {allowed}.",
        code="method_not_allowed",
    )


def no_key() -> Refusal:
    """Nothing that could be a virtual key."""
    return Refusal(
        401,
        "missing_key",
        "You did not provide a virtual key. Send it as 'Authorization: Bearer sk-gw-…'.",
        code="invalid_api_key",
        kind="authentication_error",
        error_class="authentication",
    )


def unknown_key() -> Refusal:
    """Not a key of this environment. Says nothing about which part is wrong."""
    return Refusal(
        401,
        "unknown_key",
        "Incorrect virtual key provided: it is unknown in this environment or was revoked. "
        "Check it, or issue a new one under Keys.",
        code="invalid_api_key",
        kind="authentication_error",
        error_class="authentication",
    )


def blocked_key(policy: KeyPolicy) -> Refusal:
    """A key that somebody blocked."""
    why = f": {policy['reason']}" if policy["reason"] else ""
    return Refusal(
        401,
        "blocked_key",
        f"The virtual key {policy['public_id']} is blocked{why}. Ask its team's owner or an admin "
        "to unblock it.",
        code="key_blocked",
        kind="authentication_error",
        error_class="authentication",
    )


def blocked_subject(scope: str, name: str, reason: str) -> Refusal:
    """Whose calls are all refused: a team, a person ("user") or a customer."""
    what = {"user": "person"}.get(scope, scope)
    why = f": {reason}" if reason else ""
    return Refusal(
        403,
        f"blocked_{scope}",
        f"All calls of the {what} {name!r} are blocked{why}. Ask an admin to unblock it.",
        code=f"{scope}_blocked",
        kind="permission_error",
        error_class="permission",
    )


def expired_key(policy: KeyPolicy) -> Refusal:
    """A key whose time is over."""
    return Refusal(
        401,
        "expired_key",
        f"The virtual key {policy['public_id']} expired at {policy['expires_at']}. "
        "Issue a new one or ask for a later expiry.",
        code="key_expired",
        kind="authentication_error",
        error_class="authentication",
    )


def unknown_model(name: str, known: list[str]) -> Refusal:
    """A model this environment does not publish."""
    some = f" This key may use: {', '.join(known[:10])}." if known else ""
    return Refusal(
        404,
        "model_not_found",
        f"The model '{name[:200]}' does not exist in this environment.{some} "
        "GET /v1/models lists them all.",
        param="model",
        error_class="not_found",
    )


def model_not_allowed(name: str, known: list[str]) -> Refusal:
    """A published model that this key may not use."""
    some = ", ".join(known[:10]) if known else "no model at all"
    return Refusal(
        403,
        "model_not_allowed",
        f"This virtual key may not use the model '{name[:200]}'. It may use: {some}. "
        "Ask its team's owner to allow the model.",
        kind="permission_error",
        param="model",
        error_class="permission",
    )


def no_default_model() -> Refusal:
    """No model named and the environment has no default."""
    return Refusal(
        400,
        "missing_model",
        "The request names no model and this environment has no default model. Set 'model'.",
        code="missing_required_parameter",
        param="model",
    )


def bad_body(message: str, *, param: str | None = None, code: str = "invalid_body") -> Refusal:
    """A body that cannot be understood or must not be passed on."""
    return Refusal(400, "invalid_body", message, code=code, param=param)


def body_too_large(limit_bytes: int) -> Refusal:
    """More bytes than the operator allows."""
    return Refusal(
        413,
        "body_too_large",
        f"The request body is larger than this gateway's limit of {limit_bytes} bytes. Send less, "
        "or ask an admin to raise GATEWAY_MAX_BODY_BYTES.",
        code="request_too_large",
    )


def starting() -> Refusal:
    """The replica cannot serve yet; another one, or this one in a moment, can."""
    return Refusal(
        503,
        "starting",
        "This replica is starting and will serve in a few seconds. Retry shortly.",
        kind="server_error",
        code="starting",
        error_class="internal",
        retry_after_s=2,
    )
