"""Events without a replica around them: fields, money, the lane."""

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from proxy.contract import UsageEventDocument
from proxy.contract.checks import check_event
from proxy.refusals import Refusal
from proxy.usage import cached_event, encode, finished_event, refused_event
from tests.bench.events_cost import traced


def finished(**changes: Any) -> UsageEventDocument:
    """The event of an ordinary request whose trace has these changes."""
    trace, capture = traced()
    for name, value in changes.items():
        setattr(trace, name, value)
    return finished_event(trace, capture, aborted=False, count_tokens=None)


def test_every_field_is_there_and_valid() -> None:
    event = json.loads(encode(finished()))
    assert set(event) == set(UsageEventDocument.__annotations__)
    assert check_event(event) == event
    assert (event["status"], event["http_status"]) == ("ok", 200)
    assert event["cost"] == "0.0045000"
    assert event["unit_prices"] == {
        "input_token": "0.0000025", "output_token": "0.00001", "cache_read_token": "0.00000125",
    }  # fmt: skip
    assert [row["bucket"] for row in event["admission"]["charged"]] == [None] * 3


@pytest.mark.parametrize("lanes", [["direct"], ["litellm"], ["direct", "litellm"]])
def test_the_lane_is_that_of_the_attempt_that_answered(lanes: list[str]) -> None:
    (attempt,) = traced()[0].attempts
    attempts = [attempt | {"lane": lane} for lane in lanes]
    reason = "" if lanes[-1] == "direct" else "retry"
    event = finished(attempts=attempts, lane_reason=reason)
    assert (event["lane"], event["lane_reason"]) == (lanes[-1], reason)
    assert [row.get("lane") for row in event["attempts"]] == lanes


def test_what_no_attempt_answered() -> None:
    trace, _ = traced()
    trace.attempts.clear()
    refused = refused_event(trace, Refusal(404, "no_model", "There is no such model."))
    assert (refused["status"], refused["overhead_ms"], refused["cost"]) == ("refused", None, "0")
    cached = cached_event(trace, model="gpt-4o", deployment="d", saved_cost="0.01")
    assert (cached["why"], cached["deployment"], cached["saved_cost"]) == ("cache", "d", "0.01")


def test_units_beside_tokens_and_no_price() -> None:
    trace, capture = traced()
    capture.usage.other_units["image"] = Decimal(2)
    rows = {key: replace(row, price=None) for key, row in trace.snapshot.deployments.items()}
    trace.snapshot = replace(trace.snapshot, deployments=rows)
    event = finished_event(trace, capture, aborted=False, count_tokens=None)
    assert event["other_units"] == {"image": "2"}
    assert (event["cost"], event["price_version"], event["unit_prices"]) == (None, None, {})
