"""What a provider receives is the same on both lanes, proven against LiteLLM itself.

Path, body, credential and content type of the request, as the simulator received it. A
body's normal form: `"stream": false` is the same as no `stream`, since providers take the
one for the other and LiteLLM writes it for some of them. The order of fields is no matter.
"""

from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

from tests.proxy.conftest import CANARY, Gateway
from tests.proxy.lane_bodies import COMPLETIONS, EMBEDDINGS, ODD, ORDINARY, TOOL, Body, asking
from tests.proxy.lane_pairs import ask, ask_both, pairs_document, pairs_secrets

CHATS = ("plain", "unknown", "organized", "vllm", "azure", "azure-v1")
STRICTER = ("reasoner", "effortless", "o-series", "azure-old", "azure-reasoner", "azure-o-series")
HEADERS = ("authorization", "api-key", "content-type", "openai-organization")


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


def form(request: dict[str, Any]) -> tuple[Any, ...]:
    """The normal form of a request as it was received."""
    body = orjson.loads(request["body"])
    if body.get("stream") is False:
        del body["stream"]
    headers = {name: request["headers"].get(name) for name in HEADERS}
    text = orjson.dumps(body, option=orjson.OPT_SORT_KEYS).decode()  # 1 and true differ
    return request["target"], text, headers


def differences(
    gateway: Gateway, client: httpx.Client, pair: str, kind: str, bodies: list[Body]
) -> tuple[list[str], dict[str, int]]:
    """Where the lanes differ; and which reasons there were, "" for direct."""
    found, reasons, seen = [], dict[str, int](), []
    for body in bodies:
        free, litellm = ask_both(gateway, client, pair, kind, body)
        wrong = free.answer.status_code != litellm.answer.status_code
        if wrong or [*map(form, free.received)] != [*map(form, litellm.received)]:
            told = [form(one)[:2] for one in (*free.received, *litellm.received)]
            found.append(f"{pair} {str(body)[:200]}: {str(told)[:1000]}")
        seen.append(free)
    for asked in seen:
        event = asked.event
        assert event["lane"] == ("litellm" if event["lane_reason"] else "direct")
        reasons[event["lane_reason"]] = reasons.get(event["lane_reason"], 0) + 1
    return found, reasons


@pytest.mark.parametrize("pair", CHATS)
def test_ordinary_chats_run_direct_and_equal(
    pairs: Gateway, client: httpx.Client, pair: str
) -> None:
    found, reasons = differences(pairs, client, pair, "chat", ORDINARY)
    assert found == []
    assert reasons == {"": len(ORDINARY)}


@pytest.mark.parametrize("pair", STRICTER)
def test_ordinary_chats_with_models_that_take_less(
    pairs: Gateway, client: httpx.Client, pair: str
) -> None:
    found, reasons = differences(pairs, client, pair, "chat", ORDINARY)
    assert found == []
    assert reasons[""] >= len(ORDINARY) * 0.8, reasons


@pytest.mark.parametrize("pair", [*CHATS, *STRICTER])
def test_odd_chats_are_equal_on_whichever_lane(
    pairs: Gateway, client: httpx.Client, pair: str
) -> None:
    found, reasons = differences(pairs, client, pair, "chat", ODD)
    assert found == []
    assert len(reasons) > 1
    assert all(reason == "" or reason.startswith("parameter:") for reason in reasons)


@pytest.mark.parametrize("pair", ["small", "plain", "unknown", "vllm", "azure-small"])
def test_embeddings(pairs: Gateway, client: httpx.Client, pair: str) -> None:
    found, reasons = differences(pairs, client, pair, "embedding", EMBEDDINGS)
    assert found == []
    # Azure's client asks for base64 where the caller asks for nothing, and decodes it.
    unasked = sum(1 for body in EMBEDDINGS if not body.get("encoding_format"))
    others = {"parameter:encoding_format": unasked} if pair == "azure-small" else {}
    assert reasons == {"": len(EMBEDDINGS) - sum(others.values()), **others}


@pytest.mark.parametrize("pair", ["text", "unknown", "vllm"])
def test_completions(pairs: Gateway, client: httpx.Client, pair: str) -> None:
    found, reasons = differences(pairs, client, pair, "completion", COMPLETIONS)
    assert found == []
    assert reasons[""] == len(COMPLETIONS) - 2
    assert reasons["parameter:prompt"] == 1


@pytest.mark.parametrize(
    ("model", "kind", "body", "reason"),
    [
        ("plain-litellm", "chat", asking(), "setting"),
        ("anthropic", "chat", asking(), "provider"),
        ("ollama", "chat", asking(), "provider"),
        ("tuned", "chat", asking(seed=1), "params:additional_drop_params"),
        ("newest", "chat", asking(tools=[TOOL], reasoning_effort="low"), "parameter:tools"),
        ("plain", "completion", {"prompt": "Hello"}, "route"),
        ("azure", "completion", {"prompt": "Hello"}, "route"),
    ],
)
def test_what_stays_with_litellm(
    pairs: Gateway, client: httpx.Client, model: str, kind: str, body: Body, reason: str
) -> None:
    asked = ask(pairs, client, model, kind, body)
    assert asked.answer.status_code == 200, asked.answer.text
    assert (asked.event["lane"], asked.event["lane_reason"]) == ("litellm", reason)


def test_the_credential_goes_where_it_belongs(pairs: Gateway, client: httpx.Client) -> None:
    for pair, name, value in (
        ("plain", "authorization", f"Bearer {CANARY}"),
        ("azure", "api-key", CANARY),
        ("azure-v1", "authorization", f"Bearer {CANARY}"),
    ):
        asked = ask(pairs, client, pair, "chat", asking())
        assert asked.event["lane"] == "direct"
        assert asked.received[0]["headers"][name] == value
        assert CANARY not in asked.answer.text
