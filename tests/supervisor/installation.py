"""An installation of its own: a data directory, free ports, and `manage.py up` as a process."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import httpx

from gateway_admin.lib.embedded_state import free_port

ROOT = Path(__file__).resolve().parents[2]
SETUP_LINK = re.compile(r"http://\S+/setup/\S+/")
MARK = "GATEWAY_TEST_MARK"
# What tests set for themselves is not for the installation under test.
FOREIGN = ("GATEWAY_", "DATABASE_URL", "REDIS_URL", "DJANGO_", "PYTEST_", "PYTHONDONTWRITE")


class Up:
    """A running `manage.py up`; its output is collected line by line."""

    def __init__(self, environment: dict[str, str], *arguments: str) -> None:
        self.began = time.monotonic()
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "up", *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.append(line.rstrip())

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, text: str, *, count: int = 1, timeout_s: float = 60) -> None:
        self.wait_until(lambda: self.output.count(text) >= count, text, timeout_s=timeout_s)

    def wait_until(
        self, condition: Callable[[], bool], what: str, *, timeout_s: float = 60
    ) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}\n{self.output}"
            assert self.process.poll() is None, f"ended before: {what}\n{self.output}"
            time.sleep(0.05)

    def wait_end(self, timeout_s: float = 60) -> int:
        code = self.process.wait(timeout_s)
        self._reader.join(5)
        return code

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.wait_end()


class Installation:
    def __init__(self) -> None:
        # Short: the path of a unix socket ends at 107 signs, and nothing may depend on it.
        self.home = Path(tempfile.mkdtemp(prefix="gwu-"))
        self.home.chmod(0o755)
        self.data_dir = self.home / "data"
        self.mark = uuid4().hex
        self.web_port, self.proxy_port = free_port(), free_port()
        self.ups: list[Up] = []

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{self.web_port}"

    @property
    def proxy(self) -> str:
        return f"http://127.0.0.1:{self.proxy_port}"

    def environment(self, **settings: str) -> dict[str, str]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)
        }
        return (
            inherited
            | {
                "GATEWAY_DATA_DIR": str(self.data_dir),
                "GATEWAY_WEB_PORT": str(self.web_port),
                "GATEWAY_PROXY_PORT": str(self.proxy_port),
                MARK: self.mark,
            }
            | settings
        )

    def up(self, *arguments: str, **settings: str) -> Up:
        up = Up(self.environment(**settings), *arguments)
        self.ups.append(up)
        return up

    def refused(self, **settings: str) -> str:
        """The one line with which `up` refuses to start."""
        up = self.up(**settings)
        assert up.wait_end() == 1, up.output
        said = [line for line in up.lines if not re.match(r"[\w ]+\| ", line)]
        assert len(said) == 1, up.output
        return said[0]

    def processes(self) -> dict[int, str]:
        """Live processes of this installation: process id -> command line."""
        found = {}
        for directory in Path("/proc").iterdir():
            if not directory.name.isdigit():
                continue
            try:
                command = (directory / "cmdline").read_bytes()
                environment = (directory / "environ").read_bytes()
                place = str((directory / "cwd").readlink())  # servers overwrite the other two
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            belongs = (self.mark.encode() in environment, place.startswith(str(self.data_dir)))
            if command and any(belongs):
                found[int(directory.name)] = command.replace(b"\0", b" ").decode().strip()
        return found

    def find(self, part: str) -> int:
        """Process id of the first process whose command line contains `part`."""
        return min(pid for pid, command in self.processes().items() if part in command)

    def wait_for_end(self, timeout_s: float = 20) -> None:
        deadline = time.monotonic() + timeout_s
        while remaining := self.processes():
            assert time.monotonic() < deadline, remaining
            time.sleep(0.1)

    def stop(self) -> None:
        """What a failed test has left running."""
        for up in self.ups:
            if up.process.poll() is None:
                up.stop()

    def remove(self) -> None:
        self.stop()
        self.wait_for_end()
        shutil.rmtree(self.home, ignore_errors=True)


def get(url: str) -> httpx.Response | None:
    """None when nobody answers."""
    try:
        return httpx.get(url, timeout=5)
    except httpx.TransportError:
        return None


def status(url: str) -> int:
    """HTTP status of a GET, 0 when nobody answers."""
    answer = get(url)
    return answer.status_code if answer is not None else 0


def serves(installation: Installation) -> bool:
    """The proxy is past its import of LiteLLM; before that it answers for itself alone."""
    answer = get(f"{installation.proxy}/health")
    return answer is not None and "still starting" not in answer.json()["reasons"]
