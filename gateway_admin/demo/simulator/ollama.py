"""Ollama: chat, generate, embeddings, tags. Streams are JSON lines; durations nanoseconds."""

from datetime import UTC, datetime
from typing import Any

from gateway_admin.demo.simulator.answers import count_words, texts_of, vector
from gateway_admin.demo.simulator.dialogue import Function, Prompt, Turn, compose
from gateway_admin.demo.simulator.wire import (
    Ask,
    Chunk,
    Endpoint,
    Failure,
    Provider,
    Reply,
    Request,
    RequestError,
    Stream,
    Usage,
    dump,
)

MODELS = ("llama3.2", "qwen3", "nomic-embed-text")
EMBEDDING_DIMENSIONS = 768
_JSON = "application/json; charset=utf-8"
_LINES = "application/x-ndjson"

# case -> status, message ({model} is filled in)
_ERRORS: dict[str, tuple[int, str]] = {
    "bad_request": (400, "invalid request"),
    "auth": (401, "unauthorized"),
    "permission": (403, "forbidden"),
    "not_found": (404, "model '{model}' not found"),
    "rate_limit": (429, "too many requests"),
    "quota": (429, "usage limit reached"),
    "overload": (503, "server busy, please try again.  maximum pending requests exceeded"),
    "server_error": (500, "llama runner process has terminated"),
    "context_window": (400, "the prompt exceeds the available context size"),
    "content_policy": (400, "content policy violation"),
}


def _error(failure: Failure) -> Reply:
    status, message = _ERRORS[failure.case]
    text = failure.message or message.format(model=failure.model)
    fields = list(failure.headers.items())
    if failure.retry_after_s is not None:
        fields.append(("retry-after", f"{failure.retry_after_s:g}"))
    return Reply(
        dump({"error": text}), status=failure.status or status, content_type=_JSON, headers=fields
    )


def _stream_error(failure: Failure) -> bytes:
    message = _ERRORS[failure.case][1]
    return dump({"error": failure.message or message.format(model=failure.model)}) + b"\n"


def _limit(payload: dict[str, Any]) -> int | None:
    """Return `num_predict`; below 1 it means no limit."""
    value = (payload.get("options") or {}).get("num_predict")
    return value if isinstance(value, int) and value > 0 else None


def _prompt(payload: dict[str, Any], messages: list[dict[str, Any]]) -> Prompt:
    texts = [text for message in messages for text in texts_of(message.get("content"))]
    for message in messages:
        texts += [dump(call).decode() for call in message.get("tool_calls") or []]
    form = payload.get("format")
    return Prompt(
        texts=texts,
        messages=len(messages),
        last_role=str(messages[-1].get("role")),
        last_texts=texts_of(messages[-1].get("content")),
        tools=[
            Function(str(tool["function"].get("name")), tool["function"].get("parameters"))
            for tool in payload.get("tools") or []
            if isinstance(tool.get("function"), dict)
        ],
        limit=_limit(payload),
        as_json=form is not None and form != "",
        schema=form if isinstance(form, dict) else None,
    )


def _chat(ask: Ask) -> Reply | Stream:
    messages = ask.payload.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError("bad_request", "messages is required")
    prompt = _prompt(ask.payload, messages)
    turn = compose(ask, prompt)
    whole: dict[str, Any] = {"role": "assistant", "content": turn.answer.text}
    if turn.calls:
        whole["tool_calls"] = [
            {
                "id": ask.ident(f"call_{place}", 14),
                "function": {"index": place, "name": call.name, "arguments": call.value},
            }
            for place, call in enumerate(turn.calls)
        ]
    pieces: list[tuple[dict[str, Any], int]] = [
        ({"message": {"role": "assistant", "content": token}}, 1) for token in turn.answer.tokens
    ]
    for place, call in enumerate(turn.calls):
        told = {"role": "assistant", "content": "", "tool_calls": [whole["tool_calls"][place]]}
        pieces.append(({"message": told}, call.tokens))
    last = {"message": {"role": "assistant", "content": ""}}
    return _reply(ask, prompt, turn, {"message": whole}, pieces, last)


