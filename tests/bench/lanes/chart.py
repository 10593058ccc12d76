"""docs/performance.svg: requests per second as multiples of LiteLLM tuned."""

from html import escape

from tests.bench.lanes.bounds import PLAIN, STREAM, ratio
from tests.bench.lanes.measure import Results
from tests.bench.lanes.variants import VARIANTS, Case

WIDTH, BAR, GAP, LEFT, RIGHT = 760, 20, 10, 170, 150
# The mock is the limit, not a gateway, and its bar would flatten the others.
SHOWN = [variant for variant in VARIANTS if variant.name != "mock"]
_STYLE = """\
text{font:13px system-ui,sans-serif;fill:#1f2328}.h{font-weight:600}.n{fill:#59636e}
.b{fill:#8c959f}.o{fill:#0969da}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.n{fill:#9198a1}.b{fill:#656c76}.o{fill:#4493f8}}
"""


def drawn(results: Results) -> str | None:
    """The picture; None when there is nothing to draw."""
    parts: list[str] = []
    y = 8
    for case, title in (
        (PLAIN, "Plain requests/s, times LiteLLM tuned (16 connections, provider 0 ms)"),
        (STREAM, "Streams/s of 20 chunks, times LiteLLM tuned (16 connections, provider 0 ms)"),
    ):
        panel, y = _panel(results, case, title, y)
        parts += panel
    if not parts:
        return None
    label = "Requests per second of each gateway, as multiples of LiteLLM tuned"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" '
        f'height="{y}" role="img" aria-label="{label}">'
    )
    return "\n".join([head, f"<style>\n{_STYLE}</style>", *parts, "</svg>", ""])


def _panel(results: Results, case: Case, title: str, y: int) -> tuple[list[str], int]:
    found = [
        (variant, times, results.rate(case, variant.name) or 0.0)
        for variant in SHOWN
        if (times := ratio(results, case, variant.name, "tuned")) is not None
    ]
    if not found:
        return [], y
    scale = (WIDTH - LEFT - RIGHT) / max(times for _, times, _ in found)
    parts = [f'<text class="h" x="0" y="{y + 14}">{escape(title)}</text>']
    y += 28
    for variant, times, rate in found:
        length = max(1.0, times * scale)
        kind = "o" if variant.server == "ours" else "b"
        told = f"{times:,.1f} x" if times < 10 else f"{times:,.0f} x"
        parts += [
            f'<text x="0" y="{y + 15}">{escape(variant.title)}</text>',
            f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" rx="3"/>',
            f'<text x="{LEFT + length + 8:.1f}" y="{y + 15}">{told} '
            f'<tspan class="n">{rate:,.0f}/s</tspan></text>',
        ]
        y += BAR + GAP
    return parts, y + 14
