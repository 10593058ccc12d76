"""/metrics and the health routes."""

from typing import Any

import httpx

from tests.proxy.conftest import Gateway

HELLO: Any = [{"role": "user", "content": "Hello there my friend"}]


def metric(gateway: Gateway, name: str, **labels: str) -> float:
    wanted = name + ("{" if labels else " ")
    for line in httpx.get(f"{gateway.url}/metrics").text.splitlines():
        if line.startswith(wanted) and all(f'{k}="{v}"' in line for k, v in labels.items()):
            return float(line.rpartition(" ")[2])
    return 0.0


def test_requests_tokens_and_spend(gateway: Gateway) -> None:
    names = {
        "requests": ("litellm_proxy_total_requests_metric_total", {"status": "ok"}),
        "tokens": ("litellm_output_tokens_metric_total", {}),
        "spend": ("litellm_spend_metric_total", {}),
    }

    def read() -> dict[str, float]:
        return {
            k: metric(gateway, n, model="chat-gemini", **labels) for k, (n, labels) in names.items()
        }

    before = read()
    with gateway.client() as client:
        answer = client.post(
            "/v1/chat/completions", json={"model": "chat-gemini", "messages": HELLO}
        )
    event = gateway.event(answer)
    after = read()
    assert after["requests"] == before["requests"] + 1
    assert after["tokens"] == before["tokens"] + event["output_tokens"]
    assert abs(after["spend"] - before["spend"] - float(event["cost"] or "nan")) < 1e-9


def test_fallbacks_and_failures_by_deployment(gateway: Gateway) -> None:
    before = metric(gateway, "litellm_deployment_failure_responses_total", deployment="bad-fails")
    with gateway.client() as client:
        client.post("/v1/chat/completions", json={"model": "fails", "messages": HELLO})
    after = metric(gateway, "litellm_deployment_failure_responses_total", deployment="bad-fails")
    assert after == before + 1
    assert metric(gateway, "litellm_deployment_successful_fallbacks_total", model="chat-openai")


def test_state_of_the_replica(gateway: Gateway) -> None:
    assert metric(gateway, "gateway_proxy_applied_revision") > 0
    assert metric(gateway, "gateway_proxy_policy_version") > 0
    text = httpx.get(f"{gateway.url}/metrics").text
    for name in (
        "gateway_proxy_spool_events",
        "gateway_proxy_spool_age_seconds",
        "gateway_proxy_snapshot_age_seconds",
        "litellm_in_flight_requests",
        "litellm_request_total_latency_metric_bucket",
    ):
        assert name in text


def test_no_label_names_a_key_or_an_unknown_model(gateway: Gateway) -> None:
    with gateway.client() as client:
        client.post("/v1/chat/completions", json={"model": "made-up-by-a-client", "messages": []})
    text = httpx.get(f"{gateway.url}/metrics").text
    assert "made-up-by-a-client" not in text
    assert "alpha" not in text


def test_health_and_ready(gateway: Gateway) -> None:
    for path in ("/health/liveliness", "/health/liveness", "/ready", "/health/readiness"):
        assert httpx.get(gateway.url + path).status_code == 200
    document = httpx.get(f"{gateway.url}/health").json()
    assert document["status"] == "healthy", document
    assert document["revision"] == max(gateway.peer.revisions)
    assert httpx.post(f"{gateway.url}/health").status_code == 405
