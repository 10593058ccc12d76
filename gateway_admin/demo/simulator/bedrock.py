"""AWS Bedrock runtime: converse, converse-stream, and the routes of invoke.

The credential is the access key id of the SigV4 `Authorization` header (signatures are not
verified) or a bearer token. The kind of an error stands in the header x-amzn-ErrorType.
"""

import re
from typing import Any
from uuid import UUID

from gateway_admin.demo.simulator import bedrock_invoke, eventstream
from gateway_admin.demo.simulator.dialogue import (
    ANY_TOOL,
    AUTO_TOOL,
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
    unique_hex,
)

_SIGNATURE = re.compile(r"AWS4-HMAC-SHA256 .*?Credential=([^/,\s]+)/")
_TYPE_SUFFIX = ":http://internal.amazon.com/coral/com.amazon.bedrock/"
_FINISH = {"tools": "tool_use", "limit": "max_tokens", "end": "end_turn"}

# case -> status, exception, message ({model} is filled in)
_ERRORS: dict[str, tuple[int, str, str]] = {
    "bad_request": (400, "ValidationException", "The request is malformed."),
    "auth": (
        403,
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
    ),
    "permission": (
        403,
        "AccessDeniedException",
        "You don't have access to the model with the specified model ID.",
    ),
    "not_found": (400, "ValidationException", "The provided model identifier is invalid."),
    "rate_limit": (
        429,
        "ThrottlingException",
        "Too many requests, please wait before trying again.",
    ),
    "quota": (
        400,
        "ServiceQuotaExceededException",
        "Your request exceeds the service quota for your account.",
    ),
    "overload": (
        503,
        "ServiceUnavailableException",
        "Bedrock is unable to process your request.",
    ),
    "server_error": (500, "InternalServerException", "An internal server error occurred."),
    "context_window": (400, "ValidationException", "Input is too long for requested model."),
    "content_policy": (
        400,
        "ValidationException",
        "The request was blocked by the content filtering policy.",
    ),
}


def _request_id(serial: int) -> str:
    return str(UUID(unique_hex(f"bedrock{serial}", 32)))


def _headers(serial: int) -> Headers:
    return [("x-amzn-requestid", _request_id(serial))]


def _error(failure: Failure) -> Reply:
    status, kind, message = _ERRORS[failure.case]
    fields = [*_headers(failure.serial), *failure.headers.items()]
    fields.append(("x-amzn-errortype", kind + _TYPE_SUFFIX))
    if failure.retry_after_s is not None:
        fields.append(("retry-after", f"{failure.retry_after_s:g}"))
    text = failure.message or message.format(model=failure.model)
    return Reply(dump({"message": text}), status=failure.status or status, headers=fields)


def _stream_error(failure: Failure) -> bytes:
    _, kind, message = _ERRORS[failure.case]
    text = failure.message or message.format(model=failure.model)
    return eventstream.exception(kind[0].lower() + kind[1:], dump({"message": text}))


def _block_texts(block: dict[str, Any]) -> list[str]:
    """Return the texts of a content block."""
    if isinstance(block.get("text"), str):
        return [block["text"]]
    if "toolUse" in block:
        return [str(block["toolUse"].get("name")), dump(block["toolUse"].get("input")).decode()]
    if "toolResult" in block:
        inner = block["toolResult"].get("content") or []
        return [text for part in inner for text in _block_texts(part)]
    if "json" in block:
        return [dump(block["json"]).decode().replace(",", " ")]
    return []


def _prompt(payload: dict[str, Any]) -> Prompt:
    messages = payload.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError("bad_request", "1 validation error detected: messages is required")
    last = messages[-1].get("content") or []
    config = payload.get("toolConfig") or {}
    choice = config.get("toolChoice") or {}
    wanted = ANY_TOOL if "any" in choice else AUTO_TOOL
    specs = [tool["toolSpec"] for tool in config.get("tools") or [] if "toolSpec" in tool]
    return Prompt(
        texts=[text for block in _blocks(payload) for text in _block_texts(block)],
        messages=len(messages),
        last_role="tool" if any("toolResult" in block for block in last) else "user",
        last_texts=[text for block in last for text in _block_texts(block)],
        tools=[
            Function(str(spec.get("name")), (spec.get("inputSchema") or {}).get("json"))
            for spec in specs
        ],
        tool_choice=(choice.get("tool") or {}).get("name") or wanted,
        limit=integer(payload.get("inferenceConfig") or {}, "maxTokens"),
    )


