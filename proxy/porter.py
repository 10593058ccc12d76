"""The porter's way out: whatever connection it accepted is answered before it is closed.

Its answers carry `Connection: close`, so no client keeps a connection to a process that
is about to leave. When it is told to leave it first stops accepting, opens the gate for
the workers, and then waits for the requests of the connections it already has.
"""

import asyncio
import os
import socket
from collections.abc import MutableMapping
from typing import Any

import uvicorn

from proxy.worker import AsgiApp, Receive, Scope, Send

# A client that connected and says nothing for so long had nothing to ask.
SILENCE_MAX_S = 2.0
# Connections accepted in the loop's last round are registered in its next one.
SETTLE_S = 0.05


def closing(app: AsgiApp) -> AsgiApp:
    """The application, with each answer the last one of its connection."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_closing(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"connection", b"close")]
                message = {**message, "headers": headers}
            await send(message)

        await app(scope, receive, send_closing)

    return serve


class PorterServer(uvicorn.Server):
    """Leaves in two steps: the door first, the guests when they were served."""

    def __init__(self, config: uvicorn.Config, gate_writer: int) -> None:
        super().__init__(config)
        self._gate_writer = gate_writer

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, let the workers in, answer what was accepted, then end."""
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        os.close(self._gate_writer)
        await asyncio.sleep(SETTLE_S)
        for _ in range(round(SILENCE_MAX_S / SETTLE_S)):
            if not self.server_state.connections:
                break
            await asyncio.sleep(SETTLE_S)
        await super().shutdown()
