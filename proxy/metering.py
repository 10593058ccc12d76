"""Provider usage objects -> token counts and units -> exact cost.

Counts follow the ledger's convention: `input_tokens` includes what was read from and
written to a cache, `output_tokens` includes reasoning.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from proxy.snapshot import Price

_MAX_COUNT = 2**31 - 1
_ZERO = Decimal(0)


@dataclass(slots=True)
class Usage:
    """What a request consumed."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    other_units: dict[str, Decimal] = field(default_factory=dict)
    estimated: bool = False


def usage_from_openai(raw: Mapping[str, Any]) -> Usage:
    """`usage` of chat, completions, embeddings, responses, images and transcriptions."""
    inputs = _mapping(raw.get("prompt_tokens_details") or raw.get("input_tokens_details"))
    outputs = _mapping(raw.get("completion_tokens_details") or raw.get("output_tokens_details"))
    usage = Usage(
        input_tokens=_count(raw.get("prompt_tokens") or raw.get("input_tokens")),
        output_tokens=_count(raw.get("completion_tokens") or raw.get("output_tokens")),
        cache_read_tokens=_count(inputs.get("cached_tokens") or raw.get("cache_read_input_tokens")),
        cache_write_tokens=_count(
            inputs.get("cache_creation_tokens") or raw.get("cache_creation_input_tokens")
        ),
        reasoning_tokens=_count(outputs.get("reasoning_tokens")),
    )
    _add_unit(usage, "input_audio_token", inputs.get("audio_tokens"))
    _add_unit(usage, "output_audio_token", outputs.get("audio_tokens"))
    _add_unit(usage, "input_second", raw.get("seconds"))
    return usage


def usage_from_anthropic(raw: Mapping[str, Any]) -> Usage:
    """`usage` of /v1/messages, whose `input_tokens` leave out what the cache touched."""
    read = _count(raw.get("cache_read_input_tokens"))
    written = _count(raw.get("cache_creation_input_tokens"))
    return Usage(
        input_tokens=_count(raw.get("input_tokens")) + read + written,
        output_tokens=_count(raw.get("output_tokens")),
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=_count(_mapping(raw.get("output_tokens_details")).get("reasoning_tokens")),
    )


_NOTHING: Mapping[str, Any] = {}


def _mapping(value: object) -> Mapping[str, Any]:
    if value is None or isinstance(value, dict):  # first: the check of an abstract class is slow
        return value or _NOTHING
    return value if isinstance(value, Mapping) else _NOTHING


def _count(value: object) -> int:
    if value.__class__ is int and 0 <= value <= _MAX_COUNT:
        return value
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return 0
    return min(max(int(value), 0), _MAX_COUNT)


def _add_unit(usage: Usage, unit: str, value: object) -> None:
    if not value or isinstance(value, bool) or not isinstance(value, int | float):
        return
    if math.isfinite(value) and value > 0:
        usage.other_units[unit] = Decimal(str(value))


def cost_of(usage: Usage, price: Price | None) -> Decimal | None:
    """Exact cost in USD; None when something that was consumed has no price.

    Cached tokens and reasoning have their own price where one is published, else that of
    plain input and output. Audio tokens likewise are a part of input and output.
    """
    if price is None:
        return None
    units = price.units
    if not usage.other_units:
        return cost_of_tokens(usage, units)
    return cost_of_units(usage, units)


def cost_of_tokens(usage: Usage, units: Mapping[str, Decimal]) -> Decimal | None:
    """The cost of nothing but tokens, in one pass: nearly every request."""
    total = units.get("request", _ZERO)
    if "request" in units and "input_token" not in units and "output_token" not in units:
        return total  # sold per request: tokens are informative
    tokens_in, tokens_out = usage.input_tokens, usage.output_tokens
    if usage.cache_read_tokens and (price := units.get("cache_read_token")) is not None:
        tokens_in -= usage.cache_read_tokens
        total += price * usage.cache_read_tokens
    if usage.cache_write_tokens and (price := units.get("cache_write_token")) is not None:
        tokens_in -= usage.cache_write_tokens
        total += price * usage.cache_write_tokens
    if usage.reasoning_tokens and (price := units.get("reasoning_token")) is not None:
        tokens_out -= usage.reasoning_tokens
        total += price * usage.reasoning_tokens
    if tokens_in > 0:
        if (price := units.get("input_token")) is None:
            return None
        total += price * tokens_in
    if tokens_out > 0:
        if (price := units.get("output_token")) is None:
            return None
        total += price * tokens_out
    return total


def cost_of_units(usage: Usage, units: Mapping[str, Decimal]) -> Decimal | None:
    """The cost of whatever it may be."""
    total = units.get("request", _ZERO)
    parts = _token_parts(usage, units)
    if not any(amount for _, amount in parts) and usage.other_units:
        parts = []
    if _priced_per_unit(usage, units) and not {"input_token", "output_token"} & units.keys():
        parts = []  # sold per image, second, character or query: tokens are informative
    for unit, amount in parts:
        if not amount:
            continue
        if unit not in units:
            return None
        total += units[unit] * amount
    for unit, count in usage.other_units.items():
        if unit.endswith("_token"):
            continue
        if unit in units:
            total += units[unit] * count
        elif not parts and "request" not in units:
            return None
    return total


def _priced_per_unit(usage: Usage, units: Mapping[str, Decimal]) -> bool:
    return "request" in units or any(unit in units for unit in usage.other_units)


def _token_parts(usage: Usage, units: Mapping[str, Decimal]) -> list[tuple[str, Decimal]]:
    audio_in = usage.other_units.get("input_audio_token", Decimal(0))
    audio_out = usage.other_units.get("output_audio_token", Decimal(0))
    if "input_audio_token" not in units:
        audio_in = Decimal(0)
    if "output_audio_token" not in units:
        audio_out = Decimal(0)
    reasoning = usage.reasoning_tokens if "reasoning_token" in units else 0
    read = usage.cache_read_tokens if "cache_read_token" in units else 0
    written = usage.cache_write_tokens if "cache_write_token" in units else 0
    plain_in = max(usage.input_tokens - read - written - audio_in, Decimal(0))
    plain_out = max(usage.output_tokens - reasoning - audio_out, Decimal(0))
    return [
        ("input_token", plain_in),
        ("cache_read_token", Decimal(read)),
        ("cache_write_token", Decimal(written)),
        ("input_audio_token", audio_in),
        ("output_token", plain_out),
        ("reasoning_token", Decimal(reasoning)),
        ("output_audio_token", audio_out),
    ]


def plain(amount: Decimal) -> str:
    """Decimal string without exponent."""
    return format(amount, "f")
