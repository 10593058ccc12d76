"""Runs the simulator as a child process."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0


class SimulatorError(RuntimeError):
    """The simulator did not start, or refused a rule."""


class Simulator:
    """A running simulator. Provider URLs are `base_url` plus the provider's kind."""

    def __init__(self, base_url: str, pid: int) -> None:
        self.base_url = base_url
        self.pid = pid
        self._client = httpx.Client(base_url=base_url, timeout=30.0, trust_env=False)

    def control(self, *rules: dict[str, Any], seed: int = 0, **rule: Any) -> list[dict[str, Any]]:
        """Add rules (see `script`), given as dicts or as one rule's fields; return those in force.

        `seed` restarts the draws of faults with a probability.
        """
        wanted = [*rules, rule] if rule else list(rules)
        answer = self._client.post("/__control", json={"rules": wanted, "seed": seed})
        if answer.status_code != 200:
            raise SimulatorError(answer.json()["error"])
        in_force: list[dict[str, Any]] = answer.json()["rules"]
        return in_force

    def ledger(self, *, detail: bool = False) -> dict[str, Any]:
        """Return what was served (see `ledger`)."""
        params = {"detail": "1"} if detail else {}
        report: dict[str, Any] = self._client.get("/__ledger", params=params).json()
        return report

    def received(self) -> list[dict[str, Any]]:
        """Return the last requests as they came in, and forget them (see `received`)."""
        found: list[dict[str, Any]] = self._client.get("/__received").json()["requests"]
        self._client.delete("/__received")
        return found

    def settled_ledger(self, *, detail: bool = False, timeout_s: float = 10.0) -> dict[str, Any]:
        """Return the ledger once nothing is in flight any more."""
        deadline = time.monotonic() + timeout_s
        while (report := self.ledger(detail=detail))["in_flight"]:
            if time.monotonic() > deadline:
                raise SimulatorError(f"still in flight after {timeout_s} s: {report['in_flight']}")
            time.sleep(0.01)
        return report

    def reset(self) -> None:
        """Forget rules, prompts and the ledger."""
        self._client.delete("/__control")
        self._client.delete("/__ledger")
        self._client.delete("/__received")

    def close(self) -> None:
        """Close this helper's own connections; the process is not ended."""
        self._client.close()


@contextmanager
def running_simulator(port: int = 0) -> Iterator[Simulator]:
    """Start a simulator on loopback (port 0: a free one) and end it by its pid afterwards."""
    with tempfile.TemporaryDirectory(prefix="sim-") as folder:
        ready_file = Path(folder) / "ready.json"
        command = [sys.executable, "-m", __package__]
        command += ["--port", str(port), "--ready-file", str(ready_file)]
        root = Path(__file__).resolve().parents[3]
        child = subprocess.Popen(command, cwd=root)
        try:
            told = _wait_ready(child, ready_file)
            simulator = Simulator(told["base_url"], child.pid)
            try:
                yield simulator
            finally:
                simulator.close()
        finally:
            _stop(child)


def _wait_ready(child: subprocess.Popen[bytes], ready_file: Path) -> dict[str, Any]:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not ready_file.exists():
        if child.poll() is not None:
            raise SimulatorError(f"the simulator ended at once with code {child.returncode}")
        if time.monotonic() > deadline:
            raise SimulatorError(f"the simulator was not ready after {START_TIMEOUT_S} s")
        time.sleep(0.02)
    told: dict[str, Any] = json.loads(ready_file.read_text())
    return told


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
