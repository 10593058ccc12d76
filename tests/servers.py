"""One PostgreSQL and one Valkey per test session, thrown away afterwards."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from gateway_admin.lib.embedded_state import EmbeddedState
from gateway_admin.supervisor import reaper
from gateway_admin.supervisor.embedded import EmbeddedPostgres, EmbeddedValkey, wait_until_ready

HOME = "GATEWAY_TEST_HOME"
START_S = 60


class TestServers:
    """Belongs to the process that created the session's directory."""

    __test__ = False

    def __init__(self, home: Path, *, owned: bool) -> None:
        self.home = home
        self.owned = owned
        self.embedded: list[EmbeddedPostgres | EmbeddedValkey] = []
        self.processes: list[tuple[subprocess.Popen[bytes], signal.Signals]] = []
        self.reaper: subprocess.Popen[bytes] | None = None

    @classmethod
    def join(cls, *, throwaway: bool = True) -> "TestServers":
        """Describe the session's servers in the environment; nothing is started yet.

        Throwaway servers synchronise nothing to disk, which only a bench cares about.
        """
        if HOME in os.environ:
            servers = cls(Path(os.environ[HOME]), owned=False)
        else:
            servers = cls(Path(tempfile.mkdtemp(prefix="gwt-")), owned=True)
            servers._describe(throwaway=throwaway)
        number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw-1").removeprefix("gw")) + 1
        base, _, _ = os.environ["REDIS_URL"].rpartition("/")
        os.environ["REDIS_URL"] = f"{base}/{number}"
        return servers

    def _describe(self, *, throwaway: bool) -> None:
        state = EmbeddedState.fresh()
        self.home.chmod(0o755)  # PostgreSQL passes through it as another account
        os.environ[HOME] = str(self.home)
        os.environ["GATEWAY_DATA_DIR"] = str(self.home / "data")
        (self.home / "data" / "static").mkdir(parents=True)
        if "DATABASE_URL" not in os.environ:
            postgres = EmbeddedPostgres(self.home / "pg", state.postgres, throwaway=throwaway)
            os.environ["DATABASE_URL"] = postgres.url
            self.embedded.append(postgres)
        if "REDIS_URL" not in os.environ:
            valkey = EmbeddedValkey(self.home / "valkey", state.valkey, throwaway=throwaway)
            os.environ["REDIS_URL"] = valkey.url
            self.embedded.append(valkey)

    def start(self) -> None:
        self.reaper = subprocess.Popen(  # ends them should this process be killed
            [sys.executable, "-I", "-S", reaper.__file__],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        with (self.home / "servers.log").open("wb") as log:
            for server in self.embedded:
                server.prepare()
                process = subprocess.Popen(
                    server.command(), stdout=log, stderr=log, start_new_session=True
                )
                self.processes.append((process, server.stop_signal))
                self._tell_reaper(f"+{process.pid} {int(server.stop_signal)}\n")
        wait_until_ready(self.embedded, START_S)

    def _tell_reaper(self, line: str) -> None:
        if self.reaper is not None and self.reaper.stdin is not None:
            self.reaper.stdin.write(line.encode())
            self.reaper.stdin.flush()

    def stop(self) -> None:
        for process, stop_signal in self.processes:
            process.send_signal(stop_signal)
        for process, _ in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self._tell_reaper(f"-{process.pid}\n")
        if self.reaper is not None and self.reaper.stdin is not None:
            self.reaper.stdin.close()
            self.reaper.wait()
        shutil.rmtree(self.home, ignore_errors=True)
