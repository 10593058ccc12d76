"""Rules: precedence, counting, refusals."""

import subprocess
import sys
from typing import Any

import httpx
import pytest

from gateway_admin.demo.simulator.process import Simulator, SimulatorError, running_simulator
from tests.demo.kinds import HELLO, SECRET


def _statuses(simulator: Simulator, count: int, model: str = "gpt-4o", key: str = SECRET) -> Any:
    with httpx.Client(headers={"authorization": f"Bearer {key}"}) as client:
        url = f"{simulator.base_url}/openai/v1/chat/completions"
        body = {"model": model, "messages": HELLO}
        return [client.post(url, json=body).status_code for _ in range(count)]


def test_first_n_calls_fail(simulator: Simulator) -> None:
    simulator.control(model="gpt-4o", faults=[{"type": "rate_limit", "first": 2}])
    assert _statuses(simulator, 4) == [429, 429, 200, 200]


def test_every_kth_call_fails(simulator: Simulator) -> None:
    simulator.control(model="gpt-4o", faults=[{"type": "overload", "every": 3}])
    assert _statuses(simulator, 6) == [200, 200, 503, 200, 200, 503]


def test_probability_is_seeded(simulator: Simulator) -> None:
    rule = {"model": "gpt-4o", "faults": [{"type": "server_error", "probability": 0.3}]}
    simulator.control(rule, seed=7)
    once = _statuses(simulator, 40)
    simulator.control(rule, seed=7)
    assert _statuses(simulator, 40) == once
    assert 4 <= once.count(500) <= 20


def test_a_bad_credential_fails_and_others_do_not(simulator: Simulator) -> None:
    simulator.control(kind="openai", credential=SECRET, faults=[{"type": "auth"}])
    assert _statuses(simulator, 1) == [401]
    assert _statuses(simulator, 1, key="sk-another-key-9999") == [200]


def test_the_most_specific_rule_sets_the_pace(simulator: Simulator) -> None:
    rules = simulator.control(
        {"output_tokens": 3},
        {"model": "gpt-*", "output_tokens": 5},
        {"model": "gpt-4o", "output_tokens": 7},
    )
    assert [rule["output_tokens"] for rule in rules] == [7, 5, 3]
    for model in ("gpt-4o", "gpt-4.1", "other"):
        _statuses(simulator, 1, model)
    booked = {row["model"]: row["output_tokens"] for row in simulator.ledger()["rows"]}
    assert booked == {"gpt-4o": 7, "gpt-4.1": 5, "other": 3}


def test_a_rule_replaces_the_one_for_the_same_target(simulator: Simulator) -> None:
    simulator.control(model="gpt-4o", faults=[{"type": "overload"}])
    simulator.control(model="gpt-4o")
    assert _statuses(simulator, 1) == [200]


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        ({"modle": "x"}, "modle"),
        ({"latency_ms": -1}, "latency_ms"),
        ({"faults": [{"type": "explode"}]}, "type"),
        ({"faults": [{"type": "status"}]}, "status"),
        ({"faults": [{"type": "auth", "every": 0}]}, "every"),
    ],
)
def test_a_wrong_rule_is_refused_by_name(
    simulator: Simulator, rule: dict[str, Any], named: str
) -> None:
    with pytest.raises(SimulatorError, match=named):
        simulator.control(rule)


def test_bad_requests_are_told_in_the_providers_shape(simulator: Simulator) -> None:
    headers = {"authorization": f"Bearer {SECRET}", "x-api-key": SECRET, "api-key": SECRET}
    for path in ("openai/v1/chat/completions", "anthropic/v1/messages"):
        url = f"{simulator.base_url}/{path}"
        for body in (b"{", b"[1]", b"{}", b'{"model": "x"}', b'{"model": "x", "messages": []}'):
            reply = httpx.post(url, content=body, headers=headers)
            assert reply.status_code == 400, (path, body)
            assert reply.json()["error"]["type"] == "invalid_request_error"


def test_fields_of_a_wrong_type_are_a_bad_request(simulator: Simulator) -> None:
    headers = {"authorization": f"Bearer {SECRET}", "x-api-key": SECRET, "x-goog-api-key": SECRET}
    for path in (
        "openai/v1/chat/completions",
        "openai/v1/responses",
        "anthropic/v1/messages",
        "gemini/v1beta/models/m:generateContent",
        "bedrock/model/m/converse",
        "ollama/api/chat",
    ):
        body = {"model": "m", "max_tokens": 9, "messages": [7], "contents": [7], "input": [7]}
        reply = httpx.post(f"{simulator.base_url}/{path}", json=body, headers=headers)
        assert reply.status_code == 400, path
    assert simulator.ledger()["totals"]["errors"] == 6


def test_unknown_paths(simulator: Simulator) -> None:
    assert httpx.get(f"{simulator.base_url}/nowhere").status_code == 404
    assert httpx.post(f"{simulator.base_url}/openai/v1/nowhere").status_code == 404
    health = httpx.get(f"{simulator.base_url}/__health").json()
    assert health["status"] == "ok"
    assert {"openai", "anthropic", "gemini", "azure", "bedrock", "ollama"} <= set(
        health["providers"]
    )


def test_neither_django_nor_litellm_is_loaded() -> None:
    code = (
        "import sys, gateway_admin.demo.simulator.__main__\n"
        "print(sorted({'django', 'litellm', 'celery'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_process_ends_with_its_context() -> None:
    with running_simulator() as simulator:
        assert httpx.get(f"{simulator.base_url}/__health").status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{simulator.base_url}/__health")
