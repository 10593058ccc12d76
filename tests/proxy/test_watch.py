"""Whoever runs a request learns that its client left, and nobody else does."""

import http.client
import json
from pathlib import Path

import orjson
import pytest

from proxy.contract.checks import check_event
from proxy.spool import read_segment
from proxy.watch import Watch
from tests.proxy.answered import worker_in
from tests.proxy.conftest import Gateway
from tests.proxy.documents import new_key
from tests.proxy.relayed import Client, OfLiteLlm, relayed

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


class LeavesMeanwhile(Client):
    """Was there when the request began, and no more when it was admitted."""

    looked = 0

    @property
    def has_left(self) -> bool:
        """Only the first look finds it."""
        self.looked += 1
        return self.looked > 1

    @has_left.setter
    def has_left(self, _value: bool) -> None:
        pass


@pytest.mark.parametrize("client", [Client(leaves_after=0), LeavesMeanwhile()])
async def test_a_client_that_left_before_anybody_was_called_costs_nothing(
    tmp_path: Path, client: Client
) -> None:
    worker = worker_in(tmp_path)
    await relayed(worker, OfLiteLlm(), client)
    assert worker.spool.last is not None
    (record,) = read_segment(worker.spool.last.path)
    event = check_event(json.loads(record))
    assert (event["status"], event["http_status"], event["attempts"]) == ("aborted", 499, [])
    assert event["cost"] == "0"
    assert client.got == []
