"""The protocol between clients and the edge: what is parsed and written, who waits for whom."""

import asyncio
import gc
import socket
from typing import Any

import pytest

from proxy import http_request, http_server
from tests.proxy.http_site import GET, PATIENCE_S, Serve, answer, echo, heard, read_all, serve

__all__ = ["serve"]


async def test_requests_follow_each_other_on_one_connection(serve: Serve) -> None:
    site = await serve(echo)
    said = await site.ask(GET, b"POST /x HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc")
    assert said.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert b"GET /here /here  " in said
    assert said.endswith(b"POST /x /x  abc")
    assert said.lower().count(b"\r\ndate: ") == 2


async def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    async def slow_first(scope: Any, receive: Any, send: Any) -> None:
        await read_all(receive)
        if scope["path"] == "/1":
            await asyncio.sleep(0.05)
        await answer(send, scope["path"].encode())

    site = await serve(slow_first)
    requests = [b"POST /%d HTTP/1.1\r\ncontent-length: 1\r\n\r\nz" % number for number in (1, 2, 3)]
    said = await site.ask(b"".join(requests))
    assert [part[-2:] for part in said.split(b"HTTP/1.1 200")[1:]] == [b"/1", b"/2", b"/3"]


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (b"/a%20b", b"GET /a b /a%20b  "),
        (b"/a?x=1&y=%2F", b"GET /a /a x=1&y=%2F "),
        (b"http://elsewhere/a", b"GET /a /a  "),
    ],
)
async def test_targets(serve: Serve, target: bytes, told: bytes) -> None:
    site = await serve(echo)
    assert (await site.ask(b"GET " + target + b" HTTP/1.1\r\n\r\n")).endswith(told)


async def test_a_body_in_pieces_arrives_whole(serve: Serve) -> None:
    site = await serve(echo)
    head = b"POST /p HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
    said = await site.ask(head, b"3\r\nabc\r\n", b"2\r\nde\r\n", b"0\r\n\r\n")
    assert said.endswith(b"abcde")


async def test_a_body_that_nobody_reads_holds_the_client_back(serve: Serve) -> None:
    read = asyncio.Event()

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await read.wait()
        await answer(send, str(len(await read_all(receive))).encode())

    site = await serve(late)
    reader, writer = await site.connect()
    size = 8 * 1024 * 1024
    writer.write(b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % size + bytes(size))
    await asyncio.sleep(0.3)
    (connection,) = site.server.server_state.connections
    unread = connection._running._unread  # type: ignore[union-attr]
    assert http_request.UNREAD_MAX_BYTES < unread < 1024 * 1024
    read.set()
    told = b"\r\n\r\n" + str(size).encode()
    await asyncio.wait_for(reader.readuntil(told), 2 * PATIENCE_S)
    writer.close()


async def test_what_is_left_of_a_refused_body_is_passed_over(serve: Serve) -> None:
    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"no", status=401)

    site = await serve(refuse)
    size = 4 * 1024 * 1024
    said = await site.ask(
        b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % size + bytes(size), GET
    )
    assert said.count(b"HTTP/1.1 401 Unauthorized\r\n") == 2


async def test_the_client_is_told_to_send_its_body_when_it_asks(serve: Serve) -> None:
    site = await serve(echo)
    reader, writer = await site.connect()
    writer.write(b"POST /e HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
    assert await heard(reader) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"hi")
    assert (await heard(reader)).endswith(b"hi")
    writer.close()


async def test_without_a_length_an_answer_is_chunked(serve: Serve) -> None:
    async def pieces(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await send({"type": "http.response.body", "body": b"three", "more_body": False})

    site = await serve(pieces)
    head, _, body = (await site.ask(GET)).partition(b"\r\n\r\n")
    assert b"\r\ntransfer-encoding: chunked" in head
    assert body == b"3\r\none\r\n5\r\nthree\r\n0\r\n\r\n"
    said = await site.ask(b"GET / HTTP/1.0\r\n\r\n")
    assert said.endswith(b"\r\n\r\nonethree")
    assert b"chunked" not in said


async def test_the_head_leaves_with_the_first_piece(serve: Serve) -> None:
    writes: list[bytes] = []

    async def once(scope: Any, receive: Any, send: Any) -> None:
        (connection,) = site.server.server_state.connections
        real = connection.transport

        class Counting:
            def write(self, data: bytes) -> None:
                writes.append(data)
                real.write(data)

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

        connection.transport = Counting()  # type: ignore[assignment]
        await answer(send, b"all of it")

    site = await serve(once)
    assert (await site.ask(GET)).endswith(b"all of it")
    assert len(writes) == 1


async def test_heads_have_no_body(serve: Serve) -> None:
    site = await serve(echo)
    said = await site.ask(b"HEAD / HTTP/1.1\r\n\r\n")
    assert said.endswith(b"content-length: 10\r\n\r\n")
    assert b"chunked" not in said


@pytest.mark.parametrize(
    "header", [(b"x-a", b"1\r\nx-b: 2"), (b"x-a", b"1\n"), (b"x\r\ny", b"1"), (b"x", b"1\r")]
)
async def test_a_header_cannot_smuggle_another(serve: Serve, header: tuple[bytes, bytes]) -> None:
    async def smuggle(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"secret", header)

    site = await serve(smuggle)
    said = await site.ask(GET)
    assert said.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"secret" not in said
    assert b"x-b" not in said


async def test_a_failure_before_the_answer_is_a_500(serve: Serve) -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("what only the log may know")

    site = await serve(fails)
    said = await site.ask(GET)
    assert said.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"connection: close" in said
    assert b"only the log" not in said


@pytest.mark.parametrize("sized", [True, False])
async def test_a_failure_within_the_answer_never_looks_like_its_end(
    serve: Serve, sized: bool
) -> None:
    async def breaks(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"100")] if sized else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError

    site = await serve(breaks)
    said = await site.ask(GET)
    assert b"half" in said
    assert not said.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("told", [b"short", b"far too long for it"])
