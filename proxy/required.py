"""What a JSON body must contain, by kind of route: checked before LiteLLM sees it.

LiteLLM takes a missing or mistyped field for a failure of the provider, so it would be
retried, fall back and be booked as an error of a deployment. Only what every provider
needs is checked here; everything else is the provider's to judge.
"""

from dataclasses import dataclass
from typing import Any, Literal

from proxy.refusals import Refusal, bad_body
from proxy.routes import InferenceRoute, Kind

Shape = Literal["text", "text or list", "messages", "text or items", "list", "whole number"]

_WORDS: dict[Shape, str] = {
    "text": "a string",
    "text or list": "a string or a list",
    "messages": "a list of message objects",
    "text or items": "a string or a list of objects",
    "list": "a list",
    "whole number": "a whole number",
}


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    shape: Shape


_MESSAGES = _Field("messages", "messages")
_REQUIRED: dict[Kind, tuple[_Field, ...]] = {
    "chat": (_MESSAGES,),
    "completion": (_Field("prompt", "text or list"),),
    "embedding": (_Field("input", "text or list"),),
    "responses": (_Field("input", "text or items"),),
    "messages": (_MESSAGES, _Field("max_tokens", "whole number")),
    "count_tokens": (_MESSAGES,),
    "image": (_Field("prompt", "text"),),
    "speech": (_Field("input", "text"),),
    "moderation": (_Field("input", "text or list"),),
    "rerank": (_Field("query", "text"), _Field("documents", "list")),
}


def check_required(body: dict[str, Any], route: InferenceRoute) -> None:
    """Raise a Refusal that names the first required field that is missing or mistyped."""
    for field in _REQUIRED.get(route.kind, ()):
        value = body.get(field.name)
        if value is None:
            raise bad_body(
                f"'{field.name}' is required on {route.name} and must be {_WORDS[field.shape]}.",
                param=field.name,
                code="missing_required_parameter",
            )
        if not _fits(value, field.shape):
            raise _mistyped(field.name, _WORDS[field.shape])
        if field.shape == "messages":
            _check_messages(field.name, value)


def _mistyped(name: str, wanted: str) -> Refusal:
    return bad_body(f"'{name}' must be {wanted}.", param=name, code="invalid_type")


def _fits(value: object, shape: Shape) -> bool:
    if shape == "whole number":
        return isinstance(value, int) and not isinstance(value, bool)
    if shape == "text or items" and isinstance(value, list):
        return all(isinstance(item, dict) for item in value)
    if isinstance(value, str):
        return shape in ("text", "text or list", "text or items")
    return isinstance(value, list) and shape in ("text or list", "messages", "list")


def _check_messages(name: str, messages: list[object]) -> None:
    for index, message in enumerate(messages):
        at = f"{name}[{index}]"
        if not isinstance(message, dict):
            raise _mistyped(at, "an object with 'role' and 'content'")
        if not isinstance(message.get("role", ""), str):
            raise _mistyped(f"{at}.role", "a string")
        if not isinstance(message.get("content", ""), str | list | None):
            raise _mistyped(f"{at}.content", "a string or a list of parts")
