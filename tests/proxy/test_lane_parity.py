"""The two lanes answer alike, whatever the provider does; proven over the simulator's catalogue.

The normal form in which answers are compared (lane_forms.py). Left out, since LiteLLM writes
answers anew and no client relies on it:

- ids and times; fields that are null; the order of fields; `obfuscation`
- `provider_specific_fields`: LiteLLM moves a provider's own fields (`refusal`,
  `content_filter_results`) there; they are compared in the place where the provider put them
- zeros of usage, and `cost` in it, which LiteLLM computes from its own price list
- empty pieces of a stream, and whether its end comes with the last piece or after it
- of a stream with `n` above 1, role and end of all answers but the first: LiteLLM drops them

Compared are status, headers, every field of the answer, every piece of a stream in order,
tool calls, log-probabilities, ends, usage, errors; and of the usage event everything but
ids, moments, durations and the lane.
"""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.proxy import lane_forms
from tests.proxy.conftest import Gateway
from tests.proxy.lane_bodies import (
    COMPLETIONS,
    EMBEDDINGS,
    FORMAT,
    ORDINARY,
    STREAM,
    TOOL,
    Body,
    asking,
    message,
)
from tests.proxy.lane_pairs import Asked, ask, ask_both, pairs_document, pairs_secrets

Difference = tuple[str, Any, Any]

ANSWERS = [
    *ORDINARY,
    asking(**STREAM, n=2),
    asking(**STREAM, response_format=FORMAT),
    asking(message("both please"), tools=[TOOL]),
    asking(message("both please"), **STREAM, tools=[TOOL]),
    asking(**STREAM, stop=["the"], temperature=0),
]
STATUSES = (400, 401, 403, 404, 409, 413, 429, 500, 502, 503, 504, 529)
CASES = (
    *("rate_limit", "quota", "overload", "server_error", "auth", "permission", "not_found"),
    *("bad_request", "context_window", "content_policy"),
)
RETRY_HEADERS = {"x-ratelimit-reset-tokens": "6m0s", "x-should-retry": "false"}
FAULTS: list[Body] = [
    *({"type": "status", "status": status} for status in STATUSES),
    *({"type": case} for case in CASES),
    {"type": "rate_limit", "retry_after_s": 7, "headers": RETRY_HEADERS},
    {"type": "slow_first_token", "first_token_ms": 300},
    {"type": "timeout", "hang_s": 6},
]
# Answers that break off or are none: the same but for our own words, or LiteLLM's.
BROKEN: list[Body] = [
    {"type": "empty"},
    {"type": "malformed"},
    {"type": "disconnect"},
    {"type": "cut_stream"},
    {"type": "stream_error"},
]
BROKEN_STREAMS: list[Body] = [{"type": "malformed"}, {"type": "stream_error"}]
WORDS = frozenset({"answer.body.error.message", "event.error", "event.attempts.0.error"})


@pytest.fixture
def pairs(gateway: Gateway) -> Gateway:
    """The session's gateway with deployments in pairs, and little patience."""
    wanted = pairs_document(gateway.simulator, timeout_s=2.0, stream_timeout_s=2.0)
    gateway.peer.wait_applied(gateway.peer.publish(wanted, pairs_secrets()))
    return gateway


@pytest.fixture
def client(pairs: Gateway) -> Iterator[httpx.Client]:
    with pairs.client() as found:
        yield found


def differences(free: Asked, litellm: Asked) -> list[Difference]:
    """Where two answers and their events differ; the first was free to go direct."""
    return [
        *_compared("answer", lane_forms.answer(free.answer), lane_forms.answer(litellm.answer)),
        *_compared("event", lane_forms.event(free.event), lane_forms.event(litellm.event)),
    ]


def _compared(path: str, one: Any, other: Any) -> list[Difference]:
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        one, other = dict(enumerate(one)), dict(enumerate(other))
    if not isinstance(one, dict) or not isinstance(other, dict):
        return [] if one == other else [(path, one, other)]
    return [
        found
        for name in [*one, *(name for name in other if name not in one)]
        for found in _compared(f"{path}.{name}", one.get(name), other.get(name))
    ]


def fault(pairs: Gateway, kind: str, given: Body) -> None:
    """From now on the provider fails like this."""
    pairs.simulator.reset()
    pairs.simulator.control(kind=kind, faults=[given])


@pytest.mark.parametrize("pair", ["plain", "unknown", "vllm", "azure", "azure-v1", "reasoner"])
def test_chats(pairs: Gateway, client: httpx.Client, pair: str) -> None:
    direct = 0
    for body in ANSWERS:
        free, litellm = ask_both(pairs, client, pair, "chat", body)
        assert differences(free, litellm) == [], body
        assert free.answer.status_code == 200, free.answer.text
        direct += free.event["lane"] == "direct"
    assert direct >= len(ANSWERS) - 4


def test_embeddings(pairs: Gateway, client: httpx.Client) -> None:
    for body in EMBEDDINGS:
        free, litellm = ask_both(pairs, client, "small", "embedding", body)
        assert differences(free, litellm) == [], body
        assert free.event["lane"] == "direct"


