"""Body of a replica's processes: a worker that serves, or the porter before there is one."""

import asyncio
import contextlib
import os
import socket
import sys
from typing import TYPE_CHECKING

import uvicorn

from proxy.doorman import Counts
from proxy.settings import ProxySettings

if TYPE_CHECKING:
    from proxy.worker import AsgiApp, Backend

BACKLOG = 2048  # connections that wait to be accepted
PORTER_LEAVES_S = 3.0
THREADS_TURN_S = 0.0005


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
