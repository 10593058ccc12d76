"""Tables for people, and their place in docs/performance.md."""

import statistics
from collections.abc import Callable

from tests.bench.lanes import chart
from tests.bench.lanes.bounds import judged, ratio
from tests.bench.lanes.measure import Results, Sample
from tests.bench.lanes.variants import VARIANTS, Case
from tests.proxy.replica import ROOT

DOCUMENT = ROOT / "docs" / "performance.md"
CHART = ROOT / "docs" / "performance.svg"
BEGIN, END = "<!-- bench: lanes -->", "<!-- /bench: lanes -->"


def lines(results: Results) -> list[str]:
    """Everything that was measured, as Markdown."""
    found = _bounds(results)
    for case in dict.fromkeys(case for case, _ in results.samples):
        found += ["", f"**{case.title[0].upper()}{case.title[1:]}**", ""]
        found += _case(results, case)
    found += _paced(results) + _first_token(results) + _workers(results)
    for place, why in results.left_out.items():
        found += ["", f"Left out: {place}. {why}"]
    return found


def _bounds(results: Results) -> list[str]:
    found = ["| bound | wanted | measured | |", "|---|---|---|---|"]
    for bound, value, word in judged(results):
        wanted = f"≥ {bound.limit:g} x" if bound.unit == "x" else f"≤ {bound.limit:g} ms"
        told = "" if value is None else f"{value:.2f} {bound.unit}"
        found.append(f"| {bound.text} | {wanted} | {told} | {word} |")
    found += [
        "",
        f"{results.bodies:,} bodies compared, {results.events:,} events counted, "
        f"{results.errors} connections failed, {len(results.problems)} things wrong.",
    ]
    return found


def _case(results: Results, case: Case) -> list[str]:
    found = [
        "| variant | requests/s | p50 | p95 | p99 | CPU per request | core busy | memory "
        "| × LiteLLM tuned | × Portkey | less CPU than tuned |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for variant in VARIANTS:
        if (case, variant.name) not in results.samples:
            continue

        def median(figure: Callable[[Sample], float], name: str = variant.name) -> float:
            return results.median(case, name, figure) or 0.0

        sample = results.samples[case, variant.name][0]
        cells = [
            variant.title,
            f"{median(lambda s: s.figures.rate):,.0f}",
            f"{median(lambda s: s.figures.p50_ms):.2f} ms",
            f"{median(lambda s: s.figures.p95_ms):.2f} ms",
            f"{median(lambda s: s.figures.p99_ms):.2f} ms",
            "" if sample.cpu_ms is None else f"{median(lambda s: s.cpu_ms or 0.0):.3f} ms",
            "" if sample.busy is None else f"{median(lambda s: s.busy or 0.0):.0%}",
            "" if sample.memory_mb is None else f"{median(lambda s: s.memory_mb or 0.0):.0f} MB",
            _times(ratio(results, case, variant.name, "tuned")),
            _times(ratio(results, case, variant.name, "portkey")),
            _times(_less_cpu(results, case, variant.name)),
        ]
        found.append(f"| {' | '.join(cells)} |")
    return found


def _less_cpu(results: Results, case: Case, name: str) -> float | None:
    """CPU of a request of LiteLLM tuned, in those of a variant."""
    told = [
        results.median(case, which, lambda sample: sample.cpu_ms or 0.0)
        for which in ("tuned", name)
    ]
    return told[0] / told[1] if told[0] and told[1] else None


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:,.2f}" if value < 10 else f"{value:,.0f}"


def _paced(results: Results) -> list[str]:
    if not results.paced:
        return []
    found = [
        "",
        f"**Plain at a fixed rate**: 64 connections, 70% of the direct lane's own maximum just "
        f"before, {_range(results.paced_rates, ',.0f')} requests/s; {len(results.paced_rates)} "
        "rounds" + ("; provider and Valkey before the load" if results.paced_first_in_line else ""),
        "",
        "| variant | p50 | p99 | p99 of the rounds |",
        "|---|---|---|---|",
    ]
    shown = (
        ("straight to the mock", results.paced["mock"]),
        ("ours, direct lane", results.paced["direct"]),
        (
            f"a server that only computes, {results.control_cpu_ms:.2f} ms a request, at 70% of "
            "its own maximum",
            results.control,
        ),
    )
    for title, rounds in shown:
        p50 = statistics.median(told.p50_ms for told in rounds)
        tails = [told.p99_ms for told in rounds]
        p99 = statistics.median(tails)
        found.append(f"| {title} | {p50:.2f} ms | {p99:.2f} ms | {_range(tails, '.2f')} ms |")
    return found


def _range(values: list[float], form: str) -> str:
    return f"{min(values):{form}} to {max(values):{form}}"


def _first_token(results: Results) -> list[str]:
    if not results.first_token:
        return []
    found = [
        "",
        "**Time to the first token**: streams at half of each variant's own maximum rate (the "
        "mock's at that of the direct lane), 16 connections, provider 0 ms",
        "",
        "| variant | p50 | p99 |",
        "|---|---|---|",
    ]
    for variant in VARIANTS:
        rounds = results.first_token.get(variant.name)
        if rounds:
            p50 = statistics.median(told.first_p50_ms for told in rounds)
            p99 = statistics.median(told.first_p99_ms for told in rounds)
            found.append(f"| {variant.title} | {p50:.2f} ms | {p99:.2f} ms |")
    return found


def _workers(results: Results) -> list[str]:
    told = results.workers
    if not told:
        return []
    return [
        "",
        "**Two workers**, plain, provider 0 ms, each with a core; where there are fewer than four, "
        "provider, Valkey and load are on the same cores as the workers, in both rows",
        "",
        "| workers | connections | requests/s | times one | CPU per request | busier one |",
        "|---|---|---|---|---|---|",
        f"| one | 64 | {told['one rate']:,.0f} | 1 | {told['one cpu_ms']:.3f} ms | |",
        *(
            f"| two | {connections} | {told[f'{name} rate']:,.0f} | {told[f'{name} times']:.2f} | "
            f"{told[f'{name} cpu_ms']:.3f} ms | {told[f'{name} busiest']:.0%} |"
            for name, connections in (("two", 128), ("halved", 64))
        ),
    ]


def write(results: Results, header: str) -> None:
    """Put the tables between the markers of the document, and draw the chart."""
    text = DOCUMENT.read_text()
    if BEGIN not in text or END not in text:
        raise ValueError(f"{DOCUMENT.name} has lost its markers {BEGIN} and {END}")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    drawn = chart.drawn(results)
    shown = [f"![Requests per second, times LiteLLM tuned]({CHART.name})", ""] if drawn else []
    content = "\n".join([BEGIN, header, "", *shown, *lines(results), "", END])
    DOCUMENT.write_text(before + content + after)
    if drawn:
        CHART.write_text(drawn)
