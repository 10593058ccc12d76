"""How numbers, amounts, durations and times are written. Pure functions, used by tags and charts.

Zero, none and unknown look different: zero is a figure, an absent value is an en dash, an
amount without a known price is the word "unpriced".
"""

from __future__ import annotations

import math
from datetime import date, datetime
from decimal import ROUND_HALF_EVEN, Decimal

from django.utils import timezone

ABSENT = "–"
UNPRICED = "unpriced"
_CENT = Decimal("0.01")
_MICRO = Decimal("0.000001")

Number = int | float | Decimal


def money(value: Number | None) -> str:
    """A total in US dollars: `$1,234.56`; amounts below half a cent say so."""
    if value is None:
        return UNPRICED
    amount = Decimal(str(value))
    sign = "-" if amount < 0 else ""
    size = abs(amount)
    if 0 < size < _CENT / 2:
        return f"{sign}<$0.01"
    return f"{sign}${size.quantize(_CENT, ROUND_HALF_EVEN):,}"


def money_exact(value: Number | None) -> str:
    """The cost of one call in US dollars to six places: `$0.000123`."""
    if value is None:
        return UNPRICED
    amount = Decimal(str(value))
    sign = "-" if amount < 0 else ""
    return f"{sign}${abs(amount).quantize(_MICRO, ROUND_HALF_EVEN):,}"


def count(value: Number | None) -> str:
    """A whole number with thousands separated: `12,345`."""
    return ABSENT if value is None else f"{round(value):,}"


def compact(value: Number | None) -> str:
    """A large number in few digits: `940`, `12.3k`, `4.06M`, `1.2B`."""
    if value is None:
        return ABSENT
    number = float(value)
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit * 0.9995:
            return f"{number / limit:.3g}{unit}"
    return f"{number:.0f}" if number == int(number) else f"{number:.3g}"


def duration(value_ms: Number | None) -> str:
    """A duration given in milliseconds: `0.4 ms`, `340 ms`, `1.24 s`, `3 min 20 s`."""
    if value_ms is None:
        return ABSENT
    ms = float(value_ms)
    if ms == 0:
        return "0 ms"
    if ms < 10:
        return f"{ms:.1f} ms"
    if ms < 999.5:
        return f"{ms:.0f} ms"
    if ms < 59_950:
        return f"{ms / 1000:.3g} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def percent(share: Number | None) -> str:
    """A share between 0 and 1: `0%`, `<0.1%`, `4.2%`, `38%`."""
    if share is None:
        return ABSENT
    value = float(share) * 100
    if value == 0:
        return "0%"
    if 0 < value < 0.1:
        return "<0.1%"
    if 99.9 < value < 100:
        return ">99.9%"
    return f"{value:.1f}%" if abs(value) < 10 or (value % 1 and value > 90) else f"{value:.0f}%"


def change(current: Number | None, previous: Number | None) -> float | None:
    """Relative change, 0.12 for +12%; None where there is nothing to compare with."""
    if current is None or previous is None or not previous:
        return None
    ratio = float(current) / float(previous) - 1
    return ratio if math.isfinite(ratio) else None


def day(value: date | datetime | None) -> str:
    """A date in the current zone: `3 Nov 2026`."""
    if value is None:
        return ABSENT
    if isinstance(value, datetime):
        value = timezone.localtime(value)
    return f"{value.day} {value:%b %Y}"


def clock(value: datetime | None) -> str:
    """Date and time to the second in the current zone: `3 Nov 2026, 14:02:10`."""
    if value is None:
        return ABSENT
    local = timezone.localtime(value)
    return f"{day(value)}, {local:%H:%M:%S}"


def ago(value: datetime | None, *, now: datetime | None = None) -> str:
    """Roughly how long ago, or how far ahead: `just now`, `4 min ago`, `in 3 h`, `12 d ago`."""
    if value is None:
        return "never"
    seconds = ((now or timezone.now()) - value).total_seconds()
    size = abs(seconds)
    if size < 10:
        return "just now"
    if size >= 86_400 * 45:
        return day(value)
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        if size >= length:
            amount = f"{int(size // length)} {unit}"
            return f"{amount} ago" if seconds > 0 else f"in {amount}"
    return "just now"


def exact(value: Number | None) -> str:
    """All digits of a value, for a tooltip."""
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return f"{value.normalize():,f}"
    return f"{value:,}"
