"""What clients see of breakers: quick refusals, other deployments, the way back."""

import uuid
from typing import Any

import httpx
import pytest

from proxy.contract import DeploymentDocument, RevisionDocument, UsageEventDocument
from proxy.defaults import BREAKER
from tests.proxy.conftest import Gateway, standard_document, standard_secrets
from tests.proxy.documents import deployment

pytestmark = pytest.mark.usefixtures("both_lanes")

HELLO: Any = [{"role": "user", "content": "Hello there my friend"}]
QUICK = {
    "enabled": True,
    "consecutive_failures": 2,
    "open_s": 60,
    "half_open_permits": 1,
    "close_after_successes": 1,
}


def chat(gateway: Gateway, **more: Any) -> httpx.Response:
    with gateway.client() as client:
        body = {"model": "pool", "messages": HELLO, **more}
        return client.post("/v1/chat/completions", json=body)


def new_row(model: str, **changes: Any) -> DeploymentDocument:
    """A deployment that no test had before: its breaker is closed."""
    return deployment(f"b-{uuid.uuid4().hex[:8]}", "pool", f"openai/{model}", "openai", **changes)


def serve(
    gateway: Gateway, rows: list[DeploymentDocument], *, chain: str | None = None, **rules: Any
) -> None:
    """The standard document with a model "pool" that the rows serve."""
    content: RevisionDocument = standard_document(
        gateway.simulator, breaker={**BREAKER, **QUICK, **rules}
    )
    content["deployments"] += rows
    content["models"].append({**content["models"][0], "name": "pool", "mode": "chat"})
    if chain is not None:
        content["chains"].append({"model": "pool", "kind": "general", "targets": [chain]})
    gateway.peer.wait_applied(gateway.peer.publish(content, standard_secrets()))


def attempts(gateway: Gateway, answer: httpx.Response) -> list[tuple[str | None, str]]:
    event: UsageEventDocument = gateway.event(answer)
    return [(one["deployment"], one["why"]) for one in event["attempts"]]


def asked(gateway: Gateway) -> int:
    """Requests that reached the providers so far."""
    return int(gateway.simulator.settled_ledger()["totals"]["requests"])


def states(gateway: Gateway, row: DeploymentDocument) -> list[str]:
    """Transitions that the control plane was told of."""
    found = {
        one["generation"]: one["state"]
        for report in gateway.peer.reports
        for one in report.get("breaker_transitions", [])
        if one["deployment"] == row["id"]
    }
    return [found[generation] for generation in sorted(found)]


def test_an_open_breaker_refuses_without_calling(gateway: Gateway) -> None:
    row = new_row("sim-server-error")
    serve(gateway, [row])
    assert [chat(gateway).status_code for _ in range(2)] == [500, 500]
    answer = chat(gateway)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "circuit_open"
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    event = gateway.event(answer)
    assert (event["status"], event["error_class"]) == ("refused", "circuit_open")
    assert event["attempts"] == []
    assert asked(gateway) == 2
    gateway.peer.wait_for("the report", lambda: states(gateway, row) == ["open"])


def test_an_open_breaker_is_passed_over(gateway: Gateway) -> None:
    bad, good = new_row("sim-overload", weight=1000), new_row("gpt-4o", weight=0)
    serve(gateway, [bad], chain="chat-gemini")
    for _ in range(2):
        assert gateway.event(chat(gateway))["model"] == "chat-gemini"
    assert attempts(gateway, chat(gateway)) == [("dep-gemini", "fallback")]
    serve(gateway, [bad, good], chain="chat-gemini")
    assert attempts(gateway, chat(gateway)) == [(good["id"], "first")]


def test_the_way_back_leads_through_a_trial_call(gateway: Gateway) -> None:
    row = new_row("gpt-4o")
    serve(gateway, [row], open_s=1)
    gateway.simulator.control(kind="openai", faults=[{"type": "server_error", "first": 2}])
    assert [chat(gateway).status_code for _ in range(2)] == [500, 500]
    assert chat(gateway).status_code == 503
    gateway.peer.wait_for("a trial call", lambda: chat(gateway).status_code == 200)
    gateway.peer.wait_for(
        "the reports", lambda: states(gateway, row) == ["open", "half_open", "closed"]
    )


