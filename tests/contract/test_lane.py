"""The lane of deployments and models in a revision, and of requests in usage events."""

import copy
from typing import Any

import pytest

from proxy.contract import (
    ContractError,
    RevisionDocument,
    check_document,
    check_event,
    document_digest,
)
from proxy.snapshot import Snapshot, build_snapshot, seal
from tests.contract import golden

FLEET_KEY = bytes(range(32))


@pytest.fixture
def document() -> Any:
    return copy.deepcopy(golden.read("minimal")["document"])


def serve(document: RevisionDocument) -> Snapshot:
    secret_id = document["credentials"][0]["secret_id"]
    assert secret_id is not None
    sealed = seal(b"{}", FLEET_KEY, f"fleet:prod:{secret_id}".encode(), bytes(12))
    return build_snapshot(
        {
            "revision": 1,
            "digest": document_digest(document),
            "document": document,
            "secrets": {secret_id: sealed},
        },
        environment="prod",
        fleet_key=FLEET_KEY,
    )


def lane_served(document: RevisionDocument) -> str:
    (deployment,) = serve(document).deployments.values()
    return deployment.lane


def test_a_document_that_says_nothing_means_auto(document: Any) -> None:
    assert "lane" not in document["deployments"][0]
    assert lane_served(document) == "auto"


@pytest.mark.parametrize("part", ["deployments", "models"])
def test_deployment_or_model_may_be_told_to_stay_on_litellm(document: Any, part: str) -> None:
    document[part][0]["lane"] = "litellm"
    assert lane_served(document) == "litellm"


def test_a_deployment_cannot_leave_the_lane_of_its_model(document: Any) -> None:
    document["models"][0]["lane"] = "litellm"
    document["deployments"][0]["lane"] = "auto"
    assert lane_served(document) == "litellm"


@pytest.mark.parametrize("part", ["deployments", "models"])
@pytest.mark.parametrize("lane", ["direct", "", None, 1])
def test_an_unknown_lane_is_refused(document: Any, part: str, lane: Any) -> None:
    document[part][0]["lane"] = lane
    with pytest.raises(ContractError, match="unknown lane"):
        check_document(document)


def event() -> Any:
    texts = dict.fromkeys(["public_id", "customer", "route", "requested_model", "model"], "")
    counts = dict.fromkeys(
        [
            "input_tokens",
            "output_tokens",
            "cache_read_tokens",
            "cache_write_tokens",
            "reasoning_tokens",
        ],
        1,
    )
    absent = dict.fromkeys(
        [
            "revision",
            "user_id",
            "team_id",
            "deployment",
            "error_class",
            "error",
            "price_version",
            "cost",
            "ttft_ms",
            "overhead_ms",
        ]
    )
    return {
        **texts,
        **counts,
        **absent,
        "event_id": "00000000-0000-4000-8000-000000000001",
        "key_id": "00000000-0000-4000-8000-000000000002",
        "started_at": "2026-11-20T10:00:00+00:00",
        "tags": {},
        "why": "first",
        "status": "ok",
        "http_status": 200,
        "other_units": {},
        "unit_prices": {},
        "estimated": False,
        "streaming": False,
        "latency_ms": 1.5,
        "attempts": [],
    }


def test_events_of_older_workers_have_no_lane() -> None:
    assert check_event(event())


def test_the_reason_of_a_lane_is_a_text() -> None:
    assert check_event(event() | {"lane": "litellm", "lane_reason": "parameter:logit_bias"})
    for reason in (None, 5, ["provider"]):
        with pytest.raises(ContractError, match="lane_reason"):
            check_event(event() | {"lane_reason": reason})
