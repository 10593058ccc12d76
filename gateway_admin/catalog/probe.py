"""One minimal call through LiteLLM, in a process of its own.

LiteLLM takes seconds to import and has hands in everything, so neither web nor worker
loads it. The order (parameters and secret) comes as JSON on standard input, never as an
argument; the answer leaves as one JSON object on standard output. Run as a script, it
imports nothing of this package.

    {"mode": "chat", "timeout_s": 30, "params": {"model": "openai/gpt-4o", "api_key": …}}
    -> {"ok": true, "latency_ms": 412.0, "usage": {…}}
    -> {"ok": false, "latency_ms": 90.1, "error": {"type": "AuthenticationError",
                                                   "status": 401, "message": "…"}}
"""

import io
import json
import os
import sys
import time
import wave
from collections.abc import Callable
from typing import Any

PROMPT = "Reply with the single word: pong"
MAX_TOKENS = 16


def main() -> None:
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print must not mix with the answer
    order = json.load(sys.stdin)
    json.dump(probe(order), answer)
    answer.close()


def probe(order: dict[str, Any]) -> dict[str, Any]:
    import litellm

    litellm.drop_params = True
    litellm.suppress_debug_info = True
    params = {**order["params"], "timeout": order["timeout_s"]}
    if order["mode"] in {"chat", "completion", "responses"}:
        _warm_up(litellm)
    call = _CALLS[order["mode"]]
    started = time.perf_counter()
    try:
        response = call(litellm, params)
    except Exception as error:  # noqa: BLE001 - every failure is the answer
        return {"ok": False, "latency_ms": _since(started), "error": describe(error)}
    return {"ok": True, "latency_ms": _since(started), "usage": usage_of(response)}


def describe(error: Exception) -> dict[str, Any]:
    """The error's type, the names of its ancestors and causes, its status and words."""
    names = [cls.__name__ for cls in type(error).__mro__ if cls is not object]
    cause = error.__cause__ or error.__context__
    while cause is not None and len(names) < 40:
        names += [cls.__name__ for cls in type(cause).__mro__ if cls is not object]
        cause = cause.__cause__ or cause.__context__
    status = getattr(error, "status_code", None)
    return {
        "type": names[0],
        "ancestors": names,
        "status": status if isinstance(status, int) else None,
        "message": str(getattr(error, "message", None) or error),
    }


def usage_of(response: Any) -> dict[str, int]:
    raw = getattr(response, "usage", None)
    if raw is None:
        return {}
    usage = raw.model_dump() if hasattr(raw, "model_dump") else dict(raw)
    inputs = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    outputs = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
    counts = {
        "input_tokens": usage.get("prompt_tokens") or usage.get("input_tokens"),
        "output_tokens": usage.get("completion_tokens") or usage.get("output_tokens"),
        "cache_read_tokens": inputs.get("cached_tokens"),
        "cache_write_tokens": inputs.get("cache_creation_tokens"),
        "reasoning_tokens": outputs.get("reasoning_tokens"),
    }
    return {name: int(count) for name, count in counts.items() if count}


def _warm_up(litellm: Any) -> None:
    """Load what LiteLLM loads lazily, so that the latency is the provider's."""
    litellm.completion(
        model="openai/warm-up",
        messages=[{"role": "user", "content": "x"}],
        mock_response="x",
        api_key="none",
    )


def _since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 1)


def _chat(litellm: Any, params: dict[str, Any]) -> Any:
    messages = [{"role": "user", "content": PROMPT}]
    once = {"num_retries": 0, "max_retries": 0, **params}
    try:
        return litellm.completion(messages=messages, max_tokens=MAX_TOKENS, **once)
    except litellm.BadRequestError as error:
        # Newer OpenAI models behind a name that LiteLLM cannot recognise, as in Azure.
        if "max_completion_tokens" not in str(error):
            raise
        return litellm.completion(messages=messages, max_completion_tokens=MAX_TOKENS, **once)


def _completion(litellm: Any, params: dict[str, Any]) -> Any:
    return litellm.text_completion(prompt=PROMPT, max_tokens=MAX_TOKENS, max_retries=0, **params)


def _responses(litellm: Any, params: dict[str, Any]) -> Any:
    return litellm.responses(input=PROMPT, max_output_tokens=MAX_TOKENS, **params)


def _embedding(litellm: Any, params: dict[str, Any]) -> Any:
    return litellm.embedding(input=["ping"], max_retries=0, **params)


def _image(litellm: Any, params: dict[str, Any]) -> Any:
    return litellm.image_generation(prompt="A small grey dot", n=1, **params)


def _speech(litellm: Any, params: dict[str, Any]) -> Any:
    return litellm.speech(**{"input": "pong", "voice": "alloy", **params})


def _transcription(litellm: Any, params: dict[str, Any]) -> Any:
    return litellm.transcription(file=("silence.wav", _silence()), **params)


def _rerank(litellm: Any, params: dict[str, Any]) -> Any:
    return litellm.rerank(query="ping", documents=["pong", "ping"], top_n=1, **params)


def _moderation(litellm: Any, params: dict[str, Any]) -> Any:
    return litellm.moderation(input="ping", **params)


def _silence() -> bytes:
    """Half a second of mono 16-bit sound at 16 kHz."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(b"\0\0" * 8_000)
    return buffer.getvalue()


_CALLS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "chat": _chat,
    "completion": _completion,
    "responses": _responses,
    "embedding": _embedding,
    "image_generation": _image,
    "audio_speech": _speech,
    "audio_transcription": _transcription,
    "rerank": _rerank,
    "moderation": _moderation,
}

if __name__ == "__main__":
    main()
