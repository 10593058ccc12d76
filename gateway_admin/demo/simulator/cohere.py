"""Cohere: rerank. Scores are a function of query and document."""

from typing import Any

from gateway_admin.demo.simulator.answers import count_words, number_of
from gateway_admin.demo.simulator.wire import (
    Ask,
    Endpoint,
    Failure,
    Provider,
    Reply,
    Request,
    RequestError,
    Usage,
    dump,
    integer,
    sse,
    unique_hex,
)

# case -> status, message ({model} is filled in)
_ERRORS: dict[str, tuple[int, str]] = {
    "bad_request": (400, "invalid request"),
    "auth": (401, "invalid api token"),
    "permission": (403, "the token has no access to {model}"),
    "not_found": (404, "model '{model}' not found"),
    "rate_limit": (429, "too many requests: the key's limit of calls per minute is reached"),
    "quota": (402, "the account has no credit left"),
    "overload": (503, "the service is overloaded"),
    "server_error": (500, "internal server error"),
    "context_window": (400, "too many tokens: the documents exceed the model's limit"),
    "content_policy": (400, "the request was blocked by content policy"),
}


def _error_body(failure: Failure) -> tuple[int, dict[str, Any]]:
    status, message = _ERRORS[failure.case]
    text = failure.message or message.format(model=failure.model)
    return failure.status or status, {
        "id": unique_hex(f"cohere{failure.serial}", 32),
        "message": text,
    }


def _error(failure: Failure) -> Reply:
    status, body = _error_body(failure)
    fields = list(failure.headers.items())
    if failure.retry_after_s is not None:
        fields.append(("retry-after", f"{failure.retry_after_s:g}"))
    return Reply(dump(body), status=status, headers=fields)


def _stream_error(failure: Failure) -> bytes:
    return sse(_error_body(failure)[1])


def _rerank(ask: Ask) -> Reply:
    query, documents = ask.payload.get("query"), ask.payload.get("documents")
    if not isinstance(query, str) or not isinstance(documents, list) or not documents:
        raise RequestError("bad_request", "query and documents are required")
    texts = [str(one.get("text", one) if isinstance(one, dict) else one) for one in documents]
    results: list[dict[str, Any]] = [
        {"index": index, "relevance_score": number_of(ask.model, query, text) % 10**6 / 10**6}
        for index, text in enumerate(texts)
    ]
    if ask.payload.get("return_documents"):
        for result in results:
            result["document"] = {"text": texts[result["index"]]}
    results.sort(key=lambda result: -float(result["relevance_score"]))
    results = results[: integer(ask.payload, "top_n") or len(results)]
    ident = ask.ident("", 32)
    version = ask.request.segments[0].removeprefix("v")
    meta = {"api_version": {"version": version}, "billed_units": {"search_units": 1}}
    usage = Usage(input_tokens=sum(count_words(text) for text in (query, *texts)))
    body = {"id": ident, "results": results, "meta": meta}
    return Reply(dump(body), usage, response_id=ident)


def _endpoint(request: Request, payload: dict[str, Any]) -> Endpoint | None:
    if request.method != "POST" or request.segments not in (("v1", "rerank"), ("v2", "rerank")):
        return None
    return Endpoint("rerank", str(payload.get("model") or "rerank-v3.5"), _rerank)


PROVIDER = Provider(
    kind="cohere",
    credential=Request.bearer,
    endpoint=_endpoint,
    error=_error,
    stream_error=_stream_error,
)