def _generate(ask: Ask) -> Reply | Stream:
    text = ask.payload.get("prompt")
    if not isinstance(text, str):
        raise RequestError("bad_request", "prompt is required")
    system = ask.payload.get("system")
    messages = [{"role": "system", "content": system}] if isinstance(system, str) else []
    messages.append({"role": "user", "content": text})
    prompt = _prompt(ask.payload, messages)
    turn = compose(ask, prompt)
    pieces: list[tuple[dict[str, Any], int]] = [
        ({"response": token}, 1) for token in turn.answer.tokens
    ]
    last = {"response": "", "context": [1, 2, 3]}
    return _reply(ask, prompt, turn, {**last, "response": turn.answer.text}, pieces, last)


def _reply(
    ask: Ask,
    prompt: Prompt,
    turn: Turn,
    whole: dict[str, Any],
    pieces: list[tuple[dict[str, Any], int]],
    last: dict[str, Any],
) -> Reply | Stream:
    usage = Usage(prompt.tokens, turn.tokens)
    created = datetime.fromtimestamp(ask.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.000000Z")
    base = {"model": ask.model, "created_at": created}
    end = {
        "done": True,
        "done_reason": "length" if turn.finish == "limit" else "stop",
        "total_duration": 1_000_000 * (usage.output_tokens + 20),
        "load_duration": 10_000_000,
        "prompt_eval_count": usage.input_tokens,
        "prompt_eval_duration": 10_000_000,
        "eval_count": usage.output_tokens,
        "eval_duration": 1_000_000 * usage.output_tokens,
    }
    if ask.payload.get("stream") is False:
        return Reply(dump({**base, **whole, **end}), usage, content_type=_JSON)
    chunks: list[Chunk] = [
        (dump({**base, **piece, "done": False}) + b"\n", tokens) for piece, tokens in pieces
    ]
    chunks.append((dump({**base, **last, **end}) + b"\n", 0))
    return Stream(chunks, usage, content_type=_LINES)


def _embed(ask: Ask) -> Reply:
    given = ask.payload.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise RequestError("bad_request", "input is required")
    count = max(1, sum(count_words(str(text)) for text in texts))
    dimensions = ask.payload.get("dimensions") or EMBEDDING_DIMENSIONS
    body = {
        "model": ask.model,
        "embeddings": [vector(str(text), dimensions) for text in texts],
        "total_duration": 14_000_000,
        "load_duration": 1_000_000,
        "prompt_eval_count": count,
    }
    return Reply(dump(body), Usage(count), content_type=_JSON)


def _old_embeddings(ask: Ask) -> Reply:
    text = str(ask.payload.get("prompt", ""))
    body = {"embedding": vector(text, EMBEDDING_DIMENSIONS)}
    return Reply(dump(body), Usage(max(1, count_words(text))), content_type=_JSON)


def _details() -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "3.2B",
        "quantization_level": "Q4_K_M",
    }


def _tags(ask: Ask) -> Reply:
    models = [
        {
            "name": f"{name}:latest",
            "model": f"{name}:latest",
            "modified_at": "2026-01-01T00:00:00Z",
            "size": 2019393189,
            "digest": "0" * 64,
            "details": _details(),
        }
        for name in MODELS
    ]
    return Reply(dump({"models": models}), content_type=_JSON)


def _show(ask: Ask) -> Reply:
    body = {
        "modelfile": "",
        "parameters": "",
        "template": "{{ .System }} {{ .Prompt }} {{ .Tools }}",
        "details": _details(),
        "model_info": {"general.architecture": "llama", "llama.context_length": 131072},
        "capabilities": ["completion", "tools"],
    }
    return Reply(dump(body), content_type=_JSON)


_METERED = {
    "chat": ("chat", _chat),
    "generate": ("completion", _generate),
    "embed": ("embedding", _embed),
    "embeddings": ("embedding", _old_embeddings),
}


def _endpoint(request: Request, payload: dict[str, Any]) -> Endpoint | None:
    match request.method, request.segments:
        case "GET", ("api", "tags"):
            return Endpoint("tags", "", _tags, metered=False)
        case "POST", ("api", "show"):
            return Endpoint("show", "", _show, metered=False)
        case "POST", ("api", operation) if operation in _METERED:
            model = payload.get("model")
            if not isinstance(model, str) or not model:
                raise RequestError("bad_request", "model is required")
            return Endpoint(_METERED[operation][0], model, _METERED[operation][1])
    return None


PROVIDER = Provider(
    kind="ollama",
    credential=Request.bearer,
    endpoint=_endpoint,
    error=_error,
    stream_error=_stream_error,
    needs_credential=False,
)