async def test_a_body_is_as_long_as_announced(serve: Serve, told: bytes) -> None:
    async def lies(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"10")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": told})

    site = await serve(lies)
    assert told not in await site.ask(GET, GET)


async def test_what_is_no_http_is_refused(serve: Serve) -> None:
    site = await serve(echo)
    said = await site.ask(b"\x16\x03\x01 hello\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"connection: close" in said


async def test_nonsense_after_a_request_does_not_spoil_its_answer(serve: Serve) -> None:
    async def late(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.1)
        await answer(send, b"whole")

    site = await serve(late)
    said = await site.ask(GET, b"nonsense\r\n\r\n", b"more of it\r\n\r\n")
    assert said.count(b"HTTP/1.1") == 1
    assert said.endswith(b"whole")
    assert b"connection: close" in said


@pytest.mark.parametrize("ended", [True, False])
async def test_headers_have_a_bound(serve: Serve, ended: bool) -> None:
    site = await serve(echo)
    lines = b"".join(b"x-%d: %b\r\n" % (n, b"a" * 1000) for n in range(80))
    said = await site.ask(b"GET / HTTP/1.1\r\n" + lines + (b"\r\n" if ended else b""))
    assert said.startswith(b"HTTP/1.1 431 ")
    assert said.count(b"HTTP/1.1") == 1


async def test_a_wish_for_another_protocol_is_answered_in_this_one(serve: Serve) -> None:
    """As Java's client asks, which would rather speak HTTP/2."""
    site = await serve(echo)
    wish = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAEA\r\n"
    head = b"POST /j HTTP/1.1\r\n" + wish + b"content-length: 4\r\n\r\n"
    for parts in (
        (head + b"body",),
        (head, b"bo", b"dy"),
        (head + b"bo", b"dyGET / HTTP/1.1\r\n\r\n"),
    ):
        said = await site.ask(*parts)
        assert said.endswith(b"POST /j /j  body")
        assert b"connection: close" in said
    assert (await site.ask(b"GET /g HTTP/1.1\r\n" + wish + b"\r\n")).endswith(b"GET /g /g  ")


async def test_who_leaves_is_noticed(serve: Serve) -> None:
    noticed = asyncio.Event()

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        await read_all(receive)
        assert (await receive())["type"] == "http.disconnect"
        noticed.set()
        await answer(send, b"to nobody")  # no failure, and nothing is written

    site = await serve(waits)
    _, writer = await site.connect()
    writer.write(GET)
    await asyncio.sleep(0.05)
    writer.close()
    await asyncio.wait_for(noticed.wait(), PATIENCE_S)


async def test_a_slow_reader_holds_the_answer_back(serve: Serve) -> None:
    sent = 0

    async def much(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(2000):
            await send({"type": "http.response.body", "body": bytes(16384), "more_body": True})
            sent += 16384
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    site = await serve(much)
    slow = socket.create_connection(site.listener.getsockname())
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    slow.sendall(GET)
    await asyncio.sleep(0.3)
    held_back = sent
    assert held_back < 16 * 1024 * 1024
    reader, writer = await asyncio.open_connection(sock=slow)
    said = await heard(reader)
    assert said.endswith(b"0\r\n\r\n")
    assert sent == 2000 * 16384
    writer.close()


async def test_who_leaves_in_the_middle_of_a_held_back_answer(serve: Serve) -> None:
    ended = asyncio.Event()

    async def much(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(2000):
            await send({"type": "http.response.body", "body": bytes(16384), "more_body": True})
        ended.set()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    site = await serve(much)
    slow = socket.create_connection(site.listener.getsockname())
    slow.sendall(GET)
    await asyncio.sleep(0.2)
    assert not ended.is_set()
    slow.close()
    await asyncio.wait_for(ended.wait(), PATIENCE_S)


async def test_an_idle_connection_is_closed_and_a_used_one_is_not(serve: Serve) -> None:
    site = await serve(echo, timeout_keep_alive=1)
    reader, writer = await site.connect()
    for _ in range(4):
        writer.write(GET)
        assert b"200 OK" in await reader.read(65536)
        await asyncio.sleep(0.4)
    assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
    idle_reader, idle_writer = await site.connect()
    assert await asyncio.wait_for(idle_reader.read(), PATIENCE_S) == b""
    writer.close()
    idle_writer.close()


async def test_a_server_that_stops_ends_idle_connections_and_waits_for_the_others(
    serve: Serve,
) -> None:
    go = asyncio.Event()

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        await answer(send, b"done")

    site = await serve(late)
    idle, _ = await site.connect()
    busy, writer = await site.connect()
    writer.write(GET)
    await asyncio.sleep(0.05)
    site.server.should_exit = True
    assert await asyncio.wait_for(idle.read(), PATIENCE_S) == b""
    go.set()
    said = await asyncio.wait_for(busy.read(), PATIENCE_S)
    assert said.endswith(b"done")
    assert b"connection: close" in said


async def test_nothing_of_a_connection_is_left_in_cycles(serve: Serve) -> None:
    site = await serve(echo)
    await site.ask(GET, GET)
    await asyncio.sleep(0.05)
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            await site.ask(GET, b"POST / HTTP/1.1\r\ncontent-length: 1\r\n\r\nx")
        await asyncio.sleep(0.05)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        ours = [
            one
            for one in gc.garbage
            if type(one).__module__ in (http_server.__name__, http_request.__name__)
        ]
        assert ours == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
