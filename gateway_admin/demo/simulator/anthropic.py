"""Anthropic messages: plain and streamed, tools, prompt caching, token counting.

Prompt caching as the real one does it: what stands up to and including the last block with
`cache_control` is written to the cache at its first use and read from it afterwards.
"""

from collections.abc import Iterator
from typing import Any

from gateway_admin.demo.simulator.answers import texts_of
from gateway_admin.demo.simulator.dialogue import (
    ANY_TOOL,
    AUTO_TOOL,
    NO_TOOL,
    Function,
    Prompt,
    Turn,
    compose,
    explicit_cache,
)
from gateway_admin.demo.simulator.wire import (
    Ask,
    Chunk,
    Endpoint,
    Failure,
    Headers,
    Provider,
    Reply,
    Request,
    RequestError,
    Stream,
    Usage,
    dump,
    integer,
    sse,
    unique_hex,
)

# case -> status, type, message ({model} is filled in)
_ERRORS: dict[str, tuple[int, str, str]] = {
    "bad_request": (400, "invalid_request_error", "The request is invalid."),
    "auth": (401, "authentication_error", "invalid x-api-key"),
    "permission": (403, "permission_error", "The API key has no permission for {model}."),
    "not_found": (404, "not_found_error", "model: {model}"),
    "rate_limit": (
        429,
        "rate_limit_error",
        "This request would exceed the rate limit of the organization; try again later.",
    ),
    "quota": (
        400,
        "invalid_request_error",
        "Your credit balance is too low to access the Anthropic API.",
    ),
    "overload": (529, "overloaded_error", "Overloaded"),
    "server_error": (500, "api_error", "Internal server error"),
    "context_window": (
        400,
        "invalid_request_error",
        "prompt is too long: 210000 tokens > 200000 maximum",
    ),
    "content_policy": (
        400,
        "invalid_request_error",
        "Output blocked by content filtering policy",
    ),
}
_FINISH = {"tools": "tool_use", "limit": "max_tokens", "end": "end_turn"}


def _headers(serial: int) -> Headers:
    fields = [("request-id", _request_id(serial))]
    for name, limit, left in (("requests", "4000", "3999"), ("tokens", "400000", "399000")):
        fields += [
            (f"anthropic-ratelimit-{name}-limit", limit),
            (f"anthropic-ratelimit-{name}-remaining", left),
            (f"anthropic-ratelimit-{name}-reset", "2030-01-01T00:00:00Z"),
        ]
    return fields


def _request_id(serial: int) -> str:
    return "req_01" + unique_hex(f"anthropic{serial}", 22)


def _error_body(failure: Failure) -> tuple[int, dict[str, Any]]:
    status, kind, message = _ERRORS[failure.case]
    text = failure.message or message.format(model=failure.model)
    return failure.status or status, {"type": "error", "error": {"type": kind, "message": text}}


def _error(failure: Failure) -> Reply:
    status, body = _error_body(failure)
    body["request_id"] = _request_id(failure.serial)
    fields = [*_headers(failure.serial), *failure.headers.items()]
    fields.append(
        ("x-should-retry", "true" if status in (408, 409, 429) or status >= 500 else "false")
    )
    if failure.retry_after_s is not None:
        fields.append(("retry-after", f"{failure.retry_after_s:g}"))
    return Reply(dump(body), status=status, headers=fields)


def _stream_error(failure: Failure) -> bytes:
    return sse(_error_body(failure)[1], "error")


def _blocks(payload: dict[str, Any]) -> Iterator[tuple[list[str], bool]]:
    """Yield the texts of each block in prompt order, and whether it is a cache breakpoint."""
    for tool in payload.get("tools") or []:
        text = dump([tool.get("name"), tool.get("input_schema")]).decode()
        yield [text.replace(",", " ")], "cache_control" in tool
    contents = [payload.get("system"), *(one.get("content") for one in payload["messages"])]
    for content in contents:
        for block in content if isinstance(content, list) else [content]:
            if isinstance(block, str):
                yield [block], False
            elif isinstance(block, dict):
                texts = list(texts_of([block]))
                if block.get("type") == "tool_use":
                    texts = [str(block.get("name")), dump(block.get("input")).decode()]
                yield texts, "cache_control" in block


def _prompt(payload: dict[str, Any]) -> Prompt:
    messages = payload.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError("bad_request", "messages: Field required")
    last = messages[-1]
    content = last.get("content")
    results = isinstance(content, list) and any(
        isinstance(block, dict) and block.get("type") == "tool_result" for block in content
    )
    choice = payload.get("tool_choice") or {}
    form = payload.get("output_format") or (payload.get("output_config") or {}).get("format") or {}
    wanted = {"none": NO_TOOL, "any": ANY_TOOL, "tool": choice.get("name", "")}
    return Prompt(
        texts=[text for texts, _ in _blocks({**payload, "tools": None}) for text in texts],
        messages=len(messages),
        last_role="tool" if results else str(last.get("role")),
        last_texts=texts_of(content),
        tools=[
            Function(str(tool.get("name")), tool.get("input_schema"))
            for tool in payload.get("tools") or []
            if "input_schema" in tool
        ],
        tool_choice=wanted.get(str(choice.get("type")), AUTO_TOOL),
        limit=integer(payload, "max_tokens"),
        as_json=form.get("type") == "json_schema",
        schema=form.get("schema"),
    )


