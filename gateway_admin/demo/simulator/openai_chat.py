"""OpenAI chat completions: plain and streamed, text, JSON and tool calls. Azure shares it."""

from collections.abc import Sequence
from typing import Any

import orjson

from gateway_admin.demo.simulator.answers import texts_of
from gateway_admin.demo.simulator.dialogue import (
    ANY_TOOL,
    AUTO_TOOL,
    NO_TOOL,
    Call,
    Function,
    Prompt,
    Turn,
    compose,
)
from gateway_admin.demo.simulator.wire import (
    Ask,
    Chunk,
    Headers,
    Reply,
    RequestError,
    Stream,
    Usage,
    dump,
    integer,
    sse,
    unique_hex,
)

CACHE_FROM_TOKENS = 1024  # prompts as long as this are cached, in steps of CACHE_STEP_TOKENS
CACHE_STEP_TOKENS = 128
MOST_CHOICES = 8


def messages_of(payload: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the messages, or raise the error that OpenAI reports without them."""
    messages = payload.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError("bad_request", "Missing required parameter: 'messages'.")
    if not all(isinstance(message, dict) for message in messages):
        raise RequestError("bad_request", "Invalid type for 'messages[0]': expected an object.")
    return messages


def prompt_of(payload: dict[str, Any], messages: list[dict[str, Any]]) -> Prompt:
    """Return the request in neutral form."""
    texts = [text for message in messages for text in texts_of(message.get("content"))]
    for message in messages:
        for call in message.get("tool_calls") or []:
            function = call.get("function") or {}
            texts += [str(function.get("name", "")), str(function.get("arguments", ""))]
    form = payload.get("response_format") or {}
    schema = (form.get("json_schema") or {}).get("schema")
    tools = [
        Function(str(tool["function"].get("name")), tool["function"].get("parameters"))
        for tool in payload.get("tools") or []
        if isinstance(tool.get("function"), dict)
    ]
    return Prompt(
        texts=texts,
        messages=len(messages),
        last_role=str(messages[-1].get("role")),
        last_texts=texts_of(messages[-1].get("content")),
        tools=tools,
        tool_choice=_tool_choice(payload.get("tool_choice")),
        limit=integer(payload, "max_completion_tokens", "max_tokens"),
        as_json=form.get("type") in ("json_object", "json_schema"),
        schema=schema,
    )


def _tool_choice(choice: Any) -> str:
    if isinstance(choice, dict):
        return str((choice.get("function") or {}).get("name"))
    return {"none": NO_TOOL, "required": ANY_TOOL}.get(str(choice), AUTO_TOOL)


def usage_of(ask: Ask, prompt: Prompt, turns: list[Turn]) -> Usage:
    """Return the usage; a long prompt that was seen before is mostly read from the cache."""
    count = prompt.tokens
    cached = 0
    if count >= CACHE_FROM_TOKENS and ask.cache.seen(prompt.key(ask)):
        cached = count // CACHE_STEP_TOKENS * CACHE_STEP_TOKENS
    return Usage(
        input_tokens=count,
        output_tokens=sum(turn.tokens for turn in turns) + ask.reasoning_tokens,
        cache_read_tokens=cached,
        reasoning_tokens=ask.reasoning_tokens,
    )


def write_turns(ask: Ask, prompt: Prompt) -> list[Turn]:
    """Return the `n` answers."""
    number = integer(ask.payload, "n") or 1
    if number > MOST_CHOICES:
        raise RequestError("bad_request", f"'n' must be at most {MOST_CHOICES}.")
    return [compose(ask, prompt, index) for index in range(number)]


def finish_of(turn: Turn) -> str:
    """Return the finish reason in OpenAI's words."""
    return {"tools": "tool_calls", "limit": "length", "end": "stop"}[turn.finish]


def call_id(ident: str, index: int, place: int) -> str:
    """Return the id of a tool call, unique within its response."""
    return "call_" + unique_hex(f"{ident}/{index}/{place}", 24)


def usage_json(usage: Usage) -> dict[str, Any]:
    """Return the usage in OpenAI's fields."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def chat(ask: Ask, headers: Headers, *, azure: bool = False) -> Reply | Stream:
    """Answer POST chat/completions."""
    messages = messages_of(ask.payload)
    prompt = prompt_of(ask.payload, messages)
    choices = write_turns(ask, prompt)
    usage = usage_of(ask, prompt, choices)
    ident = ask.ident("chatcmpl-", 29)
    if ask.payload.get("stream"):
        chunks = _Chunks(ask, ident, choices, usage, azure).build()
        return Stream(chunks, usage, headers=headers, response_id=ident)
    body: dict[str, Any] = {
        "id": ident,
        "object": "chat.completion",
        "created": ask.created,
        "model": ask.model,
        "choices": [_choice_json(ask, ident, *pair, azure) for pair in enumerate(choices)],
        "usage": usage_json(usage),
        "system_fingerprint": None,
    }
    if azure:
        body["prompt_filter_results"] = [
            {"prompt_index": 0, "content_filter_results": {**SAFE, "jailbreak": DETECTED_NOT}}
        ]
    else:
        body["service_tier"] = "default"
    return Reply(dump(body), usage, headers=headers, response_id=ident)


DETECTED_NOT = {"detected": False, "filtered": False}
SAFE: dict[str, Any] = {
    name: {"filtered": False, "severity": "safe"}
    for name in ("hate", "self_harm", "sexual", "violence")
}


def _choice_json(ask: Ask, ident: str, index: int, choice: Turn, azure: bool) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if choice.calls else choice.answer.text,
        "refusal": None,
        "annotations": [],
    }
    if choice.calls:
        message["tool_calls"] = [
            {
                "id": call_id(ident, index, place),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments.text},
            }
            for place, call in enumerate(choice.calls)
        ]
    body: dict[str, Any] = {"index": index, "message": message, "finish_reason": finish_of(choice)}
    if ask.payload.get("logprobs"):
        body["logprobs"] = logprobs_of(choice.answer.tokens, integer(ask.payload, "top_logprobs"))
    if azure:
        body.setdefault("logprobs", None)
        body["content_filter_results"] = {
            **SAFE,
            "protected_material_code": DETECTED_NOT,
            "protected_material_text": DETECTED_NOT,
        }
    return body


def logprobs_of(tokens: Sequence[str], top: int | None) -> dict[str, Any]:
    """Return the log-probabilities of tokens: -0.25 for each, the alternatives below."""
    content = []
    for token in tokens:
        others = [
            {"token": f"{token}{rank or ''}", "logprob": -0.25 - rank, "bytes": None}
            for rank in range(top or 0)
        ]
        known = list(token.encode())
        content.append({"token": token, "logprob": -0.25, "bytes": known, "top_logprobs": others})
    return {"content": content, "refusal": None}


class _Chunks:
    """Builds the events of one stream; text tokens are spliced into a prepared event."""

    def __init__(
        self, ask: Ask, ident: str, choices: list[Turn], usage: Usage, azure: bool
    ) -> None:
        options = ask.payload.get("stream_options") or {}
        self.with_usage = bool(options.get("include_usage"))
        self.obfuscated = not azure and options.get("include_obfuscation") is not False
        self.choices, self.usage, self.azure = choices, usage, azure
        self.top: int | None = None  # alternatives per token, if log-probabilities are wanted
        if ask.payload.get("logprobs"):
            self.top = integer(ask.payload, "top_logprobs") or 0
        self.ident = ident
        self.padding = unique_hex(ident, 12)
        self.base = {
            "id": ident,
            "object": "chat.completion.chunk",
            "created": ask.created,
            "model": ask.model,
        }
        if not azure:
            self.base["service_tier"] = "default"
        self.base["system_fingerprint"] = None

    def build(self) -> list[Chunk]:
        chunks: list[Chunk] = []
        if self.azure:
            filters = [{"prompt_index": 0, "content_filter_results": SAFE}]
            empty = {**self.base, "id": "", "model": "", "created": 0, "object": ""}
            chunks.append((sse({**empty, "choices": [], "prompt_filter_results": filters}), 0))
        for index, choice in enumerate(self.choices):
            chunks += self._choice(index, choice)
        if self.usage.reasoning_tokens:  # billed, never shown: they leave with the first event
            data, tokens = chunks[0]
            chunks[0] = (data, tokens + self.usage.reasoning_tokens)
        if self.with_usage:
            chunks.append((self._event([], usage_json(self.usage)), 0))
        chunks.append((b"data: [DONE]\n\n", 0))
        return chunks

    def _event(self, choices: list[dict[str, Any]], usage: Any = None) -> bytes:
        event: dict[str, Any] = {**self.base, "choices": choices}
        if self.with_usage:
            event["usage"] = usage
        if self.obfuscated:
            event["obfuscation"] = self.padding
        return sse(event)

    def _delta(
        self, index: int, delta: dict[str, Any], finish: str | None = None, token: str = ""
    ) -> bytes:
        choice: dict[str, Any] = {"index": index, "delta": delta, "finish_reason": finish}
        if token:
            choice["logprobs"] = logprobs_of([token], self.top)
        if self.azure:
            choice.setdefault("logprobs", None)
            choice["content_filter_results"] = SAFE if delta.get("content") else {}
        return self._event([choice])

    def _choice(self, index: int, choice: Turn) -> list[Chunk]:
        opening: dict[str, Any] = {"role": "assistant", "content": None if choice.calls else ""}
        if not choice.calls:
            opening["refusal"] = None
        chunks: list[Chunk] = [(self._delta(index, opening), 0)]
        if self.top is not None:
            chunks += [
                (self._delta(index, {"content": t}, None, t), 1) for t in choice.answer.tokens
            ]
        else:
            before, after = self._delta(index, {"content": "@"}).split(b'"@"')
            chunks += [(before + orjson.dumps(t) + after, 1) for t in choice.answer.tokens]
        for place, call in enumerate(choice.calls):
            chunks += self._call(index, place, call)
        chunks.append((self._delta(index, {}, finish_of(choice)), 0))
        return chunks

    def _call(self, index: int, place: int, call: Call) -> list[Chunk]:
        function = {"name": call.name, "arguments": ""}
        opening: dict[str, Any] = {"index": place, "id": call_id(self.ident, index, place)}
        opening |= {"type": "function", "function": function}
        chunks: list[Chunk] = [(self._delta(index, {"tool_calls": [opening]}), 1)]
        for piece in call.arguments.tokens:
            part = {"index": place, "function": {"arguments": piece}}
            chunks.append((self._delta(index, {"tool_calls": [part]}), 1))
        return chunks
