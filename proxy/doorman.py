"""Spreads connections over a replica's workers, who all accept from one socket.

Whoever is awake first would take all that wait, and clients keep their connections: one worker of
two would serve 38 of 64 for hours. So each tells the others how many it has, and one that has
more than another leaves the door to it for a moment. Who is still waiting then is let in by
whoever looks, so a worker that hangs keeps nobody out.
"""

import asyncio
import errno
import logging
import mmap
import os
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any, cast

import uvicorn

from proxy.http_server import ClientConnection

logger = logging.getLogger("gateway.doorman")

MORE_AT_MOST = 1  # connections than the worker that has the fewest
LEAVES_DOOR_S = 0.005
NO_FILES_RETRY_S = 0.5
ABSENT = -1


class Counts:
    """Connections by worker, in memory that the launcher shares with all of them."""

    def __init__(self, workers: int) -> None:
        self._memory = mmap.mmap(-1, 4 * workers)
        self._counts = memoryview(self._memory).cast("i")
        for slot in range(workers):
            self._counts[slot] = ABSENT

    def tell(self, slot: int, count: int) -> None:
        """A worker has so many, or is absent."""
        self._counts[slot] = count

    def fewest(self) -> int:
        """Of the workers that are there."""
        return min((count for count in self._counts if count != ABSENT), default=0)


class Doorman:
    """Accepts the connections of one worker. To uvicorn it is one of its servers."""

    def __init__(
        self,
        listener: socket.socket,
        counts: Counts,
        slot: int,
        *,
        connections: Callable[[], int],
        protocol: Callable[[Callable[[], None]], asyncio.Protocol],
    ) -> None:
        self._listener = listener
        self._counts, self._slot = counts, slot
        self._connections = connections
        self._protocol = protocol  # is given what to call when it is closed
        self._loop = asyncio.get_running_loop()
        self._arriving: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def open(self) -> None:
        """From now on connections are accepted."""
        self.tell()
        self._loop.add_reader(self._listener.fileno(), self._knocked)

    def close(self) -> None:
        """No further ones."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        else:
            self._loop.remove_reader(self._listener.fileno())
        self._counts.tell(self._slot, ABSENT)

    async def wait_closed(self) -> None:
        """Nothing is left to be done."""

    def tell(self) -> None:
        """How many connections this worker has now."""
        if not self._closed:
            self._counts.tell(self._slot, self._count())

    def _count(self) -> int:
        return self._connections() + len(self._arriving)

    def _knocked(self) -> None:
        """Somebody waits. One is let in, or left to a worker that has fewer."""
        if self._count() >= self._counts.fewest() + MORE_AT_MOST + 1:
            self._leave(LEAVES_DOOR_S)
        else:
            self._let_in()

    def _leave(self, wait_s: float) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._timer = self._loop.call_later(wait_s, self._again)

    def _again(self) -> None:
        """If nobody else took who waited longest, it has waited long enough."""
        self._timer = None
        self._loop.add_reader(self._listener.fileno(), self._knocked)
        self._let_in()

    def _let_in(self) -> None:
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker was faster, or the client left
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise
            logger.error("cannot accept connections: %s", error.strerror)
            self._leave(NO_FILES_RETRY_S)
            return
        client.setblocking(False)
        task = self._loop.create_task(self._connect(client))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)
        self.tell()

    async def _connect(self, client: socket.socket) -> None:
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(lambda: self._protocol(self.tell), client)
        except OSError:
            client.close()  # it left again


class WorkerServer(uvicorn.Server):
    """While it starts it waits for others, and keeps the port; told to leave, it leaves at once."""

    def __init__(self, config: uvicorn.Config, counts: Counts, slot: int) -> None:
        super().__init__(config)
        self._counts, self._slot = counts, slot

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but for who accepts."""
        await super().startup(sockets=[])
        for listener in sockets or []:
            doorman = Doorman(
                listener,
                self._counts,
                self._slot,
                connections=lambda: len(self.server_state.connections),
                protocol=self._protocol,
            )
            doorman.open()
            self.servers.append(cast(Any, doorman))

    def _protocol(self, on_close: Callable[[], None]) -> asyncio.Protocol:
        state, app_state = self.server_state, self.lifespan.state
        return ClientConnection(self.config, state, app_state, on_close=on_close)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM or SIGINT."""
        if not self.started:
            os._exit(0)  # nobody was served, so nothing has to be finished
        super().handle_exit(sig, frame)
