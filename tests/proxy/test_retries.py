"""Which failures are retried, where, after how long, and which are not."""

import random
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from gateway_admin.demo.simulator.connections import connection_params
from proxy.contract import DeploymentDocument, RevisionDocument, UsageEventDocument
from proxy.reset import reset_s
from proxy.retry import backoff_s, wait_s
from tests.proxy.conftest import (
    CANARY,
    CHAT,
    Gateway,
    secret_of,
    standard_document,
    standard_secrets,
)
from tests.proxy.documents import credential, deployment

pytestmark = pytest.mark.usefixtures("both_lanes")

HELLO: Any = [{"role": "user", "content": "Hello there my friend"}]
NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


def chat(gateway: Gateway, model: str = "pool", **more: Any) -> httpx.Response:
    with gateway.client() as client:
        return client.post("/v1/chat/completions", json={"model": model, "messages": HELLO, **more})


def pool_document(
    gateway: Gateway, rows: list[DeploymentDocument], **environment: Any
) -> RevisionDocument:
    """The standard document with a model "pool" that the rows serve; falls back to Gemini."""
    content = standard_document(gateway.simulator, **environment)
    params = connection_params("openai", gateway.simulator.base_url)
    content["credentials"].append(credential("second", secret_of("openai"), **params))
    content["deployments"] += rows
    content["models"].append({**content["models"][0], "name": "pool", "mode": "chat"})
    content["chains"].append({"model": "pool", "kind": "general", "targets": ["chat-gemini"]})
    return content


def serve(gateway: Gateway, content: RevisionDocument) -> None:
    secrets = standard_secrets() | {"second": {"api_key": CANARY}}
    gateway.peer.wait_applied(gateway.peer.publish(content, secrets))


def row(id: str, model: str, credential_id: str = "openai", **changes: Any) -> DeploymentDocument:
    """A deployment of "pool" on the OpenAI simulator; `sim-<fault>` models always fail."""
    return deployment(id, "pool", f"openai/{model}", credential_id, **changes)


def path_of(event: UsageEventDocument) -> list[tuple[str | None, str, str | None]]:
    return [(one["deployment"], one["why"], one["error_class"]) for one in event["attempts"]]


def gap_s(event: UsageEventDocument) -> float:
    """Seconds between the beginnings of the first two attempts."""
    first, second = (datetime.fromisoformat(one["started_at"]) for one in event["attempts"][:2])
    return (second - first).total_seconds()


# --- waits ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sat, 21 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "99999999"}, 3600.0),
        ({"retry-after": "soon"}, None),
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-remaining-requests": "0"}, 360.0),
        ({"x-ratelimit-reset-requests": "20ms", "x-ratelimit-remaining-requests": "0"}, 0.02),
        ({"x-ratelimit-reset-tokens": "5s", "x-ratelimit-remaining-tokens": "120"}, None),
        (
            {
                "anthropic-ratelimit-tokens-reset": "2026-11-21T12:00:12Z",
                "anthropic-ratelimit-tokens-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2026-11-21T12:00:50Z",
                "anthropic-ratelimit-requests-remaining": "3",
            },
            12.0,
        ),
        ({"x-ratelimit-reset": str(NOW.timestamp() + 4), "x-ratelimit-remaining": "0"}, 4.0),
        ({"content-type": "application/json"}, None),
    ],
)
def test_when_a_provider_wants_to_be_called_again(
    headers: dict[str, str], expected: float | None
) -> None:
    assert reset_s(headers.items(), NOW) == (None if expected is None else pytest.approx(expected))


def test_back_off_doubles_with_full_jitter() -> None:
    assert [backoff_s(0.5, n, lambda: 1.0) for n in range(6)] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    draw = random.Random(1).random
    waits = [backoff_s(1.0, 2, draw) for _ in range(1000)]
    assert 0 <= min(waits) < 0.1
    assert 3.9 < max(waits) <= 4.0


def test_a_wait_is_never_shorter_than_asked_and_never_longer_than_sensible() -> None:
    assert wait_s(0.5, 0, None, lambda: 0.5) == 0.25
    assert wait_s(0.5, 0, 7.0, lambda: 0.5) == 7.25
    assert wait_s(0.5, 0, 11.0, lambda: 0.5) is None


