"""Bedrock's invoke: Anthropic messages, and embeddings of Titan and Cohere."""

import base64
from typing import Any

from gateway_admin.demo.simulator import anthropic, eventstream
from gateway_admin.demo.simulator.answers import count_words, vector
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
)

TITAN_V1_DIMENSIONS = 1536
DIMENSIONS = 1024


def invoke(ask: Ask, headers: Headers) -> Reply:
    """Answer POST /model/{model}/invoke by the shape of the body."""
    payload = ask.payload
    if "anthropic_version" in payload:
        ask.payload = {**payload, "stream": False}
        message, usage, ident, _ = anthropic.message(ask)
        return Reply(dump(message), usage, headers=headers, response_id=ident)
    if "inputText" in payload:
        return _titan(ask, headers)
    if "texts" in payload:
        return _cohere(ask, headers)
    raise RequestError("bad_request", "Malformed input request: unknown model or missing keys.")


def _counted(headers: Headers, count: int) -> Headers:
    return [*headers, ("x-amzn-bedrock-input-token-count", str(count))]


def _titan(ask: Ask, headers: Headers) -> Reply:
    text = str(ask.payload["inputText"])
    count = max(1, count_words(text))
    usual = DIMENSIONS if "v2" in ask.model else TITAN_V1_DIMENSIONS
    values = vector(text, integer(ask.payload, "dimensions") or usual)
    body: dict[str, Any] = {"embedding": values, "inputTextTokenCount": count}
    if "v2" in ask.model:
        body["embeddingsByType"] = {"float": values}
    return Reply(dump(body), Usage(count), headers=_counted(headers, count))


def _cohere(ask: Ask, headers: Headers) -> Reply:
    texts = [str(text) for text in ask.payload["texts"]]
    count = max(1, sum(count_words(text) for text in texts))
    body = {
        "id": ask.ident("", 32),
        "texts": texts,
        "embeddings": [vector(text, DIMENSIONS) for text in texts],
        "response_type": "embeddings_floats",
    }
    return Reply(dump(body), Usage(count), headers=_counted(headers, count))


def invoke_stream(ask: Ask, headers: Headers) -> Stream:
    """Answer POST /model/{model}/invoke-with-response-stream: Anthropic's events in frames."""
    if "anthropic_version" not in ask.payload:
        raise RequestError("bad_request", "Malformed input request: the model does not stream.")
    message, usage, ident, turn = anthropic.message(ask)
    chunks: list[Chunk] = []
    for data, tokens in anthropic.events(message, turn, usage):
        event = data.split(b"data: ", 1)[1].strip()
        if b'"ping"' in event:
            continue
        if event == b'{"type":"message_stop"}':
            event = dump({"type": "message_stop", "amazon-bedrock-invocationMetrics": _cost(usage)})
        framed = dump({"bytes": base64.b64encode(event).decode()})
        chunks.append((eventstream.event("chunk", framed), tokens))
    kind = eventstream.CONTENT_TYPE
    return Stream(chunks, usage, content_type=kind, headers=headers, response_id=ident)


def _cost(usage: Usage) -> dict[str, int]:
    cached = usage.cache_read_tokens + usage.cache_write_tokens
    return {
        "inputTokenCount": usage.input_tokens - cached,
        "outputTokenCount": usage.output_tokens,
        "invocationLatency": 12,
        "firstByteLatency": 8,
        "cacheReadInputTokenCount": usage.cache_read_tokens,
        "cacheWriteInputTokenCount": usage.cache_write_tokens,
    }
