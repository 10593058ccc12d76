"""OpenAI: routes, errors, headers, chat, embeddings, models."""

import base64
import struct
from collections.abc import Callable
from typing import Any

from gateway_admin.demo.simulator import openai_chat, openai_media, openai_responses
from gateway_admin.demo.simulator.answers import count_words, vector
from gateway_admin.demo.simulator.wire import (
    Ask,
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

Answer = Callable[[Ask], Reply | Stream]

DEFAULT_DIMENSIONS = {"text-embedding-3-large": 3072}
MODELS = (
    "gpt-4o",
    "gpt-4o-mini",
    "gpt-4.1",
    "gpt-5-nano",
    "text-embedding-3-small",
    "text-embedding-3-large",
    "gpt-image-1",
    "whisper-1",
    "tts-1",
    "omni-moderation-latest",
)

# case -> status, type, code, param, message ({model} is filled in)
_ERRORS: dict[str, tuple[int, str, str | None, str | None, str]] = {
    "bad_request": (400, "invalid_request_error", None, None, "The request is invalid."),
    "auth": (
        401,
        "invalid_request_error",
        "invalid_api_key",
        None,
        "Incorrect API key provided. Keys are managed on the platform's account page.",
    ),
    "permission": (
        403,
        "invalid_request_error",
        "model_not_allowed",
        None,
        "Your project has no access to the model `{model}`.",
    ),
    "not_found": (
        404,
        "invalid_request_error",
        "model_not_found",
        None,
        "The model `{model}` does not exist or is not open to you.",
    ),
    "rate_limit": (
        429,
        "tokens",
        "rate_limit_exceeded",
        None,
        "Rate limit reached for {model} on tokens per min (TPM): Limit 200000, Used 199990, "
        "Requested 64. Please try again in 1s.",
    ),
    "quota": (
        429,
        "insufficient_quota",
        "insufficient_quota",
        None,
        "You exceeded your current quota: see plan and billing of the account.",
    ),
    "overload": (
        503,
        "server_error",
        None,
        None,
        "The model is currently overloaded with other requests; retry later.",
    ),
    "server_error": (
        500,
        "server_error",
        None,
        None,
        "The server had an error while processing the request; retry it.",
    ),
    "context_window": (
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "messages",
        "This model's maximum context length is 8192 tokens. However, your messages resulted in "
        "9001 tokens. Please reduce the length of the messages.",
    ),
    "content_policy": (
        400,
        "invalid_request_error",
        "content_policy_violation",
        None,
        "Your request was rejected as a result of our safety system: content_policy_violation.",
    ),
}


def headers(serial: int, model: str = "") -> Headers:
    """Return the headers that accompany every reply."""
    return [
        ("x-request-id", "req_" + unique_hex(f"openai{serial}", 32)),
        ("openai-processing-ms", "12"),
        ("openai-version", "2020-10-01"),
        ("x-ratelimit-limit-requests", "10000"),
        ("x-ratelimit-limit-tokens", "2000000"),
        ("x-ratelimit-remaining-requests", "9999"),
        ("x-ratelimit-remaining-tokens", "1999900"),
        ("x-ratelimit-reset-requests", "6ms"),
        ("x-ratelimit-reset-tokens", "3ms"),
    ]


def error_body(failure: Failure) -> tuple[int, dict[str, Any]]:
    """Return status and body of a failure."""
    status, kind, code, param, message = _ERRORS[failure.case]
    text = failure.message or message.format(model=failure.model)
    body = {"error": {"message": text, "type": kind, "param": param, "code": code}}
    return failure.status or status, body


def failure_headers(failure: Failure) -> Headers:
    """Return the scripted headers of a failure, Retry-After among them."""
    extra = list(failure.headers.items())
    if failure.retry_after_s is not None:
        extra.append(("retry-after", f"{failure.retry_after_s:g}"))
    return extra


def error(failure: Failure) -> Reply:
    """Return the failure as OpenAI reports it."""
    status, body = error_body(failure)
    usual = dict(headers(failure.serial))
    if status == 429:
        usual |= {"x-ratelimit-remaining-requests": "0", "x-ratelimit-remaining-tokens": "0"}
    fields = list({**usual, **dict(failure_headers(failure))}.items())
    return Reply(dump(body), status=status, headers=fields)


def stream_error(failure: Failure) -> bytes:
    """Return the failure as an event inside a stream."""
    return sse(error_body(failure)[1])


def embeddings(ask: Ask, fields: Headers) -> Reply:
    """Answer POST embeddings."""
    inputs = _inputs(ask.payload.get("input"))
    dimensions = integer(ask.payload, "dimensions") or DEFAULT_DIMENSIONS.get(ask.model, 1536)
    packed = ask.payload.get("encoding_format") == "base64"
    data = []
    for index, text in enumerate(inputs):
        values = vector(text, dimensions)
        shown: Any = values
        if packed:
            shown = base64.b64encode(struct.pack(f"<{dimensions}f", *values)).decode()
        data.append({"object": "embedding", "index": index, "embedding": shown})
    count = max(1, sum(count_words(text) for text in inputs))
    body = {
        "object": "list",
        "data": data,
        "model": ask.model,
        "usage": {"prompt_tokens": count, "total_tokens": count},
    }
    return Reply(dump(body), Usage(input_tokens=count), headers=fields)


def _inputs(value: Any) -> list[str]:
    """Return the texts to embed; a list of token ids is one text with a word per id."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(isinstance(item, int) for item in value):
            return [" ".join(map(str, value))]
        return [text for item in value for text in _inputs(item)]
    raise RequestError("bad_request", "Missing required parameter: 'input'.")


def _models(ask: Ask) -> Reply:
    data = [
        {"id": name, "object": "model", "created": 1715367049, "owned_by": "system"}
        for name in MODELS
    ]
    return Reply(dump({"object": "list", "data": data}), headers=headers(ask.serial))


def _with_headers(answer: Callable[[Ask, Headers], Reply | Stream]) -> Answer:
    return lambda ask: answer(ask, headers(ask.serial))


_OPERATIONS: dict[tuple[str, ...], tuple[str, Answer]] = {
    ("chat", "completions"): ("chat", _with_headers(openai_chat.chat)),
    ("completions",): ("completion", _with_headers(openai_media.completions)),
    ("embeddings",): ("embedding", _with_headers(embeddings)),
    ("responses",): ("responses", _with_headers(openai_responses.responses)),
    ("images", "generations"): ("image", _with_headers(openai_media.images)),
    ("audio", "speech"): ("audio_speech", _with_headers(openai_media.speech)),
    ("moderations",): ("moderation", _with_headers(openai_media.moderations)),
}


def endpoint(request: Request, payload: dict[str, Any]) -> Endpoint | None:
    """Return the operation for the path; `v1` may be left out."""
    path = request.segments[1:] if request.segments[:1] == ("v1",) else request.segments
    if request.method == "GET":
        return Endpoint("models", "", _models, metered=False) if path == ("models",) else None
    if path == ("audio", "transcriptions"):
        model = (openai_media.form_field(request, "model") or b"").decode()
        answer = _with_headers(openai_media.transcription)
        return Endpoint("audio_transcription", model_of({"model": model}), answer)
    operation = _OPERATIONS.get(path)
    if operation is None or request.method != "POST":
        return None
    name, answer = operation
    return Endpoint(name, model_of(payload), answer)


def model_of(payload: dict[str, Any]) -> str:
    """Return the model that the body names."""
    model = payload.get("model")
    if not isinstance(model, str) or not model:
        raise RequestError("bad_request", "you must provide a model parameter")
    return model


PROVIDER = Provider(
    kind="openai",
    credential=Request.bearer,
    endpoint=endpoint,
    error=error,
    stream_error=stream_error,
)
