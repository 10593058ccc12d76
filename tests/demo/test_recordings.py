"""The simulator's bodies have the keys of recorded real ones (skipped without recordings)."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway_admin.demo.simulator.process import Simulator
from tests.demo.kinds import SECRET

# Beside the checkout, where shared data lies; not part of the project.
FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "provider_fixtures"
STREAMS = FOLDER / "streams"
pytestmark = pytest.mark.skipif(not STREAMS.is_dir(), reason="no recordings on this machine")
HEADERS = {"authorization": f"Bearer {SECRET}", "x-api-key": SECRET, "api-key": SECRET}


def _recorded(name: str, index: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((STREAMS / f"{name}.json").read_text())[index]
    return found


def _shape(value: Any) -> Any:
    """Keys at every depth; lists are the union of their elements; scalars are dots."""
    if isinstance(value, dict):
        return {key: _shape(part) for key, part in sorted(value.items())}
    if isinstance(value, list):
        merged: dict[str, Any] = {}
        for part in value:
            shape = _shape(part)
            merged |= shape if isinstance(shape, dict) else {}
        return [merged]
    return "."


def _events(text: str) -> list[dict[str, Any]]:
    lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def _replay(simulator: Simulator, path: str, recorded: dict[str, Any]) -> httpx.Response:
    body = recorded["request_body"]
    reply = httpx.post(f"{simulator.base_url}/{path}", content=body, headers=HEADERS)
    assert reply.status_code == recorded["status"]
    wanted = recorded["response_headers"]["content-type"].split(";")[0]
    assert reply.headers["content-type"].split(";")[0] == wanted
    return reply


def _missing_headers(recorded: dict[str, Any], reply: httpx.Response) -> set[str]:
    """Provider headers of the recording (not those of networks in between) that are absent."""
    prefixes = ("x-ratelimit-limit", "x-ratelimit-remaining", "anthropic-ratelimit", "openai-pro")
    named = ("x-request-id", "request-id", "apim-request-id", "x-ms-region")
    wanted = {name for name in recorded["response_headers"] if name.startswith(prefixes)}
    wanted |= set(named) & set(recorded["response_headers"])
    return wanted - set(reply.headers)


@pytest.mark.parametrize(
    ("name", "index", "path"),
    [
        ("openai_chat_nonstream", 0, "openai/v1/chat/completions"),
        ("openai_embeddings", 0, "openai/v1/embeddings"),
        ("azure_prompt_content_filter", 1, "azure/openai/deployments/m/chat/completions"),
    ],
)
def test_whole_replies(name: str, index: int, path: str, simulator: Simulator) -> None:
    recorded = _recorded(name, index)
    reply = _replay(simulator, path, recorded)
    assert _shape(reply.json()) == _shape(json.loads(recorded["response_body"]))
    assert _missing_headers(recorded, reply) == set()


@pytest.mark.parametrize("name", ["openai_chat_no_usage", "openai_chat_detailed_usage"])
def test_openai_streams(name: str, simulator: Simulator) -> None:
    recorded = _recorded(name)
    reply = _replay(simulator, "openai/v1/chat/completions", recorded)
    theirs, ours = _events(recorded["response_body"]), _events(reply.text)
    assert _shape(ours[0]) == _shape(theirs[0])
    assert _shape(ours[-2]) == _shape(theirs[-2])
    assert _shape(ours[-1]) == _shape(theirs[-1])
    assert reply.text.endswith("data: [DONE]\n\n")


def test_openai_tool_stream(simulator: Simulator) -> None:
    recorded = _recorded("openai_chat_tools_stream")
    reply = _replay(simulator, "openai/v1/chat/completions", recorded)
    theirs, ours = _events(recorded["response_body"]), _events(reply.text)
    for place in (0, 1, 2):
        delta = theirs[place]["choices"][0]["delta"]
        assert _shape(ours[place]["choices"][0]["delta"]) == _shape(delta)
    assert ours[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert _shape(ours[-1]["usage"]) == _shape(theirs[-1]["usage"])


def test_anthropic_stream(simulator: Simulator) -> None:
    recorded = _recorded("anthropic_messages_stream")
    reply = _replay(simulator, "anthropic/v1/messages", recorded)
    theirs, ours = _events(recorded["response_body"]), _events(reply.text)

    def order(events: list[dict[str, Any]]) -> list[str]:
        kinds = [event["type"] for event in events]
        return [kind for place, kind in enumerate(kinds) if kinds[place - 1 : place] != [kind]]

    assert order(ours) == order(theirs)
    assert _missing_headers(recorded, reply) == set()


def test_anthropic_usage_fields(simulator: Simulator) -> None:
    """The newer recording has every usage field; what it adds is compaction's own."""
    recorded = _recorded("anthropic_stream_cache_usage")
    theirs = _events(recorded["response_body"])
    body = {
        "model": "claude-sonnet-4-6",
        "max_tokens": 50,
        "stream": True,
        "messages": [{"role": "user", "content": "hello"}],
    }
    reply = httpx.post(f"{simulator.base_url}/anthropic/v1/messages", json=body, headers=HEADERS)
    ours = _events(reply.text)
    assert _shape(ours[0]) == _shape(theirs[0])
    their_end, our_end = theirs[-2], ours[-2]
    assert _shape(our_end["delta"]) == _shape(their_end["delta"])
    assert set(our_end["usage"]) == set(their_end["usage"]) - {"iterations"}


