"""Endpoints and bodies of the direct lane, without LiteLLM: the pure part."""

import dataclasses
import time
from decimal import Decimal
from typing import Any

import pytest

from proxy.direct_chat import ChatRules
from proxy.direct_request import Endpoint, endpoint_of, wire_body
from proxy.direct_rules import LiteLlmFacts, ParamRules
from proxy.snapshot import Deployment

SECRET = "sk-canary-0123456789"
KEPT = frozenset(
    {"messages", "model", "stream", "stream_options", "temperature", "tools", "tool_choice", "stop"}
)
RULES = ParamRules(
    kept=KEPT,
    dropped=frozenset({"metadata"}),
    renamed={"max_tokens": "max_completion_tokens"},
    ones=frozenset({"top_p"}),
    choices={"reasoning_effort": (frozenset({"low"}), frozenset({"none"}))},
    known=frozenset({"thinking", "max_completion_tokens"}),
)
HELLO: list[Any] = [{"role": "user", "content": "Hello"}]


@pytest.fixture(autouse=True)
def plain_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def deployment(**params: Any) -> Deployment:
    found = {"api_key": SECRET, "model": "openai/gpt-4o", "timeout": 5, "max_retries": 0}
    return Deployment(
        **{field.name: "x" for field in dataclasses.fields(Deployment)}  # type: ignore[arg-type]
        | {"params": found | params, "secrets": (SECRET,), "price": Decimal(0)}
    )


def facts(provider: str = "openai", **changes: Any) -> LiteLlmFacts:
    rules = {"chat": RULES, "completion": RULES, "embedding": RULES, "responses": RULES}
    return LiteLlmFacts(provider, "gpt-4o", **{"params": rules} | changes)


def endpoint(provider: str = "openai", **params: Any) -> Endpoint:
    found = endpoint_of(deployment(**params), facts(provider))
    assert isinstance(found, Endpoint), found
    return found


def head(found: Endpoint, kind: Any = "chat") -> list[str]:
    return found.heads[kind].decode().split("\r\n")


def test_openai_is_called_at_its_own_address() -> None:
    found = endpoint()
    assert found.origin == ("https", "api.openai.com", 443)
    lines = head(found)
    assert lines[0] == "POST /v1/chat/completions HTTP/1.1"
    assert "host: api.openai.com" in lines
    assert f"authorization: Bearer {SECRET}" in lines
    assert lines[-1] == "content-length: "


@pytest.mark.parametrize(
    ("base", "origin", "path"),
    [
        ("http://vllm:8000/v1", ("http", "vllm", 8000), "/v1/chat/completions"),
        ("http://VLLM/", ("http", "vllm", 80), "/chat/completions"),
        ("https://x.example:8443/a/b/", ("https", "x.example", 8443), "/a/b/chat/completions"),
        ("http://[::1]:9/v1", ("http", "::1", 9), "/v1/chat/completions"),
    ],
)
def test_addresses(base: str, origin: tuple[str, str, int], path: str) -> None:
    found = endpoint(api_base=base)
    assert found.origin == origin
    assert head(found)[0] == f"POST {path} HTTP/1.1"


def test_azure_is_called_by_deployment() -> None:
    found = endpoint("azure", api_base="https://r.openai.azure.com", api_version="2024-10-21")
    lines = head(found)
    assert lines[0].startswith("POST /openai/deployments/gpt-4o/chat/completions?api-version=2024-")
    assert f"api-key: {SECRET}" in lines
    assert not any(line.startswith("authorization") for line in lines)
    assert head(found, "responses")[0].startswith("POST /openai/responses?api-version=2024-10-21 ")
    assert "completion" not in found.heads


