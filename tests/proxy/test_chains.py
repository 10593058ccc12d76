"""The walk along the chains: what is told at its end, and that each target obeys its rules."""

from typing import Any

import httpx
import pytest

from proxy.contract import DeploymentDocument
from tests.proxy.conftest import Gateway, standard_document, standard_secrets
from tests.proxy.documents import deployment

pytestmark = pytest.mark.usefixtures("both_lanes")

HELLO: Any = [{"role": "user", "content": "Hello there my friend"}]


def chat(gateway: Gateway, model: str, public_id: str = "alpha", **more: Any) -> httpx.Response:
    with gateway.client(public_id) as client:
        return client.post("/v1/chat/completions", json={"model": model, "messages": HELLO, **more})


def serve(
    gateway: Gateway,
    chains: dict[tuple[str, str], list[str]],
    rows: list[DeploymentDocument] | None = None,
    **environment: Any,
) -> None:
    """The standard document with these chains: (model, kind) -> targets."""
    content = standard_document(gateway.simulator, **environment)
    for row in rows or []:
        content["deployments"].append(row)
        content["models"].append({**content["models"][0], "name": row["model"], "mode": "chat"})
    content["chains"] = [
        {"model": model, "kind": kind, "targets": targets}  # type: ignore[typeddict-item]
        for (model, kind), targets in chains.items()
    ]
    gateway.peer.wait_applied(gateway.peer.publish(content, standard_secrets()))


def walked(gateway: Gateway, answer: httpx.Response) -> list[tuple[str, str, str | None]]:
    return [
        (one["model"], one["why"], one["error_class"]) for one in gateway.event(answer)["attempts"]
    ]


def test_the_client_is_told_what_is_wrong_with_the_model_it_asked_for(gateway: Gateway) -> None:
    serve(gateway, {("overloaded", "general"): ["bad-credential", "too-long"]})
    answer = chat(gateway, "overloaded")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "overloaded"
    assert walked(gateway, answer) == [
        ("overloaded", "first", "overloaded"),
        ("bad-credential", "fallback", "authentication"),
        ("too-long", "fallback", "context_window"),
    ]
    assert gateway.event(answer)["error_class"] == "overloaded"


def test_a_fallback_may_need_the_chain_for_its_own_reason(gateway: Gateway) -> None:
    serve(
        gateway,
        {
            ("fails", "general"): ["too-long", "chat-anthropic"],
            ("fails", "context_window"): ["chat-gemini"],
        },
    )
    answer = chat(gateway, "fails")
    assert walked(gateway, answer) == [
        ("fails", "first", "server_error"),
        ("too-long", "fallback", "context_window"),
        ("chat-gemini", "context_window", None),
    ]


def test_chains_of_targets_are_not_followed(gateway: Gateway) -> None:
    serve(gateway, {("fails", "general"): ["limited"], ("limited", "general"): ["chat-openai"]})
    answer = chat(gateway, "fails")
    assert answer.status_code == 500
    assert [model for model, _, _ in walked(gateway, answer)] == ["fails", "limited"]


def test_each_model_of_a_chain_has_its_retries(gateway: Gateway) -> None:
    serve(gateway, {("fails", "general"): ["overloaded", "chat-openai"]}, num_retries=1)
    answer = chat(gateway, "fails")
    assert [(model, why) for model, why, _ in walked(gateway, answer)] == [
        ("fails", "first"),
        ("fails", "retry"),
        ("overloaded", "fallback"),
        ("overloaded", "retry"),
        ("chat-openai", "fallback"),
    ]


def test_a_key_passes_over_targets_it_may_not_use(gateway: Gateway) -> None:
    serve(gateway, {("fails", "general"): ["chat-anthropic", "chat-gemini"]})
    gateway.set_key("narrow", models=["fails", "chat-gemini"])
    answer = chat(gateway, "fails", "narrow")
    assert [model for model, _, _ in walked(gateway, answer)] == ["fails", "chat-gemini"]


def test_a_target_at_its_own_limit_is_passed_over(gateway: Gateway, both_lanes: str) -> None:
    rows = [deployment(f"one-a-minute-{both_lanes}", "scarce", "openai/gpt-4o", "openai", rpm=1)]
    serve(gateway, {("scarce", "general"): ["chat-gemini"]}, rows)
    served = [gateway.event(chat(gateway, "scarce"))["model"] for _ in range(3)]
    assert served == ["scarce", "chat-gemini", "chat-gemini"]


def test_where_every_target_is_at_its_limit_the_refusal_says_so(
    gateway: Gateway, both_lanes: str
) -> None:
    rows = [
        deployment(f"lone-1-{both_lanes}", "lone", "openai/gpt-4o", "openai", rpm=1),
        deployment(f"lone-2-{both_lanes}", "lone-too", "openai/gpt-4o", "openai", rpm=1),
    ]
    serve(gateway, {("lone", "general"): ["lone-too"]}, rows)
    assert [chat(gateway, "lone").status_code for _ in range(2)] == [200, 200]
    answer = chat(gateway, "lone")
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    event = gateway.event(answer)
    assert (event["status"], event["attempts"]) == ("refused", [])


def test_a_chain_for_a_reason_goes_on_in_order(gateway: Gateway) -> None:
    serve(gateway, {("filtered", "content_policy"): ["filtered-too", "chat-openai"]}, [
        deployment("filtered-too", "filtered-too", "openai/sim-content-policy", "openai"),
    ])  # fmt: skip
    answer = chat(gateway, "filtered")
    assert walked(gateway, answer) == [
        ("filtered", "first", "content_policy"),
        ("filtered-too", "content_policy", "content_policy"),
        ("chat-openai", "content_policy", None),
    ]


def test_each_attempt_says_what_it_cost(gateway: Gateway) -> None:
    serve(gateway, {("fails", "general"): ["chat-openai"]})
    event = gateway.event(chat(gateway, "fails"))
    assert [one.get("cost") for one in event["attempts"]] == ["0", event["cost"]]
