"""What the cache and one request have to do with each other."""

from collections.abc import Callable, Iterable
from typing import Literal

import orjson

from proxy.cache_entry import CachedAnswer
from proxy.contract import UsageEventDocument

State = Literal["hit", "miss", "bypass"]
# use, event, body, headers
Keep = Callable[["CacheUse", UsageEventDocument, bytes, list[list[str]]], None]
_KEPT_HEADERS = frozenset({b"content-type", b"cache-control"})


class CacheUse:
    """Collects the answer exactly as the client receives it, as long as it may be kept."""

    def __init__(
        self,
        *,
        state: State,
        name: str = "",
        model: str = "",
        ttl_s: int = 0,
        max_bytes: int = 0,
        keep: Keep | None = None,
        age_s: float = 0.0,
    ) -> None:
        self.state = state
        self.name = name
        self._model = model
        self.ttl_s = ttl_s
        self._max_bytes = max_bytes
        self._keep = keep
        self._age_s = age_s
        self._event: UsageEventDocument | None = None
        self._headers: list[list[str]] = []
        self._chunks: list[bytes] = []
        self._size = 0

    @classmethod
    def bypassed(cls) -> "CacheUse":
        """Neither looked up nor kept."""
        return cls(state="bypass")

    @classmethod
    def hit(cls, answer: CachedAnswer) -> "CacheUse":
        """Answered from the cache."""
        return cls(state="hit", age_s=answer.age_s())

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What the client is told."""
        told = [(b"x-gateway-cache", self.state.encode())]
        if self.state == "hit":
            told.append((b"age", str(int(self._age_s)).encode()))
        return told

    # --- the answer passes by --------------------------------------------------------------

    def begin(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """The answer's headers, as they are sent."""
        kept = [(name, value) for name, value in headers if name in _KEPT_HEADERS]
        self._headers = [[n.decode("latin-1"), v.decode("latin-1")] for n, v in kept]

    def add(self, chunk: bytes, *, last: bool) -> None:
        """Bytes of the answer, as they are sent; the last ones end it."""
        if self._keep is None:
            return
        self._size += len(chunk)
        if self._size <= self._max_bytes:
            self._chunks.append(chunk)
        else:
            self._chunks.clear()  # counted on, so that the reason is known at the end
        if last:
            keep, self._keep = self._keep, None
            if self._event is not None:
                keep(self, self._event, b"".join(self._chunks), self._headers)
            self._chunks.clear()

    def settled(self, event: UsageEventDocument) -> None:
        """The request's usage event: how it ended, what it cost."""
        self._event = event

    def spoil(self) -> None:
        """What follows is no part of a whole answer."""
        self._keep = None
        self._chunks.clear()

    def refusal(self, event: UsageEventDocument, body: bytes) -> str | None:
        """Why an answer is not kept; None when it may be."""
        if event["status"] != "ok" or event["http_status"] != 200:
            return "unfinished"
        if self._size > self._max_bytes:
            return "too_large"
        if event["model"] != self._model or event["why"] not in ("first", "retry"):
            return "fallback"
        if event["route"] == "/v1/responses" and _is_incomplete(body, streaming=event["streaming"]):
            return "unfinished"
        return None


def _is_incomplete(body: bytes, *, streaming: bool) -> bool:
    """Responses can end early and still be a success; a stream says so in its last event."""
    if streaming:
        return b'"type":"response.completed"' not in body.replace(b'": "', b'":"')
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return True
    return not isinstance(document, dict) or document.get("status") != "completed"
