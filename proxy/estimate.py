"""What a request may cost at most, known before it is made.

Input: a tokenizer never makes more tokens than there are bytes (byte-level vocabularies
fall back to single bytes), and the JSON around a message outweighs what chat templates
add to it. So the bytes of the request bound its tokens; data that is not text is taken
out and counted by constants, and nothing beyond a model's context window is ever read.

Output: the cap that the client states; else the key's, else the environment's, which are
written into the request and so are promises; else the most that the model can write.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from proxy.contract import EnvironmentDocument, KeyPolicy, ModelDocument
from proxy.routes import Kind
from proxy.snapshot import Price

DEFAULT_OUTPUT_TOKENS = 4_096
DEFAULT_CONTEXT_TOKENS = 128_000
BASE_TOKENS = 64  # begin, end, an empty system prompt
TOOLS_TOKENS = 1_000  # providers put a description of tool use in front of tools
IMAGE_TOKENS = 50_000  # the largest that any provider counts for one (small models, tiles)
ROUGH_IMAGE_TOKENS = 1_000
IMAGE_OUTPUT_TOKENS = 8_000  # a large generated image of the best quality
BYTES_PER_AUDIO_TOKEN = 16  # of base64; speech coded at 8 kbit/s
BYTES_PER_ROUGH_TOKEN = 3
BYTES_PER_AUDIO_SECOND = 1_000  # of an uploaded file; speech coded at 8 kbit/s
ROUGH_OUTPUT_TOKENS = 1_024
BINARY_MIN_CHARS = 256
COUNTED_MARGIN = Decimal("1.1")  # tokenizers of other providers differ
NANO = Decimal("1e9")

_CAPS: dict[Kind, tuple[str, ...]] = {
    "chat": ("max_completion_tokens", "max_tokens"),
    "completion": ("max_tokens",),
    "responses": ("max_output_tokens",),
    "messages": ("max_tokens",),
}
# Where a cap of ours goes: LiteLLM translates these for every provider.
_CAP_PARAMETER: dict[Kind, str] = {
    "chat": "max_tokens",
    "completion": "max_tokens",
    "responses": "max_output_tokens",
    "messages": "max_tokens",
}
# What lies elsewhere and is read by the provider: only the context window bounds it.
_REFERENCES = frozenset({"previous_response_id", "conversation", "file_id", "file_url"})
_IMAGE_PARTS = frozenset({"image_url", "input_image", "image"})
_DOCUMENT_PARTS = frozenset({"document", "file", "input_file", "video", "video_url"})
_NESTED = (dict, list)
_ONE_REQUEST: Mapping[str, Decimal] = MappingProxyType({"request": Decimal(1)})
_DATA_FIELDS = frozenset({"data", "b64_json", "file_data"})


class Demand(NamedTuple):
    """The most that a request can ask of any target. Tokens of one request, all choices."""

    input_tokens: int
    rough_input_tokens: int  # what it probably is; for limits on tokens per minute
    output_tokens: int | None  # None: whatever the serving model can write, times `choices`
    choices: int = 1
    audio: bool = False
    caching: bool = False  # may write to the provider's prompt cache
    text_only: bool = True  # a tokenizer can count it
    units: Mapping[str, Decimal] = MappingProxyType({})  # image, input_second, …

    def counted(self, tokens: int) -> "Demand":
        """The same with the tokens that a tokenizer counted."""
        bound = int(tokens * COUNTED_MARGIN) + BASE_TOKENS
        return self._replace(input_tokens=min(self.input_tokens, bound))

    def output_cap(self, model: ModelDocument | None) -> int:
        """Output tokens at most, if that model serves."""
        if self.output_tokens is not None:
            return self.output_tokens
        most = model["max_output_tokens"] if model is not None else None
        return (most or DEFAULT_OUTPUT_TOKENS) * self.choices

    def input_bound(self, model: ModelDocument | None) -> int:
        """Input tokens at most: nothing beyond the context window is read."""
        window = model["context_window"] if model is not None else None
        return min(self.input_tokens, window * self.choices) if window else self.input_tokens

    def rough_tokens(self, model: ModelDocument | None) -> int:
        """Input and output that limits on tokens reserve, until the true figure is known."""
        cap = self.output_cap(model)
        if self.output_tokens is None:
            cap = min(cap, ROUGH_OUTPUT_TOKENS * self.choices)
        return self.rough_input_tokens + cap


@dataclass(slots=True)
class _Seen:
    """What a walk through a body found beside text."""

    binary_chars: int = 0
    images: int = 0
    audio_tokens: int = 0
    references: bool = False
    caching: bool = False


def cap_output(
    body: dict[str, Any], kind: Kind, policy: KeyPolicy, environment: EnvironmentDocument
) -> None:
    """Write the key's or the environment's output cap into a request that states none."""
    parameter = _CAP_PARAMETER.get(kind)
    cap = policy["max_output_tokens"] or environment["default_output_tokens"]
    if parameter is not None and cap and _stated_cap(body, kind) is None:
        body[parameter] = cap


def _stated_cap(body: Mapping[str, Any], kind: Kind) -> int | None:
    for name in _CAPS.get(kind, ()):
        value = body.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def demand_of(fields: Mapping[str, Any], kind: Kind, *, body_bytes: int, form: bool) -> Demand:
    """What a request asks for. `fields` are its JSON body, or the text fields of its form."""
    if form:
        return _form_demand(fields, kind, body_bytes)
    if kind == "count_tokens":
        return Demand(0, 0, 0)  # providers do not charge for it
    seen = _Seen()
    _walk(fields, seen)
    text_bytes = max(body_bytes - seen.binary_chars, 0)
    tokens = text_bytes + BASE_TOKENS + seen.images * IMAGE_TOKENS + seen.audio_tokens
    rough = text_bytes // BYTES_PER_ROUGH_TOKEN + seen.images * ROUGH_IMAGE_TOKENS
    if fields.get("tools"):
        tokens += TOOLS_TOKENS
    if seen.references:
        tokens += DEFAULT_CONTEXT_TOKENS * 8  # in effect: the context window of who serves
    choices = _choices(fields, kind)
    cap = _stated_cap(fields, kind)
    return Demand(
        input_tokens=tokens,
        rough_input_tokens=rough + seen.audio_tokens // 4,
        output_tokens=_fixed_output(kind, choices) if cap is None else cap * choices,
        choices=choices,
        audio=seen.audio_tokens > 0 or _speaks(fields.get("modalities")),
        caching=seen.caching,
        text_only=not (seen.binary_chars or seen.images or seen.audio_tokens or seen.references),
        units=_units(fields, kind, choices),
    )


def _speaks(modalities: Any) -> bool:
    return isinstance(modalities, list) and "audio" in modalities


def _form_demand(fields: Mapping[str, Any], kind: Kind, body_bytes: int) -> Demand:
    """Uploaded audio to transcribe, or images to edit."""
    choices = _choices(fields, kind)
    units = {"request": Decimal(1)}
    if kind == "transcription":
        units["input_second"] = Decimal(body_bytes) / BYTES_PER_AUDIO_SECOND
        tokens, output = body_bytes // BYTES_PER_AUDIO_TOKEN, DEFAULT_OUTPUT_TOKENS
    else:
        units["image"] = Decimal(choices)
        tokens, output = IMAGE_TOKENS, IMAGE_OUTPUT_TOKENS * choices
    tokens += sum(len(str(value).encode()) for value in fields.values()) + BASE_TOKENS
    return Demand(
        input_tokens=tokens,
        rough_input_tokens=min(tokens, ROUGH_IMAGE_TOKENS),
        output_tokens=output,
        choices=choices,
        audio=kind == "transcription",
        text_only=False,
        units=units,
    )


def _walk(body: Mapping[str, Any], seen: _Seen) -> None:
    """Find what is not text: embedded data, images, audio, references to what lies elsewhere."""
    waiting: list[Any] = [body]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += [inner for inner in value if isinstance(inner, _NESTED)]
            continue
        kind = value.get("type")
        if isinstance(kind, str):  # a schema's may be a list
            if kind in _IMAGE_PARTS:
                seen.images += 1
            elif kind in _DOCUMENT_PARTS:
                seen.references = True
        if "cache_control" in value:
            seen.caching = True
        for name, inner in value.items():
            if name in _REFERENCES and inner:
                seen.references = True
            elif isinstance(inner, str):
                if len(inner) >= BINARY_MIN_CHARS:
                    _measure(inner, seen, audio=name == "data" and "format" in value, field=name)
            elif isinstance(inner, _NESTED):
                waiting.append(inner)


def _measure(text: str, seen: _Seen, *, audio: bool, field: str) -> None:
    """Take long embedded data out of the text; its part was counted when it was an image."""
    if field not in _DATA_FIELDS and not text.startswith("data:"):
        return
    seen.binary_chars += len(text)
    if audio:
        seen.audio_tokens += len(text) // BYTES_PER_AUDIO_TOKEN
    elif text.startswith("data:") and not text.startswith("data:image/"):
        seen.references = True  # a document: pages, images, any number of tokens


def _choices(fields: Mapping[str, Any], kind: Kind) -> int:
    if kind not in ("chat", "completion", "image"):
        return 1
    most = 1
    for name in ("n", "best_of") if kind == "completion" else ("n",):
        try:
            most = max(most, int(fields.get(name) or 1))
        except (TypeError, ValueError, OverflowError):
            continue
    prompts = fields.get("prompt")
    if kind == "completion" and isinstance(prompts, list):
        most *= max(1, sum(not isinstance(prompt, int) for prompt in prompts))  # ints are tokens
    return most


def _fixed_output(kind: Kind, choices: int) -> int | None:
    """Output of routes whose length is not the client's to state; None: the model's most."""
    if kind in ("embedding", "moderation", "rerank", "count_tokens"):
        return 0
    return IMAGE_OUTPUT_TOKENS * choices if kind == "image" else None


def _units(fields: Mapping[str, Any], kind: Kind, choices: int) -> Mapping[str, Decimal]:
    if kind not in ("image", "speech", "rerank"):
        return _ONE_REQUEST
    units = {"request": Decimal(1)}
    if kind == "image":
        units["image"] = Decimal(choices)
    elif kind == "speech":
        text = str(fields.get("input") or "")
        units["input_character"] = Decimal(len(text))
        units["output_second"] = Decimal(len(text)) / 5 + 1  # slow speech
    elif kind == "rerank":
        documents = fields.get("documents")
        units["query"] = Decimal(max(1, len(documents) if isinstance(documents, list) else 1))
    return units


def worst_cost(demand: Demand, price: Price, model: ModelDocument | None) -> Decimal:
    """The most that a request can cost at a price, USD."""
    units = price.units
    inputs = [units.get("input_token", Decimal(0))]
    outputs = [units.get(unit, Decimal(0)) for unit in ("output_token", "reasoning_token")]
    if demand.caching:
        inputs.append(units.get("cache_write_token", Decimal(0)))
    if demand.audio:
        inputs.append(units.get("input_audio_token", Decimal(0)))
        outputs.append(units.get("output_audio_token", Decimal(0)))
    total = demand.input_bound(model) * max(inputs) + demand.output_cap(model) * max(outputs)
    for unit, count in demand.units.items():
        total += units.get(unit, Decimal(0)) * count
    return total


def countable_text(body: Mapping[str, Any]) -> str:
    """All that a tokenizer has to count, as one text: its JSON, so rather more than less."""
    names: Sequence[str] = ("messages", "system", "tools", "prompt", "input", "instructions")
    return orjson.dumps({name: body[name] for name in names if name in body}).decode()
