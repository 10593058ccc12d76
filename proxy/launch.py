"""`python -m proxy.launch`: one replica of the data plane.

    1. check settings, lock the state directory, bind the port
    2. fork the porter: it answers probes, and refusals from the last good state
    3. import LiteLLM once, freeze it, fork the workers; they share the listening socket
       and the imported pages, so a crashed worker is back in a second
    4. when the first worker serves, the porter stops accepting, answers, and leaves
    5. SIGTERM: workers finish their requests (bounded), deliver usage, exit

Forking after the import is safe because the import leaves a single thread (asserted) and
no event loop; numpy's helper threads are switched off before it.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import gc
import hmac
import logging
import os
import secrets
import select
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import uvicorn

from proxy.doorman import ABSENT, Counts
from proxy.errors import scrub
from proxy.memory import steady_allocator, without_source_lines
from proxy.settings import ProxySettings, SettingsError, load_settings
from proxy.state import StateDirectory, write_atomically

if TYPE_CHECKING:
    from proxy.worker import AsgiApp, Backend

logger = logging.getLogger("gateway.launch")

CONFIG_FILE = "litellm.yaml"
LOCK_FILE = "launch.lock"
BACKLOG = 2048
BIND_PATIENCE_S = 5.0
RESTART_BACKOFF_MAX_S = 10.0
STEADY_AFTER_S = 10.0
KILL_MARGIN_S = 8.0
PORTER_LEAVES_S = 3.0
PR_SET_PDEATHSIG = 1

LITELLM_YAML = """\
# Generated at start; models and keys come from the control plane, not from here.
general_settings:
  custom_auth: proxy.plugin.authenticate
  disable_budget_reservation: true
  disable_spend_logs: true
  trusted_proxy_ranges: []
litellm_settings:
  telemetry: false
  drop_params: true
  turn_off_message_logging: true
"""


_NOT_FOR_LITELLM = frozenset(
    {"DATABASE_URL", "DIRECT_URL", "GATEWAY_FLEET_TOKEN", "GATEWAY_FLEET_KEY", "GATEWAY_KEY_PEPPER"}
    | {"GATEWAY_SECRET_KEY", "GATEWAY_ENCRYPTION_KEYS", "GATEWAY_ADMIN_PASSWORD"}
    | {"GATEWAY_ADMIN_TOKEN", "STORE_MODEL_IN_DB", "WORKER_CONFIG"}
)


THREADS_TURN_S = 0.0005
# Of a connection to a client, in the kernel. What a slow reader leaves there was translated
# already, and LiteLLM keeps some twenty times its size of each stream.
SEND_BUFFER_BYTES = 256 * 1024
_SALT = b"ids of responses"


class LaunchError(Exception):
    """The replica cannot start; the message is one line for the operator."""


def prepare_environment(settings: ProxySettings) -> None:
    """What LiteLLM reads from its environment, set before it is imported."""
    state = StateDirectory(settings.state_dir)
    config = settings.state_dir / CONFIG_FILE
    if not config.exists() or config.read_text() != LITELLM_YAML:  # a full disk is no obstacle
        write_atomically(config, LITELLM_YAML.encode())
    # LiteLLM would take these up, and nothing after this point needs them.
    for name in list(os.environ):
        if name in _NOT_FOR_LITELLM or name.startswith("REDIS_"):
            del os.environ[name]
    os.environ.update(
        CONFIG_FILE_PATH=str(config),
        LITELLM_MODE="PRODUCTION",
        LITELLM_LOCAL_MODEL_COST_MAP="True",
        LITELLM_LOG="ERROR",
        LITELLM_TELEMETRY="False",
        # Given to nobody: LiteLLM's own authentication must have no usable key.
        LITELLM_MASTER_KEY="sk-" + secrets.token_urlsafe(48),
        # It seals the ids of responses, which other replicas and later starts must open, too.
        LITELLM_SALT_KEY="sk-" + hmac.digest(settings.fleet.fleet_key, _SALT, "sha256").hex(),
        NO_DOCS="True",
        NO_REDOC="True",
        NO_OPENAPI="True",
        DISABLE_ADMIN_UI="True",
        # No callbacks in threads: nobody reads what they make, and they add to dictionaries that
        # the event loop is walking through, which turns an answer into a failure. Beyond this
        # many LiteLLM drops them.
        LOGGING_EXECUTOR_MAX_PENDING_TASKS="0",
        OPENBLAS_NUM_THREADS="1",
        OMP_NUM_THREADS="1",
        PROMETHEUS_MULTIPROC_DIR=str(state.metrics),
    )


def bind(settings: ProxySettings) -> socket.socket:
    """Listening socket; a predecessor that is still draining gets a moment to let go."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    deadline = time.monotonic() + BIND_PATIENCE_S
    while True:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        try:
            listener.bind((settings.host, settings.port))
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            if time.monotonic() >= deadline:
                raise LaunchError(
                    f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; "
                    "choose another GATEWAY_PROXY_PORT or stop what uses it"
                ) from error
            time.sleep(0.2)
        else:
            listener.setblocking(False)
            return listener


