"""Framing of AWS event streams (application/vnd.amazon.eventstream).

A message is: total length, headers length, CRC32 of these eight bytes, headers, payload, CRC32
of everything before it; all integers big endian. A header is: length and bytes of its name, 7
(string), length and bytes of its value.
Source: the framing described in the Smithy specification "Amazon Event Stream".
"""

import struct
from collections.abc import Mapping
from zlib import crc32

CONTENT_TYPE = "application/vnd.amazon.eventstream"
_STRING = 7


def encode(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Return one message."""
    packed = b"".join(_header(name, value) for name, value in headers.items())
    total = 12 + len(packed) + len(payload) + 4
    prelude = struct.pack(">II", total, len(packed))
    message = prelude + struct.pack(">I", crc32(prelude)) + packed + payload
    return message + struct.pack(">I", crc32(message))


def event(kind: str, payload: bytes) -> bytes:
    """Return an event with a JSON payload."""
    headers = {
        ":event-type": kind,
        ":content-type": "application/json",
        ":message-type": "event",
    }
    return encode(headers, payload)


def exception(kind: str, payload: bytes) -> bytes:
    """Return an exception inside a stream, with a JSON payload."""
    headers = {
        ":exception-type": kind,
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return encode(headers, payload)


def _header(name: str, value: str) -> bytes:
    key, text = name.encode(), value.encode()
    return struct.pack(">B", len(key)) + key + struct.pack(">BH", _STRING, len(text)) + text
