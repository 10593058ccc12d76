"""What was answered is gone without the garbage collector, and whole as long as it is read."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse, StreamingResponse

from gateway_admin.demo.simulator.connections import connection_params
from gateway_admin.demo.simulator.process import running_simulator
from proxy.reference_cycles import let_go_of_answers, let_go_of_messages
from proxy.relay import Relay
from tests.proxy.answered import worker_in
from tests.proxy.left_over import alive, without_collector
from tests.proxy.relayed import Client, OfLiteLlm, relayed

CLOSED_MAX_S = 5.0


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """Whatever goes, goes by itself."""
    with without_collector():
        yield


async def a_stream() -> tuple[Any, "weakref.ref[Any]"]:
    """One as the Router gives it, and what it was made around."""
    from proxy.router import new_router

    router = new_router()
    router.add_deployment(deployment_of("greeter", mock_response="hello yourself"))
    stream = await router.acompletion(
        model="greeter", messages=[{"role": "user", "content": "hello"}], stream=True
    )
    return stream, weakref.ref(inner_of(stream))


def inner_of(stream: Any) -> Any:
    """What the stream's class was made around."""
    (inner,) = [
        cell.cell_contents
        for cell in type(stream).__init__.__closure__
        if not isinstance(cell.cell_contents, type)
    ]
    return inner


def deployment_of(name: str, **params: Any) -> Any:
    from litellm.types.router import Deployment

    params = {"model": "openai/gpt-4o", "api_key": "sk-none", **params}
    return Deployment(model_name=name, litellm_params=params, model_info={"id": name})


@asynccontextmanager
async def responses() -> AsyncIterator[list[Any]]:
    """A stream of the Responses API, in a list that can let go of it."""
    from proxy.router import new_router

    with running_simulator() as simulator:
        router = new_router()
        router.add_deployment(
            deployment_of("teller", **connection_params("openai", simulator.base_url))
        )
        yield [await router.aresponses(model="teller", input="hello", stream=True)]


async def test_a_stream_of_responses_is_gone_without_the_collector() -> None:
    async with responses() as streams:
        source = weakref.ref(inner_of(streams[0]))
        assert [event.type async for event in streams[0]][-1] == "response.completed"
        streams.clear()
        await asyncio.sleep(0.01)
        assert source() is None


@pytest.mark.parametrize("is_begun", [True, False])
async def test_a_stream_of_responses_that_is_left_is_gone_with_the_collector(
    is_begun: bool,
) -> None:
    async with responses() as streams:
        source = weakref.ref(inner_of(streams[0]))
        if is_begun:
            await anext(streams[0])
        streams.clear()
        for _ in range(3):  # what closes it is a task of the loop
            gc.collect()
            await asyncio.sleep(0.01)
        assert source() is None


async def read(stream: Any) -> str:
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


def told_when_closed(inner: "weakref.ref[Any]") -> asyncio.Event:
    closed, stream = asyncio.Event(), inner()
    assert stream is not None
    close = type(stream).aclose

    async def aclose() -> None:
        closed.set()
        await close(inner())

    stream.aclose = aclose
    return closed


def test_a_stream_that_was_read_is_gone_without_the_collector() -> None:
    async def run() -> None:
        stream, inner = await a_stream()
        assert inner() is not None
        assert await read(stream) == "hello yourself"
        del stream
        await asyncio.sleep(0)
        assert inner() is None

    asyncio.run(run())


def test_a_stream_that_is_left_half_way_is_closed_and_gone() -> None:
    async def run() -> None:
        stream, inner = await a_stream()
        closed = told_when_closed(inner)
        await anext(stream)
        del stream
        await asyncio.wait_for(closed.wait(), CLOSED_MAX_S)
        await asyncio.sleep(0.01)
        assert inner() is None

    asyncio.run(run())


@pytest.fixture
def answers_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = httpx._client.BoundAsyncStream
    monkeypatch.setattr(bound, "__init__", bound.__init__)  # as it was, afterwards
    let_go_of_answers()


class Pieces(httpx.AsyncByteStream):
    """A body that comes in two."""

    closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.usefixtures("answers_let_go")
@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_that_was_read_is_gone_without_the_collector(streamed: bool) -> None:
    async def run() -> None:
        body = Pieces()
        transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=body))
        async with httpx.AsyncClient(transport=transport) as client:
            request = client.build_request("GET", "http://provider.test/")
            answer = await client.send(request, stream=streamed)
            assert await answer.aread() == b"one two"
            assert answer.is_closed
            assert body.closed
            await answer.aclose()  # again
            assert answer.content == b"one two"
            assert answer.elapsed > timedelta()
            gone = weakref.ref(answer)
            del answer
            assert gone() is None

    asyncio.run(run())


@pytest.mark.usefixtures("answers_let_go")
def test_an_answer_that_nobody_closed_is_gone_without_the_collector() -> None:
    async def run() -> None:
        transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Pieces()))
        async with httpx.AsyncClient(transport=transport) as client:
            request = client.build_request("GET", "http://provider.test/")
            answer = await client.send(request, stream=True)
            pieces, gone = answer.aiter_raw(), weakref.ref(answer)
            assert await anext(pieces) == b"one "
            del answer, pieces
            await asyncio.sleep(0.01)
            assert gone() is None

    asyncio.run(run())


def test_what_a_stream_of_messages_is_to_call_holds_no_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from litellm.proxy.common_request_processing import ProxyBaseLLMRequestProcessing as Requests

    name = "_arm_detached_stream_failure_hook"  # of LiteLLM: without it this test fails
    monkeypatch.setattr(Requests, name, getattr(Requests, name))
    let_go_of_messages()
    log, request = SimpleNamespace(), Requests(data={})
    getattr(request, name)(logging_obj=log, user_api_key_dict=None, proxy_logging_obj=None)
    assert log.on_detached_stream_failure.__closure__ is None


class Answers(OfLiteLlm):
    """After a moment, in one piece."""

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.01)
        response = JSONResponse({"choices": [], "usage": {"prompt_tokens": 1}})
        self.response = weakref.ref(response)
        await response(scope, receive, send)


class NeverEnds(OfLiteLlm):
    """A provider whose stream goes on until somebody stops it."""

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        async def events() -> AsyncIterator[bytes]:
            while True:
                yield b'data: {"choices":[{"index":0,"delta":{"content":"on "}}]}\n\n'
                await asyncio.sleep(0.01)

        response = StreamingResponse(events(), media_type="text/event-stream")
        self.response = weakref.ref(response)
        await response(scope, receive, send)


@pytest.mark.parametrize(
    ("backend", "leaves_after"), [(Answers(), None), (NeverEnds(), 3)], ids=["answered", "cut"]
)
async def test_a_request_is_gone_without_the_collector(
    tmp_path: Path, backend: OfLiteLlm, leaves_after: int | None
) -> None:
    client = Client(leaves_after)
    await relayed(worker_in(tmp_path), backend, client, streaming=leaves_after is not None)
    start, first = client.got[:2]
    assert start["status"] == 200
    assert b'"choices"' in first["body"]
    assert backend.response() is None
    assert alive(Relay) == []
