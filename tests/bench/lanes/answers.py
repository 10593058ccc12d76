"""What the clients of the bench ask and what its provider answers."""

import json
from decimal import Decimal
from typing import Any

UPSTREAM_MODEL = "gpt-4o-mini"
CHUNKS = 20
INPUT_TOKENS = 48
PRICES = {"input_token": "0.0000025", "output_token": "0.00001"}
COST = INPUT_TOKENS * Decimal(PRICES["input_token"]) + CHUNKS * Decimal(PRICES["output_token"])
USAGE = {
    "prompt_tokens": INPUT_TOKENS,
    "completion_tokens": CHUNKS,
    "total_tokens": INPUT_TOKENS + CHUNKS,
}
_SAYS = "The budget of your team resets on the first of the month so you have nine days left now"
# One piece per chunk; the last chunk of a stream carries the reason of its end instead.
PIECES = [word + " " for word in [*_SAYS.split(), "to", "spend"]][: CHUNKS - 1]
TEXT = "".join(PIECES)

_SYSTEM = (
    "You are the assistant of a company's finance team. Answer in one short sentence, name "
    "dates in words, and never guess a figure that is not in the question."
)
_QUESTION = "When does the budget of my team reset, and how much time do we have until then?"


def request_body(model: str, *, stream: bool, usage: bool = False) -> bytes:
    """A chat completion as a client writes it."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [
            {"role": "system", "content": _SYSTEM},
            {"role": "user", "content": _QUESTION},
        ],
        "max_tokens": 128,
        "temperature": 0.2,
    }
    if stream:
        body["stream"] = True
    if usage:
        body["stream_options"] = {"include_usage": True}
    return json.dumps(body).encode()


def plain_answer() -> dict[str, Any]:
    """The provider's answer."""
    return {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1_763_000_000,
        "model": UPSTREAM_MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": TEXT},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
        "service_tier": "default",
        "system_fingerprint": "fp_bench",
    }


def stream_answer(*, usage: bool) -> list[dict[str, Any]]:
    """The provider's chunks, without the final [DONE]."""
    chunks = [_chunk({"content": piece}, None) for piece in PIECES]
    chunks[0]["choices"][0]["delta"] = {"role": "assistant", "content": PIECES[0]}
    chunks.append(_chunk({}, "stop"))
    if usage:
        chunks = [chunk | {"usage": None} for chunk in chunks]
        chunks.append(_chunk({}, None) | {"choices": [], "usage": USAGE})
    return chunks


def _chunk(delta: dict[str, str], finish_reason: str | None) -> dict[str, Any]:
    return {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1_763_000_000,
        "model": UPSTREAM_MODEL,
        "service_tier": "default",
        "system_fingerprint": "fp_bench",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
    }


assert len(PIECES) == CHUNKS - 1
