"""Live traffic: what it asks, and that it behaves while proxy or keys are away."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

import pytest

from gateway_admin.demo import organisation as tables
from gateway_admin.demo import state
from gateway_admin.demo.requests import MAX_ANSWER_TOKENS, MAX_PROMPT_WORDS, draw_call
from gateway_admin.demo.rules import simulator_rules
from gateway_admin.demo.simulator.process import Simulator
from gateway_admin.lib.embedded_state import free_port

SECRET = "sk-gw-aaaaaaaaaa-secret-of-the-test"


class Listener(BaseHTTPRequestHandler):
    """Stands where the proxy stands; remembers who called what."""

    calls: list[tuple[str, str, dict[str, Any]]]

    def do_GET(self) -> None:
        self._answer(b"{}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.calls.append((self.path, self.headers["authorization"], json.loads(body)))
        self._answer(b"{}")

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def listener() -> Iterator[ThreadingHTTPServer]:
    Listener.calls = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def traffic(tmp_path: Path, simulator: Simulator) -> Iterator[Any]:
    """`traffic(port)` starts the program; it is ended with the test."""
    children: list[subprocess.Popen[str]] = []

    def start(port: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "gateway_admin.demo.traffic", "--data-dir", str(tmp_path)]
        command += ["--proxy", f"http://127.0.0.1:{port}", "--simulator", simulator.base_url]
        root = Path(__file__).resolve().parents[2]
        child = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
        children.append(child)
        return child

    yield start
    for child in children:
        child.terminate()
        child.wait(10)


def store_key(data_dir: Path) -> None:
    key: state.StoredKey = {"name": "support-bot", "environment": "prod", "secret": SECRET}
    state.stored_write(data_dir, {"keys": [key], "logins": []})


def wait_for(what: Any, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_simulator_understands_the_rules(simulator: Simulator) -> None:
    assert len(simulator.control(*simulator_rules())) == len(tables.DEPLOYMENTS)


@pytest.mark.parametrize("row", tables.KEYS, ids=lambda row: row.name)
def test_requests_stay_gentle(row: tables.KeyRow) -> None:
    draw = Random(row.name)
    for _ in range(60):
        body = draw_call(draw, row).body
        assert body["model"] in {*row.mix, "gpt-4.1-minni"}
        assert body.get("max_tokens", 0) <= MAX_ANSWER_TOKENS
        assert len(json.dumps(body).split()) < MAX_PROMPT_WORDS + 60


def test_it_calls_with_the_keys_until_the_demonstration_is_removed(
    tmp_path: Path, listener: ThreadingHTTPServer, traffic: Any, simulator: Simulator
) -> None:
    store_key(tmp_path)
    traffic(listener.server_port)
    wait_for(lambda: len(Listener.calls) >= 2)
    assert {secret for _, secret, _ in Listener.calls} == {f"Bearer {SECRET}"}
    assert simulator.control() != []  # it has set its rules
    state.stored_delete(tmp_path)
    time.sleep(6)
    quiet = len(Listener.calls)
    time.sleep(3)
    assert len(Listener.calls) == quiet


def test_it_waits_for_a_proxy_that_is_away(tmp_path: Path, traffic: Any) -> None:
    store_key(tmp_path)
    port = free_port()
    child = traffic(port)
    assert "is not ready: waiting" in child.stdout.readline()
    Listener.calls = []
    server = ThreadingHTTPServer(("127.0.0.1", port), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        wait_for(lambda: Listener.calls)
    finally:
        server.shutdown()
        server.server_close()


def test_some_programs_ask_the_same_again() -> None:
    draw, row = Random(1), next(row for row in tables.KEYS if row.name == "faq-generator")
    asked = [json.dumps(draw_call(draw, row).body) for _ in range(200)]
    assert len(set(asked)) < 150
    once = next(row for row in tables.KEYS if row.name == "newsletter-drafts")
    assert len({json.dumps(draw_call(draw, once).body) for _ in range(200)}) > 195
