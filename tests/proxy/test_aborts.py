"""Clients that leave early are charged for what was produced."""

import socket
import time
from typing import Any

import orjson
import pytest

from tests.proxy.conftest import Gateway
from tests.proxy.documents import new_key

pytestmark = pytest.mark.usefixtures("both_lanes")

HELLO: Any = [{"role": "user", "content": "Hello there my friend"}]


def leave_early(gateway: Gateway, body: dict[str, Any], after: bytes, path: str) -> None:
    """Send a request, read until `after` appears, close the connection."""
    content = orjson.dumps(body)
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {new_key('alpha')}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", gateway.replica.port), timeout=10) as connection:
        connection.sendall(head.encode() + content)
        received = b""
        while after and after not in received:
            received += connection.recv(4096)
        if not after:
            time.sleep(0.3)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
def test_short_stream_is_drained_for_its_true_usage(gateway: Gateway, path: str) -> None:
    gateway.simulator.control(
        kind="anthropic" if "messages" in path else "openai", token_interval_ms=40, output_tokens=30
    )
    model = "chat-anthropic" if "messages" in path else "chat-openai"
    body: dict[str, Any] = {"model": model, "stream": True, "messages": HELLO, "max_tokens": 50}
    if "responses" in path:
        body = {"model": model, "stream": True, "input": "Hello there my friend"}
    leave_early(gateway, body, b"delta", path)
    (event,) = gateway.new_events(1)
    row = gateway.simulator.settled_ledger()["rows"][0]
    assert (event["status"], event["error_class"]) == ("aborted", "client_abort")
    assert event["estimated"] is False
    assert row["ok"] == 1
    assert (event["input_tokens"], event["output_tokens"]) == (8, 30)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
def test_long_stream_is_cut_and_estimated(gateway: Gateway, path: str) -> None:
    kind = "anthropic" if "messages" in path else "openai"
    gateway.simulator.control(kind=kind, token_interval_ms=200, output_tokens=60)
    body: dict[str, Any] = {"model": f"chat-{kind}", "stream": True, "messages": HELLO}
    if "messages" in path:
        body["max_tokens"] = 100
    if "responses" in path:
        body = {"model": "chat-openai", "stream": True, "input": "Hello there my friend"}
    leave_early(gateway, body, b"delta", path)
    (event,) = gateway.new_events(1)
    row = gateway.simulator.settled_ledger(timeout_s=4)["rows"][0]
    assert (event["status"], event["estimated"]) == ("aborted", True)
    assert row["aborted"] == 1  # the provider's connection was closed
    assert 4 <= event["input_tokens"] <= 15
    assert 5 <= event["output_tokens"] <= 40
    assert event["cost"] is not None
    assert float(event["cost"]) > 0
    assert event["latency_ms"] < 9000


def test_a_stream_that_has_said_nothing_is_cut_as_well(gateway: Gateway) -> None:
    """Before its first event, too, the provider is not kept at work for nobody."""
    gateway.simulator.control(kind="openai", first_token_ms=20_000)
    body = {"model": "chat-openai", "stream": True, "messages": HELLO}
    leave_early(gateway, body, b"", "/v1/chat/completions")
    (event,) = gateway.new_events(1)
    assert (event["status"], event["output_tokens"]) == ("aborted", 0)
    row = gateway.simulator.settled_ledger(timeout_s=5)["rows"][0]
    assert row["aborted"] == 1


def test_whole_answer_is_awaited_since_it_is_charged_in_full(gateway: Gateway) -> None:
    gateway.simulator.control(kind="openai", latency_ms=1500)
    body = {"model": "chat-openai", "messages": HELLO}
    leave_early(gateway, body, b"", "/v1/chat/completions")
    (event,) = gateway.new_events(1)
    row = gateway.simulator.settled_ledger()["rows"][0]
    assert (event["status"], event["estimated"]) == ("aborted", False)
    assert event["output_tokens"] == row["output_tokens"]


def test_unfinished_request_is_nothing(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.replica.port)) as connection:
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
            f"authorization: Bearer {new_key('alpha')}\r\ncontent-length: 100\r\n\r\n{{"
        )
        connection.sendall(head.encode())
        time.sleep(0.1)
    time.sleep(0.3)
    assert gateway.peer.events == {}
