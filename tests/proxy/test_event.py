"""Events without a replica around them: fields, money, the lane."""

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from proxy.capture import Capture
from proxy.contract import UsageEventDocument
from proxy.contract.checks import check_event
from proxy.refusals import Refusal
from proxy.trace import Trace
from proxy.usage import cached_event, encode, finished_event, refused_event
from tests.proxy.answered import answered, worker_in


@pytest.fixture
async def pair(tmp_path: Path) -> tuple[Trace, Capture]:
    """Trace and capture of a request that ends well."""
    return await answered(worker_in(tmp_path))


def finished(pair: tuple[Trace, Capture]) -> UsageEventDocument:
    """Its event."""
    return finished_event(*pair, aborted=False, count_tokens=None)


def test_every_field_is_there_and_valid(pair: tuple[Trace, Capture]) -> None:
    event = json.loads(encode(finished(pair)))
    assert set(event) == set(UsageEventDocument.__annotations__)
    assert check_event(event) == event
    assert (event["status"], event["http_status"]) == ("ok", 200)
    assert event["cost"] == "0.0045000"
    assert event["unit_prices"] == {"input_token": "0.0000025", "output_token": "0.00001"}
    assert [row["bucket"] for row in event["admission"]["charged"]] == [None] * 3


@pytest.mark.parametrize("lanes", [["direct"], ["litellm"], ["direct", "litellm"]])
def test_the_lane_is_that_of_the_attempt_that_answered(
    pair: tuple[Trace, Capture], lanes: list[str]
) -> None:
    trace, _ = pair
    first = trace.attempts.pop()
    for lane in lanes:
        row = first.copy()
        row["lane"] = lane
        trace.attempts.append(row)
    trace.lane_reason = "" if lanes[-1] == "direct" else "retry"
    event = finished(pair)
    assert (event["lane"], event["lane_reason"]) == (lanes[-1], trace.lane_reason)


def test_what_no_attempt_answered(pair: tuple[Trace, Capture]) -> None:
    trace, _ = pair
    trace.attempts.clear()
    refused = refused_event(trace, Refusal(404, "no_model", "There is no such model."))
    assert (refused["status"], refused["overhead_ms"], refused["cost"]) == ("refused", None, "0")
    cached = cached_event(trace, model="chat", deployment="d", saved_cost="0.01")
    assert (cached["why"], cached["deployment"], cached["saved_cost"]) == ("cache", "d", "0.01")


def test_units_beside_tokens_and_no_price(pair: tuple[Trace, Capture]) -> None:
    trace, capture = pair
    assert trace.snapshot is not None
    assert capture.usage is not None
    capture.usage.other_units["image"] = Decimal(2)
    rows = {key: replace(row, price=None) for key, row in trace.snapshot.deployments.items()}
    trace.snapshot = replace(trace.snapshot, deployments=rows)
    event = finished(pair)
    assert event["other_units"] == {"image": "2"}
    assert (event["cost"], event["price_version"], event["unit_prices"]) == (None, None, {})