def lock_state(settings: ProxySettings) -> int:
    """One launcher per state directory; the descriptor holds the lock."""
    descriptor = os.open(settings.state_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise LaunchError(
            f"another proxy already uses {settings.state_dir}: set GATEWAY_PROXY_STATE_DIR"
        ) from None
    return descriptor


@dataclass(slots=True)
class Child:
    """A forked process."""

    pid: int
    slot: int  # -1: the porter
    started: float
    ready_fd: int


class Entrance:
    """Hands the door over from the porter to the workers.

    A worker that is able to serve says so, then waits until the porter has stopped
    accepting. New connections wait in the listening socket's backlog meanwhile.
    """

    def __init__(self, ready_fd: int, gate: int | None) -> None:
        self._ready_fd = ready_fd
        self._gate = gate

    async def enter(self) -> None:
        """Announce readiness; return when connections may be accepted."""
        os.write(self._ready_fd, b"1")
        os.close(self._ready_fd)
        if self._gate is None:
            return
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_reader(self._gate, gone.set)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(gone.wait(), PORTER_LEAVES_S)
        loop.remove_reader(self._gate)


class Launcher:
    """The parent: forks, watches, replaces, stops."""

    def __init__(self, settings: ProxySettings, listener: socket.socket, lock: int) -> None:
        self.settings = settings
        self.listener = listener
        self.lock = lock
        self.children: dict[int, Child] = {}
        self.counts = Counts(settings.workers)
        self.porter: int | None = None
        self.backend: Backend | None = None
        # End of file on the gate means that the porter no longer accepts connections.
        self.gate, self.gate_writer = os.pipe()
        self.stopping = False
        self._failures: dict[int, int] = {}
        self._restart_at: dict[int, float] = {}

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the exit status."""
        signal.signal(signal.SIGTERM, _leave)
        signal.signal(signal.SIGINT, _leave)
        try:
            self.porter = self._fork(-1)
            os.close(self.gate_writer)
            self._import_backend()
            signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
            for slot in range(self.settings.workers):
                self._fork(slot)
            self._watch()
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
            self._stop()
        return 0

    def _import_backend(self) -> None:
        started = time.monotonic()
        steady_allocator()
        gc.disable()  # nothing of it is garbage: a fifth less time
        from proxy.backend import LiteLlm, import_late_modules, load_tokenizers
        from proxy.reference_cycles import let_go_of_answers

        import_late_modules()
        load_tokenizers()
        without_source_lines()
        let_go_of_answers()
        self.backend = LiteLlm()
        gc.collect()
        gc.freeze()
        gc.enable()
        gc.set_threshold(50_000, 20, 100)
        if threading.active_count() != 1:
            names = ", ".join(thread.name for thread in threading.enumerate())
            raise LaunchError(f"importing LiteLLM started threads ({names}): cannot fork workers")
        logger.info("LiteLLM imported in %.1f s", time.monotonic() - started)

    def _fork(self, slot: int) -> int:
        reader, writer = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            self._be_child(slot, writer, parent)
        os.close(writer)
        self.children[pid] = Child(pid, slot, time.monotonic(), reader)
        return pid

    def _be_child(self, slot: int, ready_fd: int, parent: int) -> NoReturn:
        status = 1
        try:
            _follow_parent(parent)
            os.close(self.lock)
            for child in self.children.values():
                if child.ready_fd >= 0:
                    os.close(child.ready_fd)
            for number in _WATCHED:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
            is_porter = slot < 0
            status = serve(
                self.settings,
                self.listener,
                slot=slot,
                backend=self.backend,
                entrance=Entrance(ready_fd, None if is_porter else self.gate),
                gate_writer=self.gate_writer if is_porter else None,
                counts=self.counts,
            )
        except KeyboardInterrupt:
            status = 0
        except BaseException:
            logger.critical("worker failed", exc_info=True)
        finally:
            logging.shutdown()
            os._exit(status)

    def _watch(self) -> None:
        while not self.stopping:
            waiting = [child.ready_fd for child in self.children.values() if child.ready_fd >= 0]
            if waiting:
                self._note_ready(waiting)
            caught = signal.sigtimedwait(_WATCHED, 0.05 if waiting else 1.0)
            if caught is not None and caught.si_signo != signal.SIGCHLD:
                self.stopping = True
                return
            self._reap()
            self._restart_due()

    def _note_ready(self, waiting: list[int]) -> None:
        ready, _, _ = select.select(waiting, [], [], 0)
        for child in self.children.values():
            if child.ready_fd not in ready:
                continue
            said = os.read(child.ready_fd, 1)
            os.close(child.ready_fd)
            child.ready_fd = -1
            if said and child.slot >= 0:
                logger.info("worker %d serves on port %d", child.slot, self.port)
                if self.porter is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(self.porter, signal.SIGTERM)
                    self.porter = None

    @property
    def port(self) -> int:
        """The port that is bound (also when 0 was asked for)."""
        return int(self.listener.getsockname()[1])

    def _reap(self) -> None:
        from proxy.metrics import forget_worker

        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self.children.pop(pid, None)
            if child is None:
                continue
            if child.ready_fd >= 0:
                os.close(child.ready_fd)
            forget_worker(pid, StateDirectory(self.settings.state_dir).metrics)
            if child.slot >= 0:
                self.counts.tell(child.slot, ABSENT)
            if child.slot >= 0 and not self.stopping:
                self._plan_restart(child, status)

    def _plan_restart(self, child: Child, status: int) -> None:
        steady = time.monotonic() - child.started >= STEADY_AFTER_S
        failures = 0 if steady else self._failures.get(child.slot, 0) + 1
        self._failures[child.slot] = failures
        wait_s = min(0.2 * 2**failures, RESTART_BACKOFF_MAX_S) if failures else 0.0
        self._restart_at[child.slot] = time.monotonic() + wait_s
        code = os.waitstatus_to_exitcode(status)
        logger.error("worker %d ended with %d; restart in %.1f s", child.slot, code, wait_s)

    def _restart_due(self) -> None:
        now = time.monotonic()
        for slot in [slot for slot, moment in self._restart_at.items() if moment <= now]:
            del self._restart_at[slot]
            self._fork(slot)

    def _stop(self) -> None:
        """Ask all children to finish; kill what does not within its grace."""
        self.stopping = True
        self.listener.close()
        self._signal_all(signal.SIGTERM)
        deadline = time.monotonic() + self.settings.shutdown_grace_s + KILL_MARGIN_S
        while self.children and time.monotonic() < deadline:
            self._reap()
            if self.children:
                signal.sigtimedwait({signal.SIGCHLD}, 0.2)
        self._signal_all(signal.SIGKILL)
        while self.children:
            self._reap()
            time.sleep(0.02)
        StateDirectory(self.settings.state_dir).forget_metrics()

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in list(self.children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


_WATCHED = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


def _leave(number: int, frame: FrameType | None) -> None:
    """While LiteLLM is being imported: a signal ends the import."""
    raise SystemExit(0)


def _follow_parent(parent: int) -> None:
    """Linux: a worker whose parent was killed gets SIGTERM instead of living on."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(0)  # it was killed before we could ask for the signal


def serve(
    settings: ProxySettings,
    listener: socket.socket,
    *,
    slot: int,
    backend: "Backend | None",
    entrance: Entrance,
    gate_writer: int | None,
    counts: Counts,
) -> int:
    """Body of a child: uvicorn with our edge until it is told to stop.

    `gate_writer` is the porter's: closing it lets the workers accept connections.
    """
    from proxy.doorman import WorkerServer
    from proxy.edge import Edge
    from proxy.metrics import Metrics
    from proxy.porter import PorterServer, closing
    from proxy.worker import Worker

    # A thread (the spool is read in one) that wants to compute gets its turn, but a short one.
    sys.setswitchinterval(THREADS_TURN_S)
    worker = Worker(settings, slot=slot, metrics=Metrics(), backend=backend)
    edge = Edge(worker, on_started=entrance.enter)
    config = _server_config(settings, edge if gate_writer is None else closing(edge))
    server: uvicorn.Server
    if gate_writer is None:
        server = WorkerServer(config, counts, slot)
    else:
        server = PorterServer(config, gate_writer)
    server.run(sockets=[listener])
    return 0 if server.started else 3


def _server_config(settings: ProxySettings, app: "AsgiApp") -> uvicorn.Config:
    from proxy.http_server import ClientConnection

    return uvicorn.Config(
        app,
        loop="uvloop",
        http=ClientConnection,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # nothing here asks who the client is
        backlog=BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_grace_s)),
    )


class ScrubbingFormatter(logging.Formatter):
    """Whatever a library logs, nothing that looks like a key reaches a log line."""

    def format(self, record: logging.LogRecord) -> str:
        """One record, scrubbed."""
        return scrub(super().format(record))


def configure_logging(settings: ProxySettings) -> None:
    """One line per record on standard error; libraries only when something is wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        ScrubbingFormatter("%(asctime)s %(levelname)s %(name)s [%(process)d] %(message)s")
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("gateway").setLevel(settings.log_level)
    # uvicorn's "invalid HTTP request" and the like are the client's affair.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)


def main() -> int:
    """Entry point."""
    try:
        settings = load_settings()
        configure_logging(settings)
        state = StateDirectory(settings.state_dir)
        state.prepare()
        state.replica_id()
        lock = lock_state(settings)
        listener = bind(settings)
        prepare_environment(settings)
    except (SettingsError, LaunchError, OSError) as error:
        print(f"proxy: {error}", file=sys.stderr)  # noqa: T201  # before logging can be trusted
        return 2
    from proxy.metrics import prepare_directory

    prepare_directory(state.metrics)
    try:
        return Launcher(settings, listener, lock).run()
    except LaunchError as error:
        logger.critical("%s", error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
