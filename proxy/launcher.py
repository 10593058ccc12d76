"""The parent of a replica: forks its processes, watches them, replaces them, stops them.

Forking after the import of LiteLLM is safe because the import leaves a single thread (asserted)
and no event loop; numpy's helper threads are switched off before it.
"""

import contextlib
import ctypes
import gc
import logging
import os
import select
import signal
import socket
import threading
import time
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from proxy.doorman import ABSENT, Counts
from proxy.memory import steady_allocator, without_source_lines
from proxy.serving import Entrance, serve
from proxy.settings import ProxySettings
from proxy.state import StateDirectory

if TYPE_CHECKING:
    from proxy.worker import Backend

logger = logging.getLogger("gateway.launch")

RESTART_BACKOFF_MAX_S = 10.0
STEADY_AFTER_S = 10.0
KILL_MARGIN_S = 8.0
PR_SET_PDEATHSIG = 1


class LaunchError(Exception):
    """The replica cannot start; the message is one line for the operator."""


@dataclass(slots=True)
class Child:
    """A forked process."""

    pid: int
    slot: int  # -1: the porter
    started: float
    ready_fd: int


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
        from proxy.reference_cycles import let_go_of_answers, let_go_of_messages

        import_late_modules()
        load_tokenizers()
        without_source_lines()
        let_go_of_answers()
        let_go_of_messages()
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
