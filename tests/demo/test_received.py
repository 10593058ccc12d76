"""What the simulator tells of requests as they came in, and answers that few ask for."""

import httpx

from gateway_admin.demo.simulator.process import Simulator

HELLO = [{"role": "user", "content": "Hello"}]
HEADERS = {"authorization": "Bearer sk-anything-12345678"}


def ask(simulator: Simulator, **body: object) -> httpx.Response:
    url = f"{simulator.base_url}/openai/v1/chat/completions?x=1"
    return httpx.post(url, json={"model": "gpt-4o", "messages": HELLO, **body}, headers=HEADERS)


def test_a_request_is_told_as_it_came_in(simulator: Simulator) -> None:
    simulator.received()
    ask(simulator, temperature=0.5)
    (request,) = simulator.received()
    assert request["method"] == "POST"
    assert request["target"] == "/openai/v1/chat/completions?x=1"
    assert request["headers"]["authorization"] == HEADERS["authorization"]
    assert '"temperature":0.5' in request["body"].replace(" ", "")
    assert simulator.received() == []


def test_an_empty_answer(simulator: Simulator) -> None:
    simulator.control(kind="openai", model="gpt-4o", faults=[{"type": "empty"}])
    for stream in (False, True):
        answer = ask(simulator, stream=stream)
        assert (answer.status_code, answer.content) == (200, b"")


def test_log_probabilities_when_asked_for(simulator: Simulator) -> None:
    whole = ask(simulator, logprobs=True, top_logprobs=2).json()["choices"][0]
    entries = whole["logprobs"]["content"]
    assert "".join(entry["token"] for entry in entries) == whole["message"]["content"]
    assert all(len(entry["top_logprobs"]) == 2 for entry in entries)
    assert '"logprobs":{"content":[{"token"' in ask(simulator, logprobs=True, stream=True).text
    assert '"logprobs"' not in ask(simulator, stream=True).text
