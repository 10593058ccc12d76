"""A Valkey of a test's own, to be stopped, paused and wiped."""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gateway_admin.lib.embedded_state import Endpoint
from gateway_admin.supervisor.embedded import EmbeddedValkey, wait_until_ready
from tests.proxy.replica import free_port

READY_S = 20.0


class OwnValkey:
    """Forgets everything when it is stopped."""

    def __init__(self, home: Path) -> None:
        self._server = EmbeddedValkey(home, Endpoint(free_port(), "secret"), throwaway=True)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """As REDIS_URL."""
        return self._server.url

    def start(self) -> None:
        """Start empty; returns when it answers."""
        self._server.prepare()
        self._process = subprocess.Popen(
            self._server.command(), stdout=subprocess.DEVNULL, start_new_session=True
        )
        wait_until_ready([self._server], READY_S)

    def stop(self) -> None:
        """End at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None
        return self._process.pid

    def pause(self) -> None:
        """It keeps its connections and answers nobody."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """It answers again, also what was asked meanwhile."""
        os.kill(self.pid, signal.SIGCONT)


@contextlib.contextmanager
def running() -> Iterator[OwnValkey]:
    """A fresh server."""
    with tempfile.TemporaryDirectory(prefix="gwv-") as home:
        server = OwnValkey(Path(home))
        server.start()
        try:
            yield server
        finally:
            server.stop()
