"""The book is LiteLLM's table to the last digit."""

from decimal import Decimal

import pytest
from django.core.management import call_command

from gateway_admin.catalog import prices
from gateway_admin.catalog.models import PriceBookEntry
from gateway_admin.lib.errors import InvalidInput

pytestmark = pytest.mark.django_db


def test_it_loads_all_of_it_and_once() -> None:
    written = prices.price_book_load()
    assert written == PriceBookEntry.objects.count() > 3000
    assert prices.price_book_load() == 0
    assert prices.price_book_load(force=True) == written == PriceBookEntry.objects.count()


def test_it_drops_what_the_table_no_longer_has() -> None:
    PriceBookEntry.objects.create(name="gone", litellm_provider="x", book_version="litellm 0")
    prices.price_book_load()
    assert not PriceBookEntry.objects.filter(name="gone").exists()


def test_the_command_says_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("load_prices")
    call_command("load_prices")
    said = capsys.readouterr().out
    assert "Loaded" in said
    assert "loaded already" in said


def test_amounts_are_exact() -> None:
    prices.price_book_load()
    table = prices.read_book()
    for entry in PriceBookEntry.objects.all():
        stated = table[entry.name].get("input_cost_per_token")
        if stated is not None:
            assert Decimal(entry.units["input_token"]) == Decimal(stated)
            assert "e" not in entry.units["input_token"].lower()


def test_it_knows_context_and_cached_prices() -> None:
    prices.price_book_load()
    entry = PriceBookEntry.objects.get(name="gpt-4o")
    assert entry.context_window == 128_000
    assert entry.units["cache_read_token"] == "0.00000125"


def test_a_second_of_audio_is_paid_for_once() -> None:
    units = prices.units_of(
        {"input_cost_per_second": Decimal("0.0001"), "output_cost_per_second": Decimal("0.0001")},
        mode="audio_transcription",
    )
    assert units == {"input_second": "0.0001"}


@pytest.mark.parametrize(
    ("kind", "provider", "upstream", "region", "expected"),
    [
        ("openai", "openai", "gpt-4o", "", "gpt-4o"),
        ("anthropic", "anthropic", "claude-sonnet-4-5", "", "claude-sonnet-4-5"),
        ("gemini", "gemini", "gemini-2.5-flash", "", "gemini/gemini-2.5-flash"),
        ("azure", "azure", "gpt-4o", "", "azure/gpt-4o"),
        ("azure", "azure", "gpt-4o-2024-08-06", "eu", "azure/eu/gpt-4o-2024-08-06"),
        (
            "bedrock",
            "bedrock",
            "converse/anthropic.claude-3-5-sonnet-20240620-v1:0",
            "",
            "anthropic.claude-3-5-sonnet-20240620-v1:0",
        ),
        (
            "bedrock",
            "bedrock",
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "us-east-1",
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        ),
        ("ollama", "ollama", "llama3:8b", "", "ollama/llama3:8b"),
        ("other", "mistral", "mistral-large-latest", "", "mistral/mistral-large-latest"),
    ],
)
def test_it_finds_a_providers_model(
    kind: str, provider: str, upstream: str, region: str, expected: str
) -> None:
    prices.price_book_load()
    entry = prices.price_for(
        kind=kind, litellm_provider=provider, upstream_model=upstream, region=region
    )
    assert entry is not None
    assert entry.name == expected


def test_another_providers_price_is_no_price() -> None:
    prices.price_book_load()
    assert (
        prices.price_for(kind="other", litellm_provider="mistral", upstream_model="gpt-4o") is None
    )
    assert prices.price_for(kind="openai", litellm_provider="openai", upstream_model="") is None


def test_quotes_per_million_are_exact_both_ways() -> None:
    assert prices.per_quote("input_token", "0.0000025") == Decimal("2.5")
    assert prices.from_quote("input_token", Decimal("0.075")) == "0.000000075"
    assert prices.from_quote("image", Decimal("0.04")) == "0.04"


@pytest.mark.parametrize(
    "units",
    [
        {"input_token": "-1"},
        {"input_token": "NaN"},
        {"input_token": "cheap"},
        {"input_token": "20000"},
        {"input_token": "0.0000000000000000000001"},
        {"banana": "1"},
    ],
)
def test_wrong_prices_are_refused(units: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        prices.clean_units(units)


def test_the_cost_of_a_call() -> None:
    units = {"input_token": "0.000001", "output_token": "0.000002", "cache_read_token": "0.0000001"}
    usage = {"input_tokens": 100, "output_tokens": 10, "cache_read_tokens": 40}
    assert prices.cost_of(usage, units) == Decimal("0.000084")
    assert prices.cost_of(usage, {"input_token": "0.000001"}) is None
    assert prices.cost_of(usage, {}) is None
