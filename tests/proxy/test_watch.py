"""Whoever runs a request learns that its client left, and nobody else does."""

import http.client

import orjson

from proxy.watch import Watch
from tests.proxy.conftest import Gateway
from tests.proxy.documents import new_key
from tests.proxy.relayed import Client

HEADERS = {"authorization": f"Bearer {new_key('alpha')}", "content-type": "application/json"}
HELLO = [{"role": "user", "content": "Hello there"}]
WHOLE = orjson.dumps({"model": "chat-gemini", "messages": HELLO})
STREAM = orjson.dumps({"model": "chat-anthropic", "messages": HELLO, "stream": True})
CHAT = "/v1/chat/completions"


def test_a_request_that_clears_up_late_leaves_the_next_ones_watch_alone() -> None:
    client, told = Client(), []
    first, second = Watch(client), Watch(client)
    first.tell(lambda: told.append("first"))
    second.tell(lambda: told.append("second"))
    first.stop()
    assert client.on_leave is not None
    client.on_leave()
    assert told == ["second"]
    second.stop()
    assert client.on_leave is None


def test_a_kept_connections_next_request_is_cut_when_its_client_leaves(gateway: Gateway) -> None:
    """LiteLLM's lane clears up some turns of the loop after an answer, the next request in them."""
    rounds = 8
    gateway.simulator.control(kind="anthropic", output_tokens=60, token_interval_ms=200)
    for _ in range(rounds):
        connection = http.client.HTTPConnection("127.0.0.1", gateway.replica.port, timeout=20)
        connection.request("POST", CHAT, WHOLE, HEADERS)
        assert connection.getresponse().read()
        connection.request("POST", CHAT, STREAM, HEADERS)
        answer = connection.getresponse()
        assert answer.read(20).startswith(b"data: ")
        answer.close()
        connection.close()
    events = gateway.new_events(2 * rounds)
    assert sorted(event["status"] for event in events) == ["aborted"] * rounds + ["ok"] * rounds
