"""The price book, and what a deployment costs per unit.

The book is the table that the installed litellm package bundles; it is read as a file
because importing litellm takes seconds. Prices are US dollars per one unit, as decimal
strings, exactly as the table writes them. Tiers above a context size, batch and priority
prices of the table are not carried: the base price is.
"""

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.db import transaction

from gateway_admin.catalog.models import PriceBookEntry, Provider
from gateway_admin.lib.errors import InvalidInput
from proxy.contract import PRICE_UNITS

BOOK_FILE = "model_prices_and_context_window_backup.json"
MAX_UNIT_PRICE = Decimal(10_000)  # US dollars; more is a slip of the keyboard
MAX_DECIMAL_PLACES = 20
PER_MILLION = Decimal(1_000_000)

# LiteLLM's name of a cost -> unit; the first that an entry has is taken.
_COSTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("input_token", ("input_cost_per_token",)),
    ("output_token", ("output_cost_per_token",)),
    ("cache_read_token", ("cache_read_input_token_cost", "input_cost_per_token_cache_hit")),
    ("cache_write_token", ("cache_creation_input_token_cost",)),
    ("reasoning_token", ("output_cost_per_reasoning_token",)),
    ("input_audio_token", ("input_cost_per_audio_token",)),
    ("output_audio_token", ("output_cost_per_audio_token",)),
    ("image", ("output_cost_per_image",)),
    ("input_second", ("input_cost_per_second",)),
    ("output_second", ("output_cost_per_second",)),
    ("input_character", ("input_cost_per_character",)),
    ("query", ("input_cost_per_query",)),
    ("request", ("input_cost_per_request",)),
)
assert {unit for unit, _ in _COSTS} == set(PRICE_UNITS)

UNIT_LABELS = {
    "input_token": "Input",
    "output_token": "Output",
    "cache_read_token": "Cached input",
    "cache_write_token": "Cache write",
    "reasoning_token": "Reasoning",
    "input_audio_token": "Audio input",
    "output_audio_token": "Audio output",
    "image": "Image",
    "input_second": "Second of input",
    "output_second": "Second of output",
    "input_character": "Character of input",
    "query": "Query",
    "request": "Request",
}


def is_token_unit(unit: str) -> bool:
    """Quoted per million on pages; everything else per one."""
    return unit.endswith("_token")


def book_version() -> str:
    return f"litellm {version('litellm')}"


def price_book_load(*, force: bool = False) -> int:
    """Bring the book to the installed litellm's; return how many entries were written.

    Nothing is written when this version is loaded already, unless `force`.
    """
    current = book_version()
    if not force and PriceBookEntry.objects.filter(book_version=current).exists():
        return 0
    entries = [entry_of(name, row, current) for name, row in read_book().items()]
    with transaction.atomic():
        PriceBookEntry.objects.bulk_create(
            entries,
            batch_size=1000,
            update_conflicts=True,
            unique_fields=["name"],
            update_fields=[
                "litellm_provider",
                "mode",
                "units",
                "context_window",
                "max_output_tokens",
                "book_version",
            ],
        )
        PriceBookEntry.objects.exclude(name__in=[entry.name for entry in entries]).delete()
    return len(entries)


def read_book() -> dict[str, dict[str, Any]]:
    """LiteLLM's bundled table with exact decimals, without its sample row."""
    spec = find_spec("litellm")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("litellm is not installed: its price table cannot be read")
    text = (Path(spec.origin).parent / BOOK_FILE).read_text(encoding="utf-8")
    table: dict[str, dict[str, Any]] = json.loads(text, parse_float=Decimal)
    table.pop("sample_spec", None)
    return table


def entry_of(name: str, row: Mapping[str, Any], book: str) -> PriceBookEntry:
    mode = str(row.get("mode") or "")
    return PriceBookEntry(
        name=name,
        litellm_provider=str(row.get("litellm_provider") or ""),
        mode=mode,
        units=units_of(row, mode=mode),
        context_window=_count(row.get("max_input_tokens") or row.get("max_tokens")),
        max_output_tokens=_count(row.get("max_output_tokens") or row.get("max_tokens")),
        book_version=book,
    )


def units_of(row: Mapping[str, Any], *, mode: str) -> dict[str, str]:
    """Unit prices of one row of the table."""
    units: dict[str, str] = {}
    for unit, names in _COSTS:
        amount = next((row[name] for name in names if _is_amount(row.get(name))), None)
        if amount is not None:
            units[unit] = plain_decimal(Decimal(amount))
    if mode == "image_generation" and "image" not in units:
        per_image = row.get("input_cost_per_image")
        if per_image is not None and _is_amount(per_image):
            units["image"] = plain_decimal(Decimal(per_image))
    if mode == "audio_transcription" and "input_second" in units:
        # The table names the same second of audio on both sides; it is paid for once.
        units.pop("output_second", None)
    return units


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


def _count(value: Any) -> int | None:
    return int(value) if _is_amount(value) and 0 < value < 2**31 else None


def plain_decimal(amount: Decimal) -> str:
    """Decimal string without exponent and trailing zeros; the amount itself is unchanged."""
    text = format(amount, "f")
    return (text.rstrip("0").rstrip(".") or "0") if "." in text else text


