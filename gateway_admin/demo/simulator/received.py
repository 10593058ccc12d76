"""The last requests as they came in, byte for byte: for tests of what a gateway sends.

They hold credentials in clear, which here are nobody's. Only the last few are kept.
"""

from collections import deque
from typing import Any

KEPT = 64
BODY_MAX_BYTES = 1024 * 1024


class Received:
    """Method, target, headers and body of the last requests to providers, oldest first."""

    def __init__(self) -> None:
        self._last: deque[tuple[dict[str, Any], bytes]] = deque(maxlen=KEPT)

    def add(self, scope: dict[str, Any], body: bytes) -> None:
        """Keep one; of a body that is too long, nothing."""
        self._last.append((scope, body if len(body) <= BODY_MAX_BYTES else b""))

    def report(self) -> list[dict[str, Any]]:
        """The requests as JSON; bodies as text."""
        return [
            {
                "method": scope["method"],
                "target": _target(scope),
                "headers": {
                    name.decode("latin-1"): text.decode("latin-1")
                    for name, text in scope["headers"]
                },
                "body": body.decode("utf-8", "replace"),
            }
            for scope, body in self._last
        ]

    def reset(self) -> None:
        """Forget all."""
        self._last.clear()


def _target(scope: dict[str, Any]) -> str:
    """Path and query as they were sent."""
    path: bytes = scope["raw_path"].partition(b"?")[0]
    query: bytes = scope["query_string"]
    return (path + b"?" + query if query else path).decode("latin-1")
