"""What fails takes nothing with it: killed proxies, a stopped control plane."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.acceptance.stack import Stack
from tests.supervisor.installation import ROOT

pytestmark = pytest.mark.fleet


class Callers:
    """Threads that call until stopped; an answer counts when its body arrived whole."""

    def __init__(self, stack: Stack, threads: int = 6) -> None:
        self.stack = stack
        self.answered: list[str] = []  # the customer that marks each answered request
        self.failed = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(threads)]

    def _call(self) -> None:
        headers = {"Authorization": f"Bearer {self.stack.key}"}
        with httpx.Client(base_url=self.stack.proxy, headers=headers, trust_env=False) as client:
            while not self._stop.is_set():
                self._ask(client, mark=uuid4().hex)

    def _ask(self, client: httpx.Client, mark: str) -> None:
        body = {
            "model": "openai-chat",
            "user": mark,
            "stream": int(mark[0], 16) % 2 == 0,
            "messages": [{"role": "user", "content": f"under load {mark}"}],
        }
        try:
            answer = client.post("/v1/chat/completions", json=body, timeout=20)
        except httpx.TransportError:
            self.failed += 1
            time.sleep(0.05)
            return
        if answer.status_code == 200 and (not body["stream"] or "[DONE]" in answer.text):
            self.answered.append(mark)
        else:
            self.failed += 1
            time.sleep(0.05)

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def _proxy_processes(stack: Stack) -> list[int]:
    return [
        pid for pid, command in stack.installation.processes().items() if "proxy.launch" in command
    ]


def test_kill_nine_loses_and_doubles_nothing(stack: Stack) -> None:
    since = datetime.now(UTC)
    with Callers(stack) as callers:
        for _ in range(2):
            time.sleep(3)
            for pid in _proxy_processes(stack):
                os.kill(pid, signal.SIGKILL)
            wanted = len(callers.answered) + 20
            while len(callers.answered) < wanted:
                assert callers.failed < 5_000, "the proxy does not serve again"
                time.sleep(0.1)
    _accounted_once(stack, since, callers.answered)
    print(f"{len(callers.answered)} answered, {callers.failed} failed, none lost")  # noqa: T201


def test_proxy_outlives_the_control_plane(stack: Stack) -> None:
    """Web, worker and PostgreSQL are stopped; the proxy serves, restarts from disk, delivers."""
    since = datetime.now(UTC)
    assert stack.running
    stack.running.process.send_signal(signal.SIGSTOP)  # nothing is restarted behind our back
    try:
        _kill(stack, "granian", "celery", "postgres")
        with Callers(stack, threads=2) as warm:
            stack.wait_for(lambda: len(warm.answered) >= 20, "known keys are served")
        with _restarted_proxy(stack), Callers(stack, threads=2) as cold:
            stack.wait_for(lambda: len(cold.answered) >= 20, "serves from disk", timeout_s=60)
    finally:
        stack.running.process.send_signal(signal.SIGCONT)
    stack.wait_for(stack.serves, "everything is back", timeout_s=90)
    _accounted_once(stack, since, [*warm.answered, *cold.answered])
    print(f"{len(warm.answered)} answered warm, {len(cold.answered)} from disk")  # noqa: T201


def _accounted_once(stack: Stack, since: datetime, answered: list[str]) -> None:
    """Every answered request has its event (waited for), and none has two."""
    events = stack.settled_events(since, len(answered), answered)
    counted = Counter(event["customer"] for event in events)
    assert max(counted.values()) == 1


def _kill(stack: Stack, *names: str) -> None:
    for pid, command in stack.installation.processes().items():
        if any(name in command for name in names):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def _restarted_proxy(stack: Stack) -> Iterator[None]:
    """Kill the proxy and start it again as the supervisor would, on the same state."""
    pid = min(_proxy_processes(stack))
    stored = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    environment = dict(item.decode().split("=", 1) for item in stored if item)
    _kill(stack, "proxy.launch")
    with subprocess.Popen(
        [sys.executable, "-m", "proxy.launch"], cwd=ROOT, env=environment, start_new_session=True
    ) as child:
        try:
            yield
        finally:
            child.terminate()
            child.wait(30)
