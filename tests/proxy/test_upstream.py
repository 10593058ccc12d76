"""The direct lane's HTTP client against servers that behave well, oddly and badly."""

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from proxy.exchange import BUFFERED_MAX_BYTES, Exchange, StaleConnection, UpstreamError
from proxy.provider_connection import Origin, ProviderConnection
from proxy.ticker import Ticker
from proxy.upstream import Upstream
from tests.proxy.left_over import alive, without_collector

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
REQUEST = b"POST /v1/x HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nX-One: 1\r\n\r\nhello"


@asynccontextmanager
async def provider(serve: Serve) -> AsyncIterator[tuple[Upstream, Origin]]:
    """A server that does as told with each connection, and a client for it."""
    writers: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    upstream = Upstream(Ticker())
    try:
        yield upstream, upstream.origin("http", *server.sockets[0].getsockname())
    finally:
        upstream.close()
        for writer in writers:
            writer.close()
        server.close()


def answering(*answers: bytes) -> Serve:
    """Answers the requests of a connection in turn, then closes it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"{}")
            writer.write(answer)
            await writer.drain()

    return serve


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads, and never answers."""
    await reader.read()


async def ask(upstream: Upstream, origin: Origin, *, timeout_s: float = 5.0) -> Exchange:
    exchange = await upstream.send(origin, REQUEST, timeout_s=timeout_s)
    await exchange.head()
    return exchange


async def whole(upstream: Upstream, origin: Origin) -> bytes:
    exchange = await ask(upstream, origin)
    try:
        return await exchange.whole()
    finally:
        exchange.end()


def test_a_connection_is_kept_and_used_again() -> None:
    async def story() -> None:
        async with provider(answering(OK, OK, OK)) as (upstream, origin):
            for _ in range(3):
                exchange = await ask(upstream, origin)
                assert (exchange.status, await exchange.whole()) == (200, b"hello")
                assert (b"x-one", b"1") in exchange.headers
                exchange.end()
            assert upstream.connects == 1

    asyncio.run(story())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n\r\nhello",  # ends with its connection
    ],
)
def test_a_connection_that_ends_is_not_used_again(answer: bytes) -> None:
    async def story() -> None:
        async with provider(answering(answer)) as (upstream, origin):
            assert [await whole(upstream, origin) for _ in range(2)] == [b"hello"] * 2
            assert upstream.connects == 2

    asyncio.run(story())


def test_chunks_interim_answers_and_compression() -> None:
    packed = gzip.compress(b"hello")
    answers = [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n%b"
        % (len(packed), packed),
    ]

    async def story() -> None:
        async with provider(answering(*answers)) as (upstream, origin):
            assert [await whole(upstream, origin) for _ in answers] == [b"hello"] * 3
            assert upstream.connects == 1

    asyncio.run(story())


def test_a_kept_connection_that_closes_under_a_request_is_told_apart() -> None:
    """Nobody has read the request: it may be sent once more, on a new connection."""

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(OK)
        await reader.readuntil(b"{}")  # then the connection is closed

    async def story() -> None:
        async with provider(once) as (upstream, origin):
            assert await whole(upstream, origin) == b"hello"
            with pytest.raises(StaleConnection):
                await ask(upstream, origin)
            exchange = await upstream.send(origin, REQUEST, timeout_s=5, fresh=True)
            assert await exchange.head() == 200
            exchange.end()

    asyncio.run(story())


def test_an_idle_connection_that_was_closed_is_not_used() -> None:
    async def story() -> None:
        async with provider(answering(OK)) as (upstream, origin):
            assert await whole(upstream, origin) == b"hello"
            while origin.idle:  # noqa: ASYNC110  # there is no event to wait for
                await asyncio.sleep(0.01)
            assert await whole(upstream, origin) == b"hello"

    asyncio.run(story())


def test_idle_connections_are_kept_as_long_as_the_provider_says() -> None:
    short = OK.replace(b"X-One: 1", b"keep-alive: timeout=5, max=100")

    async def story() -> None:
        async with provider(answering(short, short)) as (upstream, origin):
            assert await whole(upstream, origin) == b"hello"
            now = asyncio.get_running_loop().time()
            upstream.sweep(now + 3.5)
            assert len(origin.idle) == 1
            upstream.sweep(now + 4.5)
            assert len(origin.idle) == 0

    asyncio.run(story())


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"", "closed"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhel", "closed"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 1\r\n\r\nx", "protocol"),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nnot", "protocol"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000 + b"\r\n\r\n", "protocol"),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "protocol"),
    ],
)
def test_bad_answers_are_typed(answer: bytes, kind: str) -> None:
    async def story() -> None:
        async with provider(answering(answer)) as (upstream, origin):
            with pytest.raises(UpstreamError) as raised:
                await whole(upstream, origin)
            assert raised.value.kind == kind
            assert not isinstance(raised.value, StaleConnection)
            assert not origin.idle

    asyncio.run(story())


