"""Fallback chains: who answers, what is recorded, and who may be fallen back to."""

import re
from typing import Any

import pytest

from tests.proxy.conftest import Gateway, standard_document, standard_secrets

pytestmark = pytest.mark.usefixtures("both_lanes")

HELLO: Any = [{"role": "user", "content": "Hello there my friend"}]


def chat(gateway: Gateway, model: str, public_id: str = "alpha", **more: Any) -> Any:
    with gateway.client(public_id) as client:
        return client.post("/v1/chat/completions", json={"model": model, "messages": HELLO, **more})


@pytest.mark.parametrize("stream", [False, True])
def test_general_fallback(gateway: Gateway, stream: bool) -> None:
    answer = chat(gateway, "fails", stream=stream)
    assert answer.status_code == 200
    assert answer.headers["x-gateway-model"] == "chat-openai"
    event = gateway.event(answer)
    assert (event["requested_model"], event["model"], event["why"]) == (
        "fails", "chat-openai", "fallback",
    )  # fmt: skip
    first, second = event["attempts"]
    assert (first["deployment"], first["why"], first["status"]) == ("bad-fails", "first", 500)
    assert first["error_class"] == "server_error"
    assert (second["deployment"], second["status"]) == ("dep-openai", 200)
    assert event["cost"] is not None
    assert float(event["cost"]) > 0


def test_chain_goes_on_in_order(gateway: Gateway) -> None:
    event = gateway.event(chat(gateway, "limited"))
    assert [attempt["model"] for attempt in event["attempts"]] == [
        "limited", "fails", "chat-anthropic",
    ]  # fmt: skip
    assert event["model"] == "chat-anthropic"


@pytest.mark.parametrize(
    ("model", "target", "why"),
    [("too-long", "chat-gemini", "context_window"), ("filtered", "chat-openai", "content_policy")],
)
def test_chains_for_a_reason(gateway: Gateway, model: str, target: str, why: str) -> None:
    event = gateway.event(chat(gateway, model))
    assert (event["model"], event["why"]) == (target, why)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
def test_fallback_on_other_routes(gateway: Gateway, path: str) -> None:
    body: dict[str, Any] = {"model": "fails", "messages": HELLO, "max_tokens": 50}
    if path.endswith("responses"):
        body = {"model": "fails", "input": "hello"}
    with gateway.client() as client:
        answer = client.post(path, json=body)
    event = gateway.event(answer)
    assert answer.status_code == 200, (answer.text, event["attempts"])
    assert event["model"] == "chat-openai"


def test_a_key_never_falls_back_to_a_model_it_may_not_use(gateway: Gateway) -> None:
    gateway.set_key("narrow", models=["fails"])
    answer = chat(gateway, "fails", "narrow")
    assert answer.status_code == 500
    assert len(gateway.event(answer)["attempts"]) == 1


def test_environment_without_fallback(gateway: Gateway) -> None:
    content = standard_document(gateway.simulator, fallback_enabled=False)
    gateway.peer.wait_applied(gateway.peer.publish(content, standard_secrets()))
    assert chat(gateway, "fails").status_code == 500


def test_retries_are_attempts(gateway: Gateway) -> None:
    content = standard_document(gateway.simulator, num_retries=2)
    gateway.peer.wait_applied(gateway.peer.publish(content, standard_secrets()))
    gateway.simulator.control(
        kind="openai", model="gpt-4o", faults=[{"type": "server_error", "first": 2}]
    )
    event = gateway.event(chat(gateway, "chat-openai"))
    assert [attempt["why"] for attempt in event["attempts"]] == ["first", "retry", "retry"]
    assert event["status"] == "ok"
    assert gateway.simulator.settled_ledger()["rows"][0]["requests"] == 3


