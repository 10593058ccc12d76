"""Figures as pages write them."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_admin.frame import formats


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("1234.555"), "$1,234.56"),
        (Decimal("0"), "$0.00"),
        (Decimal("0.0049"), "<$0.01"),
        (Decimal("0.005"), "$0.00"),
        (Decimal("-12.3"), "-$12.30"),
        (None, "unpriced"),
    ],
)
def test_totals(value: Decimal | None, text: str) -> None:
    assert formats.money(value) == text


def test_the_cost_of_a_call_has_six_places() -> None:
    assert formats.money_exact(Decimal("0.000123")) == "$0.000123"
    assert formats.money_exact(None) == "unpriced"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (12_345, "12.3k"),
        (999_600, "1M"),
        (4_060_000, "4.06M"),
        (1_200_000_000, "1.2B"),
        (None, "–"),
    ],
)
def test_large_numbers_in_few_digits(value: int | None, text: str) -> None:
    assert formats.compact(value) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0 ms"),
        (0.42, "0.4 ms"),
        (340, "340 ms"),
        (999.6, "1 s"),
        (1240, "1.24 s"),
        (200_000, "3 min 20 s"),
        (None, "–"),
    ],
)
def test_durations(ms: float | None, text: str) -> None:
    assert formats.duration(ms) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0%"), (0.0004, "<0.1%"), (0.042, "4.2%"), (0.38, "38%"), (0.9995, ">99.9%"), (1, "100%")],
)
def test_shares_never_round_to_none_or_all(share: float, text: str) -> None:
    assert formats.percent(share) == text


def test_times_are_told_from_now() -> None:
    now = datetime(2026, 11, 3, 12, tzinfo=UTC)
    assert formats.ago(now - timedelta(minutes=4), now=now) == "4 min ago"
    assert formats.ago(now + timedelta(hours=3), now=now) == "in 3 h"
    assert formats.ago(now - timedelta(days=90), now=now) == "5 Aug 2026"
    assert formats.ago(None) == "never"


def test_nothing_to_compare_with_is_not_a_change() -> None:
    assert formats.change(4, 0) is None
    assert formats.change(4, None) is None
    assert formats.change(3, 4) == pytest.approx(-0.25)


@given(st.decimals(min_value=-(10**9), max_value=10**9, allow_nan=False, places=6))
def test_a_total_is_never_more_than_half_a_cent_off(value: Decimal) -> None:
    text = formats.money(value)
    if "<" in text:
        assert 0 < abs(value) < Decimal("0.005")
        return
    assert abs(Decimal(text.replace("$", "").replace(",", "")) - value) <= Decimal("0.005")
