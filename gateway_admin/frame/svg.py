"""Small drawings without scripts or style attributes: sparklines and bars."""

from __future__ import annotations

from collections.abc import Sequence

from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from . import formats

_HEIGHT = 24
_PAD = 2.5


def sparkline(values: Sequence[float | None], *, label: str, width: int) -> SafeString:
    """A line over equally spaced values; gaps where a value is None; the last point marked."""
    known = [float(value) for value in values if value is not None]
    if len(known) < 2:
        return mark_safe('<span class="gw-absent">–</span>')
    low, high = min(known), max(known)
    span = (high - low) or 1.0
    step = (width - 2 * _PAD) / (len(values) - 1)
    path, pen, last = [], "M", (0.0, 0.0)
    for index, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        flat = high == low
        y = _HEIGHT / 2 if flat else _PAD + (high - float(value)) / span * (_HEIGHT - 2 * _PAD)
        last = (_PAD + index * step, y)
        path.append(f"{pen}{last[0]:.1f} {last[1]:.1f}")
        pen = "L"
    return format_html(
        '<svg class="gw-spark" width="{w}" height="{h}" viewBox="0 0 {w} {h}" {aria}>'
        '<path d="{d}"></path><circle cx="{x}" cy="{y}" r="2"></circle></svg>',
        w=width,
        h=_HEIGHT,
        aria=_aria(label),
        d="".join(path),
        x=f"{last[0]:.1f}",
        y=f"{last[1]:.1f}",
    )


def bar(
    value: float, maximum: float, held: float, soft: formats.Number | None, *, label: str
) -> SafeString:
    """A horizontal bar of 100 units; beyond the soft tick it warns, beyond the end it is red."""
    whole = maximum if maximum > 0 else 1.0
    used = min(value / whole, 1.0) * 100
    hold = min(held / whole, 1.0 - used / 100) * 100
    tick = float(soft) / whole * 100 if soft is not None else None
    tone = "bad" if value >= maximum > 0 and tick is not None else "plain"
    if tone == "plain" and tick is not None and used >= tick:
        tone = "warn"
    mark = SafeString("")
    if tick is not None and tick < 100:
        mark = format_html(
            '<rect class="gw-bar-tick" x="{}" width="0.8" height="8"></rect>', f"{tick:.1f}"
        )
    return format_html(
        '<svg class="gw-bar gw-bar-{}" viewBox="0 0 100 8" preserveAspectRatio="none" {}>'
        '<rect class="gw-bar-track" width="100" height="8"></rect>'
        '<rect class="gw-bar-used" width="{}" height="8"></rect>'
        '<rect class="gw-bar-held" x="{}" width="{}" height="8"></rect>{}</svg>',
        tone,
        _aria(label or f"{formats.percent(value / whole)} of the whole"),
        f"{used:.2f}",
        f"{used:.2f}",
        f"{hold:.2f}",
        mark,
    )


def _aria(label: str) -> SafeString:
    if not label:
        return mark_safe('aria-hidden="true"')
    return format_html('role="img" aria-label="{}"', label)
