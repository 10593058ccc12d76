"""Bodies without what their route needs are refused here, in words that name the field."""

from typing import Any

import pytest

from proxy.errors import error_text
from tests.proxy.conftest import Gateway

HELLO: Any = [{"role": "user", "content": "hi"}]
CASES: list[tuple[str, str, dict[str, Any], str]] = [
    ("/v1/chat/completions", "chat-openai", {}, "messages"),
    ("/v1/chat/completions", "chat-openai", {"messages": "hi"}, "messages"),
    ("/v1/chat/completions", "chat-openai", {"messages": {"role": "user"}}, "messages"),
    ("/v1/chat/completions", "chat-openai", {"messages": None}, "messages"),
    ("/v1/chat/completions", "chat-openai", {"messages": ["hi"]}, "messages[0]"),
    (
        "/v1/chat/completions",
        "chat-openai",
        {"messages": [*HELLO, {"role": 1}]},
        "messages[1].role",
    ),
    (
        "/v1/chat/completions",
        "chat-openai",
        {"messages": [{"role": "user", "content": 7}]},
        "messages[0].content",
    ),
    ("/v1/completions", "chat-openai", {}, "prompt"),
    ("/v1/completions", "chat-openai", {"prompt": {"a": 1}}, "prompt"),
    ("/v1/embeddings", "embed-openai", {}, "input"),
    ("/v1/embeddings", "embed-openai", {"input": 7}, "input"),
    ("/v1/responses", "chat-openai", {}, "input"),
    ("/v1/responses", "chat-openai", {"input": ["hi"]}, "input"),
    ("/v1/messages", "chat-anthropic", {"max_tokens": 5}, "messages"),
    ("/v1/messages", "chat-anthropic", {"max_tokens": 5, "messages": "hi"}, "messages"),
    ("/v1/messages", "chat-anthropic", {"messages": HELLO}, "max_tokens"),
    ("/v1/messages", "chat-anthropic", {"messages": HELLO, "max_tokens": "9"}, "max_tokens"),
    ("/v1/messages/count_tokens", "chat-anthropic", {}, "messages"),
    ("/v1/images/generations", "image", {"prompt": 7}, "prompt"),
    ("/v1/audio/speech", "speech", {"voice": "alloy"}, "input"),
    ("/v1/moderations", "moderation", {}, "input"),
    ("/v1/rerank", "rerank", {"query": "x", "documents": "y"}, "documents"),
]


@pytest.mark.parametrize(("path", "model", "body", "field"), CASES)
def test_required_field(
    gateway: Gateway, path: str, model: str, body: dict[str, Any], field: str
) -> None:
    with gateway.client() as client:
        answer = client.post(path, json={"model": model, **body})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert f"'{field}'" in error["message"]
    if path.startswith("/v1/messages"):
        assert (answer.json()["type"], error["type"]) == ("error", "invalid_request_error")
    else:
        assert (error["type"], error["param"]) == ("invalid_request_error", field)
    event = gateway.event(answer)
    assert (event["status"], event["error_class"], event["attempts"]) == (
        "refused", "invalid_request", [],
    )  # fmt: skip
    assert gateway.simulator.ledger()["rows"] == []


@pytest.mark.parametrize("body", [{"tools": "x"}, {"tools": [1]}, {"response_format": 5}])
@pytest.mark.parametrize("stream", [False, True])
def test_no_event_tells_of_our_files(gateway: Gateway, body: dict[str, Any], stream: bool) -> None:
    """What LiteLLM stumbles over is told in one line."""
    sent = {"model": "chat-anthropic", "messages": HELLO, "stream": stream, **body}
    with gateway.client() as client:
        answer = client.post("/v1/chat/completions", json=sent)
    event = gateway.event(answer)
    texts = [event["error"], *(attempt["error"] for attempt in event["attempts"]), answer.text]
    for text in texts:
        assert "Traceback" not in (text or "")
        assert "site-packages" not in (text or "")
        assert ".py" not in (text or "")


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ("bad thing\nTraceback (most recent call last):\n  File \"/a/b.py\"", "bad thing"),
        ("bad thing Traceback (most recent call last)", "bad thing"),
        ("\n\nfirst\nsecond", "first"),
        ("cannot open /usr/lib/ssl/cert.pem: no", "cannot open [path]: no"),
        ("in /srv/x/y.py:12 it failed", "in [path] it failed"),
        ("POST /v1/chat/completions is not there", "POST /v1/chat/completions is not there"),
        ("see https://example.com/docs/a.py", "see https://example.com/docs/a.py"),
        ('File "/a/b.py", line 3', "[path]"),
        ("Traceback (most recent call last)", "The call failed without a message."),
    ],
)  # fmt: skip
def test_error_text_is_one_line_without_paths(raw: str, told: str) -> None:
    assert error_text(raw) == told