def _usage(ask: Ask, prompt: Prompt, turn: Turn) -> Usage:
    usage = Usage(prompt.tokens, turn.tokens + ask.reasoning_tokens)
    usage.reasoning_tokens = ask.reasoning_tokens
    before: list[str] = []
    cached: list[str] = []
    for texts, breakpoint_here in _blocks(ask.payload):
        before += texts
        if breakpoint_here:
            cached = list(before)
    explicit_cache(ask, usage, cached)
    return usage


def _usage_json(usage: Usage, output_tokens: int) -> dict[str, Any]:
    cached = usage.cache_read_tokens + usage.cache_write_tokens
    return {
        "input_tokens": usage.input_tokens - cached,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_tokens,
            "ephemeral_1h_input_tokens": 0,
        },
        "output_tokens": output_tokens,
        "service_tier": "standard",
        "inference_geo": "global",
    }


def message(ask: Ask) -> tuple[dict[str, Any], Usage, str, Turn]:
    """Return the whole message with its usage, its id and the turn it was made of."""
    if "max_tokens" not in ask.payload:
        raise RequestError("bad_request", "max_tokens: Field required")
    prompt = _prompt(ask.payload)
    turn = compose(ask, prompt)
    usage = _usage(ask, prompt, turn)
    ident = ask.ident("msg_01", 22)
    body = {
        "model": ask.model,
        "id": ident,
        "type": "message",
        "role": "assistant",
        "content": _content(ident, turn),
        "stop_reason": _FINISH[turn.finish],
        "stop_sequence": None,
        "stop_details": None,
        "usage": _usage_json(usage, usage.output_tokens),
    }
    return body, usage, ident, turn


def _messages(ask: Ask) -> Reply | Stream:
    body, usage, ident, turn = message(ask)
    fields = _headers(ask.serial)
    if ask.payload.get("stream"):
        chunks = events(body, turn, usage)
        return Stream(chunks, usage, headers=fields, response_id=ident)
    return Reply(dump(body), usage, headers=fields, response_id=ident)


def _content(ident: str, turn: Turn) -> list[dict[str, Any]]:
    if not turn.calls:
        return [{"type": "text", "text": turn.answer.text}]
    return [
        {
            "type": "tool_use",
            "id": "toolu_01" + unique_hex(f"{ident}{place}", 22),
            "name": call.name,
            "input": call.value,
        }
        for place, call in enumerate(turn.calls)
    ]


def _event(kind: str, **fields: Any) -> bytes:
    return sse({"type": kind, **fields}, kind)


def events(body: dict[str, Any], turn: Turn, usage: Usage) -> list[Chunk]:
    """Return the events of a stream that adds up to the message."""
    begun = {**body, "content": [], "stop_reason": None, "usage": _usage_json(usage, 1)}
    # Reasoning is billed and never shown: it leaves with the first event.
    chunks: list[Chunk] = [(_event("message_start", message=begun), usage.reasoning_tokens)]
    ping: list[Chunk] = [(_event("ping"), 0)]
    for index, block in enumerate(body["content"]):
        if block["type"] == "text":
            empty, pieces, form = {**block, "text": ""}, turn.answer.tokens, "text"
        else:
            empty, pieces, form = {**block, "input": {}}, turn.calls[index].arguments.tokens, "json"
        opening = _event("content_block_start", index=index, content_block=empty)
        chunks.append((opening, 0 if form == "text" else 1))
        chunks, ping = chunks + ping, []
        for piece in pieces:
            delta = {"type": "text_delta", "text": piece}
            if form == "json":
                delta = {"type": "input_json_delta", "partial_json": piece}
            chunks.append((_event("content_block_delta", index=index, delta=delta), 1))
        chunks.append((_event("content_block_stop", index=index), 0))
    ended = {name: body[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
    counts = _usage_json(usage, usage.output_tokens)
    final = {name: counts[name] for name in _FINAL_COUNTS}
    chunks.append((_event("message_delta", delta=ended, usage=final), 0))
    chunks.append((_event("message_stop"), 0))
    return chunks


_FINAL_COUNTS = (
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
)


def _count_tokens(ask: Ask) -> Reply:
    return Reply(dump({"input_tokens": _prompt(ask.payload).tokens}), headers=_headers(0))


def _models(ask: Ask) -> Reply:
    names = ("claude-opus-4-6", "claude-sonnet-4-6", "claude-haiku-4-5")
    data = [
        {"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}
        for name in names
    ]
    body = {"data": data, "has_more": False, "first_id": names[0], "last_id": names[-1]}
    return Reply(dump(body), headers=_headers(0))


def _endpoint(request: Request, payload: dict[str, Any]) -> Endpoint | None:
    match request.method, request.segments:
        case "GET", ("v1", "models"):
            return Endpoint("models", "", _models, metered=False)
        case "POST", ("v1", "messages"):
            return Endpoint("chat", _model(payload), _messages)
        case "POST", ("v1", "messages", "count_tokens"):
            return Endpoint("count_tokens", _model(payload), _count_tokens, metered=False)
    return None


def _model(payload: dict[str, Any]) -> str:
    model = payload.get("model")
    if not isinstance(model, str) or not model:
        raise RequestError("bad_request", "model: Field required")
    return model


def _credential(request: Request) -> str:
    return request.headers.get("x-api-key", "") or request.bearer()


PROVIDER = Provider(
    kind="anthropic",
    credential=_credential,
    endpoint=_endpoint,
    error=_error,
    stream_error=_stream_error,
)