def test_nobody_listens_and_nobody_answers() -> None:
    async def story() -> None:
        async with provider(silent) as (upstream, origin):
            with pytest.raises(UpstreamError) as raised:
                await ask(upstream, origin, timeout_s=0.05)
            assert raised.value.kind == "timeout"
            nobody = upstream.origin("http", "127.0.0.1", 9)
            with pytest.raises(UpstreamError) as raised:
                await ask(upstream, nobody)
            assert raised.value.kind == "connect"

    asyncio.run(story())


def test_bytes_that_nobody_asked_for_end_a_connection() -> None:
    """Else they would be taken for the next request's answer."""

    async def story() -> None:
        async with provider(answering(OK + OK, OK)) as (upstream, origin):
            assert await whole(upstream, origin) == b"hello"
            await asyncio.sleep(0.05)
            assert await whole(upstream, origin) == b"hello"
            assert upstream.connects == 2

    asyncio.run(story())


def test_a_slow_reader_stops_the_provider() -> None:
    size = 32 * 1024 * 1024
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(b"x" * 65_536)
            await writer.drain()
            sent += 65_536

    async def story() -> None:
        async with provider(serve) as (upstream, origin):
            exchange = await ask(upstream, origin)
            exchange.by_pieces()
            before = -1
            while sent != before:  # until the provider cannot send any more
                before = sent
                await asyncio.sleep(0.2)
            assert sent < size / 2
            got = len(await exchange.chunk())
            assert got < BUFFERED_MAX_BYTES * 4
            while chunk := await exchange.chunk():
                got += len(chunk)
            assert got == size
            exchange.end()

    asyncio.run(story())


def test_a_reader_that_leaves_closes_the_connection() -> None:
    async def story() -> None:
        closed = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"{}")
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
            await reader.read()
            closed.set()

        async with provider(serve) as (upstream, origin):
            exchange = await ask(upstream, origin)
            exchange.by_pieces()
            assert await exchange.chunk() == b"x"
            exchange.end()
            await asyncio.wait_for(closed.wait(), 5)
            assert not origin.idle

    asyncio.run(story())


def test_a_stream_that_falls_silent_is_given_up() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
        await reader.read()

    async def story() -> None:
        async with provider(serve) as (upstream, origin):
            exchange = await ask(upstream, origin, timeout_s=0.2)
            exchange.by_pieces()
            assert await exchange.chunk() == b"x"
            with pytest.raises(UpstreamError) as raised:
                await exchange.chunk()
            assert raised.value.kind == "timeout"
            exchange.end()

    asyncio.run(story())


@pytest.mark.parametrize("serve", [silent, answering(b""), answering(b"no HTTP\r\n\r\n")])
def test_what_failed_is_not_looked_at_any_more(serve: Serve) -> None:
    """Else each failure would stay in memory and cost time for ever."""

    async def story() -> None:
        async with provider(serve) as (upstream, origin):
            with pytest.raises(UpstreamError):
                await ask(upstream, origin, timeout_s=0.05)
            assert len(upstream.ticker) == 0

    asyncio.run(story())


def test_a_call_that_is_cancelled_before_an_answer_leaves_nothing_behind() -> None:
    async def story() -> None:
        closed = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            closed.set()

        async with provider(serve) as (upstream, origin):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(upstream.answer(origin, REQUEST, timeout_s=5), 0.05)
            assert len(upstream.ticker) == 0
            await asyncio.wait_for(closed.wait(), 5)

    asyncio.run(story())


def test_a_call_that_its_client_left_is_gone_without_the_collector() -> None:
    async def leave_early(upstream: Upstream, origin: Origin) -> None:
        exchange = await upstream.send(origin, REQUEST, timeout_s=5)
        asyncio.get_running_loop().call_later(0.01, exchange.leave)
        with contextlib.suppress(UpstreamError):
            await exchange.head()
        exchange.end()

    async def story() -> None:
        async with provider(silent) as (upstream, origin):
            with without_collector():
                await leave_early(upstream, origin)
                await asyncio.sleep(0.01)
                assert alive(Exchange, ProviderConnection, UpstreamError) == []

    asyncio.run(story())


def test_a_request_is_sent_once_more_when_a_kept_connection_was_closed() -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(OK)
        await reader.readuntil(b"{}")  # then the connection is closed

    async def story() -> None:
        async with provider(once) as (upstream, origin):
            for _ in range(2):
                exchange = await upstream.answer(origin, REQUEST, timeout_s=5)
                assert await exchange.whole() == b"hello"
                exchange.end()
            assert upstream.connects == 2

    asyncio.run(story())
