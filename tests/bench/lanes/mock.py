"""A provider that is no bottleneck: a raw protocol that answers from bytes made before.

    python -m tests.bench.lanes.mock PORT

`/<caller>/<ms>/v1/chat/completions` answers after so many milliseconds. A stream's first
chunk comes then and the others follow, each in a write and a turn of the loop of its own,
so that they arrive one by one where the reader keeps up. `/counts` tells how many calls
each caller has made, and how many of them came through OpenAI's own client as LiteLLM's do.
"""

import asyncio
import json
import sys
from collections import Counter

import uvloop

from tests.bench.lanes.answers import plain_answer, stream_answer

# OpenAI's own client, which LiteLLM uses, says so in its headers; others do not.
_SDK = b"tainless-"
_PLAIN = json.dumps(plain_answer(), separators=(",", ":")).encode()
_HEAD = b"HTTP/1.1 200 OK\r\nopenai-version: 2020-10-01\r\nx-request-id: req_bench\r\n"
_JSON = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n"
_SSE = b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _writes(*, usage: bool) -> list[bytes]:
    chunks = [json.dumps(chunk, separators=(",", ":")) for chunk in stream_answer(usage=usage)]
    writes = [_framed(f"data: {chunk}\n\n".encode()) for chunk in chunks]
    writes.append(_framed(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    writes[0] = _HEAD + _SSE + writes[0]
    return writes


ANSWER = _HEAD + _JSON % len(_PLAIN) + _PLAIN
STREAM = _writes(usage=False)
STREAM_WITH_USAGE = _writes(usage=True)
COUNTS: Counter[str] = Counter()


class Provider(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A caller is here."""
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, error: Exception | None) -> None:
        """It has gone: what is left of a stream stays unsaid."""
        self.transport = None

    def data_received(self, data: bytes) -> None:
        """Part of a request, or several of them."""
        self.received += data
        while True:
            head, separator, rest = self.received.partition(b"\r\n\r\n")
            if not separator:
                return
            size = _content_length(head)
            if len(rest) < size:
                return
            self.received = rest[size:]
            self._answer(head, rest[:size])

    def _answer(self, head: bytes, body: bytes) -> None:
        path = head.split(b" ", 2)[1]
        if path == b"/counts":
            return self._say_json(dict(COUNTS))
        parts = path.split(b"/")
        if len(parts) != 6 or parts[3:] != [b"v1", b"chat", b"completions"]:
            return self._say_json({"error": {"message": "no such path"}}, b"404 Not Found")
        caller = parts[1].decode()
        COUNTS[caller] += 1
        if _SDK in head:
            COUNTS[f"{caller}:sdk"] += 1
        if b'"stream":true' in body or b'"stream": true' in body:
            writes = STREAM_WITH_USAGE if b'"include_usage"' in body else STREAM
            self._later(int(parts[2]), writes)
        else:
            self._later(int(parts[2]), [ANSWER])
        return None

    def _later(self, ms: int, writes: list[bytes]) -> None:
        if ms:
            self.loop.call_later(ms / 1000, self._say, writes, 0)
        else:
            self._say(writes, 0)

    def _say(self, writes: list[bytes], position: int) -> None:
        if self.transport is None:
            return
        self.transport.write(writes[position])
        if position + 1 < len(writes):
            self.loop.call_soon(self._say, writes, position + 1)

    def _say_json(self, document: object, status: bytes = b"200 OK") -> None:
        assert self.transport is not None
        content = json.dumps(document).encode()
        head = b"HTTP/1.1 %s\r\n" % status
        self.transport.write(head + _JSON % len(content) + content)


def _content_length(head: bytes) -> int:
    lowered = head.lower()
    start = lowered.find(b"content-length:")
    if start < 0:
        return 0
    return int(lowered[start + 15 :].split(b"\r\n", 1)[0])


async def serve(port: int, protocol: type[Provider] = Provider) -> None:
    """Answer until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
