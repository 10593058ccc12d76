"""Large answers: usage and model's name found in the bytes, without decoding the rest.

A quote within a JSON text is escaped, so `"usage":` with its quotes is a field's name. An
answer in which such a name stands more than once is decoded after all.
"""

import re
from dataclasses import dataclass
from typing import Any

import orjson

SCAN_FROM_BYTES = 16 * 1024
SCANNED_KINDS = frozenset({"chat", "completion", "embedding"})

# An object that holds at most objects of plain values, as usage does in OpenAI's format.
_USAGE = re.compile(rb'"usage":\s*(\{(?:[^{}]|\{[^{}]*\})*\})')
_MODEL = re.compile(rb'"model":\s*("(?:[^"\\]|\\.)*")')


@dataclass(frozen=True, slots=True)
class Found:
    """What a scan told of an answer."""

    usage: dict[str, Any]
    model: tuple[int, int]  # where the model's name stands, with its quotes

    def renamed(self, body: bytes, name: str) -> bytes:
        """The answer under another model's name."""
        start, end = self.model
        return body[:start] + orjson.dumps(name) + body[end:]


def scan(body: bytes) -> Found | None:
    """Usage and model of an answer; None when they are not there once each."""
    if body.count(b'"usage":') != 1 or body.count(b'"model":') != 1:
        return None
    usage, model = _USAGE.search(body), _MODEL.search(body)
    if usage is None or model is None:
        return None
    try:
        told = orjson.loads(usage.group(1))
    except orjson.JSONDecodeError:
        return None
    return Found(told, model.span(1))
