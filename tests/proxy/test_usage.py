"""Usage events: what they say, and that they equal what the provider served."""

from typing import Any

import pytest

from tests.proxy.conftest import Gateway, standard_document, standard_secrets

HELLO: Any = [{"role": "user", "content": "Hello there my friend"}]


def test_identity_customer_and_tags(gateway: Gateway) -> None:
    with gateway.client() as client:
        answer = client.post(
            "/v1/chat/completions",
            json={"model": "chat-openai", "messages": HELLO, "user": "customer-7"},
        )
    event = gateway.event(answer)
    assert event["key_id"] == "key-alpha"
    assert event["team_id"] == "team-1"
    assert event["user_id"] == "user-1"
    assert event["customer"] == "customer-7"
    assert event["tags"] == {"product": "web"}
    assert event["price_version"] == "price-1"
    assert event["unit_prices"] == {"input_token": "0.0000025", "output_token": "0.00001"}
    assert event["revision"] == max(gateway.peer.revisions)


def test_no_model_named_takes_the_default(gateway: Gateway) -> None:
    with gateway.client() as client:
        answer = client.post("/v1/chat/completions", json={"messages": HELLO})
    assert answer.status_code == 200
    event = gateway.event(answer)
    assert (event["requested_model"], event["model"]) == ("", "chat-openai")


def test_alias_resolves(gateway: Gateway) -> None:
    with gateway.client() as client:
        answer = client.post("/chat/completions", json={"model": "default", "messages": HELLO})
    event = gateway.event(answer)
    assert (event["requested_model"], event["model"]) == ("default", "chat-openai")
    assert event["route"] == "/v1/chat/completions"


def test_unpriced_is_not_zero(gateway: Gateway) -> None:
    with gateway.client() as client:
        answer = client.post("/v1/chat/completions", json={"model": "unpriced", "messages": HELLO})
    event = gateway.event(answer)
    assert event["cost"] is None
    assert event["price_version"] is None
    assert event["output_tokens"] > 0


def test_cached_input_is_counted(gateway: Gateway) -> None:
    long = [{"role": "user", "content": "word " * 1500}]
    with gateway.client() as client:
        for _ in range(2):
            answer = client.post(
                "/v1/chat/completions", json={"model": "chat-openai", "messages": long}
            )
    event = gateway.event(answer)
    rows = gateway.simulator.settled_ledger()["rows"]
    assert event["cache_read_tokens"] == rows[0]["cache_read_tokens"]
    assert event["cache_read_tokens"] > 0


def test_reasoning_is_a_part_of_the_output(gateway: Gateway) -> None:
    gateway.simulator.control(kind="openai", model="gpt-4o", reasoning_tokens=30)
    with gateway.client() as client:
        answer = client.post(
            "/v1/chat/completions", json={"model": "chat-openai", "messages": HELLO}
        )
    event = gateway.event(answer)
    row = gateway.simulator.settled_ledger()["rows"][0]
    assert event["reasoning_tokens"] == row["reasoning_tokens"] == 30
    assert event["output_tokens"] == row["output_tokens"]


def test_completions(gateway: Gateway) -> None:
    with gateway.client() as client:
        plain = client.post("/v1/completions", json={"model": "chat-openai", "prompt": "Hello you"})
        stream = client.post(
            "/v1/completions", json={"model": "chat-openai", "prompt": "Hello you", "stream": True}
        )
    events = [gateway.event(plain), gateway.event(stream)]
    row = gateway.simulator.settled_ledger()["rows"][0]
    assert sum(event["output_tokens"] for event in events) == row["output_tokens"]
    assert b'"usage"' not in stream.content


