"""Whole bodies against what the provider sent, by a client that measures nothing."""

import json
from typing import Any

import httpx

from tests.bench.lanes.answers import plain_answer, stream_answer
from tests.bench.lanes.variants import Case, Site, Variant

TIMEOUT_S = 30
_CLIENT = httpx.Client(timeout=TIMEOUT_S, trust_env=False)  # making one takes 20 ms of CPU
# What LiteLLM puts into an answer beside the provider's own words.
_ADDED = {"provider_specific_fields", "cost", "completion_tokens_details", "prompt_tokens_details"}
# What a gateway may name anew.
_RENAMED = {"id", "created", "model"}


def check(site: Site, variant: Variant, case: Case) -> list[str]:
    """Ask once, or twice where usage can be asked for; what was wrong."""
    found = _check_once(site, variant, case, usage=False)
    if case.stream and variant.status == 200:
        found += _check_once(site, variant, case, usage=True)
    return [f"{variant.name}, {case.title}: {text}" for text in found]


def _check_once(site: Site, variant: Variant, case: Case, *, usage: bool) -> list[str]:
    request = site.request(variant, case, usage=usage)
    # A kept connection may be closed by the other side just when it is used again.
    headers = request.headers | {"connection": "close"}
    try:
        answer = _CLIENT.post(request.url, headers=headers, content=request.body)
    except httpx.HTTPError as error:
        return [f"{type(error).__name__}: {error}"]
    if answer.status_code != variant.status:
        return [f"status {answer.status_code}: {answer.text[:300]}"]
    if variant.status != 200:
        said = answer.json().get("error", {}).get("message")
        return [] if said else [f"a refusal without a reason: {answer.text[:300]}"]
    if case.stream:
        return differences_of_stream(answer.text, usage=usage)
    return _differences(plain_answer(), answer.json(), "")


def differences_of_stream(text: str, *, usage: bool) -> list[str]:
    """What a stream says that the provider did not, or the other way round."""
    events = [event for event in text.replace("\r\n", "\n").split("\n\n") if event.strip()]
    if not events or events[-1] != "data: [DONE]":
        return [f"the stream does not end: {text[-200:]}"]
    chunks = []
    for event in events[:-1]:
        if not event.startswith("data: "):
            return [f"not an event: {event[:200]}"]
        chunks.append(json.loads(event.removeprefix("data: ")))
    wanted = stream_answer(usage=usage)
    if len(chunks) != len(wanted):
        return [f"{len(chunks)} chunks instead of {len(wanted)}: {text[-600:]}"]
    found = []
    for number, (expected, got) in enumerate(zip(wanted, chunks, strict=True)):
        if got.get("choices") == [{"index": 0, "delta": {}}] and not expected["choices"]:
            got["choices"] = []  # LiteLLM's form of the chunk that only has usage
        found += _differences(expected, got, f"chunk {number}")
    return found


def _differences(expected: Any, got: Any, where: str) -> list[str]:
    if isinstance(expected, dict) and isinstance(got, dict):
        found = []
        for name in expected.keys() | got.keys():
            place = f"{where}.{name}"
            if name in _RENAMED and got.get(name):
                continue
            if name in _ADDED and name not in expected:
                continue
            found += _differences(expected.get(name), got.get(name), place)
        return found
    if isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        pairs = zip(expected, got, strict=True)
        return [
            text for n, pair in enumerate(pairs) for text in _differences(*pair, f"{where}[{n}]")
        ]
    if expected == got or (not expected and not got):
        return []
    return [f"{where} is {got!r:.200} instead of {expected!r:.200}"]


def asks(variant: Variant, case: Case) -> int:
    """How many requests `check` makes."""
    return 2 if case.stream and variant.status == 200 else 1
