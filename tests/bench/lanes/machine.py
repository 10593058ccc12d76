"""Cores, processes, their CPU time and their memory."""

import contextlib
import os
import platform
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
START_MAX_S = 90.0
STOP_MAX_S = 40.0


class BenchError(Exception):
    """The bench cannot go on; the message says what to do."""


@dataclass(frozen=True)
class Cores:
    """Who works where."""

    gateway: frozenset[int]
    load: frozenset[int]

    @classmethod
    def found(cls) -> "Cores":
        """The last core is the gateway's, the others are everybody else's."""
        allowed = sorted(os.sched_getaffinity(0))
        if len(allowed) < 2:
            raise BenchError("two cores are needed: one for the gateway, one for load and mock")
        return cls(frozenset(allowed[-1:]), frozenset(allowed[:-1]))

    @property
    def all(self) -> frozenset[int]:
        """Every core."""
        return self.gateway | self.load


@contextlib.contextmanager
def pinned(cores: frozenset[int]) -> Iterator[None]:
    """Processes started within the block run on these cores, and so do their children."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def process(
    command: Sequence[str],
    log: Path,
    *,
    cores: frozenset[int],
    environ: Mapping[str, str] | None = None,
    port: int,
) -> Iterator[int]:
    """Run a server on its cores until the block ends; gives its pid once it listens."""
    with log.open("ab") as output, pinned(cores):
        child = subprocess.Popen(
            command, env=environ, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_listening(child, port, log)
        yield child.pid
    finally:
        child.terminate()
        try:
            child.wait(STOP_MAX_S)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def wait_listening(child: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    """Wait until somebody accepts connections on the port."""
    deadline = time.monotonic() + START_MAX_S
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise BenchError(f"{child.args!r} ended: {log.read_text()[-2000:]}")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.05)
    raise BenchError(f"{child.args!r} never listened: {log.read_text()[-2000:]}")


def move(pids: Sequence[int], cores: frozenset[int]) -> None:
    """Processes that run, with all their threads, go on on these cores."""
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), cores)


@contextlib.contextmanager
def first_in_line(pids: Sequence[int]) -> Iterator[bool]:
    """Processes that never wait for others on their core; gives whether that was allowed."""
    changed: list[int] = []
    try:
        for pid in pids:
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setscheduler(int(task.name), os.SCHED_FIFO, os.sched_param(1))
                changed.append(int(task.name))
        allowed = True
    except PermissionError:
        allowed = False
    try:
        yield allowed
    finally:
        for thread in changed:
            with contextlib.suppress(OSError):  # it has ended
                os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def tree(pid: int) -> list[int]:
    """A process and everything that came from it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            for child in (task / "children").read_text().split():
                found += tree(int(child))
    return found


def cpu_s(pid: int) -> float:
    """Seconds of CPU of one process, children that have ended included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return sum(int(value) for value in fields[11:15]) / TICKS_PER_S


def tree_cpu_s(pid: int) -> float:
    """Seconds of CPU of a whole tree."""
    total = 0.0
    for member in tree(pid):
        with contextlib.suppress(OSError):
            total += cpu_s(member)
    return total


def memory_mb(pid: int) -> float:
    """Resident memory of a whole tree; pages that several of them share count once."""
    total = 0
    for member in tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024


def described() -> str:
    """The machine and its Python, for the report."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores of {model}, {idling()}load average {load:.1f}; {python()}"


def idling() -> str:
    """What an idle core of a virtual machine does; one that halts at once wakes late."""
    try:
        polls_ns = int(Path("/sys/module/haltpoll/parameters/guest_halt_poll_ns").read_text())
    except (OSError, ValueError):
        return ""
    if not polls_ns:
        return "which halt as soon as they are idle, "
    return f"which poll {polls_ns // 1000} µs before they halt, "


def python() -> str:
    """Version of this Python and how it was built; distributions optimise without saying so."""
    flags = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    if sys.base_prefix == "/usr":
        built = "the distribution's build"
    elif "--enable-optimizations" in flags:
        built = "optimised build"
    else:
        built = "built without optimisations"
    return f"Python {platform.python_version()} ({built})"