def test_retry_after_is_honoured(gateway: Gateway) -> None:
    serve(gateway, pool_document(gateway, [row("p1", "gpt-4o")], num_retries=1))
    fault = {"type": "rate_limit", "retry_after_s": 1, "first": 1}
    gateway.simulator.control(kind="openai", faults=[fault])
    event = gateway.event(chat(gateway))
    assert path_of(event) == [("p1", "first", "rate_limit"), ("p1", "retry", None)]
    assert gap_s(event) >= 1.0


def test_reset_headers_are_honoured(gateway: Gateway) -> None:
    serve(gateway, pool_document(gateway, [row("p1", "gpt-4o")], num_retries=1))
    fault = {"type": "rate_limit", "headers": {"x-ratelimit-reset-requests": "1s"}, "first": 1}
    gateway.simulator.control(kind="openai", faults=[fault])
    event = gateway.event(chat(gateway))
    assert path_of(event) == [("p1", "first", "rate_limit"), ("p1", "retry", None)]
    assert gap_s(event) >= 1.0


def test_who_asks_for_too_long_a_wait_is_left_alone(gateway: Gateway) -> None:
    serve(gateway, pool_document(gateway, [row("p1", "gpt-4o")], num_retries=3))
    fault = {"type": "rate_limit", "retry_after_s": 60}
    gateway.simulator.control(kind="openai", faults=[fault])
    event = gateway.event(chat(gateway))
    assert path_of(event) == [("p1", "first", "rate_limit"), ("dep-gemini", "fallback", None)]


# --- what is retried -----------------------------------------------------------------------


def test_another_deployment_comes_before_the_same_again(gateway: Gateway) -> None:
    rows = [row("p1", "sim-server-error"), row("p2", "sim-overload"), row("p3", "gpt-4o", weight=0)]
    serve(gateway, pool_document(gateway, rows, num_retries=2, retry_backoff_s=5.0))
    event = gateway.event(chat(gateway))
    assert {one["deployment"] for one in event["attempts"]} == {"p1", "p2", "p3"}
    assert event["deployment"] == "p3"
    assert event["latency_ms"] < 5000  # nobody waited: each attempt was on a fresh deployment


@pytest.mark.parametrize(
    ("model", "error_class", "status"),
    [
        ("sim-auth", "authentication", 502),
        ("sim-permission", "authentication", 502),
        ("sim-quota", "quota", 429),
        ("sim-context-window", "context_window", 400),
        ("sim-content-policy", "content_policy", 400),
        ("sim-bad-request", "invalid_request", 400),
        ("sim-not-found", "not_found", 404),
    ],
)
def test_what_cannot_succeed_is_not_retried(
    gateway: Gateway, model: str, error_class: str, status: int
) -> None:
    content = pool_document(gateway, [row("p1", model)], num_retries=3)
    content["chains"] = []
    serve(gateway, content)
    answer = chat(gateway)
    assert answer.status_code == status
    assert path_of(gateway.event(answer)) == [("p1", "first", error_class)]


@pytest.mark.parametrize("model", ["sim-context-window", "sim-content-policy", "sim-bad-request"])
def test_what_is_wrong_with_the_request_does_not_use_the_general_chain(
    gateway: Gateway, model: str
) -> None:
    serve(gateway, pool_document(gateway, [row("p1", model)], num_retries=3))
    answer = chat(gateway)
    assert answer.status_code == 400
    assert len(gateway.event(answer)["attempts"]) == 1


@pytest.mark.parametrize("model", ["sim-auth", "sim-quota"])
def test_a_refused_account_leads_to_another_credential(gateway: Gateway, model: str) -> None:
    rows = [row("p1", model), row("p2", model), row("p3", "gpt-4o", "second", weight=0)]
    serve(gateway, pool_document(gateway, rows))
    event = gateway.event(chat(gateway))
    assert len(event["attempts"]) == 2  # not the other deployment of the same account
    assert event["deployment"] == "p3"


@pytest.mark.parametrize("model", ["sim-auth", "sim-quota", "sim-not-found"])
def test_a_refused_account_leads_to_the_chain(gateway: Gateway, model: str) -> None:
    serve(gateway, pool_document(gateway, [row("p1", model)], num_retries=3))
    event = gateway.event(chat(gateway))
    assert [one["why"] for one in event["attempts"]] == ["first", "fallback"]
    assert event["model"] == "chat-gemini"


