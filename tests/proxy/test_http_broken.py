"""What is no request, or the half of one: refused plainly, never served as if it were whole."""

import asyncio
import contextlib
from typing import Any

import pytest

from tests.proxy.http_site import GET, Serve, answer, echo, heard, read_all, serve

__all__ = ["serve"]


@pytest.mark.parametrize("more", [b"", b"4\r\nmore\r\n0\r\n\r\n"])
async def test_a_broken_body_is_never_taken_for_a_whole_one(serve: Serve, more: bytes) -> None:
    served = []

    async def takes(scope: Any, receive: Any, send: Any) -> None:
        with contextlib.suppress(AssertionError):
            served.append(await read_all(receive))
            await answer(send, b"charged")

    site = await serve(takes)
    head = b"POST /b HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
    said = await site.ask(head + b"3\r\nabc\r\n", b"zz\r\n", more)
    assert said.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert served == []
    said = await site.ask(GET + head + b"3\r\nabc\r\n", b"zz\r\n", more)
    assert said.count(b"HTTP/1.1 200") == 1
    assert served == [b""]


async def test_large_headers_are_refused_whatever_follows(serve: Serve) -> None:
    site = await serve(echo)
    large = b"GET /big HTTP/1.1\r\n" + b"".join(
        b"x-%d: %b\r\n" % (n, b"a" * 1000) for n in range(80)
    )
    said = await site.ask(large + b"\r\n" + GET)
    assert said.startswith(b"HTTP/1.1 431 ")
    assert b"/here" not in said


async def test_a_header_line_that_never_ends_is_refused(serve: Serve) -> None:
    site = await serve(echo)
    said = await site.ask(b"GET / HTTP/1.1\r\nx: ", *[b"a" * 30_000] * 4)
    assert said.startswith(b"HTTP/1.1 431 ")


async def test_what_follows_a_body_is_no_header_of_the_request(serve: Serve) -> None:
    seen: list[Any] = []

    async def looks(scope: Any, receive: Any, send: Any) -> None:
        await read_all(receive)
        seen.extend(scope["headers"])
        await answer(send, b"ok")

    site = await serve(looks)
    head = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
    assert (await site.ask(head + b"1\r\nz\r\n0\r\nx-late: 1\r\n\r\n")).endswith(b"ok")
    assert seen == [(b"transfer-encoding", b"chunked")]


async def test_a_body_in_chunks_with_a_wish_to_upgrade_is_refused_plainly(serve: Serve) -> None:
    site = await serve(echo)
    wish = b"connection: upgrade\r\nupgrade: h2c\r\ntransfer-encoding: chunked\r\n"
    said = await site.ask(b"POST / HTTP/1.1\r\n" + wish + b"\r\n1\r\nz\r\n0\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 501 ")
    assert said.count(b"HTTP/1.1") == 1


async def test_a_refused_upload_may_take_its_time(serve: Serve) -> None:
    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"no", status=401)

    site = await serve(refuse, timeout_keep_alive=1)
    parts = [b"a" * 10] * 8
    reader, writer = await site.connect()
    writer.write(b"POST / HTTP/1.1\r\ncontent-length: 80\r\n\r\n")
    for part in parts:
        writer.write(part)
        await asyncio.sleep(0.25)
    writer.write(GET)
    assert (await heard(reader)).count(b"HTTP/1.1 401") == 2
    writer.close()
