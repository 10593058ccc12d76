"""The Responses API on both lanes: requests, answers, and conversations that change lanes."""

import os
from collections.abc import Iterator

import httpx
import orjson
import pytest

from proxy.response_ids import ResponseIds
from tests.proxy import lane_forms
from tests.proxy.conftest import Gateway
from tests.proxy.lane_bodies import ODD_RESPONSES, RESPONSES, STREAM
from tests.proxy.lane_pairs import Asked, ask, ask_both, pairs_document, pairs_secrets
from tests.proxy.test_lane_parity import differences, fault
from tests.proxy.test_lane_request import form

PAIRS = ["plain", "unknown", "reasoner", "effortless", "o-series", "vllm", "azure"]


@pytest.fixture
def pairs(gateway: Gateway) -> Gateway:
    """The session's gateway with deployments in pairs."""
    peer = gateway.peer
    peer.wait_applied(peer.publish(pairs_document(gateway.simulator), pairs_secrets()))
    return gateway


@pytest.fixture
def client(pairs: Gateway) -> Iterator[httpx.Client]:
    with pairs.client() as found:
        yield found


def id_of(asked: Asked) -> str:
    """The id that the client was given; in a stream, one and the same."""
    if not asked.answer.headers["content-type"].startswith("text/event-stream"):
        return str(asked.answer.json()["id"])
    told = [one for one in lane_forms.payloads(asked.answer.text) if one != "[DONE]"]
    (found,) = {one["response"]["id"] for one in told if "response" in one}
    return str(found)


@pytest.mark.parametrize("pair", PAIRS)
def test_ordinary_responses_run_direct_and_equal(
    pairs: Gateway, client: httpx.Client, pair: str
) -> None:
    for body in RESPONSES:
        free, litellm = ask_both(pairs, client, pair, "responses", body)
        assert free.answer.status_code == 200, free.answer.text
        assert [*map(form, free.received)] == [*map(form, litellm.received)], body
        assert differences(free, litellm) == [], body
        assert (free.event["lane"], free.event["lane_reason"]) == ("direct", ""), body
        assert id_of(free).startswith("resp_")
        assert len(id_of(free)) > 100  # sealed


@pytest.mark.parametrize("pair", PAIRS)
def test_odd_responses_are_equal_on_whichever_lane(
    pairs: Gateway, client: httpx.Client, pair: str
) -> None:
    reasons = set()
    for body in ODD_RESPONSES:
        free, litellm = ask_both(pairs, client, pair, "responses", body)
        assert [*map(form, free.received)] == [*map(form, litellm.received)], body
        reasons.add(free.event["lane_reason"])
    assert reasons >= {"parameter:input", "parameter:max_output_tokens", "parameter:foo"}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(("first", "second"), [("", "-litellm"), ("-litellm", ""), ("", "")])
def test_a_conversation_goes_on_whichever_lane_began_it(
    pairs: Gateway, client: httpx.Client, first: str, second: str, streaming: bool
) -> None:
    """One deployment, told between two requests to stay with LiteLLM, or no longer."""

    def publish(lane: str) -> None:
        wanted = pairs_document(pairs.simulator)
        for row in wanted["deployments"]:
            if row["id"] == "dep-plain":
                row["lane"] = "litellm" if lane else "auto"
        pairs.peer.wait_applied(pairs.peer.publish(wanted, pairs_secrets()))

    publish(first)
    began = ask(pairs, client, "plain", "responses", {"input": "Hello", "stream": streaming})
    publish(second)
    body = {"input": "More", "previous_response_id": id_of(began), "stream": streaming}
    went_on = ask(pairs, client, "plain", "responses", body)
    lanes = ["litellm" if lane else "direct" for lane in (first, second)]
    assert [began.event["lane"], went_on.event["lane"]] == lanes
    (sent,) = went_on.received
    native = orjson.loads(sent["body"])["previous_response_id"]
    detail = pairs.simulator.settled_ledger(detail=True)["requests"]
    assert native == detail[-2]["response_id"]


def test_an_id_that_was_not_sealed_here_goes_to_litellm_which_refuses(
    pairs: Gateway, client: httpx.Client
) -> None:
    made_up = {"input": "More", "previous_response_id": "resp_0123456789abcdef"}
    asked = ask(pairs, client, "plain", "responses", made_up)
    assert asked.received == []
    assert asked.answer.status_code == 400
    assert asked.event["lane_reason"] == "parameter:previous_response_id"


def test_failures(pairs: Gateway, client: httpx.Client) -> None:
    for status in (400, 401, 404, 413, 422, 429, 500, 503):
        fault(pairs, "openai", {"type": "status", "status": status})
        for body in ({"input": "Hello"}, {"input": "Hello", **STREAM}):
            free, litellm = ask_both(pairs, client, "plain", "responses", body)
            assert differences(free, litellm) == [], (status, body)
            assert free.event["lane"] == "direct"


def test_ids_open_only_with_their_key_and_whole() -> None:
    ids = ResponseIds("sk-a")
    sealed = ids.seal("openai", "dep-1", "resp_abc")
    assert ids.open(sealed) == ("dep-1", "resp_abc")
    assert ids.seal("openai", "dep-1", "resp_abc") != sealed
    assert ResponseIds("sk-b").open(sealed) is None
    for broken in ("", "resp_", "resp_abc", sealed[:-4], sealed + "AAAA", os.urandom(90).hex()):
        assert ids.open(broken) is None