@pytest.mark.parametrize("kind", ["openai", "anthropic", "gemini", "azure", "bedrock", "ollama"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_refused_attempt_is_recorded(gateway: Gateway, kind: str, stream: bool) -> None:
    """Also where LiteLLM calls the provider only when the stream is read, and tells no hook."""
    content = standard_document(gateway.simulator, num_retries=1)
    gateway.peer.wait_applied(gateway.peer.publish(content, standard_secrets()))
    gateway.simulator.control(kind=kind, faults=[{"type": "rate_limit", "first": 1}])
    event = gateway.event(chat(gateway, f"chat-{kind}", stream=stream))
    assert [
        (attempt["why"], attempt["status"], attempt["error_class"]) for attempt in event["attempts"]
    ] == [("first", 429, "rate_limit"), ("retry", 200, None)]
    assert gateway.simulator.settled_ledger()["totals"]["requests"] == 2


def test_deployments_of_a_model_share_its_requests(gateway: Gateway) -> None:
    content = standard_document(gateway.simulator, num_retries=8)
    for row in content["deployments"]:
        if row["id"] in ("dep-openai", "dep-azure"):
            row["model"], row["weight"] = "shared", 1
    content["models"].append({**content["models"][0], "name": "shared"})
    content["aliases"] = {}
    content["environment"]["default_model"] = None
    content["chains"] = []
    gateway.peer.wait_applied(gateway.peer.publish(content, standard_secrets()))
    events = [gateway.event(chat(gateway, "shared")) for _ in range(20)]
    assert {event["deployment"] for event in events} == {"dep-openai", "dep-azure"}
    gateway.simulator.control(kind="azure", faults=[{"type": "server_error"}])
    events = [gateway.event(chat(gateway, "shared")) for _ in range(6)]
    assert {event["status"] for event in events} == {"ok"}
    assert {event["deployment"] for event in events} == {"dep-openai"}


def test_time_out_of_the_environment(gateway: Gateway) -> None:
    content = standard_document(gateway.simulator, timeout_s=0.5, stream_timeout_s=0.5)
    gateway.peer.wait_applied(gateway.peer.publish(content, standard_secrets()))
    gateway.simulator.control(
        kind="openai", model="gpt-4o", faults=[{"type": "timeout", "hang_s": 5}]
    )
    answer = chat(gateway, "chat-openai")
    assert answer.status_code == 408
    event = gateway.event(answer)
    assert event["error_class"] == "timeout"
    assert 400 < event["latency_ms"] < 5000, event


NAMED: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": HELLO}),
    ("/v1/messages", {"messages": HELLO, "max_tokens": 50}),
    ("/v1/responses", {"input": "hello"}),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "served"), [("chat-openai", "chat-openai"), ("fails", "chat-openai")]
)
@pytest.mark.parametrize(("path", "body"), NAMED)
def test_answers_name_the_public_model_that_served(
    gateway: Gateway, path: str, body: dict[str, Any], model: str, served: str, stream: bool
) -> None:
    with gateway.client() as client:
        answer = client.post(path, json={"model": model, "stream": stream, **body})
    assert answer.status_code == 200, answer.text
    named = set(re.findall(r'"model":\s*"([^"]*)"', answer.text))
    assert named == {served}
    assert "gpt-4o" not in answer.text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["chat-openai", "fails"])
def test_completions_name_the_public_model_that_served(
    gateway: Gateway, model: str, stream: bool
) -> None:
    with gateway.client() as client:
        body = {"model": model, "prompt": "hello", "stream": stream}
        answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert set(re.findall(r'"model":\s*"([^"]*)"', answer.text)) == {"chat-openai"}


def test_embeddings_name_the_public_model_that_served(gateway: Gateway) -> None:
    content = standard_document(gateway.simulator)
    content["chains"].append({"model": "fails", "kind": "general", "targets": ["embed-openai"]})
    content["chains"] = content["chains"][1:]
    gateway.peer.wait_applied(gateway.peer.publish(content, standard_secrets()))
    for model in ("embed-openai", "fails"):
        with gateway.client() as client:
            answer = client.post("/v1/embeddings", json={"model": model, "input": "hello"})
        assert answer.json()["model"] == "embed-openai"