MEDIA: list[tuple[str, dict[str, Any], dict[str, str], str]] = [
    (
        "/v1/images/generations",
        {"json": {"model": "image", "prompt": "a house", "n": 2}},
        {"image": "2"},
        "0.08",
    ),
    (
        "/v1/audio/speech",
        {"json": {"model": "speech", "input": "hello you", "voice": "alloy"}},
        {"input_character": "9"},
        "0.000135",
    ),
    (
        "/v1/rerank",
        {"json": {"model": "rerank", "query": "x", "documents": ["a", "b"]}},
        {"query": "1"},
        "0.002",
    ),
    (
        "/v2/rerank",
        {"json": {"model": "rerank", "query": "x", "documents": ["a"]}},
        {"query": "1"},
        "0.002",
    ),
    ("/v1/moderations", {"json": {"model": "moderation", "input": "x"}}, {}, "0"),
    (
        "/v1/audio/transcriptions",
        {
            "data": {"model": "whisper"},
            "files": {"file": ("a.wav", b"RIFF" + bytes(100), "audio/wav")},
        },
        {"input_second": "13.0"},
        "0.00130",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("path", "request_", "units", "cost"), MEDIA)
def test_what_is_not_priced_by_tokens(
    gateway: Gateway, path: str, request_: dict[str, Any], units: dict[str, str], cost: str
) -> None:
    with gateway.client() as client:
        answer = client.post(path, **request_)
    assert answer.status_code == 200, answer.text
    event = gateway.event(answer)
    assert event["status"] == "ok"
    assert event["other_units"] == units
    assert event["cost"] == cost
    assert gateway.simulator.settled_ledger()["rows"][0]["requests"] == 1


def test_form_fields_obey_the_same_rules(gateway: Gateway) -> None:
    files = {"file": ("a.wav", b"RIFF" + bytes(100), "audio/wav")}
    with gateway.client() as client:
        steering = client.post(
            "/v1/audio/transcriptions",
            data={"model": "whisper", "api_base": "http://evil.example"},
            files=files,
        )
        unknown = client.post("/v1/audio/transcriptions", data={"model": "nope"}, files=files)
    assert steering.status_code == 400
    assert steering.json()["error"]["param"] == "api_base"
    assert unknown.status_code == 404
    assert gateway.simulator.ledger()["rows"] == []


@pytest.mark.parametrize(
    ("model", "error_class", "status"),
    [
        ("fails", "server_error", 500),
        ("limited", "rate_limit", 429),
        ("overloaded", "overloaded", 503),
        ("no-credit", "quota", 429),
        ("too-long", "context_window", 400),
        ("filtered", "content_policy", 400),
    ],
)
def test_errors_of_providers_are_typed(
    gateway: Gateway, model: str, error_class: str, status: int
) -> None:
    gateway.set_key("narrow", models=[model])  # the chains' targets are not allowed: no fallback
    with gateway.client("narrow") as client:
        answer = client.post("/v1/chat/completions", json={"model": model, "messages": HELLO})
    assert answer.status_code == status
    event = gateway.event(answer)
    assert (event["status"], event["error_class"]) == ("error", error_class)
    assert (event["cost"], event["input_tokens"], event["output_tokens"]) == ("0", 0, 0)
    (attempt,) = event["attempts"]
    assert (attempt["status"], attempt["error_class"]) == (status, error_class)
    assert attempt["error"]


def test_refused_credential_is_not_the_callers_fault(gateway: Gateway) -> None:
    with gateway.client() as client:
        answer = client.post(
            "/v1/chat/completions", json={"model": "bad-credential", "messages": HELLO}
        )
    assert answer.status_code == 502
    error = answer.json()["error"]
    assert error["code"] == "provider_authentication"
    assert "virtual key is fine" in error["message"]
    event = gateway.event(answer)
    assert (event["http_status"], event["error_class"]) == (502, "authentication")
    assert event["attempts"][0]["status"] == 401


def test_errors_speak_the_providers_words(gateway: Gateway) -> None:
    with gateway.client() as client:
        answer = client.post("/v1/chat/completions", json={"model": "no-credit", "messages": HELLO})
    error = answer.json()["error"]
    assert (
        error["message"] == "You exceeded your current quota: see plan and billing of the account."
    )
    assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
    assert gateway.event(answer)["error"] == error["message"]


def test_malformed_answer_is_an_error_not_a_crash(gateway: Gateway) -> None:
    gateway.simulator.control(kind="openai", model="gpt-4o", faults=[{"type": "malformed"}])
    for stream in (False, True):
        with gateway.client() as client:
            answer = client.post(
                "/v1/chat/completions",
                json={"model": "chat-openai", "messages": HELLO, "stream": stream},
            )
        assert gateway.event(answer)["status"] == "error"


def test_rpm_of_a_deployment(gateway: Gateway) -> None:
    content = standard_document(gateway.simulator)
    for row in content["deployments"]:
        if row["id"] == "dep-openai":
            row["rpm"] = 2
    gateway.peer.wait_applied(gateway.peer.publish(content, standard_secrets()))
    with gateway.client() as client:
        ask = {"model": "chat-openai", "messages": HELLO}
        answers = [client.post("/v1/chat/completions", json=ask) for _ in range(6)]
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(200) in (2, 3, 4)  # the minute may turn in between
    assert 429 in statuses
    event = gateway.event(answers[statuses.index(429)])
    assert (event["error_class"], event["cost"]) == ("rate_limit", "0")
    assert event["attempts"] == []
    (row,) = gateway.simulator.settled_ledger()["rows"]
    assert row["requests"] == statuses.count(200)


def test_counting_tokens_is_free(gateway: Gateway) -> None:
    with gateway.client() as client:
        answer = client.post(
            "/v1/messages/count_tokens", json={"model": "chat-anthropic", "messages": HELLO}
        )
    assert answer.json()["input_tokens"] > 0
    event = gateway.event(answer)
    assert (event["cost"], event["input_tokens"]) == ("0", 0)


def test_retry_after_reaches_the_client(gateway: Gateway) -> None:
    fault = {"type": "rate_limit", "retry_after_s": 7}
    gateway.simulator.control(kind="openai", model="gpt-4o", faults=[fault])
    with gateway.client() as client:
        answer = client.post(
            "/v1/chat/completions", json={"model": "chat-openai", "messages": HELLO}
        )
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "7"


@pytest.mark.parametrize("model", ["breaks", "cut"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
def test_streams_that_break(gateway: Gateway, model: str, path: str) -> None:
    gateway.simulator.control(
        kind="openai", model=f"sim-*{'error' if model == 'breaks' else 'stream'}",
        token_interval_ms=20,
    )  # fmt: skip
    body: dict[str, Any] = {"model": model, "stream": True}
    body |= {"input": "hello"} if path.endswith("responses") else {"messages": HELLO}
    if path.endswith("messages"):
        body["max_tokens"] = 100
    with gateway.client() as client:
        answer = client.post(path, json=body)
    event = gateway.event(answer)
    assert event["status"] == "error"
    assert event["error_class"] in ("cut_stream", "overloaded", "server_error")
    assert b"error" in answer.content
    assert event["estimated"] is True
    assert event["input_tokens"] > 0
    assert event["attempts"][0]["error_class"] == event["error_class"]


def test_events_equal_the_ledger_after_mixed_requests(gateway: Gateway) -> None:
    kinds = ["openai", "anthropic", "gemini", "azure", "bedrock", "ollama"]
    with gateway.client() as client:
        for index in range(60):
            model = f"chat-{kinds[index % 6]}" if index % 5 else "fails"
            messages = [{"role": "user", "content": f"question {index} " * (index % 7 + 1)}]
            client.post(
                "/v1/chat/completions",
                json={"model": model, "messages": messages, "stream": index % 2 == 0},
            )
    events = gateway.new_events(60)
    rows = gateway.simulator.settled_ledger()["rows"]
    assert sum(len(event["attempts"]) for event in events) == sum(row["requests"] for row in rows)
    for name in ("input_tokens", "output_tokens"):
        assert sum(event[name] for event in events) == sum(row[name] for row in rows)
    assert {event["status"] for event in events} == {"ok"}
