"""The normal forms in which answers and events of the two lanes are compared.

What is left out is what LiteLLM changes and no client can rely on; the list is in the
docstring of test_lane_parity.py.
"""

from typing import Any

import httpx
import orjson

from proxy.contract import UsageEventDocument

_IDS = frozenset({"id", "created", "created_at", "item_id", "call_id", "obfuscation"})
_PIECES = ("content", "refusal", "reasoning_content")
_HEADERS = frozenset({"date", "server", "content-length", "transfer-encoding"})
_EVENT = (
    *("requested_model", "model", "why", "status", "http_status", "error_class", "error"),
    *("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"),
    *("reasoning_tokens", "other_units", "price_version", "unit_prices", "cost", "estimated"),
    *("streaming", "route", "tags", "customer", "saved_cost"),
)
_ATTEMPT = ("model", "why", "status", "error_class", "error", "cost")
SUFFIX = "-litellm"


def named(value: Any) -> Any:
    """A text without what tells the two deployments of a pair apart."""
    return value.replace(SUFFIX, "") if isinstance(value, str) else value


def lean(value: Any) -> Any:
    """A JSON value without ids, times and nulls, and with the provider's fields in place."""
    if isinstance(value, list):
        return [lean(item) for item in value]
    if not isinstance(value, dict):
        return named(value)
    own = value.get("provider_specific_fields")
    merged = {**(own if isinstance(own, dict) else {}), **value}
    merged.pop("provider_specific_fields", None)
    merged.pop("native_finish_reason", None)
    return {k: lean(v) for k, v in merged.items() if v is not None and k not in _IDS}


def whole(document: Any) -> Any:
    """An answer in one piece."""
    found = lean(document)
    if isinstance(found, dict) and isinstance(found.get("usage"), dict):
        found["usage"] = usage(found["usage"])
    return found


def usage(document: dict[str, Any]) -> dict[str, Any]:
    """Usage without zeros: what is not there is nothing. Its cost is LiteLLM's opinion."""
    found: dict[str, Any] = {}
    for name, value in lean(document).items():
        kept = usage(value) if isinstance(value, dict) else value
        if kept and name not in ("cost", "text_tokens"):
            found[name] = kept
    return found


def payloads(text: str) -> list[Any]:
    """The payloads of a stream's events, `[DONE]` as it is."""
    found = []
    for event in text.replace("\r\n", "\n").split("\n\n"):
        data = "\n".join(line[5:].strip() for line in event.split("\n") if line[:5] == "data:")
        if data:
            found.append(data if data == "[DONE]" else orjson.loads(data))
    return found


def stream(text: str) -> dict[str, Any]:
    """A stream of chat or text: its pieces in order, its tool calls, its end."""
    form: dict[str, Any] = {"pieces": [], "roles": {}, "ends": {}, "logprobs": [], "calls": {}}
    form["models"] = set()
    for payload in payloads(text):
        if payload == "[DONE]":
            form["done"] = True
            continue
        if "error" in payload:
            form["error"] = lean(payload["error"])
            continue
        form["models"].add(named(payload.get("model")))
        if payload.get("usage"):
            form["usage"] = usage(payload["usage"])
        for choice in payload.get("choices") or []:
            _take(form, choice)
    # Of several answers, LiteLLM tells the role and the end of the first alone.
    form["roles"] = {0: form["roles"].get(0)}
    form["ends"] = {0: form["ends"].get(0)}
    form["models"] -= {None, ""}
    return form


def _take(form: dict[str, Any], choice: dict[str, Any]) -> None:
    index, delta = choice.get("index", 0), choice.get("delta") or {}
    for name in _PIECES:
        if delta.get(name):
            form["pieces"].append((index, name, delta[name]))
    if choice.get("text"):
        form["pieces"].append((index, "text", choice["text"]))
    if delta.get("role"):
        form["roles"][index] = delta["role"]
    if choice.get("finish_reason"):
        form["ends"][index] = choice["finish_reason"]
    if choice.get("logprobs"):
        form["logprobs"].append(lean(choice["logprobs"]))
    for call in delta.get("tool_calls") or []:
        function = call.get("function") or {}
        known = form["calls"].setdefault((index, call.get("index", 0)), {"name": "", "parts": []})
        known["name"] += function.get("name") or ""
        if function.get("arguments"):
            known["parts"].append(function["arguments"])


def typed(text: str) -> list[Any]:
    """A stream of the Responses API, event by event; LiteLLM adds `[DONE]` and a model."""
    found = []
    for payload in payloads(text):
        if payload == "[DONE]":
            continue
        event = lean(payload)
        event.pop("model", None)
        response = event.get("response")
        if isinstance(response, dict) and "usage" in response:
            response["usage"] = usage(response["usage"])
        found.append(event)
    return found


def answer(response: httpx.Response) -> dict[str, Any]:
    """Everything that a client sees."""
    kind = response.headers.get("content-type", "")
    if kind.startswith("text/event-stream"):
        typed_events = '"sequence_number"' in response.text
        body: Any = typed(response.text) if typed_events else stream(response.text)
    else:
        body = whole(orjson.loads(response.content)) if response.content else ""
    headers = {
        name: named(value) for name, value in response.headers.items() if name not in _HEADERS
    }
    headers["x-gateway-request-id"] = "…"
    return {"status": response.status_code, "headers": headers, "body": body}


def event(document: UsageEventDocument) -> dict[str, Any]:
    """Everything of a usage event but ids, moments, durations and the lane."""
    row: dict[str, Any] = dict(document)
    found = {name: named(row[name]) for name in _EVENT}
    found["attempts"] = [
        {name: named(attempt.get(name)) for name in _ATTEMPT}
        for attempt in map(dict, row["attempts"])
    ]
    found["first token"] = row["ttft_ms"] is not None
    return found
