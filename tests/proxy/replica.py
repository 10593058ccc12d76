"""Starts and stops a real replica as a process, for tests."""

import base64
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.proxy.documents import ENVIRONMENT, FLEET_KEY, FLEET_TOKEN

ROOT = Path(__file__).resolve().parents[2]
START_MAX_S = 60.0


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Replica:
    """One `python -m proxy.launch`."""

    control_plane_url: str
    state_dir: Path
    port: int = field(default_factory=free_port)
    environ: dict[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """Base address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log_path(self) -> Path:
        """Everything the replica printed, over all its starts."""
        return self.state_dir.parent / f"{self.state_dir.name}.log"

    def start(self) -> None:
        """Start the process; does not wait."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith("GATEWAY_")}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        environ |= {
            "GATEWAY_CONTROL_PLANE_URL": self.control_plane_url,
            "GATEWAY_PROXY_ENVIRONMENT": ENVIRONMENT,
            "GATEWAY_FLEET_TOKEN": FLEET_TOKEN,
            "GATEWAY_FLEET_KEY": base64.b64encode(FLEET_KEY).decode(),
            "GATEWAY_PROXY_STATE_DIR": str(self.state_dir),
            "GATEWAY_PROXY_PORT": str(self.port),
            "GATEWAY_POLL_INTERVAL_S": "0.1",
            "REDIS_URL": "",
            **self.environ,
        }
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "proxy.launch"],
                cwd=ROOT,
                env=environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self, path: str, status: int = 200, timeout_s: float = START_MAX_S) -> None:
        """Wait until a probe answers as wanted."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, self.log_path.read_text()[-3000:]
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(self.url + path, timeout=2).status_code == status:
                    return
            time.sleep(0.05)
        raise AssertionError(f"{path} never answered {status}: {self.log_path.read_text()[-3000:]}")

    def children(self) -> list[int]:
        """Process ids of the workers."""
        assert self.process is not None
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def kill(self) -> None:
        """kill -9 of the parent and of every worker at once."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, timeout_s: float = 40.0) -> int:
        """SIGTERM and wait; returns the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout_s)


@contextlib.contextmanager
def running(control_plane_url: str, **environ: str) -> Iterator[Replica]:
    """A ready replica on a fresh state directory."""
    with tempfile.TemporaryDirectory(prefix="gwp-") as directory:
        replica = Replica(control_plane_url, Path(directory) / "state", environ=environ)
        replica.start()
        try:
            replica.wait("/ready")
            yield replica
        finally:
            if replica.process is not None and replica.process.poll() is None:
                replica.stop()
