"""What LiteLLM does after a provider has answered must not make a failure of the answer."""

import asyncio
import base64
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import StreamingResponse

from proxy.attempt import Call, Failure, Reported
from proxy.litellm_lane import LiteLlmLane
from proxy.retry import UNHEALTHY, rule_of
from tests.proxy.answered import answered, worker_in
from tests.proxy.documents import FLEET_KEY
from tests.proxy.drill import NOWHERE

CODE = """
from proxy.litellm_environment import prepare_environment
from proxy.settings import load_settings
from proxy.state import StateDirectory
settings = load_settings()
StateDirectory(settings.state_dir).prepare()
prepare_environment(settings)
from litellm.litellm_core_utils.thread_pool_executor import executor
print(executor.submit(print, "ran").cancelled(), len(executor._threads))
"""


def test_litellm_runs_no_callbacks_in_threads(tmp_path: Path) -> None:
    """They would add to dictionaries that the event loop is walking through just then."""
    environ = os.environ | {
        "GATEWAY_CONTROL_PLANE_URL": NOWHERE,
        "GATEWAY_PROXY_ENVIRONMENT": "prod",
        "GATEWAY_FLEET_TOKEN": "token",
        "GATEWAY_FLEET_KEY": base64.b64encode(FLEET_KEY).decode(),
        "GATEWAY_PROXY_STATE_DIR": str(tmp_path),
    }
    told = subprocess.run(
        [sys.executable, "-c", CODE], env=environ, check=True, capture_output=True, text=True
    ).stdout
    assert told == "True 0\n"


class _LosesTheAnswer:
    """Of LiteLLM: the provider answers, then something of its own fails."""

    internal_token = "t"
    state: dict[str, Any] = {}

    def __init__(self, call: Call, *, status: int | None) -> None:
        self._call, self._status = call, status

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self._call.provider_started, self._call.answered = 1.0, True
        text = "dictionary changed size during iteration"
        self._call.reported = Reported("server_error", self._status, text)
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


async def _failed(home: Path, *, status: int | None) -> Failure:
    worker = worker_in(home)
    trace, _ = await answered(worker)
    assert worker.snapshot is not None
    row = next(iter(worker.snapshot.deployments.values()))
    call = Call(trace, row, b"", b"application/json", (), timeout_s=5)
    lane = LiteLlmLane(_LosesTheAnswer(call, status=status))  # type: ignore[arg-type]
    failure = await lane.attempt(call, None)  # type: ignore[arg-type]
    assert failure is not None
    return failure


async def test_an_answer_that_was_lost_here_is_charged_and_nobody_is_blamed(
    tmp_path: Path,
) -> None:
    failure = await _failed(tmp_path, status=None)
    assert failure.charged
    assert failure.error_class not in UNHEALTHY
    assert rule_of(failure.error_class).chain == "general"


async def test_a_status_of_the_provider_is_the_providers(tmp_path: Path) -> None:
    failure = await _failed(tmp_path, status=503)
    assert (failure.error_class, failure.status, failure.charged) == ("server_error", 503, False)


class _Streams:
    """Of LiteLLM: answers with a stream, also where nobody waits for it any more."""

    internal_token = "t"
    state: dict[str, Any] = {}

    def __init__(self, *, slow: bool = False) -> None:
        self._slow = slow

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        if self._slow:
            with contextlib.suppress(asyncio.CancelledError):  # as it does, in places
                await asyncio.sleep(60)
        await StreamingResponse(_breaks(), media_type="text/event-stream")(scope, receive, send)


async def _breaks() -> AsyncIterator[bytes]:
    yield b'data: {"choices":[]}\n\n'
    raise ConnectionResetError("the provider hung up")


class _Client:
    """Takes what comes."""

    async def start(self, status: int, headers: Any) -> None:
        pass

    async def body(self, chunk: bytes, *, last: bool) -> None:
        pass


async def _streamed(home: Path, backend: _Streams, *, timeout_s: float) -> Failure:
    worker = worker_in(home)
    trace, _ = await answered(worker)
    assert worker.snapshot is not None
    row = next(iter(worker.snapshot.deployments.values()))
    call = Call(trace, row, b"", b"application/json", (), timeout_s=timeout_s)
    failure = await LiteLlmLane(backend).attempt(call, _Client())  # type: ignore[arg-type]
    assert failure is not None
    return failure


async def test_a_stream_whose_provider_hangs_up_says_so(tmp_path: Path) -> None:
    failure = await _streamed(tmp_path, _Streams(), timeout_s=5)
    assert (failure.error_class, failure.status) == ("server_error", 200)
    assert "the provider hung up" in failure.message


class _Handles(_Streams):
    """As LiteLLM's own handler of whatever goes wrong, which fails itself: it has no database."""

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().app(scope, receive, send)
        except Exception as error:
            raise ImportError("no module named 'prisma'") from error


@pytest.mark.parametrize("backend", [_Streams(slow=True), _Handles(slow=True)])
async def test_a_stream_that_begins_when_its_time_is_over_is_late(
    tmp_path: Path, backend: _Streams
) -> None:
    failure = await _streamed(tmp_path, backend, timeout_s=0.05)
    assert (failure.error_class, failure.client_status) == ("timeout", 408)
