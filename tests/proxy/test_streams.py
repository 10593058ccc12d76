"""Streams: the first byte passes at once, a slow reader holds the provider back."""

import socket
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.proxy.conftest import Gateway
from tests.proxy.documents import new_key

pytestmark = pytest.mark.usefixtures("both_lanes")

HELLO: Any = [{"role": "user", "content": "Hello there my friend"}]
MIB = 1024 * 1024


def ask(gateway: Gateway, body: dict[str, Any], *, receive_bytes: int = 0) -> socket.socket:
    """A connection that has sent a chat request and reads when it is told to."""
    content = orjson.dumps({"model": "chat-openai", "messages": HELLO, "stream": True, **body})
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
        f"authorization: Bearer {new_key('alpha')}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    connection = socket.socket()
    if receive_bytes:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.settimeout(30)
    connection.connect(("127.0.0.1", gateway.replica.port))
    connection.sendall(head.encode() + content)
    return connection


def read_until(connection: socket.socket, mark: bytes) -> bytes:
    received = b""
    while mark not in received:
        part = connection.recv(65_536)
        assert part, received[-500:]
        received += part
    return received


def resident_bytes(gateway: Gateway) -> int:
    """Memory of the replica's workers."""
    pages = 0
    for pid in gateway.replica.children():
        pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


def test_the_module_runs_on_the_lane_it_names(gateway: Gateway, both_lanes: str) -> None:
    with gateway.client() as client:
        answer = client.post(
            "/v1/chat/completions", json={"model": "chat-openai", "messages": HELLO}
        )
    event = gateway.event(answer)
    lanes = {"auto": ("direct", ""), "litellm": ("litellm", "setting")}
    assert (event["lane"], event["lane_reason"]) == lanes[both_lanes]


@pytest.mark.parametrize("fault", ["stream_error", "cut_stream"])
@pytest.mark.parametrize("after_chunks", [0, 1])
def test_the_attempt_of_a_stream_that_broke_costs_what_its_event_says(
    gateway: Gateway, fault: str, after_chunks: int
) -> None:
    broken = {"type": fault, "after_chunks": after_chunks}
    gateway.simulator.control(kind="openai", faults=[broken])
    body = {"model": "chat-openai", "messages": HELLO, "stream": True}
    with gateway.client() as client:
        answer = client.post("/v1/chat/completions", json=body)
    event = gateway.event(answer)
    assert event["status"] == "error"
    assert [attempt["cost"] for attempt in event["attempts"]] == [event["cost"]]


def test_the_first_content_does_not_wait_for_the_second(gateway: Gateway) -> None:
    gateway.simulator.control(kind="openai", token_interval_ms=700, output_tokens=4)
    with ask(gateway, {}) as connection:
        first = read_until(connection, b'"content":"')
        assert b"[DONE]" not in first
        assert gateway.simulator.ledger()["totals"]["ok"] == 0  # the provider still speaks
        read_until(connection, b"[DONE]")


def test_a_slow_reader_does_not_grow_memory(gateway: Gateway) -> None:
    tokens = 150_000  # some 35 MiB of events
    gateway.simulator.control(kind="openai", output_tokens=tokens)
    before = resident_bytes(gateway)
    with ask(gateway, {"max_tokens": tokens}, receive_bytes=8192) as connection:
        read_until(connection, b'"content":"')
        sizes = [resident_bytes(gateway)]
        while len(sizes) < 4 or max(sizes[-4:]) - min(sizes[-4:]) > MIB:
            assert sizes[-1] - before < 40 * MIB, [(size - before) // MIB for size in sizes]
            time.sleep(0.5)
            sizes.append(resident_bytes(gateway))
        assert gateway.peer.events == {}  # still under way: it waits for the reader
    (event,) = gateway.new_events(1)
    assert event["status"] == "aborted"
    assert event["output_tokens"] < tokens / 2