@pytest.mark.parametrize(
    "fault", ["auth", "quota", "bad_request", "context_window", "content_policy", "rate_limit"]
)
def test_what_is_not_the_deployments_fault_does_not_open_it(gateway: Gateway, fault: str) -> None:
    serve(gateway, [new_row("gpt-4o")])
    gateway.simulator.control(kind="openai", faults=[{"type": fault, "first": 4}])
    for _ in range(4):
        assert chat(gateway).status_code in (400, 429, 502)
    assert chat(gateway).status_code == 200


def test_a_rate_limit_pauses_it_until_the_reset(gateway: Gateway) -> None:
    row = new_row("gpt-4o")
    serve(gateway, [row])
    fault = {"type": "rate_limit", "retry_after_s": 20, "first": 1}
    gateway.simulator.control(kind="openai", faults=[fault])
    assert chat(gateway).status_code == 429
    gateway.simulator.settled_ledger()
    answer = chat(gateway)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 15 <= int(answer.headers["retry-after"]) <= 20
    assert gateway.event(answer)["attempts"] == []
    assert states(gateway, row) == []


def test_errors_inside_a_stream_count(gateway: Gateway) -> None:
    row = new_row("gpt-4o")
    serve(gateway, [row])
    fault = {"type": "stream_error", "after_chunks": 3}
    gateway.simulator.control(kind="openai", faults=[fault], token_interval_ms=5)
    for _ in range(2):
        assert chat(gateway, stream=True).status_code == 200
    gateway.peer.wait_for("the report", lambda: states(gateway, row) == ["open"])


def test_slow_calls_count_when_they_shall(gateway: Gateway) -> None:
    row = new_row("gpt-4o")
    serve(gateway, [row], slow_call_s=0.2)
    gateway.simulator.control(kind="openai", latency_ms=400)
    assert [chat(gateway).status_code for _ in range(2)] == [200, 200]
    gateway.peer.wait_for("the report", lambda: states(gateway, row) == ["open"])


def test_all_open_may_be_tried_all_the_same(gateway: Gateway) -> None:
    first, second = new_row("sim-server-error"), new_row("gpt-4o")
    serve(gateway, [first], all_open="try")
    for _ in range(2):
        assert chat(gateway).status_code == 500
    gateway.peer.wait_for("the report", lambda: states(gateway, first) == ["open"])
    serve(gateway, [second], all_open="try")
    gateway.simulator.control(kind="openai", faults=[{"type": "overload", "first": 2}])
    for _ in range(2):
        assert chat(gateway).status_code == 503
    gateway.peer.wait_for("the report", lambda: states(gateway, second) == ["open"])
    serve(gateway, [first, second], all_open="try")
    answer = chat(gateway)  # both are open: the one that was opened first
    assert answer.status_code == 500
    assert attempts(gateway, answer) == [(first["id"], "first")]


def test_a_client_that_leaves_says_nothing_of_the_deployment(gateway: Gateway) -> None:
    row = new_row("gpt-4o")
    serve(gateway, [row])
    gateway.simulator.control(kind="openai", token_interval_ms=500, output_tokens=60)
    for _ in range(3):
        with (
            gateway.client() as client,
            client.stream(
                "POST",
                "/v1/chat/completions",
                json={"model": "pool", "messages": HELLO, "stream": True},
            ) as answer,
        ):
            next(answer.iter_lines())
    events = gateway.new_events(3)
    assert {event["error_class"] for event in events} == {"client_abort"}
    gateway.simulator.reset()
    assert chat(gateway).status_code == 200


def test_orders_of_people_are_followed(gateway: Gateway) -> None:
    row = new_row("gpt-4o")
    serve(gateway, [row])
    peer = gateway.peer
    peer.breaker_orders = [{"id": 1, "deployment": row["id"], "action": "open"}]
    peer.wait_policies(peer.touch())
    gateway.peer.wait_for("the order", lambda: chat(gateway).status_code == 503)
    peer.breaker_orders = [{"id": 2, "deployment": row["id"], "action": "reset"}]
    peer.wait_policies(peer.touch())
    gateway.peer.wait_for("the order", lambda: chat(gateway).status_code == 200)
    gateway.peer.wait_for("the reports", lambda: states(gateway, row) == ["open", "closed"])