# --- time-outs -----------------------------------------------------------------------------


def test_all_attempts_together_have_a_time_out(gateway: Gateway) -> None:
    content = pool_document(
        gateway, [row("p1", "gpt-4o")], num_retries=50, timeout_s=0.4, total_timeout_s=1.5
    )
    content["chains"] = []
    serve(gateway, content)
    gateway.simulator.control(kind="openai", faults=[{"type": "timeout", "hang_s": 20}])
    answer = chat(gateway)
    assert answer.status_code == 408
    event = gateway.event(answer)
    assert event["error_class"] == "timeout"
    assert 2 <= len(event["attempts"]) <= 4
    assert 1000 < event["latency_ms"] < 10_000


def test_time_out_of_a_deployment_wins(gateway: Gateway) -> None:
    serve(gateway, pool_document(gateway, [row("p1", "gpt-4o", timeout_s=0.3)]))
    gateway.simulator.control(kind="openai", faults=[{"type": "timeout", "hang_s": 20}])
    event = gateway.event(chat(gateway))
    assert path_of(event) == [("p1", "first", "timeout"), ("dep-gemini", "fallback", None)]
    assert 250 < event["attempts"][0]["latency_ms"] < 10_000
    assert gateway.simulator.settled_ledger()["totals"]["aborted"] == 1  # told to stop


# --- streams -------------------------------------------------------------------------------


def test_a_stream_without_a_first_byte_falls_back(gateway: Gateway) -> None:
    serve(gateway, pool_document(gateway, [row("p1", "gpt-4o", stream_timeout_s=0.4)]))
    gateway.simulator.control(kind="openai", faults=[{"type": "timeout", "hang_s": 20}])
    answer = chat(gateway, stream=True)
    event = gateway.event(answer)
    assert path_of(event) == [("p1", "first", "timeout"), ("dep-gemini", "fallback", None)]
    assert "[DONE]" in answer.text


@pytest.mark.parametrize("fault", ["stream_error", "cut_stream", "disconnect"])
@pytest.mark.parametrize("kind", ["openai", "anthropic", "gemini"])
def test_a_stream_that_breaks_before_its_first_content_falls_back(
    gateway: Gateway, fault: str, kind: str
) -> None:
    rows = [deployment("p1", "pool", CHAT[kind], kind)]
    content = pool_document(gateway, rows)
    content["chains"][-1]["targets"] = ["chat-azure"]
    serve(gateway, content)
    gateway.simulator.control(kind=kind, faults=[{"type": fault, "after_chunks": 0}])
    answer = chat(gateway, stream=True)
    event = gateway.event(answer)
    assert event["model"] == "chat-azure", path_of(event)
    assert "[DONE]" in answer.text
    assert event["attempts"][0]["error_class"] is not None


def test_a_stream_never_changes_its_deployment_after_its_first_content(gateway: Gateway) -> None:
    serve(gateway, pool_document(gateway, [row("p1", "gpt-4o")], num_retries=3))
    fault = {"type": "stream_error", "after_chunks": 2}
    gateway.simulator.control(kind="openai", faults=[fault], token_interval_ms=20)
    answer = chat(gateway, stream=True)
    event = gateway.event(answer)
    assert len(event["attempts"]) == 1
    assert (event["status"], event["http_status"]) == ("error", 200)
    assert "error" in answer.text


def test_a_conversation_stays_with_the_deployment_that_keeps_it(gateway: Gateway) -> None:
    rows = [row("p1", "gpt-4o"), row("p2", "gpt-4o")]
    serve(gateway, pool_document(gateway, rows))
    with gateway.client() as client:
        first = client.post("/v1/responses", json={"model": "pool", "input": "hello"})
        keeper = gateway.event(first)["deployment"]
        body = {"model": "pool", "input": "more", "previous_response_id": first.json()["id"]}
        events = [gateway.event(client.post("/v1/responses", json=body)) for _ in range(6)]
    assert {event["deployment"] for event in events} == {keeper}


def test_a_response_of_somebody_else_is_no_trouble_of_ours(gateway: Gateway) -> None:
    body = {"model": "chat-openai", "input": "more", "previous_response_id": "resp_made_up"}
    with gateway.client() as client:
        answer = client.post("/v1/responses", json=body)
    assert answer.status_code == 400
    assert gateway.event(answer)["error_class"] == "invalid_request"
