"""An installation that can be hurt: two replicas, and a Redis behind a wire.

`manage.py up` runs the control plane, PostgreSQL and the first replica; the second replica
is a process of its own with the same fleet token, as on another machine. Redis is started
beside them, so that the wire before it can refuse or delay.
"""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from gateway_admin.demo.simulator.process import running_simulator
from gateway_admin.lib.embedded_state import EmbeddedState, free_port
from gateway_admin.supervisor.embedded import EmbeddedValkey, wait_until_ready
from tests.acceptance.stack import Stack
from tests.chaos.wire import Wire
from tests.supervisor.installation import MARK, ROOT, Installation

ENVIRONMENT = "prod"
DISK_MB = 48
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")  # Debian: libfaketime


class Replica:
    """A further proxy process with its own port and state directory."""

    def __init__(self, stack: Stack, name: str, *, workers: int, **settings: str) -> None:
        self.stack = stack
        self.workers = workers
        self.port = free_port()
        self.state_dir = stack.installation.home / name
        self._make_disk()
        self.log = stack.installation.home / f"{name}.log"
        self.settings = settings
        self.clock = stack.installation.home / f"{name}.clock"
        self.step_clock(0)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        installation = self.stack.installation
        environment = {
            **{n: v for n, v in os.environ.items() if not n.startswith(("GATEWAY_", "DJANGO_"))},
            "GATEWAY_FLEET_FILE": str(installation.data_dir / "fleet" / f"{ENVIRONMENT}.json"),
            "GATEWAY_PROXY_STATE_DIR": str(self.state_dir),
            "GATEWAY_PROXY_PORT": str(self.port),
            "GATEWAY_PROXY_WORKERS": str(self.workers),
            MARK: installation.mark,
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self.clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            **self.settings,
        }
        for name in ("DATABASE_URL", "REDIS_URL", "PYTHONDONTWRITEBYTECODE"):
            environment.pop(name, None)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "proxy.launch"],
                cwd=ROOT, env=environment, stdout=log, stderr=log,
            )  # fmt: skip

    def step_clock(self, seconds: int) -> None:
        """Put this replica's wall clock so far ahead of (or behind) everybody else's."""
        assert FAKETIME.exists(), "install Debian's libfaketime: the clock of a replica is stepped"
        self.clock.write_text(f"{seconds:+d}\n")

    def serves(self) -> bool:
        try:
            answer = httpx.get(f"{self.url}/health", timeout=5)
        except httpx.TransportError:
            return False
        return answer.status_code in (200, 503) and "still starting" not in answer.text

    def wait(self, *, timeout_s: float = 120) -> None:
        self.stack.wait_for(self.serves, f"replica on {self.port} serves", timeout_s=timeout_s)

    def _make_disk(self) -> None:
        """A small disk of its own, so that it can be full. Mounting takes root."""
        self.state_dir.mkdir(mode=0o700)
        subprocess.run(
            [
                "/bin/mount",
                "-t",
                "tmpfs",
                "-o",
                f"size={DISK_MB}m,mode=700",
                "tmpfs",
                self.state_dir,
            ],
            check=True,
        )

    def remove_disk(self) -> None:
        subprocess.run(["/bin/umount", "-l", self.state_dir], check=True)

    def processes(self) -> list[int]:
        """Its launcher and its workers."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [self.process.pid, *map(int, children.split())]

    def kill(self) -> None:
        """All of its processes at once, as when its machine dies."""
        assert self.process is not None
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        self.process.wait(60)

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(60)


class Site:
    """The stack, its second replica, its Redis, and ways to hurt them."""

    def __init__(self, stack: Stack, replica: Replica, wire: Wire, redis_url: str) -> None:
        self.stack = stack
        self.replica = replica
        self.wire = wire
        self.redis_url = redis_url  # past the wire, for looking
        self.poor = ""  # a key whose budget is spent
        self.restarted = (0.0, 0.0)  # when we took the second replica away ourselves

    @property
    def urls(self) -> list[str]:
        return [self.stack.proxy, self.replica.url]

    def processes(self, part: str) -> list[int]:
        """Process ids whose command line contains `part`."""
        found = self.stack.installation.processes()
        return [pid for pid, command in found.items() if part in command]

    def kill(self, *parts: str) -> None:
        for part in parts:
            for pid in self.processes(part):
                os.kill(pid, signal.SIGKILL)

    @contextmanager
    def supervisor_asleep(self) -> Iterator[None]:
        """What is killed meanwhile stays dead; afterwards the supervisor brings it back."""
        assert self.stack.running
        self.stack.running.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.stack.running.process.send_signal(signal.SIGCONT)

    @contextmanager
    def disks_full(self) -> Iterator[None]:
        """The second replica's disk is full; no file of the first one's may grow."""
        filler = self.replica.state_dir / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x" * 65_536):
                pass
        try:
            with self._files_cannot_grow():
                yield
        finally:
            filler.unlink()

    @contextmanager
    def _files_cannot_grow(self) -> Iterator[None]:
        children = set(self.replica.processes())
        pids = [pid for pid in self.processes("proxy.launch") if pid not in children]
        before = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids}
        for pid, (_, hard) in before.items():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
        try:
            yield
        finally:
            for pid, limits in before.items():
                with contextlib.suppress(ProcessLookupError):
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)

    # --- looking ---------------------------------------------------------------------------

    def health(self) -> dict[str, list[str]]:
        """Reasons why workers are degraded, by worker, as the control plane was told."""
        return {str(worker["pid"]): worker["reasons"] for worker in self.stack.workers()}

    def wait_healthy(self, *, timeout_s: float = 120) -> float:
        """Seconds until every worker of both replicas reports no reason."""

        def healthy() -> bool:
            try:
                reasons = self.health()
            except (AssertionError, httpx.TransportError):
                return False
            return len(reasons) >= self.stack.worker_count and not any(reasons.values())

        return self.stack.wait_for(healthy, "every worker is healthy again", timeout_s=timeout_s)


@contextmanager
def running_site(*, workers_each: int = 2, **settings: str) -> Iterator[Site]:
    """Two replicas of `workers_each` workers; nothing is left behind."""
    installation = Installation()
    endpoint = EmbeddedState.fresh().valkey
    valkey = EmbeddedValkey(installation.home / "redis", endpoint)
    valkey.prepare()
    server = subprocess.Popen(valkey.command(), stdout=subprocess.DEVNULL)
    try:
        wait_until_ready([valkey], 30)
        with Wire(endpoint.port) as wire, running_simulator(free_port()) as simulator:
            wired = valkey.url.replace(f":{endpoint.port}", f":{wire.port}")
            stack = Stack(
                installation, simulator, workers=workers_each, REDIS_URL=wired, **settings
            )
            replica = Replica(stack, "second", workers=workers_each)
            try:
                stack.up()
                stack.configure()
                replica.start()
                replica.wait()
                stack.worker_count = 2 * workers_each
                yield Site(stack, replica, wire, valkey.url)
            except AssertionError as error:
                error.add_note(stack.running.output[-6000:] if stack.running else "not started")
                error.add_note(replica.log.read_text()[-3000:] if replica.log.exists() else "")
                raise
            finally:
                replica.stop()
                replica.remove_disk()
                stack.api.close()
                wire.restore()
                installation.stop()
    finally:
        server.send_signal(valkey.stop_signal)
        server.wait(20)
        installation.remove()


def wait_until(condition: Callable[[], Any], what: str, *, timeout_s: float) -> float:
    """Seconds until the condition held."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s, f"not within {timeout_s} s: {what}"
        time.sleep(0.1)
    return time.monotonic() - began
