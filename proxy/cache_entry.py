"""A cached answer, and how it lies in Redis: compressed, encrypted, bound to its key."""

import os
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from decimal import Decimal
from functools import cached_property

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FORMAT = 1  # raised when entries or keys change their meaning
NONCE_BYTES = 12
SLICE_BYTES = 16 * 1024
COMPRESSED_FROM_BYTES = 4 * 1024


class UnreadableEntry(ValueError):
    """Bytes in Redis that were not put there under this key by this environment."""


@dataclass(frozen=True)
class CachedAnswer:
    """An answer as a client received it, and what it cost then."""

    body: bytes  # of a stream: all its events
    headers: list[list[str]]  # of the answer, without those that name the request
    streaming: bool
    stored_at: float  # time.time()
    model: str
    deployment: str | None
    cost: str | None  # decimal string in USD; None: unpriced

    def age_s(self) -> float:
        """Seconds since it was kept."""
        return max(0.0, time.time() - self.stored_at)

    @cached_property
    def saved_usd(self) -> float | None:
        """What the provider would have charged, for a metric."""
        return None if self.cost is None else float(Decimal(self.cost))

    @cached_property
    def sent_headers(self) -> list[tuple[bytes, bytes]]:
        """Of each answer from this entry: the first client's, and who had served."""
        sent = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in self.headers]
        sent.append((b"x-gateway-model", self.model.encode("latin-1", "replace")))
        sent.append((b"x-gateway-deployment", (self.deployment or "").encode()))
        sent.append((b"x-gateway-attempts", b"0"))
        if not self.streaming:
            sent.append((b"content-length", str(len(self.body)).encode()))
        return sent

    def parts(self) -> Iterator[bytes]:
        """A stream's body in the pieces in which it is sent: whole events."""
        start = 0
        while start < len(self.body):
            # The first event alone: whoever measures the first byte measures the first event.
            end = self.body.find(b"\n\n", start + SLICE_BYTES if start else 0)
            end = len(self.body) if end < 0 else end + 2
            yield self.body[start:end]
            start = end


def seal_answer(answer: CachedAnswer, key: AESGCM, name: str) -> bytes:
    """Nonce, then AES-256-GCM over the answer, with the entry's name beside it.

    What is small is not compressed: it would take longer than it saves.
    """
    facts = asdict(answer)
    body: bytes = facts.pop("body")
    plain = orjson.dumps({"format": FORMAT, **facts}) + b"\n" + body
    if len(plain) >= COMPRESSED_FROM_BYTES:
        plain = zlib.compress(plain, 1)
    nonce = os.urandom(NONCE_BYTES)
    return nonce + key.encrypt(nonce, plain, name.encode())


def open_answer(sealed: bytes, key: AESGCM, name: str) -> CachedAnswer:
    """The inverse; raises UnreadableEntry."""
    try:
        raw = key.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], name.encode())
        plain = raw if raw[:1] == b"{" else zlib.decompress(raw)
        head, _, body = plain.partition(b"\n")
        facts = orjson.loads(head)
        if facts.pop("format") != FORMAT:
            raise ValueError("an entry of another format")
        return CachedAnswer(body=body, **facts)
    except (InvalidTag, zlib.error, ValueError, TypeError, KeyError) as error:
        raise UnreadableEntry(type(error).__name__) from error
