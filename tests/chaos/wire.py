"""A TCP connection that can be broken on purpose: forwards, refuses, or delays.

with Wire(target_port) as wire:
    url = f"redis://…@127.0.0.1:{wire.port}/0"
    wire.refuse()      # connections die, new ones are refused
    wire.delay(0.5)    # every answer comes half a second late
    wire.restore()
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any

CHUNK_BYTES = 64 * 1024


class Wire:
    """One listening port on loopback in front of another; runs in a thread of its own."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self._delay_s = 0.0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._run(self._listen())

    def __enter__(self) -> "Wire":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def refuse(self) -> None:
        """As if the server were gone."""
        self._run(self._close())

    def delay(self, seconds: float) -> None:
        """Hold back everything that the server answers."""
        self._delay_s = seconds

    def restore(self) -> None:
        """Forward at once again."""
        self._delay_s = 0.0
        if self._server is None:
            self._run(self._listen())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            target_reader, target = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(target)
        try:
            await asyncio.gather(
                self._pump(reader, target, delayed=False),
                self._pump(target_reader, writer, delayed=True),
            )
        finally:
            self._writers -= {writer, target}

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, delayed: bool
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(CHUNK_BYTES):
                if delayed and self._delay_s:
                    await asyncio.sleep(self._delay_s)
                writer.write(data)
                await writer.drain()
        writer.close()