@pytest.mark.parametrize(
    ("provider", "params", "reason"),
    [
        ("mistral", {}, "provider"),
        ("openai", {"seed": 1}, "params:seed"),
        ("openai", {"extra_headers": {"a": "b"}}, "params:extra_headers"),
        ("openai", {"api_version": "2024-10-21"}, "params:api_version"),
        ("openai", {"api_key": None}, "params:api_key"),
        ("openai", {"api_key": "sk-a\r\nx: y"}, "params:api_key"),
        ("openai", {"api_base": "ftp://x"}, "params:api_base"),
        ("openai", {"api_base": "http://x/v1?a=b"}, "params:api_base"),
        ("openai", {"api_base": "http://x/\r\nv1"}, "params:api_base"),
        ("openai", {"organization": "org\r\nx: y"}, "params:organization"),
        ("azure", {"api_base": "https://x"}, "params:api_version"),
        ("azure", {"api_base": "https://x", "api_version": "soon"}, "params:api_version"),
        ("azure", {"api_base": "https://x/openai", "api_version": "v1"}, "params:api_base"),
        ("azure", {"api_version": "v1"}, "params:api_base"),
    ],
)
def test_what_only_litellm_can_call(provider: str, params: dict[str, Any], reason: str) -> None:
    assert endpoint_of(deployment(**params), facts(provider)) == reason


def test_the_environment_can_keep_a_deployment_with_litellm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = facts(environment="OPENAI_ORG_ID")
    assert endpoint_of(deployment(), found) == "environment:OPENAI_ORG_ID"
    assert endpoint_of(deployment(), "provider") == "provider"
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    assert endpoint_of(deployment(), facts()) == "network"
    assert isinstance(endpoint_of(deployment(api_base="http://x"), facts()), Endpoint)
    monkeypatch.setenv("NO_PROXY", "api.openai.com")
    assert isinstance(endpoint_of(deployment(), facts()), Endpoint)
    monkeypatch.setenv("SSL_VERIFY", "False")
    assert endpoint_of(deployment(), facts()) == "network"


def test_secrets_are_not_printed() -> None:
    found = endpoint()
    assert SECRET not in repr(found)
    assert SECRET not in str(found)


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        ({"metadata": {"a": "b"}}, {}),
        ({"temperature": None}, {}),
        ({"max_tokens": 5}, {"max_completion_tokens": 5}),
        ({"top_p": 1}, {"top_p": 1}),
        ({"top_p": 0.5}, {}),
        ({"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
        ({"reasoning_effort": "none"}, {}),
        ({"top_k": 5}, {"top_k": 5}),
        ({"stop": list("abcdef")}, {"stop": list("abcd")}),
        ({"tool_choice": "auto"}, {}),
    ],
)
def test_parameters(body: dict[str, Any], sent: dict[str, Any]) -> None:
    messages = {"messages": HELLO, "model": "m"}
    assert wire_body(endpoint(), "chat", {**messages, **body}) == {**messages, **sent}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"reasoning_effort": {"effort": "low"}}, "reasoning_effort"),
        ({"reasoning_effort": "xhigh"}, "reasoning_effort"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens"),
        ({"top_p": "1"}, "top_p"),
        ({"thinking": {}}, "thinking"),
        ({"stream": 1}, "stream"),
        ({"stream": True}, "stream_options"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tools": [{"type": "function", "function": {"parameters": 1}}]}, "tools"),
        ({"tools": [1], "tool_choice": "auto"}, "tools"),
        ({"messages": [{"content": "x"}]}, "messages"),
        ({"messages": [{"role": ["x"], "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": ["x"]}]}]}, "messages"),
    ],
)
def test_what_only_litellm_can_write(body: dict[str, Any], reason: str) -> None:
    assert wire_body(endpoint(), "chat", {"messages": HELLO, **body}) == f"parameter:{reason}"


def test_nothing_of_the_clients_body_is_changed_in_place() -> None:
    messages = [{"role": "developer", "content": None}, {"role": "user", "content": "x"}]
    body = {"messages": messages, "max_tokens": 5, "stop": list("abcdef")}
    rules = facts(chat=ChatRules(developer_as_system=True, cache_control=True))
    found = endpoint_of(deployment(), rules)
    assert isinstance(found, Endpoint)
    sent = wire_body(found, "chat", body)
    assert isinstance(sent, dict)
    assert sent["messages"][0] == {"role": "system"}
    assert messages[0] == {"role": "developer", "content": None}
    assert body == {"messages": messages, "max_tokens": 5, "stop": list("abcdef")}


def test_an_ordinary_body_is_passed_on_as_the_same_object_in_no_time() -> None:
    found = endpoint()
    body = {"model": "m", "messages": HELLO * 20, "temperature": 0.5}
    assert wire_body(found, "chat", body) is body
    began = time.process_time()
    for _ in range(2000):
        wire_body(found, "chat", body)
    assert (time.process_time() - began) / 2000 < 0.0001  # measured: 5 us