CASES = [
    ("openai", "rate_limit_tokens", "rate_limit"),
    ("openai", "insufficient_quota", "quota"),
    ("openai", "invalid_api_key", "auth"),
    ("openai", "context_length_exceeded", "context_window"),
    ("openai", "model_not_found", "not_found"),
    ("openai", "server_error", "server_error"),
    ("openai", "overloaded", "overload"),
    ("azure", "token_rate_limit", "rate_limit"),
    ("azure", "auth", "auth"),
    ("azure", "deployment_not_found", "not_found"),
    ("azure", "content_filter_prompt", "content_policy"),
    ("azure", "service_unavailable", "overload"),
    ("anthropic", "overloaded", "overload"),
    ("anthropic", "rate_limit_2026", "rate_limit"),
    ("anthropic", "auth", "auth"),
    ("anthropic", "credit_balance", "quota"),
    ("anthropic", "model_not_found", "not_found"),
    ("anthropic", "context_too_long", "context_window"),
    ("gemini", "overloaded", "overload"),
    ("gemini", "invalid_key", "auth"),
    ("gemini", "model_not_found", "not_found"),
    ("bedrock", "throttling_requests", "rate_limit"),
    ("bedrock", "validation", "not_found"),
]
PATHS = {
    "openai": "openai/v1/chat/completions",
    "azure": "azure/openai/deployments/m/chat/completions",
    "anthropic": "anthropic/v1/messages",
    "gemini": "gemini/v1beta/models/m:generateContent?key=some-long-key",
    "bedrock": "bedrock/model/m/converse",
}
# Request ids were added to Anthropic's error bodies after this entry was written down.
NEWER = {("anthropic", "overloaded"): {"request_id"}}


@pytest.mark.parametrize(("kind", "name", "fault"), CASES)
def test_error_bodies(kind: str, name: str, fault: str, simulator: Simulator) -> None:
    catalogue = json.loads((FOLDER / "error_catalogue.json").read_text())
    (entry,) = [one for one in catalogue[kind] if one["case"] == name]
    simulator.control(kind=kind, faults=[{"type": fault}])
    url = f"{simulator.base_url}/{PATHS[kind]}"
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    reply = httpx.post(url, json=body, headers=HEADERS)
    assert reply.status_code == entry["status"]
    ours = {
        key: part for key, part in reply.json().items() if key not in NEWER.get((kind, name), ())
    }
    assert _shape(ours) == _shape(entry["body"])
    error, recorded = reply.json().get("error", {}), entry["body"].get("error", {})
    for field in ("type", "code", "status", "param"):
        assert error.get(field) == recorded.get(field), field
    if kind == "bedrock" and "x-amzn-errortype" in entry.get("headers", {}):
        assert reply.headers["x-amzn-errortype"] == entry["headers"]["x-amzn-errortype"]
