"""Words for percentiles; everything else comes from the frame."""

from django import template

from gateway_admin.frame import formats
from gateway_admin.usage.queries import Percentiles

register = template.Library()


@register.filter
def marks(percentiles: Percentiles) -> str:
    """The two marks that stand beside p95."""
    if not percentiles.count:
        return "not measured"
    p50, p99 = formats.duration(percentiles.p50_ms), formats.duration(percentiles.p99_ms)
    return f"p50 {p50}, p99 {p99}"
