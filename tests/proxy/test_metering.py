"""Usage objects of providers and exact cost."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.metering import (
    Usage,
    cost_of,
    cost_of_tokens,
    cost_of_units,
    plain,
    usage_from_anthropic,
    usage_from_openai,
)
from proxy.snapshot import Price

TOKENS = {"input_token": "0.000003", "output_token": "0.000015"}
CACHE = {"cache_read_token": "0.0000003", "cache_write_token": "0.00000375"}


def price(**units: str) -> Price:
    return Price("v1", "own", {unit: Decimal(amount) for unit, amount in units.items()})


@pytest.mark.parametrize(
    ("usage", "units", "cost"),
    [
        (Usage(1000, 500), TOKENS, "0.010500"),
        (Usage(0, 0), TOKENS, "0"),
        # Cached tokens at their own price when there is one, else that of input.
        (Usage(1000, 0, cache_read_tokens=800), TOKENS | CACHE, "0.0008400"),
        (Usage(1000, 0, cache_read_tokens=800), TOKENS, "0.003000"),
        (Usage(1000, 0, cache_write_tokens=800), TOKENS | CACHE, "0.00360000"),
        (Usage(0, 100, reasoning_tokens=60), TOKENS, "0.001500"),
        (Usage(0, 100, reasoning_tokens=60), TOKENS | {"reasoning_token": "0.00001"}, "0.001200"),
        (Usage(10, 0, other_units={"image": Decimal(2)}), {"image": "0.04"}, "0.08"),
        (Usage(other_units={"query": Decimal("2")}), {"query": "0.002"}, "0.004"),
        (Usage(), {"request": "0.002"}, "0.002"),
        (Usage(10, 5), {"request": "0.002"}, "0.002"),
        (
            Usage(100, 0, other_units={"input_audio_token": Decimal(40)}),
            TOKENS | {"input_audio_token": "0.0001"},
            "0.004180",
        ),
        (Usage(100, 0, other_units={"input_audio_token": Decimal(40)}), TOKENS, "0.000300"),
    ],
)  # fmt: skip
def test_cost(usage: Usage, units: dict[str, str], cost: str) -> None:
    found = cost_of(usage, price(**units))
    assert found is not None
    assert plain(found) == cost


@pytest.mark.parametrize(
    ("usage", "units"),
    [
        (Usage(10, 5), {"input_token": "0.1"}),  # output has no price
        (Usage(other_units={"image": Decimal(1)}), {"query": "1"}),
        (Usage(10, 0), {}),
    ],
)
def test_what_has_no_price_is_unpriced(usage: Usage, units: dict[str, str]) -> None:
    assert cost_of(usage, price(**units)) is None


def test_no_price_at_all_is_unpriced() -> None:
    assert cost_of(Usage(1, 1), None) is None


def test_free_is_zero_not_unpriced() -> None:
    assert cost_of(Usage(10, 5), price(input_token="0", output_token="0")) == 0


_COUNTS = st.integers(0, 10_000) | st.sampled_from([0, 1, 2**31 - 1])
_UNITS = st.dictionaries(
    st.sampled_from([*TOKENS, *CACHE, "reasoning_token", "input_audio_token", "request", "image"]),
    st.decimals(min_value=0, max_value=1, places=9) | st.just(Decimal("2.5E-7")),
)


@given(st.builds(Usage, *[_COUNTS] * 5, st.just({})), _UNITS)
def test_tokens_alone_cost_what_the_whole_reckoning_says(
    usage: Usage, units: dict[str, Decimal]
) -> None:
    """To the last digit, and unpriced in the same cases."""
    assert str(cost_of_tokens(usage, units)) == str(cost_of_units(usage, units))


def test_openai_usage() -> None:
    raw: dict[str, Any] = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": None},
    }
    found = usage_from_openai(raw)
    assert (found.input_tokens, found.output_tokens) == (100, 50)
    assert (found.cache_read_tokens, found.reasoning_tokens) == (60, 20)
    assert found.other_units == {"input_audio_token": Decimal(5)}


def test_anthropic_input_includes_what_the_cache_touched() -> None:
    found = usage_from_anthropic(
        {
            "input_tokens": 10,
            "output_tokens": 7,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 20,
        }
    )
    assert found.input_tokens == 130
    assert (found.cache_read_tokens, found.cache_write_tokens) == (100, 20)


@pytest.mark.parametrize("junk", [None, "12", -5, True, [], 1e30, float("inf")])
def test_junk_counts_do_no_harm(junk: Any) -> None:
    found = usage_from_openai({"prompt_tokens": junk, "completion_tokens": 3})
    assert 0 <= found.input_tokens < 2**31
    assert found.output_tokens == 3
