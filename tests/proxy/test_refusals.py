"""What the edge turns away: typed, in the client's shape, without waking LiteLLM."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.proxy.conftest import Gateway
from tests.proxy.documents import new_key

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hi"}]


def post(gateway: Gateway, public_id: str = "alpha", /, **body: Any) -> httpx.Response:
    with gateway.client(public_id) as client:
        return client.post(CHAT, json={"model": "chat-openai", "messages": HELLO} | body)


def test_missing_key(gateway: Gateway) -> None:
    answer = httpx.post(gateway.url + CHAT, json={})
    assert answer.status_code == 401
    error = answer.json()["error"]
    assert (error["code"], error["type"]) == ("invalid_api_key", "authentication_error")
    assert "sk-gw-" in error["message"]


@pytest.mark.parametrize(
    "key",
    [
        "sk-gw-alpha-wrong",
        "sk-gw-nobody-x",
        "sk-gw-",
        "sk-gw-alpha",
        "sk-1234",
        "x" * 5000,
        new_key("alpha")[:-1],
        new_key("alpha") + "x",
        "sk-gw-älpha-x",
    ],
)
def test_unknown_key(gateway: Gateway, key: str) -> None:
    headers = {"authorization": f"Bearer {key}".encode()}
    answer = httpx.post(gateway.url + CHAT, json={}, headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert key not in answer.text
    assert "x-gateway-request-id" not in answer.headers


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key", "x-goog-api-key"])
def test_key_in_the_header_of_each_library(gateway: Gateway, header: str) -> None:
    value = new_key("alpha")
    headers = {header: f"Bearer {value}" if header == "authorization" else value}
    assert httpx.get(gateway.url + "/v1/models", headers=headers).status_code == 200


def test_blocked_key_says_why(gateway: Gateway) -> None:
    gateway.set_key("blocked", state="blocked", reason="left the team")
    answer = post(gateway, "blocked")
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "key_blocked"
    assert "left the team" in answer.json()["error"]["message"]
    event = gateway.event(answer)
    assert (event["status"], event["cost"], event["public_id"]) == ("refused", "0", "blocked")


def test_expired_key(gateway: Gateway) -> None:
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    gateway.set_key("expired", expires_at=past)
    assert post(gateway, "expired").json()["error"]["code"] == "key_expired"


def test_key_that_has_not_expired_yet(gateway: Gateway) -> None:
    gateway.set_key("fresh", expires_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    assert post(gateway, "fresh").status_code == 200


def test_unknown_model_lists_what_the_key_may_use(gateway: Gateway) -> None:
    gateway.set_key("narrow", models=["chat-openai", "chat-gemini"])
    answer = post(gateway, "narrow", model="gpt-9")
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert "chat-gemini, chat-openai, default" in error["message"]
    event = gateway.event(answer)
    assert (event["status"], event["requested_model"], event["http_status"]) == (
        "refused", "gpt-9", 404,
    )  # fmt: skip


def test_model_that_is_not_allowed(gateway: Gateway) -> None:
    gateway.set_key("narrow", models=["chat-gemini"])
    answer = post(gateway, "narrow", model="chat-openai")
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "model_not_allowed"
    assert gateway.event(answer)["error_class"] == "permission"


@pytest.mark.parametrize("allowed", ["default", "chat-openai"])
@pytest.mark.parametrize("named", ["default", "chat-openai"])
def test_alias_or_model_in_the_list_suffices(gateway: Gateway, allowed: str, named: str) -> None:
    gateway.set_key("narrow", models=[allowed])
    assert post(gateway, "narrow", model=named).status_code == 200


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"{", "invalid_json"),
        (b"", "invalid_json"),
        (b"[1]", "invalid_json"),
        (b'"x"', "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b'{"model": 7}', "invalid_body"),
        (b'{"model": ["chat-openai"]}', "invalid_body"),
        (b'{"model":"a,b"}', "model_not_found"),
        (b'{"model":"https://example.com/x"}', "model_not_found"),
    ],
)
def test_bad_body(gateway: Gateway, content: bytes, code: str) -> None:
    with gateway.client() as client:
        answer = client.post(CHAT, content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 404)
    error = answer.json()["error"]
    expected = "invalid_body" if code == "invalid_body" else code
    assert error["code"] == expected
    assert gateway.event(answer)["status"] == "refused"


def test_body_over_the_limit_is_refused_before_it_is_read(gateway: Gateway) -> None:
    big = b'{"model":"chat-openai","x":"' + b"x" * (21 * 1024 * 1024) + b'"}'
    with gateway.client() as client:
        answer = client.post(CHAT, content=big)
    assert answer.status_code == 413
    assert "GATEWAY_MAX_BODY_BYTES" in answer.json()["error"]["message"]


def test_chunked_body_over_the_limit(gateway: Gateway) -> None:
    def chunks() -> Any:
        for _ in range(22):
            yield b"x" * 1024 * 1024

    with gateway.client() as client:
        answer = client.post(CHAT, content=chunks())
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "field",
    [
        "api_base", "base_url", "api_key", "fallbacks", "context_window_fallbacks", "mock_response",
        "mock_tool_calls", "extra_headers", "extra_body", "headers", "user_config", "model_list",
        "custom_llm_provider", "aws_access_key_id", "aws_role_name", "azure_ad_token",
        "vertex_credentials", "litellm_metadata", "litellm_params", "litellm_credential_name",
        "_target_order", "specific_deployment", "organization", "s3_endpoint_url", "rust",
        "user_api_key_auth_metadata", "langfuse_host", "callbacks", "success_callback",
    ],
)  # fmt: skip
def test_fields_that_steer_the_gateway_are_refused(gateway: Gateway, field: str) -> None:
    answer = post(gateway, **{field: {"x": "http://evil.example"}})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field
    assert gateway.simulator.ledger()["rows"] == []


@pytest.mark.parametrize(
    "field",
    [
        "timeout",
        "request_timeout",
        "num_retries",
        "cache",
        "tags",
        "guardrails",
        "input_cost_per_token",
    ],
)
def test_fields_that_tune_the_gateway_are_left_out(gateway: Gateway, field: str) -> None:
    answer = post(gateway, **{field: 0.00001})
    assert answer.status_code == 200
    assert gateway.event(answer)["cost"] != "0"


def test_tools_of_the_gateways_own_mcp_server(gateway: Gateway) -> None:
    tool = {"type": "mcp", "server_url": "litellm_proxy/mcp/x", "server_label": "x"}
    assert post(gateway, tools=[tool]).status_code == 400


def test_headers_and_query_steer_nothing(gateway: Gateway) -> None:
    with gateway.client() as client:
        answer = client.post(
            CHAT + "?api_base=http://evil.example&model=chat-gemini",
            json={"model": "chat-openai", "messages": HELLO},
            headers={
                "x-litellm-timeout": "0.0001",
                "x-litellm-num-retries": "50",
                "x-litellm-api-key": "sk-other",
                "x-litellm-tags": "a,b",
                "x-litellm-call-id": "forged",
            },
        )
    assert answer.status_code == 200
    assert gateway.event(answer)["model"] == "chat-openai"
    assert not [name for name in answer.headers if name.startswith(("x-litellm", "llm_provider"))]


def test_errors_in_anthropics_shape(gateway: Gateway) -> None:
    with gateway.client() as client:
        answer = client.post("/v1/messages", json={"model": "nope", "messages": HELLO})
    assert answer.status_code == 404
    assert answer.json()["type"] == "error"
    assert answer.json()["error"]["type"] == "not_found_error"


def test_unknown_keys_are_counted_not_recorded(gateway: Gateway) -> None:
    before = _refusals(gateway, "unknown_key")
    httpx.post(gateway.url + CHAT, json={}, headers={"authorization": "Bearer sk-gw-no-body"})
    assert _refusals(gateway, "unknown_key") == before + 1
    assert gateway.peer.events == {}


def _refusals(gateway: Gateway, reason: str) -> float:
    text = httpx.get(gateway.url + "/metrics").text
    wanted = f'gateway_proxy_refusals_total{{reason="{reason}"}}'
    lines = [line for line in text.splitlines() if line.startswith(wanted)]
    return float(lines[0].split()[-1]) if lines else 0.0


def test_refusals_never_wake_litellm(gateway: Gateway) -> None:
    """How long they take is measured by tests/bench/edge.py."""
    before = _attempts(gateway)
    for body in ({"model": "no-such-model"}, {"messages": "hi"}, {"api_base": "http://x.example"}):
        answer = post(gateway, **body)
        assert answer.status_code in (400, 404)
        assert gateway.event(answer)["attempts"] == []
    assert _attempts(gateway) == before
    assert gateway.simulator.ledger()["rows"] == []


def _attempts(gateway: Gateway) -> float:
    lines = httpx.get(gateway.url + "/metrics").text.splitlines()
    found = [line for line in lines if line.startswith("litellm_deployment_")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in found)
