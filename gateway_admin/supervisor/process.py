"""One child process: start, probe, prefix its output, restart it, stop it."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway_admin.supervisor.console import Console

BACKOFF_FIRST_S = 1.0
BACKOFF_LAST_S = 30.0
STEADY_AFTER_S = 30.0  # a child that lived this long starts again without waiting longer
PROBE_INTERVAL_S = 0.1
LONGEST_LINE_BYTES = 64 * 1024
OUTPUT_END_S = 1.0  # for the last lines of a child that has ended


@dataclass(frozen=True)
class ChildSpec:
    """What to run. Children stop in reverse order of `stage`, one stage at a time."""

    name: str
    stage: int
    command: Callable[[], list[str]]
    environment: Mapping[str, str]
    probe: Callable[[], bool]  # blocking, quick; True once the child does its work
    prepare: Callable[[], None] | None = None  # before each start
    stop_signal: signal.Signals = signal.SIGTERM
    grace_s: float = 15.0
    cwd: Path | None = None


class Reaper:
    """Told of each child, so that none outlives a supervisor that is killed."""

    def __init__(self, lock_descriptor: int) -> None:
        self._lock_descriptor = lock_descriptor
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        script = Path(__file__).with_name("reaper.py")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            str(script),
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
            pass_fds=[self._lock_descriptor],
        )

    def started(self, process_id: int, number: int) -> None:
        self._write(f"+{process_id} {number}\n")

    def ended(self, process_id: int) -> None:
        self._write(f"-{process_id}\n")

    def _write(self, line: str) -> None:
        if self._process is None or self._process.stdin is None:
            raise RuntimeError("the reaper is not running")
        self._process.stdin.write(line.encode())

    async def close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            await self._process.wait()


@dataclass
class Child:
    spec: ChildSpec
    console: Console
    reaper: Reaper
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    starts: int = 0
    ends: int = 0
    stopping: bool = False
    last_line: str = ""
    _process: asyncio.subprocess.Process | None = None
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Keep it running until `stop`; a crash is followed by ever longer pauses."""
        pause_s = BACKOFF_FIRST_S
        while not self.stopping:
            began = time.monotonic()
            code = await self._run_once()
            if self.stopping:
                return
            if time.monotonic() - began > STEADY_AFTER_S:
                pause_s = BACKOFF_FIRST_S
            self.console.say(
                f"{self.spec.name} ended ({_ending(code)}); starting it again in {pause_s:.0f} s"
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause_s)
                self._wake.clear()
            pause_s = min(pause_s * 2, BACKOFF_LAST_S)

    async def _run_once(self) -> int:
        spec = self.spec
        if spec.prepare is not None:
            await asyncio.to_thread(spec.prepare)
        # A pipe of our own: asyncio's would keep `wait` waiting for a crashed child's children.
        reading, writing = os.pipe()
        output = asyncio.create_task(self._copy_output(reading))
        try:
            process = await asyncio.create_subprocess_exec(
                *spec.command(),
                env=dict(spec.environment),
                cwd=spec.cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # its own group: Ctrl-C reaches the supervisor alone
            )
        finally:
            os.close(writing)
        self._process = process
        self.starts += 1
        self.reaper.started(process.pid, spec.stop_signal)
        if self.stopping:  # asked for while it was being started: it has done nothing yet
            _kill_group(process.pid)
        watch = asyncio.create_task(self._watch_ready())
        try:
            return await process.wait()
        finally:
            watch.cancel()
            self.ready.clear()
            self.ends += 1
            _kill_group(process.pid)  # what a crashed child itself has left
            self.reaper.ended(process.pid)
            await asyncio.wait({output}, timeout=OUTPUT_END_S)
            output.cancel()

    async def _watch_ready(self) -> None:
        while not await asyncio.to_thread(self.spec.probe):  # noqa: ASYNC110 (it is polled)
            await asyncio.sleep(PROBE_INTERVAL_S)
        self.ready.set()

    async def _copy_output(self, descriptor: int) -> None:
        """Print what comes through the pipe, line by line."""
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb")
        )
        pending = b""
        try:
            while chunk := await reader.read(LONGEST_LINE_BYTES):
                *lines, pending = (pending + chunk).split(b"\n")
                if len(pending) > LONGEST_LINE_BYTES:
                    lines, pending = [*lines, pending], b""
                for line in lines:
                    self._print(line)
            self._print(pending)
        finally:
            transport.close()

    def _print(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text:
            self.last_line = text
            self.console.line(self.spec.name, text)

    async def stop(self) -> None:
        """Its stop signal, the grace period, then SIGKILL for all of its group."""
        self.stopping = True
        self._wake.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(self.spec.stop_signal)
        try:
            await asyncio.wait_for(process.wait(), self.spec.grace_s)
        except TimeoutError:
            self.console.say(f"{self.spec.name} did not stop in {self.spec.grace_s:.0f} s: killed")
        _kill_group(process.pid)
        await process.wait()

    def kill(self) -> None:
        """At once; for a second Ctrl-C."""
        self.stopping = True
        if self._process is not None and self._process.returncode is None:
            _kill_group(self._process.pid)

    async def restart(self) -> None:
        """Stop it; `run` starts it again at once."""
        process = self._process
        if process is not None and process.returncode is None:
            self._wake.set()
            process.send_signal(self.spec.stop_signal)


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _ending(code: int) -> str:
    if code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
