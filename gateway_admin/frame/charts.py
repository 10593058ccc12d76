"""What a `{% chart %}` container loads: a figure, its numbers as a table, freshness."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from django.http import JsonResponse
from django.utils import timezone

from . import formats

HUES = 8
OTHER = "Other"


@dataclass(frozen=True)
class Column:
    """A column of the table beneath a chart.

    `kind`: text, time, money, money_exact, count, compact, duration or percent. `unit` stands in
    the header of the CSV, for example "USD" or "ms".
    """

    label: str
    kind: str = "text"
    unit: str = ""


def hues(names: Sequence[str]) -> dict[str, str]:
    """A data hue per entity, in the given order; "Other" is grey. For `meta={"hue": …}`.

    Give the same order to every chart of a page, so that an entity keeps its colour.
    """
    real = [name for name in names if name != OTHER]
    found = {name: str(index % HUES + 1) for index, name in enumerate(real)}
    return {**found, OTHER: "other"}


def chart_response(
    figure: Any,
    *,
    columns: Sequence[Column],
    rows: Sequence[Sequence[Any]],
    title: str = "",
    lead: str = "",
    as_of: datetime | None = None,
    source: str = "",
) -> JsonResponse:
    """A Plotly figure (object or mapping) and the table of the same numbers.

    Colours, fonts, margins and legend come from the page's theme: a trace says only
    `meta={"hue": "1"…"8" | "other" | "ok" | "warn" | "bad"}` and `meta={"strong": True}`.
    """
    document = figure if isinstance(figure, Mapping) else json.loads(figure.to_json())
    layout = {key: value for key, value in document.get("layout", {}).items() if key != "template"}
    return JsonResponse(
        {
            "title": title,
            "lead": lead,
            "figure": {"data": document["data"], "layout": layout},
            "table": table_of(columns, rows),
            **_freshness(as_of, source),
        }
    )


def empty_response(
    text: str,
    *,
    action: str = "",
    url: str = "",
    as_of: datetime | None = None,
    source: str = "",
) -> JsonResponse:
    """A chart without data: the sentence that says how to get some, and where."""
    return JsonResponse(
        {"empty": {"text": text, "action": action, "url": url}, **_freshness(as_of, source)}
    )


def table_of(columns: Sequence[Column], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Rows as the page writes them, with exact values for hover and CSV."""
    return {
        "columns": [
            {
                "label": column.label,
                "unit": column.unit,
                "numeric": column.kind not in {"text", "time"},
            }
            for column in columns
        ],
        "rows": [
            [_cell(column, value) for column, value in zip(columns, row, strict=True)]
            for row in rows
        ],
    }


def _cell(column: Column, value: Any) -> dict[str, str]:
    if column.kind == "time" and isinstance(value, datetime):
        local = timezone.localtime(value)
        return {"text": f"{local:%Y-%m-%d %H:%M}", "exact": "", "raw": local.isoformat()}
    if isinstance(value, date) or column.kind in {"text", "time"}:
        return {"text": str(value), "exact": "", "raw": str(value)}
    text = getattr(formats, column.kind)(value)
    return {"text": text, "exact": formats.exact(value), "raw": _raw(value)}


def _raw(value: formats.Number | None) -> str:
    if value is None:
        return ""
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def _freshness(as_of: datetime | None, source: str) -> dict[str, str]:
    local = timezone.localtime(as_of)
    return {
        "as_of": f"{local:%H:%M:%S}",
        "zone": timezone.get_current_timezone_name(),
        "source": source,
    }
