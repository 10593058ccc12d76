"""What each kind needs and how it is written for LiteLLM."""

from typing import Any

import pytest

from gateway_admin.catalog import kinds
from gateway_admin.catalog.models import Credential, Deployment, Model, Provider
from gateway_admin.lib.errors import InvalidInput


@pytest.mark.parametrize(
    ("kind", "provider", "mode", "expected"),
    [
        ("openai", "openai", "chat", "openai/m"),
        ("anthropic", "anthropic", "chat", "anthropic/m"),
        ("gemini", "gemini", "chat", "gemini/m"),
        ("azure", "azure", "chat", "azure/m"),
        ("bedrock", "bedrock", "chat", "bedrock/m"),
        ("ollama", "ollama", "chat", "ollama_chat/m"),
        ("ollama", "ollama", "embedding", "ollama/m"),
        ("other", "mistral", "chat", "mistral/m"),
    ],
)
def test_it_prefixes_the_model(kind: str, provider: str, mode: str, expected: str) -> None:
    row = Provider(kind=kind, litellm_provider=provider)
    assert kinds.litellm_model(provider=row, upstream_model="m", mode=mode) == expected


def test_a_deployments_parameters_win_over_its_credentials() -> None:
    provider = Provider(kind="bedrock", litellm_provider="bedrock")
    credential = Credential(provider=provider, params={"aws_region_name": "us-east-1"})
    deployment = Deployment(
        provider=provider,
        credential=credential,
        model=Model(name="claude", mode="chat"),
        upstream_model="anthropic.claude",
        region="eu-west-1",
        params={"seed": 1},
    )
    assert kinds.litellm_params(deployment) == {
        "model": "bedrock/anthropic.claude",
        "aws_region_name": "eu-west-1",
        "seed": 1,
    }


@pytest.mark.parametrize(
    "params",
    [
        {"api_key": "x"},
        {"extra_headers": {"Authorization": "x"}},
        {"aws_session_token": "x"},
        {"nested": [{"client_secret": "x"}]},
        {"innocent": "sk-abcdefghijkl"},
        {"db_password": "x"},
    ],
)
def test_secrets_among_the_parameters_are_refused(params: Any) -> None:
    with pytest.raises(InvalidInput, match="looks like a secret"):
        kinds.clean_free_params(params)


def test_token_counts_are_no_secrets() -> None:
    params = {"max_tokens": 5, "max_completion_tokens": 5, "thinking": {"budget_tokens": 1024}}
    assert kinds.clean_free_params(params) == params


@pytest.mark.parametrize("name", ["model", "rpm", "timeout", "mock_response"])
def test_what_has_its_own_field_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be set here"):
        kinds.clean_free_params({name: 1})


@pytest.mark.parametrize("params", [[], "x", None, 3])
def test_parameters_are_an_object(params: Any) -> None:
    with pytest.raises(InvalidInput, match="JSON object"):
        kinds.clean_free_params(params)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com",
        "file:///etc/passwd",
        "example.com",
        "https://",
        "https://user:secret@example.com",
        "https://example.com/v1?key=abc",
        "https://example.com:port",
        "https://exa mple.com",
        "javascript:alert(1)",
    ],
)
def test_addresses_that_are_none_are_refused(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        kinds.clean_url(url, name="api_base")
    assert caught.value.field == "api_base"
    assert "secret@" not in caught.value.message


def test_addresses_within_the_network_are_fine() -> None:
    assert kinds.clean_url(" http://10.0.0.7:11434/ ", name="api_base") == "http://10.0.0.7:11434"


def test_required_parameters_are_named() -> None:
    with pytest.raises(InvalidInput, match="Azure OpenAI needs this") as caught:
        kinds.clean_credential_params(kinds.KINDS["azure"], {"api_version": "2024-10-21"})
    assert caught.value.field == "api_base"


def test_unknown_parameters_are_refused_except_for_other() -> None:
    with pytest.raises(InvalidInput, match="no parameter 'nope'"):
        kinds.clean_credential_params(kinds.KINDS["openai"], {"nope": "1"})
    assert kinds.clean_credential_params(kinds.KINDS["other"], {"nope": 1}) == {"nope": 1}
