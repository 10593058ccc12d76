"""What the live traffic asks: one request of a key, drawn from the tables."""

import math
from dataclasses import dataclass, field
from random import Random
from typing import Any

from gateway_admin.demo import organisation as tables
from gateway_admin.demo.profiles import SHAPES

MAX_PROMPT_WORDS = 3_000  # the past has long prompts; the present stays gentle
MAX_ANSWER_TOKENS = 220
WRONG_MODEL_CHANCE = 0.004
BAD_BODY_CHANCE = 0.003
ABORT_CHANCE = 0.02  # of streams
MESSAGES_CHANCE = 0.4  # of Claude models: Anthropic's own route
TOOL_CHANCE = 0.25  # of agents
REPEATED_QUESTIONS = 6  # per key and model
_VOCABULARY = (
    "order invoice parcel refund ticket customer address contract clause search result index "
    "document summary branch commit function test error log request answer price total date "
    "please explain compare list draft rewrite translate check find the a of to in for with"
)
_WORDS = _VOCABULARY.split()
_TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look a record up",
        "parameters": {"type": "object", "properties": {"id": {"type": "string"}}},
    },
}


@dataclass(frozen=True)
class Call:
    """One HTTP request. `abort_after`: chunks after which the client goes away."""

    path: str
    body: dict[str, Any]
    stream: bool = False
    abort_after: int | None = None
    headers: dict[str, str] = field(default_factory=dict)


def draw_call(draw: Random, row: tables.KeyRow) -> Call:
    """A request as this key's program would send it."""
    body: dict[str, Any]
    model = draw.choices(list(row.mix), list(row.mix.values()))[0]
    asks_again = row.repeats > 0 and draw.random() < row.repeats
    if asks_again:
        # One of few questions, word by word the same each time.
        draw = Random(f"{row.name} {model} {draw.randrange(REPEATED_QUESTIONS)}")
    if model == "text-embedding-3-small":
        return Call("/v1/embeddings", {"model": model, "input": _text(draw, "embedding")})
    if asks_again:
        question = [{"role": "user", "content": _text(draw, row.workload)}]
        body = {"model": model, "messages": question, "max_tokens": 120, "temperature": 0}
        return Call("/v1/chat/completions", body)
    if draw.random() < BAD_BODY_CHANCE:
        return Call("/v1/chat/completions", {"model": model, "messages": "no list"})
    if draw.random() < WRONG_MODEL_CHANCE and not row.restricted:
        model = "gpt-4.1-minni"
    shape = SHAPES[row.workload]
    stream = draw.random() < shape.streamed
    abort_after = draw.randint(2, 9) if stream and draw.random() < ABORT_CHANCE else None
    body = {
        "model": model,
        "messages": [{"role": "user", "content": _text(draw, row.workload)}],
        "max_tokens": draw.randint(30, MAX_ANSWER_TOKENS),
    }
    if stream:
        body["stream"] = True
    if model.startswith("claude") and draw.random() < MESSAGES_CHANCE:
        headers = {"anthropic-version": "2023-06-01"}
        return Call("/v1/messages", body, stream, abort_after, headers)
    if stream and draw.random() < 0.6:
        body["stream_options"] = {"include_usage": True}
    if row.workload == "agent" and draw.random() < TOOL_CHANCE:
        body["tools"] = [_TOOL]
    if draw.random() < shape.customers:
        body["user"] = f"customer-{int(tables.CUSTOMERS * draw.random() ** 2.4) + 1:03d}"
    return Call("/v1/chat/completions", body, stream, abort_after)


def _text(draw: Random, workload: str) -> str:
    shape = SHAPES[workload]
    length = draw.lognormvariate(math.log(shape.prompt), shape.prompt_sigma)
    return " ".join(draw.choices(_WORDS, k=max(3, min(int(length), MAX_PROMPT_WORDS))))
