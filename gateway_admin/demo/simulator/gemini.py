"""Gemini (generativelanguage): generateContent, streams, embeddings, token counting.

A bad key is status 400 here, and the wait after a 429 stands in the body, not in a header.
"""

from typing import Any

from gateway_admin.demo.simulator.answers import count_words, vector
from gateway_admin.demo.simulator.dialogue import (
    ANY_TOOL,
    AUTO_TOOL,
    NO_TOOL,
    Function,
    Prompt,
    Turn,
    compose,
)
from gateway_admin.demo.simulator.openai_chat import usage_of
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
)

MODELS = ("gemini-2.5-flash", "gemini-2.5-pro", "gemini-embedding-001")
EMBEDDING_DIMENSIONS = 3072
_JSON = "application/json; charset=UTF-8"
_HEADERS: Headers = [
    ("server", "scaffolding on HTTPServer2"),
    ("x-content-type-options", "nosniff"),
]
_TYPE = "type.googleapis.com/google.rpc."

# case -> status, gRPC status, message ({model} is filled in)
_ERRORS: dict[str, tuple[int, str, str]] = {
    "bad_request": (400, "INVALID_ARGUMENT", "The request is invalid."),
    "auth": (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
    "permission": (403, "PERMISSION_DENIED", "The caller does not have permission."),
    "not_found": (
        404,
        "NOT_FOUND",
        "models/{model} is not found for API version v1beta, or does not support the method.",
    ),
    "rate_limit": (429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (check quota)."),
    "quota": (
        429,
        "RESOURCE_EXHAUSTED",
        "You exceeded your current quota: see plan and billing details.",
    ),
    "overload": (503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    "server_error": (500, "INTERNAL", "An internal error has occurred. Please retry."),
    "context_window": (
        400,
        "INVALID_ARGUMENT",
        "The input token count (1100000) exceeds the maximum number of tokens allowed (1048576).",
    ),
    "content_policy": (
        400,
        "INVALID_ARGUMENT",
        "The response was blocked. Its prompt violates the content policy (SAFETY).",
    ),
}
_FINISH = {"tools": "STOP", "limit": "MAX_TOKENS", "end": "STOP"}


def _error_body(failure: Failure) -> tuple[int, dict[str, Any]]:
    status, name, message = _ERRORS[failure.case]
    status = failure.status or status
    text = failure.message or message.format(model=failure.model)
    error: dict[str, Any] = {"code": status, "message": text, "status": name}
    if failure.case == "auth":
        info = {"@type": _TYPE + "ErrorInfo", "reason": "API_KEY_INVALID"}
        error["details"] = [{**info, "domain": "googleapis.com"}]
    elif failure.retry_after_s is not None:
        delay = f"{failure.retry_after_s:g}s"
        error["details"] = [{"@type": _TYPE + "RetryInfo", "retryDelay": delay}]
    return status, {"error": error}


def _error(failure: Failure) -> Reply:
    status, body = _error_body(failure)
    fields = [*_HEADERS, *failure.headers.items()]
    return Reply(dump(body), status=status, content_type=_JSON, headers=fields)


def _stream_error(failure: Failure) -> bytes:
    return sse(_error_body(failure)[1])


def _part_texts(content: dict[str, Any]) -> list[str]:
    texts: list[str] = []
    for part in content.get("parts") or []:
        if isinstance(part.get("text"), str):
            texts.append(part["text"])
        for name in ("functionCall", "functionResponse", "function_call", "function_response"):
            if name in part:
                texts.append(dump(part[name]).decode().replace(",", " "))
    return texts


def _pick(payload: dict[str, Any], camel: str, snake: str) -> dict[str, Any]:
    """Return a field that Google accepts in both spellings."""
    value = payload.get(camel) or payload.get(snake) or {}
    return value if isinstance(value, dict) else {}


def _prompt(payload: dict[str, Any]) -> Prompt:
    contents = payload.get("contents")
    if not isinstance(contents, list) or not contents:
        raise RequestError("bad_request", "* GenerateContentRequest.contents: contents is empty.")
    texts = [text for content in contents for text in _part_texts(content)]
    texts += _part_texts(_pick(payload, "systemInstruction", "system_instruction"))
    config = _pick(payload, "generationConfig", "generation_config")
    last = contents[-1]
    answered = any(
        "functionResponse" in part or "function_response" in part
        for part in last.get("parts") or []
    )
    mime = config.get("responseMimeType") or config.get("response_mime_type")
    return Prompt(
        texts=texts,
        messages=len(contents),
        last_role="tool" if answered else str(last.get("role") or "user"),
        last_texts=_part_texts(last),
        tools=_tools(payload),
        tool_choice=_tool_choice(payload),
        limit=integer(config, "maxOutputTokens", "max_output_tokens"),
        as_json=mime == "application/json",
        schema=config.get("responseSchema")
        or config.get("response_schema")
        or config.get("responseJsonSchema")
        or config.get("response_json_schema"),
    )


def _tools(payload: dict[str, Any]) -> list[Function]:
    functions = []
    for tool in payload.get("tools") or []:
        declared = tool.get("functionDeclarations") or tool.get("function_declarations") or []
        for one in declared:
            schema = one.get("parameters") or one.get("parametersJsonSchema")
            functions.append(Function(str(one.get("name")), schema))
    return functions


def _tool_choice(payload: dict[str, Any]) -> str:
    config = _pick(payload, "toolConfig", "tool_config")
    calling = _pick(config, "functionCallingConfig", "function_calling_config")
    names = calling.get("allowedFunctionNames") or calling.get("allowed_function_names")
    mode = str(calling.get("mode", "AUTO")).upper()
    if mode == "ANY" and names:
        return str(names[0])
    return {"ANY": ANY_TOOL, "NONE": NO_TOOL}.get(mode, AUTO_TOOL)


def _usage_json(usage: Usage, output_tokens: int) -> dict[str, Any]:
    spoken = max(0, output_tokens - usage.reasoning_tokens)
    body: dict[str, Any] = {
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": spoken,
        "totalTokenCount": usage.input_tokens + output_tokens,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": usage.input_tokens}],
    }
    if usage.cache_read_tokens:
        body["cachedContentTokenCount"] = usage.cache_read_tokens
        cached = {"modality": "TEXT", "tokenCount": usage.cache_read_tokens}
        body["cacheTokensDetails"] = [cached]
    if usage.reasoning_tokens:
        body["thoughtsTokenCount"] = usage.reasoning_tokens
    return body


def _parts(turn: Turn) -> list[dict[str, Any]]:
    if turn.calls:
        return [{"functionCall": {"name": call.name, "args": call.value}} for call in turn.calls]
    return [{"text": turn.answer.text}]


def _generate(ask: Ask) -> Reply | Stream:
    prompt = _prompt(ask.payload)
    turn = compose(ask, prompt)
    usage = usage_of(ask, prompt, [turn])
    ident = ask.ident("", 22)
    if "stream" in ask.request.segments[-1]:
        return _stream(ask, ident, turn, usage)
    body = _body(ask, ident, _parts(turn), _FINISH[turn.finish], usage, usage.output_tokens)
    return Reply(dump(body), usage, content_type=_JSON, headers=list(_HEADERS), response_id=ident)


def _body(
    ask: Ask,
    ident: str,
    parts: list[dict[str, Any]],
    finish: str | None,
    usage: Usage,
    output_tokens: int,
) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}}
    if finish is not None:
        candidate["finishReason"] = finish
    candidate["index"] = 0
    return {
        "candidates": [candidate],
        "usageMetadata": _usage_json(usage, output_tokens),
        "modelVersion": ask.model,
        "responseId": ident,
    }


def _stream(ask: Ask, ident: str, turn: Turn, usage: Usage) -> Stream:
    """Stream as SSE with `alt=sse`, as the elements of a JSON array without it."""
    pieces: list[tuple[list[dict[str, Any]], int]] = [
        ([{"text": token}], 1) for token in turn.answer.tokens
    ]
    parts = _parts(turn)
    pieces += [([parts[place]], call.tokens) for place, call in enumerate(turn.calls)]
    bodies, sent = [], usage.reasoning_tokens
    for place, (part, tokens) in enumerate(pieces):
        sent += tokens
        finish = _FINISH[turn.finish] if place == len(pieces) - 1 else None
        bodies.append((_body(ask, ident, part, finish, usage, sent), tokens))
    as_sse = ask.request.query.get("alt") == "sse"
    chunks: list[Chunk] = []
    for place, (body, tokens) in enumerate(bodies):
        data = sse(body) if as_sse else (b"[" if place == 0 else b",\r\n") + dump(body)
        # Reasoning is billed and never shown: it leaves with the first event.
        chunks.append((data, tokens + (usage.reasoning_tokens if place == 0 else 0)))
    if not as_sse:
        chunks.append((b"]", 0))
    kind = "text/event-stream" if as_sse else _JSON
    return Stream(chunks, usage, content_type=kind, headers=list(_HEADERS), response_id=ident)


def _embed(ask: Ask) -> Reply:
    values, count = _embedding(ask.payload)
    body = {"embedding": {"values": values}, "usageMetadata": {"promptTokenCount": count}}
    return Reply(dump(body), Usage(count), content_type=_JSON, headers=list(_HEADERS))


def _batch_embed(ask: Ask) -> Reply:
    requests = ask.payload.get("requests")
    if not isinstance(requests, list) or not requests:
        raise RequestError("bad_request", "* BatchEmbedContentsRequest.requests is empty.")
    results = [_embedding(request) for request in requests]
    count = sum(tokens for _, tokens in results)
    body = {
        "embeddings": [{"values": values} for values, _ in results],
        "usageMetadata": {"promptTokenCount": count},
    }
    return Reply(dump(body), Usage(count), content_type=_JSON, headers=list(_HEADERS))


def _embedding(payload: dict[str, Any]) -> tuple[list[float], int]:
    text = " ".join(_part_texts(_pick(payload, "content", "content")))
    if not text:
        raise RequestError("bad_request", "* EmbedContentRequest.content: contents is empty.")
    dimensions = integer(payload, "outputDimensionality", "output_dimensionality")
    return vector(text, dimensions or EMBEDDING_DIMENSIONS), max(1, count_words(text))


def _count_tokens(ask: Ask) -> Reply:
    count = _prompt(ask.payload).tokens
    details = [{"modality": "TEXT", "tokenCount": count}]
    body = {"totalTokens": count, "promptTokensDetails": details}
    return Reply(dump(body), content_type=_JSON, headers=list(_HEADERS))


def _models(ask: Ask) -> Reply:
    models = [
        {"name": f"models/{name}", "displayName": name, "inputTokenLimit": 1048576}
        for name in MODELS
    ]
    return Reply(dump({"models": models}), content_type=_JSON, headers=list(_HEADERS))


_METHODS = {
    "generateContent": ("chat", _generate),
    "streamGenerateContent": ("chat", _generate),
    "embedContent": ("embedding", _embed),
    "batchEmbedContents": ("embedding", _batch_embed),
}


def _endpoint(request: Request, payload: dict[str, Any]) -> Endpoint | None:
    path = request.segments[1:] if request.segments[:1] in (("v1beta",), ("v1",)) else None
    path = request.segments if path is None else path
    if request.method == "GET":
        return Endpoint("models", "", _models, metered=False) if path == ("models",) else None
    if len(path) != 2 or path[0] != "models":
        return None
    model, _, method = path[1].rpartition(":")
    if method == "countTokens":
        return Endpoint("count_tokens", model, _count_tokens, metered=False)
    if method not in _METHODS:
        return None
    name, answer = _METHODS[method]
    return Endpoint(name, model, answer)


def _credential(request: Request) -> str:
    return request.headers.get("x-goog-api-key", "") or request.query.get("key", "")


PROVIDER = Provider(
    kind="gemini",
    credential=_credential,
    endpoint=_endpoint,
    error=_error,
    stream_error=_stream_error,
)