def price_for(
    *, kind: str, litellm_provider: str, upstream_model: str, region: str = ""
) -> PriceBookEntry | None:
    """The book's entry for a provider's model, under any of the names LiteLLM gives it."""
    names = list(names_of(kind, litellm_provider, upstream_model.strip(), region.strip()))
    found = {entry.name: entry for entry in PriceBookEntry.objects.filter(name__in=names)}
    for name in names:
        entry = found.get(name)
        if entry is not None and _same_provider(entry.litellm_provider, litellm_provider):
            return entry
    return None


def names_of(kind: str, provider: str, model: str, region: str) -> Iterator[str]:
    """Candidates, the most specific first."""
    if not model:
        return
    if kind == Provider.Kind.BEDROCK:
        yield from _bedrock_names(model, region)
        return
    if kind == Provider.Kind.AZURE and region in {"eu", "us", "global", "global-standard"}:
        yield f"azure/{region}/{model}"
    yield f"{provider}/{model}"
    yield model
    if model.startswith("ft:"):  # ft:gpt-4o-2024-08-06:organisation::id
        yield ":".join(model.split(":")[:2])
    if kind == Provider.Kind.OLLAMA and ":" in model:
        yield f"ollama/{model.split(':')[0]}"
    if provider.startswith("vertex_ai"):
        yield f"vertex_ai/{model}"


def _bedrock_names(model: str, region: str) -> Iterator[str]:
    bare = re.sub(r"^(bedrock/)?(converse/|invoke/|converse_like/)?", "", model)
    if region:
        yield f"bedrock/{region}/{bare}"
    yield bare
    yield f"bedrock/{bare}"
    yield re.sub(r"^(us-gov|us|eu|apac|au|jp|ca|sa|global)\.", "", bare)


def _same_provider(entry: str, wanted: str) -> bool:
    """The table splits some providers: bedrock_converse, vertex_ai-anthropic_models, …"""
    return (
        entry == wanted
        or entry == f"text-completion-{wanted}"
        or entry.startswith((f"{wanted}-", f"{wanted}_converse", f"{wanted}_chat"))
        or {entry, wanted} == {"azure", "azure_text"}
    )


def clean_units(units: Mapping[str, Any]) -> dict[str, str]:
    """Own prices as they are stored: known units, amounts of at least zero, exact."""
    clean: dict[str, str] = {}
    for unit, amount in units.items():
        if unit not in PRICE_UNITS:
            raise InvalidInput(
                f"{unit!r} is not a unit. Units are {', '.join(PRICE_UNITS)}.", field="price"
            )
        if amount in (None, ""):
            continue
        clean[unit] = plain_decimal(_unit_price(amount))
    return clean


def _unit_price(amount: Any) -> Decimal:
    try:
        value = Decimal(str(amount))
    except InvalidOperation as error:
        raise InvalidInput(f"{amount!r} is not an amount.", field="price") from error
    if not value.is_finite() or not 0 <= value <= MAX_UNIT_PRICE:
        raise InvalidInput("A price is an amount from 0 to 10,000 US dollars.", field="price")
    exponent = value.normalize().as_tuple().exponent
    if isinstance(exponent, int) and -exponent > MAX_DECIMAL_PLACES:
        raise InvalidInput(f"At most {MAX_DECIMAL_PLACES} decimal places.", field="price")
    return value


def per_quote(unit: str, amount: str) -> Decimal:
    """The figure people quote: per million tokens, or per one of any other unit. Exact."""
    return Decimal(amount) * PER_MILLION if is_token_unit(unit) else Decimal(amount)


def dollars(amount: Decimal) -> str:
    """A quoted price with all its digits, at least two after the point: $2.50, $0.075."""
    text = plain_decimal(amount)
    whole, _, digits = text.partition(".")
    return f"${int(whole):,}.{digits:0<2}"


def from_quote(unit: str, amount: Decimal) -> str:
    """Undo `per_quote`. Exact: a division by a power of ten moves the point only."""
    return plain_decimal(amount.scaleb(-6) if is_token_unit(unit) else amount)


def cost_of(usage: Mapping[str, int], units: Mapping[str, str]) -> Decimal | None:
    """Exact cost of one call in US dollars; None when what was used has no price.

    `usage` has input_tokens (cached ones included) and output_tokens (reasoning included).
    """
    if not units:
        return None
    price = {unit: Decimal(amount) for unit, amount in units.items()}
    read = usage.get("cache_read_tokens", 0) if "cache_read_token" in price else 0
    written = usage.get("cache_write_tokens", 0) if "cache_write_token" in price else 0
    reasoning = usage.get("reasoning_tokens", 0) if "reasoning_token" in price else 0
    parts = {
        "input_token": usage.get("input_tokens", 0) - read - written,
        "cache_read_token": read,
        "cache_write_token": written,
        "output_token": usage.get("output_tokens", 0) - reasoning,
        "reasoning_token": reasoning,
        "request": 1 if "request" in price else 0,
        "image": usage.get("images", 0),
        "query": usage.get("queries", 0),
        "input_character": usage.get("characters", 0),
    }
    if not any(parts.values()) or any(n and unit not in price for unit, n in parts.items()):
        return None
    return sum((price[unit] * n for unit, n in parts.items() if n), Decimal(0))
