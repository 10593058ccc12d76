"""A real uvicorn server on loopback with an application of a test's own, and bare sockets."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvicorn

from proxy.http_server import ClientConnection

App = Callable[[Any, Any, Any], Awaitable[None]]
Serve = Callable[..., Awaitable["Site"]]
PATIENCE_S = 5.0
GET = b"GET /here HTTP/1.1\r\nhost: test\r\n\r\n"


class Site:
    """A server with one application."""

    def __init__(self, app: App, **options: Any) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.server = uvicorn.Server(
            uvicorn.Config(
                app, http=ClientConnection, ws="none", lifespan="off", log_config=None,
                access_log=False, server_header=False, proxy_headers=False, **options,
            )
        )  # fmt: skip

    async def start(self) -> None:
        self.task = asyncio.create_task(self.server.serve(sockets=[self.listener]))
        while not self.server.started:  # noqa: ASYNC110  # uvicorn has no event for it
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self.server.should_exit = True
        await asyncio.wait_for(self.task, PATIENCE_S)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.listener.getsockname(), limit=2**24)

    async def ask(self, *parts: bytes) -> bytes:
        """Everything the server says until it closes the connection, or falls silent."""
        reader, writer = await self.connect()
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.02)
        said = await heard(reader)
        writer.close()
        return said


async def heard(reader: asyncio.StreamReader, silence_s: float = 0.3) -> bytes:
    said = b""
    with contextlib.suppress(TimeoutError):
        while piece := await asyncio.wait_for(reader.read(65536), silence_s):
            said += piece
    return said


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    sites = []

    async def start(app: App, **options: Any) -> Site:
        site = Site(app, **options)
        sites.append(site)
        await site.start()
        return site

    yield start
    for site in sites:
        await site.stop()


async def read_all(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        assert message["type"] == "http.request"
        body += bytes(message["body"])
        if not message["more_body"]:
            return body


def answer(
    send: Any, body: bytes, *headers: tuple[bytes, bytes], status: int = 200
) -> Awaitable[None]:
    async def both() -> None:
        lines = [(b"content-length", str(len(body)).encode()), *headers]
        await send({"type": "http.response.start", "status": status, "headers": lines})
        await send({"type": "http.response.body", "body": body})

    return both()


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body = await read_all(receive)
    told = f"{scope['method']} {scope['path']} {scope['raw_path'].decode()} "
    await answer(send, told.encode() + scope["query_string"] + b" " + body)
