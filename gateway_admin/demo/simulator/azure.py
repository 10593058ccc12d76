"""Azure OpenAI: deployments in the path, `api-key` header, content filter fields."""

from typing import Any

from gateway_admin.demo.simulator import openai, openai_chat, openai_media, openai_responses
from gateway_admin.demo.simulator.wire import (
    Ask,
    Endpoint,
    Failure,
    Headers,
    Provider,
    Reply,
    Request,
    Stream,
    dump,
    sse,
    unique_hex,
)

# case -> status, code, message ({model} is filled in)
_ERRORS: dict[str, tuple[int, str | None, str]] = {
    "bad_request": (400, "BadRequest", "The request is invalid."),
    "auth": (
        401,
        "401",
        "Access denied due to invalid subscription key or wrong API endpoint. Use the key of an "
        "active resource and its regional endpoint.",
    ),
    "permission": (403, "403", "Public access is disabled. Configure a private endpoint."),
    "not_found": (
        404,
        "DeploymentNotFound",
        "The API deployment {model} does not exist in this resource.",
    ),
    "rate_limit": (
        429,
        "429",
        "Requests to the ChatCompletions_Create Operation have exceeded the token rate limit of "
        "the pricing tier. Please retry after {retry_after} seconds.",
    ),
    "quota": (429, "insufficient_quota", "The quota of the subscription is used up."),
    "overload": (503, "ServiceUnavailable", "The service is temporarily unavailable."),
    "server_error": (500, "InternalServerError", "The service had an internal error."),
    "context_window": (
        400,
        "context_length_exceeded",
        "This model's maximum context length is 8192 tokens. However, your messages resulted in "
        "9001 tokens. Please reduce the length of the messages.",
    ),
    "content_policy": (
        400,
        "content_filter",
        "The response was filtered due to the prompt triggering Azure OpenAI's content "
        "management policy. Please modify your prompt and retry.",
    ),
}


def _headers(serial: int, model: str = "") -> Headers:
    ident = unique_hex(f"azure{serial}", 32)
    return [
        ("apim-request-id", ident),
        ("x-request-id", ident),
        ("x-ms-region", "East US 2"),
        ("x-ms-deployment-name", model),
        ("x-ms-rai-invoked", "true"),
        ("x-ratelimit-limit-requests", "100"),
        ("x-ratelimit-limit-tokens", "100000"),
        ("x-ratelimit-remaining-requests", "99"),
        ("x-ratelimit-remaining-tokens", "99998"),
    ]


def _error_body(failure: Failure) -> tuple[int, dict[str, Any]]:
    status, code, message = _ERRORS[failure.case]
    wait = f"{failure.retry_after_s if failure.retry_after_s is not None else 60:g}"
    text = failure.message or message.format(model=failure.model, retry_after=wait)
    error: dict[str, Any] = {"code": code, "message": text}
    if failure.case == "content_policy":
        found = {**openai_chat.SAFE, "hate": {"filtered": True, "severity": "high"}}
        inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": found}
        error |= {"type": None, "param": "prompt", "status": 400, "innererror": inner}
    elif failure.case == "context_window":
        error |= {"type": "invalid_request_error", "param": "messages"}
    elif failure.case == "not_found":
        error["type"] = "invalid_request_error"
    return failure.status or status, {"error": error}


def _error(failure: Failure) -> Reply:
    status, body = _error_body(failure)
    fields = [*_headers(failure.serial, failure.model), *openai.failure_headers(failure)]
    return Reply(dump(body), status=status, headers=fields)


def _stream_error(failure: Failure) -> bytes:
    return sse(_error_body(failure)[1])


def _chat(ask: Ask) -> Reply | Stream:
    return openai_chat.chat(ask, _headers(ask.serial, ask.model), azure=True)


def _embeddings(ask: Ask) -> Reply:
    return openai.embeddings(ask, _headers(ask.serial, ask.model))


def _responses(ask: Ask) -> Reply | Stream:
    return openai_responses.responses(ask, _headers(ask.serial, ask.model))


def _images(ask: Ask) -> Reply:
    return openai_media.images(ask, _headers(ask.serial, ask.model))


_OPERATIONS = {
    ("chat", "completions"): ("chat", _chat),
    ("embeddings",): ("embedding", _embeddings),
    ("images", "generations"): ("image", _images),
}


def _endpoint(request: Request, payload: dict[str, Any]) -> Endpoint | None:
    if request.method != "POST":
        return None
    match request.segments:
        case ("openai", "deployments", deployment, *path) if tuple(path) in _OPERATIONS:
            name, answer = _OPERATIONS[tuple(path)]
            return Endpoint(name, deployment, answer)
        case ("openai", "v1", "chat", "completions"):
            return Endpoint("chat", openai.model_of(payload), _chat)
        case ("openai", "responses") | ("openai", "v1", "responses"):
            return Endpoint("responses", openai.model_of(payload), _responses)
    return None


def _credential(request: Request) -> str:
    return request.headers.get("api-key", "") or request.bearer()


PROVIDER = Provider(
    kind="azure",
    credential=_credential,
    endpoint=_endpoint,
    error=_error,
    stream_error=_stream_error,
)