def test_completions(pairs: Gateway, client: httpx.Client) -> None:
    for body in COMPLETIONS[:9]:
        free, litellm = ask_both(pairs, client, "text", "completion", body)
        found = differences(free, litellm)
        # LiteLLM loses the provider's limits on the way.
        assert [d for d in found if not d[0].startswith("answer.headers.x-ratelimit-")] == [], body
        assert free.event["lane"] == "direct"


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("pair", "kind"), [("plain", "openai"), ("vllm", "openai"), ("azure", "azure")]
)
def test_failures(
    pairs: Gateway, client: httpx.Client, pair: str, kind: str, streaming: bool
) -> None:
    body = asking(stream=streaming)
    for given in FAULTS:
        fault(pairs, kind, given)
        free, litellm = ask_both(pairs, client, pair, "chat", body)
        assert differences(free, litellm) == [], given
        assert free.event["lane"] == "direct"


@pytest.mark.parametrize("given", BROKEN, ids=str)
def test_answers_that_are_none(pairs: Gateway, client: httpx.Client, given: Body) -> None:
    for pair, kind in (("plain", "openai"), ("azure", "azure")):
        fault(pairs, kind, given)
        free, litellm = ask_both(pairs, client, pair, "chat", asking())
        assert [d for d in differences(free, litellm) if d[0] not in WORDS] == [], pair


@pytest.mark.parametrize("given", BROKEN_STREAMS, ids=str)
def test_streams_that_break(pairs: Gateway, client: httpx.Client, given: Body) -> None:
    # LiteLLM tells neither type nor a code of the error.
    vague = WORDS | {"answer.body.error.type", "answer.body.error.code"}
    for pair, kind in (("plain", "openai"), ("azure", "azure")):
        fault(pairs, kind, given)
        free, litellm = ask_both(pairs, client, pair, "chat", asking(**STREAM))
        assert [d for d in differences(free, litellm) if d[0] not in vague] == [], pair
        assert lane_forms.answer(free.answer)["body"]["error"]["message"]


# --- where the lanes differ, and the direct one is right -----------------------------------------


def test_pieces_before_a_cut_are_not_lost(pairs: Gateway, client: httpx.Client) -> None:
    fault(pairs, "openai", {"type": "cut_stream", "after_chunks": 5})
    free = ask(pairs, client, "plain", "chat", asking(**STREAM))
    form = lane_forms.answer(free.answer)
    assert len(form["body"]["pieces"]) == 5
    assert form["body"]["error"]["code"] == "cut_stream"
    assert (free.event["error_class"], free.event["estimated"]) == ("cut_stream", True)
    assert free.event["output_tokens"] > 0


@pytest.mark.parametrize("streaming", [False, True])
def test_an_unprocessable_request_is_called_so(
    pairs: Gateway, client: httpx.Client, streaming: bool
) -> None:
    """LiteLLM calls the provider twice, then answers `null`, or fails itself on a stream."""
    fault(pairs, "openai", {"type": "status", "status": 422})
    free, litellm = ask_both(pairs, client, "plain", "chat", asking(stream=streaming))
    assert (free.answer.status_code, free.event["error_class"]) == (422, "invalid_request")
    assert len(free.received) == 1
    assert litellm.answer.status_code >= 400


def test_an_empty_stream_is_no_answer(pairs: Gateway, client: httpx.Client) -> None:
    """LiteLLM makes up an answer without a word."""
    fault(pairs, "openai", {"type": "empty"})
    free = ask(pairs, client, "plain", "chat", asking(**STREAM))
    assert (free.answer.status_code, free.event["error_class"]) == (500, "cut_stream")


def test_each_of_several_streamed_answers_has_its_end(pairs: Gateway, client: httpx.Client) -> None:
    free = ask(pairs, client, "plain", "chat", asking(**STREAM, n=2))
    ends = [
        choice["finish_reason"]
        for payload in lane_forms.payloads(free.answer.text)
        if payload != "[DONE]"
        for choice in payload["choices"]
        if choice.get("finish_reason")
    ]
    assert ends == ["stop", "stop"]


# --- after a failure ------------------------------------------------------------------------------


def test_what_comes_after_a_failure_is_litellms(pairs: Gateway, client: httpx.Client) -> None:
    wanted = pairs_document(pairs.simulator, num_retries=2)
    pairs.peer.wait_applied(pairs.peer.publish(wanted, pairs_secrets()))
    for name, first in (("plain", "direct"), ("plain-litellm", "litellm")):
        fault(pairs, "openai", {"type": "server_error", "first": 1})
        asked = ask(pairs, client, name, "chat", asking())
        assert [attempt["lane"] for attempt in asked.event["attempts"]] == [first, "litellm"]
        assert (asked.event["lane"], asked.event["lane_reason"]) == ("litellm", "retry")
        assert asked.answer.headers["x-gateway-attempts"] == "2"