def _blocks(payload: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the content blocks in prompt order."""
    blocks = list(payload.get("system") or [])
    for message in payload["messages"]:
        blocks += message.get("content") or []
    return blocks


def _usage(ask: Ask, prompt: Prompt, turn: Turn) -> Usage:
    usage = Usage(prompt.tokens, turn.tokens + ask.reasoning_tokens)
    usage.reasoning_tokens = ask.reasoning_tokens
    before: list[str] = []
    cached: list[str] = []
    for block in _blocks(ask.payload):
        before += _block_texts(block)
        if "cachePoint" in block:
            cached = list(before)
    explicit_cache(ask, usage, cached)
    return usage


def _usage_json(usage: Usage) -> dict[str, int]:
    cached = usage.cache_read_tokens + usage.cache_write_tokens
    return {
        "inputTokens": usage.input_tokens - cached,
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.input_tokens + usage.output_tokens,
        "cacheReadInputTokens": usage.cache_read_tokens,
        "cacheWriteInputTokens": usage.cache_write_tokens,
    }


def _tool_use_id(ask: Ask, place: int) -> str:
    return "tooluse_" + unique_hex(f"bedrock{ask.serial}/{place}", 22)


def _converse(ask: Ask) -> Reply:
    prompt = _prompt(ask.payload)
    turn = compose(ask, prompt)
    usage = _usage(ask, prompt, turn)
    content: list[dict[str, Any]] = [
        {"toolUse": {"toolUseId": _tool_use_id(ask, place), "name": call.name, "input": call.value}}
        for place, call in enumerate(turn.calls)
    ]
    body = {
        "metrics": {"latencyMs": 12},
        "output": {
            "message": {"content": content or [{"text": turn.answer.text}], "role": "assistant"}
        },
        "stopReason": _FINISH[turn.finish],
        "usage": _usage_json(usage),
    }
    ident = _request_id(ask.serial)
    return Reply(dump(body), usage, headers=_headers(ask.serial), response_id=ident)


def _event(kind: str, **fields: Any) -> bytes:
    return eventstream.event(kind, dump(fields))


def _converse_stream(ask: Ask) -> Stream:
    prompt = _prompt(ask.payload)
    turn = compose(ask, prompt)
    usage = _usage(ask, prompt, turn)
    # Reasoning is billed and never shown: it leaves with the first event.
    chunks: list[Chunk] = [(_event("messageStart", role="assistant"), usage.reasoning_tokens)]
    for token in turn.answer.tokens:
        delta = {"text": token}
        chunks.append((_event("contentBlockDelta", contentBlockIndex=0, delta=delta), 1))
    if not turn.calls:
        chunks.append((_event("contentBlockStop", contentBlockIndex=0), 0))
    for place, call in enumerate(turn.calls):
        start = {"toolUse": {"name": call.name, "toolUseId": _tool_use_id(ask, place)}}
        chunks.append((_event("contentBlockStart", contentBlockIndex=place, start=start), 1))
        for piece in call.arguments.tokens:
            part = {"toolUse": {"input": piece}}
            chunks.append((_event("contentBlockDelta", contentBlockIndex=place, delta=part), 1))
        chunks.append((_event("contentBlockStop", contentBlockIndex=place), 0))
    chunks.append((_event("messageStop", stopReason=_FINISH[turn.finish]), 0))
    metrics = {"latencyMs": 12}
    chunks.append((_event("metadata", metrics=metrics, usage=_usage_json(usage)), 0))
    return Stream(
        chunks,
        usage,
        content_type=eventstream.CONTENT_TYPE,
        headers=_headers(ask.serial),
        response_id=_request_id(ask.serial),
    )


def _invoke(ask: Ask) -> Reply:
    return bedrock_invoke.invoke(ask, _headers(ask.serial))


def _invoke_stream(ask: Ask) -> Stream:
    return bedrock_invoke.invoke_stream(ask, _headers(ask.serial))


def _endpoint(request: Request, payload: dict[str, Any]) -> Endpoint | None:
    if request.method != "POST" or len(request.segments) < 3 or request.segments[0] != "model":
        return None
    # An ARN may hold slashes that were not encoded.
    model, operation = "/".join(request.segments[1:-1]), request.segments[-1]
    match operation:
        case "converse":
            return Endpoint("chat", model, _converse)
        case "converse-stream":
            return Endpoint("chat", model, _converse_stream)
        case "invoke":
            name = "chat" if "anthropic_version" in payload else "embedding"
            return Endpoint(name, model, _invoke)
        case "invoke-with-response-stream":
            return Endpoint("chat", model, _invoke_stream)
    return None


def _credential(request: Request) -> str:
    signed = _SIGNATURE.match(request.headers.get("authorization", ""))
    return signed[1] if signed else request.bearer()


PROVIDER = Provider(
    kind="bedrock",
    credential=_credential,
    endpoint=_endpoint,
    error=_error,
    stream_error=_stream_error,
)
