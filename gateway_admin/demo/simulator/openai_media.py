"""OpenAI: legacy completions, images, audio, moderations."""

import base64
import re
import struct
import zlib
from typing import Any

from gateway_admin.demo.simulator.answers import count_texts, count_words, number_of, write_text
from gateway_admin.demo.simulator.openai_chat import usage_json
from gateway_admin.demo.simulator.wire import (
    Ask,
    Chunk,
    Headers,
    Reply,
    Request,
    RequestError,
    Stream,
    Usage,
    dump,
    integer,
    sse,
)

IMAGE_OUTPUT_TOKENS = 272  # per image
AUDIO_TOKENS_PER_KIB = 1
SPEECH_SECONDS_PER_WORD = 0.4
SAMPLE_RATE = 8000
_CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
_FORM_FIELD = rb'name="%s"[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n(.*?)\r\n--'


def completions(ask: Ask, headers: Headers) -> Reply | Stream:
    """Answer POST completions (text in, text out)."""
    prompt = ask.payload.get("prompt")
    text = " ".join(prompt) if isinstance(prompt, list) else prompt
    if not isinstance(text, str):
        raise RequestError("bad_request", "Missing required parameter: 'prompt'.")
    limit = integer(ask.payload, "max_tokens")
    answer = write_text(ask.model, text, limit=limit, wanted=ask.output_tokens)
    usage = Usage(count_texts([text], 0), len(answer.tokens))
    ident = ask.ident("cmpl-", 29)
    base = {"id": ident, "object": "text_completion", "created": ask.created, "model": ask.model}
    finish = "length" if answer.cut else "stop"
    if not ask.payload.get("stream"):
        choice = {"text": answer.text, "index": 0, "logprobs": None, "finish_reason": finish}
        body = {**base, "choices": [choice], "usage": usage_json(usage)}
        return Reply(dump(body), usage, headers=headers, response_id=ident)
    with_usage = bool((ask.payload.get("stream_options") or {}).get("include_usage"))
    more = {"usage": None} if with_usage else {}
    chunks: list[Chunk] = []
    for token in answer.tokens:
        choice = {"text": token, "index": 0, "logprobs": None, "finish_reason": None}
        chunks.append((sse({**base, "choices": [choice], **more}), 1))
    last = {"text": "", "index": 0, "logprobs": None, "finish_reason": finish}
    chunks.append((sse({**base, "choices": [last], **more}), 0))
    if with_usage:
        chunks.append((sse({**base, "choices": [], "usage": usage_json(usage)}), 0))
    chunks.append((b"data: [DONE]\n\n", 0))
    return Stream(chunks, usage, headers=headers, response_id=ident)


def images(ask: Ask, headers: Headers) -> Reply:
    """Answer POST images/generations with small PNGs; billed by tokens, as gpt-image-1 is."""
    prompt = ask.payload.get("prompt")
    if not isinstance(prompt, str):
        raise RequestError("bad_request", "Missing required parameter: 'prompt'.")
    number = integer(ask.payload, "n") or 1
    data = []
    for index in range(number):
        colour = number_of(ask.model, prompt, index).to_bytes(8, "big")[:3]
        data.append({"b64_json": base64.b64encode(_png(colour)).decode()})
    usage = Usage(count_words(prompt), IMAGE_OUTPUT_TOKENS * number)
    body = {
        "created": ask.created,
        "data": data,
        "background": "opaque",
        "output_format": "png",
        "quality": "low",
        "size": "1024x1024",
        "usage": {
            "input_tokens": usage.input_tokens,
            "input_tokens_details": {"image_tokens": 0, "text_tokens": usage.input_tokens},
            "output_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
        },
    }
    return Reply(dump(body), usage, headers=headers)


def _png(colour: bytes) -> bytes:
    """Return an 8 x 8 image of one colour."""

    def part(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    rows = (b"\x00" + colour * 8) * 8
    signature = b"\x89PNG\r\n\x1a\n"
    return (
        signature + part(b"IHDR", header) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")
    )


def form_field(request: Request, name: str) -> bytes | None:
    """Return the first field of that name in a multipart form."""
    found = re.search(_FORM_FIELD % re.escape(name.encode()), request.body, re.DOTALL)
    return found[1] if found else None


def transcription(ask: Ask, headers: Headers) -> Reply:
    """Answer POST audio/transcriptions; input tokens go by the size of the file."""
    audio = form_field(ask.request, "file")
    if audio is None:
        raise RequestError("bad_request", "Missing required parameter: 'file'.")
    answer = write_text(ask.model, audio[:65536].hex(), wanted=ask.output_tokens)
    spoken = max(1, len(audio) * AUDIO_TOKENS_PER_KIB // 1024)
    usage = Usage(spoken, len(answer.tokens))
    form = (form_field(ask.request, "response_format") or b"json").decode()
    if form == "text":
        return Reply(answer.text.encode(), usage, content_type="text/plain", headers=headers)
    seconds = round(len(answer.tokens) * SPEECH_SECONDS_PER_WORD, 2)
    body: dict[str, Any] = {"text": answer.text}
    if form == "verbose_json":
        body |= {"task": "transcribe", "language": "english", "duration": seconds, "segments": []}
        body["usage"] = {"type": "duration", "seconds": round(seconds)}
    else:
        body["usage"] = {
            "type": "tokens",
            "input_tokens": spoken,
            "input_token_details": {"text_tokens": 0, "audio_tokens": spoken},
            "output_tokens": usage.output_tokens,
            "total_tokens": spoken + usage.output_tokens,
        }
    return Reply(dump(body), usage, headers=headers)


def speech(ask: Ask, headers: Headers) -> Reply:
    """Answer POST audio/speech with silence as WAV; billed by words of the input."""
    text = ask.payload.get("input")
    if not isinstance(text, str):
        raise RequestError("bad_request", "Missing required parameter: 'input'.")
    words = max(1, count_words(text))
    samples = bytes(int(words * SPEECH_SECONDS_PER_WORD * SAMPLE_RATE) * 2)
    layout = struct.pack("<IHHIIHH", 16, 1, 1, SAMPLE_RATE, SAMPLE_RATE * 2, 2, 16)
    body = b"RIFF" + struct.pack("<I", 36 + len(samples)) + b"WAVEfmt " + layout
    body += b"data" + struct.pack("<I", len(samples)) + samples
    return Reply(body, Usage(input_tokens=words), content_type="audio/wav", headers=headers)


def moderations(ask: Ask, headers: Headers) -> Reply:
    """Answer POST moderations; a text with the word "forbidden" is flagged as violence."""
    given = ask.payload.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise RequestError("bad_request", "Missing required parameter: 'input'.")
    results = []
    for text in texts:
        words = str(text.get("text", "") if isinstance(text, dict) else text).lower().split()
        flagged = "forbidden" in words
        hits = {name: flagged and name == "violence" for name in _CATEGORIES}
        results.append(
            {
                "flagged": flagged,
                "categories": hits,
                "category_scores": {name: 0.97 if hit else 0.0001 for name, hit in hits.items()},
                "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
            }
        )
    body = {"id": ask.ident("modr-", 32), "model": ask.model, "results": results}
    return Reply(dump(body), headers=headers)
