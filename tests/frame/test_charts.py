"""The JSON behind a chart container."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import plotly.graph_objects as go
from django.http import JsonResponse
from django.utils import timezone

from gateway_admin.frame.charts import Column, chart_response, empty_response, hues


def body(response: JsonResponse) -> Any:
    return json.loads(response.content)


def test_it_carries_the_figure_and_the_same_numbers() -> None:
    figure = go.Figure([go.Bar(name="search", x=["2026-11-01"], y=[1.5], meta={"hue": "1"})])
    payload = body(
        chart_response(
            figure,
            columns=[Column("Day"), Column("Spend", "money", unit="USD")],
            rows=[("2026-11-01", Decimal("1.5000001"))],
            title="Spend is flat",
            source="hourly rollups",
        )
    )
    assert payload["figure"]["data"][0]["meta"] == {"hue": "1"}
    assert "template" not in payload["figure"]["layout"]
    assert payload["table"]["columns"][1] == {"label": "Spend", "unit": "USD", "numeric": True}
    assert payload["table"]["rows"][0][1] == {
        "text": "$1.50",
        "exact": "1.5000001",
        "raw": "1.5000001",
    }


def test_freshness_is_told_in_the_zone_of_the_page() -> None:
    at = datetime(2026, 11, 3, 12, tzinfo=UTC)
    with timezone.override("Asia/Kolkata"):
        payload = body(empty_response("No calls yet.", as_of=at))
    assert (payload["as_of"], payload["zone"]) == ("17:30:00", "Asia/Kolkata")
    assert payload["empty"]["text"] == "No calls yet."


def test_an_absent_value_is_not_zero() -> None:
    columns = [Column("Spend", "money"), Column("p95", "duration")]
    payload = body(chart_response({"data": []}, columns=columns, rows=[(None, None)]))
    assert [cell["text"] for cell in payload["table"]["rows"][0]] == ["unpriced", "–"]
    assert [cell["raw"] for cell in payload["table"]["rows"][0]] == ["", ""]


def test_entities_keep_their_hue_and_other_is_grey() -> None:
    names = [f"team-{index}" for index in range(9)]
    found = hues([*names, "Other"])
    assert [found[name] for name in names] == ["1", "2", "3", "4", "5", "6", "7", "8", "1"]
    assert found["Other"] == "other"
