"""OpenAI chat completions: plain and streamed, text, JSON and tool calls. Azure shares it."""

from typing import Any, NamedTuple

import orjson

from gateway_admin.demo.simulator.answers import (
    Answer,
    count_texts,
    instance_of,
    texts_of,
    write_json,
    write_text,
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


class ToolCall(NamedTuple):
    """A call of a function; its name counts as one token, as each piece of its arguments."""

    id: str
    name: str
    arguments: Answer


class Choice(NamedTuple):
    """One of the `n` answers: a text or tool calls."""

    answer: Answer
    calls: list[ToolCall]

    @property
    def tokens(self) -> int:
        spoken = sum(1 + len(call.arguments.tokens) for call in self.calls)
        return len(self.answer.tokens) + spoken

    @property
    def finish(self) -> str:
        if self.calls:
            return "tool_calls"
        return "length" if self.answer.cut else "stop"


def messages_of(payload: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the messages, or raise the error that OpenAI reports without them."""
    messages = payload.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError("bad_request", "Missing required parameter: 'messages'.")
    if not all(isinstance(message, dict) for message in messages):
        raise RequestError("bad_request", "Invalid type for 'messages[0]': expected an object.")
    return messages


def input_tokens(messages: list[dict[str, Any]], tools: Any = None) -> int:
    """Return the tokens of the prompt: words, a constant per message, words of the tools."""
    texts = [text for message in messages for text in texts_of(message.get("content"))]
    for message in messages:
        for call in message.get("tool_calls") or []:
            function = call.get("function") or {}
            texts += [str(function.get("name", "")), str(function.get("arguments", ""))]
    if tools:
        texts.append(orjson.dumps(tools).decode().replace(",", " "))
    return count_texts(texts, len(messages))


def usage_of(ask: Ask, prompt: list[dict[str, Any]], choices: list[Choice]) -> Usage:
    """Return the usage; a long prompt that was seen before is mostly read from the cache."""
    count = input_tokens(prompt, ask.payload.get("tools"))
    cached = 0
    if count >= CACHE_FROM_TOKENS:
        key = unique_hex(f"{ask.model}{ask.credential}{orjson.dumps(prompt).decode()}", 32)
        if ask.cache.seen(key):
            cached = count // CACHE_STEP_TOKENS * CACHE_STEP_TOKENS
    spoken = sum(choice.tokens for choice in choices)
    return Usage(
        input_tokens=count,
        output_tokens=spoken + ask.reasoning_tokens,
        cache_read_tokens=cached,
        reasoning_tokens=ask.reasoning_tokens,
    )


def write_choices(ask: Ask, messages: list[dict[str, Any]]) -> list[Choice]:
    """Return the `n` answers to the messages."""
    payload = ask.payload
    limit = integer(payload, "max_completion_tokens", "max_tokens")
    number = integer(payload, "n") or 1
    if number > MOST_CHOICES:
        raise RequestError("bad_request", f"'n' must be at most {MOST_CHOICES}.")
    last = messages[-1]
    seed = (ask.model, *texts_of(last.get("content")))
    tools = tools_to_call(payload.get("tools"), payload.get("tool_choice"), last.get("role"), seed)
    choices = []
    for index in range(number):
        if tools:
            calls = [
                _call(ask, tool, (*seed, index, place), f"{index}-{place}")
                for place, tool in enumerate(tools)
            ]
            choices.append(Choice(Answer([], False), calls))
        else:
            choices.append(Choice(_text(ask, (*seed, index), limit), []))
    return choices


def tools_to_call(
    tools: Any, choice: Any, role: Any, seed: tuple[Any, ...]
) -> list[dict[str, Any]]:
    """Return the functions to call: after a user's message the first tool, or the one asked for.

    A message with the word "both" gets two calls of it. After a tool's result: none.
    """
    functions = [tool["function"] for tool in tools or [] if isinstance(tool.get("function"), dict)]
    if not functions or choice == "none":
        return []
    if isinstance(choice, dict):
        wanted = (choice.get("function") or {}).get("name")
        functions = [function for function in functions if function.get("name") == wanted]
        if not functions:
            raise RequestError("bad_request", f"Tool choice {wanted!r} is not among the tools.")
    elif choice != "required" and role != "user":
        return []
    twice = any("both" in str(part).lower().split() for part in seed)
    return functions[:1] * (2 if twice else 1)


def _call(ask: Ask, function: dict[str, Any], seed: tuple[Any, ...], place: str) -> ToolCall:
    arguments = instance_of(function.get("parameters"), *seed)
    ident = ask.ident(f"call_{place}-", 24).replace(f"{place}-", "")
    return ToolCall(ident, str(function.get("name")), write_json(arguments))


def _text(ask: Ask, seed: tuple[Any, ...], limit: int | None) -> Answer:
    form = ask.payload.get("response_format") or {}
    if form.get("type") == "json_schema":
        schema = (form.get("json_schema") or {}).get("schema")
        return write_json(instance_of(schema, *seed), limit)
    if form.get("type") == "json_object":
        return write_json({"answer": write_text(*seed, wanted=ask.output_tokens).text}, limit)
    return write_text(*seed, limit=limit, wanted=ask.output_tokens)


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
    choices = write_choices(ask, messages)
    usage = usage_of(ask, messages, choices)
    ident = ask.ident("chatcmpl-", 29)
    if ask.payload.get("stream"):
        chunks = _Chunks(ask, ident, choices, usage, azure).build()
        return Stream(chunks, usage, headers=headers, response_id=ident)
    body: dict[str, Any] = {
        "id": ident,
        "object": "chat.completion",
        "created": ask.created,
        "model": ask.model,
        "choices": [_choice_json(index, choice, azure) for index, choice in enumerate(choices)],
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


def _choice_json(index: int, choice: Choice, azure: bool) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if choice.calls else choice.answer.text,
        "refusal": None,
        "annotations": [],
    }
    if choice.calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments.text},
            }
            for call in choice.calls
        ]
    body: dict[str, Any] = {"index": index, "message": message, "finish_reason": choice.finish}
    if azure:
        body["logprobs"] = None
        body["content_filter_results"] = {
            **SAFE,
            "protected_material_code": DETECTED_NOT,
            "protected_material_text": DETECTED_NOT,
        }
    return body


class _Chunks:
    """Builds the events of one stream; text tokens are spliced into a prepared event."""

    def __init__(
        self, ask: Ask, ident: str, choices: list[Choice], usage: Usage, azure: bool
    ) -> None:
        options = ask.payload.get("stream_options") or {}
        self.with_usage = bool(options.get("include_usage"))
        self.obfuscated = not azure and options.get("include_obfuscation") is not False
        self.choices, self.usage, self.azure = choices, usage, azure
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

    def _delta(self, index: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice: dict[str, Any] = {"index": index, "delta": delta, "finish_reason": finish}
        if self.azure:
            choice["logprobs"] = None
            choice["content_filter_results"] = SAFE if delta.get("content") else {}
        return self._event([choice])

    def _choice(self, index: int, choice: Choice) -> list[Chunk]:
        opening: dict[str, Any] = {"role": "assistant", "content": None if choice.calls else ""}
        if not choice.calls:
            opening["refusal"] = None
        chunks: list[Chunk] = [(self._delta(index, opening), 0)]
        before, after = self._delta(index, {"content": "@"}).split(b'"@"')
        chunks += [(before + orjson.dumps(token) + after, 1) for token in choice.answer.tokens]
        for place, call in enumerate(choice.calls):
            chunks += self._call(index, place, call)
        chunks.append((self._delta(index, {}, choice.finish), 0))
        return chunks

    def _call(self, index: int, place: int, call: ToolCall) -> list[Chunk]:
        function = {"name": call.name, "arguments": ""}
        opening = {"index": place, "id": call.id, "type": "function", "function": function}
        chunks: list[Chunk] = [(self._delta(index, {"tool_calls": [opening]}), 1)]
        for piece in call.arguments.tokens:
            part = {"index": place, "function": {"arguments": piece}}
            chunks.append((self._delta(index, {"tool_calls": [part]}), 1))
        return chunks
