"""Each scripted fault arrives as the exception that LiteLLM has for it."""

import asyncio
from typing import Any

import httpx
import litellm
import openai
import pytest
from litellm import exceptions

from gateway_admin.demo.simulator.process import Simulator
from tests.demo.kinds import CHAT, HELLO, SECRET, litellm_params, row_of

KINDS = list(CHAT)
pytestmark = pytest.mark.filterwarnings("ignore:.*ReadOnly:UserWarning")  # litellm's types

# Fault, LiteLLM's exception, and where it maps a provider's words to another one.
EXPECTED: list[tuple[str, type[Exception], dict[str, type[Exception]]]] = [
    ("bad_request", exceptions.BadRequestError, {}),
    ("auth", exceptions.AuthenticationError, {}),
    # A model that Bedrock does not know is a validation error there.
    ("not_found", exceptions.NotFoundError, {"bedrock": exceptions.BadRequestError}),
    ("rate_limit", exceptions.RateLimitError, {}),
    (
        "quota",
        exceptions.RateLimitError,
        {"anthropic": exceptions.BadRequestError, "bedrock": exceptions.BadRequestError},
    ),
    (
        "overload",
        exceptions.ServiceUnavailableError,
        {"anthropic": exceptions.InternalServerError, "gemini": exceptions.InternalServerError},
    ),
    (
        "server_error",
        exceptions.InternalServerError,
        {"azure": exceptions.APIError, "bedrock": exceptions.ServiceUnavailableError},
    ),
    # LiteLLM does not recognise these two for every kind.
    (
        "context_window",
        exceptions.ContextWindowExceededError,
        {"ollama": exceptions.BadRequestError},
    ),
    (
        "content_policy",
        exceptions.ContentPolicyViolationError,
        {"bedrock": exceptions.BadRequestError, "ollama": exceptions.BadRequestError},
    ),
    ("timeout", exceptions.Timeout, {}),
]


async def _call(kind: str, simulator: Simulator, **more: Any) -> Any:
    ask = {"model": CHAT[kind], "messages": HELLO, "max_retries": 0, "timeout": 20, **more}
    return await litellm.acompletion(**ask, **litellm_params(kind, simulator))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("fault", "usual", "others"), EXPECTED, ids=[row[0] for row in EXPECTED])
async def test_failure_before_the_answer(
    kind: str,
    fault: str,
    usual: type[Exception],
    others: dict[str, type[Exception]],
    simulator: Simulator,
) -> None:
    simulator.control(kind=kind, faults=[{"type": fault}])
    more = {"timeout": 1} if fault == "timeout" else {}
    with pytest.raises(others.get(kind, usual)):
        await _call(kind, simulator, **more)
    report = await asyncio.to_thread(simulator.settled_ledger)  # the client must close meanwhile
    row = row_of(report, kind, CHAT[kind])
    assert row["ok"] == 0
    assert row["aborted" if fault == "timeout" else "errors"] == 1
    assert (row["input_tokens"], row["output_tokens"]) == (0, 0)


@pytest.mark.parametrize("fault", ["cut_stream", "stream_error"])
@pytest.mark.parametrize("kind", KINDS)
async def test_failure_inside_a_stream(kind: str, fault: str, simulator: Simulator) -> None:
    simulator.control(kind=kind, faults=[{"type": fault, "after_chunks": 4}])
    stream = await _call(kind, simulator, stream=True)
    words: list[str] = []

    async def read() -> None:
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                words.append(chunk.choices[0].delta.content)

    # Ollama's error line is not known to LiteLLM, which then reports a bad request.
    wanted = (exceptions.MidStreamFallbackError, exceptions.BadRequestError)
    with pytest.raises(wanted):
        await read()
    assert len(words) == 4
    row = row_of(simulator.ledger(), kind, CHAT[kind])
    assert (row["errors"], row["output_tokens"]) == (1, 4)


@pytest.mark.parametrize("kind", KINDS)
async def test_malformed_body(kind: str, simulator: Simulator) -> None:
    simulator.control(kind=kind, faults=[{"type": "malformed"}])
    wanted = (
        exceptions.APIConnectionError,
        exceptions.APIError,
        exceptions.BadRequestError,
        exceptions.InternalServerError,
    )
    with pytest.raises(wanted):
        await _call(kind, simulator)


async def test_slow_first_token(simulator: Simulator) -> None:
    fault = {"type": "slow_first_token", "first_token_ms": 300}
    simulator.control(model="gpt-4o", faults=[fault])
    await _call("openai", simulator, timeout=5)
    (entry,) = simulator.ledger(detail=True)["requests"]
    assert 300 <= entry["latency_ms"] < 4000


def test_scripted_status_with_retry_after(simulator: Simulator) -> None:
    fault = {
        "type": "status",
        "status": 429,
        "retry_after_s": 7,
        "headers": {"x-ratelimit-remaining-requests": "3"},
    }
    simulator.control(model="gpt-4o", faults=[fault])
    client = openai.OpenAI(
        base_url=f"{simulator.base_url}/openai/v1", api_key=SECRET, max_retries=0
    )
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="gpt-4o", messages=HELLO)
    headers = caught.value.response.headers
    assert headers["retry-after"] == "7"
    assert headers["x-ratelimit-remaining-requests"] == "3"


async def test_retry_succeeds_after_the_first_failures(simulator: Simulator) -> None:
    simulator.control(model="gpt-4o", faults=[{"type": "server_error", "first": 2}])
    router = litellm.Router(
        model_list=[
            {
                "model_name": "chat",
                "litellm_params": {
                    "model": CHAT["openai"],
                    "max_retries": 0,
                    **litellm_params("openai", simulator),
                },
            }
        ],
        num_retries=3,
        retry_after=0,
        disable_cooldowns=True,
    )
    reply = await router.acompletion(model="chat", messages=HELLO)
    assert reply.choices[0].message.content
    row = row_of(simulator.ledger(), "openai", "gpt-4o")
    assert (row["requests"], row["errors"], row["ok"]) == (3, 2, 1)


async def test_magic_model_names(simulator: Simulator) -> None:
    params = litellm_params("openai", simulator)
    for model, wanted in (
        ("openai/sim-status-429", exceptions.RateLimitError),
        ("openai/gpt-4o-sim-overload", exceptions.ServiceUnavailableError),
        ("openai/sim-context-window", exceptions.ContextWindowExceededError),
    ):
        with pytest.raises(wanted):
            await litellm.acompletion(model=model, messages=HELLO, max_retries=0, **params)


def test_missing_credential_is_refused(simulator: Simulator) -> None:
    for path, body, status in (
        ("openai/v1/chat/completions", {"model": "gpt-4o"}, 401),
        ("anthropic/v1/messages", {"model": "claude"}, 401),
        ("gemini/v1beta/models/gemini-2.5-flash:generateContent", {}, 400),
        ("azure/openai/deployments/gpt-4o/chat/completions", {}, 401),
        ("bedrock/model/nova/converse", {}, 403),
    ):
        reply = httpx.post(f"{simulator.base_url}/{path}", json=body)
        assert reply.status_code == status, path
