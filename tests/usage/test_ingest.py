"""Batches reach the ledger exactly once, and the rollups equal it."""

import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import Error, connection, transaction
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway_admin.usage.models import UsageEvent
from tests import builders
from tests.bench.events import Mix
from tests.usage.ledger import assert_rollups_hold, rows, take_in, usage_event

pytestmark = pytest.mark.django_db


def test_it_stores_every_field() -> None:
    event = usage_event(
        customer="acme",
        tags={"app": "chat", "note": "tab\there, line\nbreak, back\\slash, snow ☃"},
        cost="0.000000123456789",
        error="said \\N and\ttabs",
        team_id="22222222-2222-4222-8222-222222222222",
        user_id="7",
        lane_reason="parameter:logit_bias",
    )
    receipt = take_in([event])
    assert receipt == {"accepted": 1, "duplicates": 0, "refused": []}
    row = UsageEvent.objects.get()
    assert str(row.event_id) == event["event_id"]
    assert row.started_at.isoformat() == event["started_at"]
    assert row.tags == event["tags"]
    assert row.error == event["error"]
    assert row.attempts == event["attempts"]
    assert row.unit_prices == event["unit_prices"]
    assert row.cost == Decimal("0.000000123456789")
    assert (row.customer, row.user_id, row.streaming) == ("acme", 7, True)
    assert (row.lane, row.lane_reason) == ("litellm", "parameter:logit_bias")


def test_it_takes_events_of_workers_that_know_no_lanes() -> None:
    event: Any = usage_event()
    del event["lane"]
    take_in([event])
    row = UsageEvent.objects.get()
    assert (row.lane, row.lane_reason) == ("", "")


def test_it_changes_nothing_when_a_batch_is_replayed() -> None:
    events = Mix(keys=20, teams=3).batch(200, now=datetime.now(UTC), spread_s=7_200)
    take_in(events)
    assert take_in(events) == {"accepted": 0, "duplicates": 200, "refused": []}
    assert take_in([*events, *events])["duplicates"] == 400
    assert_rollups_hold(events)


def test_it_counts_a_duplicate_within_one_batch_once() -> None:
    event = usage_event()
    assert take_in([event, event, event]) == {"accepted": 1, "duplicates": 2, "refused": []}
    assert_rollups_hold([event])


@given(st.lists(st.lists(st.integers(0, 30), max_size=40), min_size=1, max_size=5))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_rollups_equal_the_ledger_however_batches_overlap(batches: list[list[int]]) -> None:
    pool = Mix(keys=6, teams=2, seed=5).batch(31, now=datetime.now(UTC), spread_s=90_000)
    for number, event in enumerate(pool):
        if number % 5 == 0:
            event["cost"] = None
        if number % 7 == 0:
            event["why"], event["estimated"] = "fallback", True
    with transaction.atomic():
        for batch in batches:
            take_in([pool[number] for number in batch])
        assert_rollups_hold([pool[number] for batch in batches for number in batch])
        transaction.set_rollback(True)


@pytest.mark.django_db(transaction=True)
def test_it_counts_once_when_the_same_batch_arrives_twice_at_once() -> None:
    environment = builders.environment()
    events = Mix(keys=30, teams=3).batch(600, now=datetime.now(UTC), spread_s=7_200)
    receipts: list[Any] = []
    barrier = threading.Barrier(4)

    def deliver(order: int) -> None:
        try:
            barrier.wait()
            for start in range(0, 600, 200):
                part = events[start : start + 200]
                receipts.append(take_in(part[::order], environment))
        finally:
            connection.close()

    threads = [threading.Thread(target=deliver, args=(order,)) for order in (1, -1, 1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(receipts) == 12
    assert sum(receipt["accepted"] for receipt in receipts) == 600
    assert_rollups_hold(events)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"event_id": "not one"}, "event_id is not a UUID"),
    ({"key_id": "not one"}, "wrong type"),
    ({"status": "fine"}, "unknown status"),
    ({"input_tokens": -1}, "input_tokens is not a count"),
    ({"cost": 0.5}, "cost is not a decimal string"),
    ({"cost": "NaN"}, "cost is not a decimal string"),
    ({"cost": "-1"}, "cost is negative"),
    ({"cost": "1e9"}, "beyond a million dollars"),
    ({"cost": "1e-99"}, "finer than 30 decimals"),
    ({"user_id": "owner@example.com"}, "user_id"),
    ({"latency_ms": float("nan")}, "latency_ms"),
    ({"ttft_ms": -1.0}, "ttft_ms"),
    ({"tags": ["a"]}, "expected dict"),
    ({"tags": {"a": float("inf")}}, "wrong type"),
    ({"attempts": {}}, "expected list"),
    ({"attempts": [{}] * 101}, "more than 100 attempts"),
    ({"streaming": "yes"}, "streaming is neither true nor false"),
    ({"http_status": 10_000}, "http_status"),
    ({"revision": 2**40}, "revision"),
    ({"model": None}, "wrong type"),
    ({"lane_reason": 7}, "lane_reason is no text"),
    ({"started_at": "2026-11-20T10:00:00"}, "no time zone"),
]


@pytest.mark.parametrize(("fault", "reason"), BAD, ids=[str(fault)[:40] for fault, _ in BAD])
def test_it_refuses_a_bad_event_and_keeps_the_rest(fault: dict[str, Any], reason: str) -> None:
    good, bad = usage_event(), usage_event(**fault)
    receipt = take_in([bad, good])
    assert receipt["accepted"] == 1
    (refused,) = receipt["refused"]
    assert reason in refused["reason"]
    assert_rollups_hold([good])


@pytest.mark.parametrize("thing", [None, 7, "text", [], {}])
def test_it_refuses_what_is_no_event(thing: Any) -> None:
    receipt = take_in([thing, usage_event()])
    assert (receipt["accepted"], len(receipt["refused"])) == (1, 1)


def test_it_replaces_text_that_the_database_cannot_hold() -> None:
    event = usage_event(
        customer="a\0b\ud800",
        error="cut\0",
        tags={"k\0": ["\udfff", "ü"]},
        attempts=[{"error": "x\0y"}],
    )
    assert take_in([event])["accepted"] == 1
    row = UsageEvent.objects.get()
    assert row.customer == "a\ufffdb?"
    assert row.tags == {"k\ufffd": ["?", "ü"]}
    assert row.attempts == [{"error": "x\ufffdy"}]


def test_it_cuts_names_that_an_index_could_not_take() -> None:
    take_in([usage_event(customer="c" * 9_000, requested_model="m" * 9_000, lane_reason="r" * 999)])
    row = UsageEvent.objects.get()
    assert (len(row.customer), len(row.requested_model), len(row.lane_reason)) == (200, 200, 100)


def test_it_refuses_events_beyond_the_accepted_age_and_from_the_future() -> None:
    now = timezone.now()
    edge = usage_event(started_at=(now - timedelta(days=29, hours=23)).isoformat())
    old = usage_event(started_at=(now - timedelta(days=30, minutes=1)).isoformat())
    future = usage_event(started_at=(now + timedelta(hours=25)).isoformat())
    receipt = take_in([edge, old, future])
    assert receipt["accepted"] == 1
    assert [refused["reason"][:16] for refused in receipt["refused"]] == [
        "too old: started",
        "started in the f",
    ]
    assert_rollups_hold([edge])


def test_unknown_names_share_one_series() -> None:
    take_in(
        usage_event(
            model=name, requested_model=name, status="refused", error_class="not_found", cost=None
        )
        for name in ("gtp-4o", "gpt4", "typo")
    )
    assert rows("SELECT count(*) FROM usage_series WHERE level = 0") == [(1,)]
    assert rows("SELECT unpriced FROM usage_cost_day WHERE level = 2") == [(0,)]


def test_it_notes_the_use_of_keys_and_credentials(people: Any) -> None:
    key, _ = builders.key(people.owner, team=people.search)
    working, refused = builders.deployment(), builders.deployment()
    at = timezone.now().isoformat()
    take_in(
        [
            usage_event(key_id=str(key.pk), deployment=str(working.pk), started_at=at),
            usage_event(
                status="error",
                error_class="authentication",
                started_at=at,
                attempts=[
                    {
                        "deployment": str(refused.pk),
                        "error_class": "authentication",
                        "error": "Incorrect API key",
                    }
                ],
            ),
        ]
    )
    key.refresh_from_db()
    working.credential.refresh_from_db()
    refused.credential.refresh_from_db()
    assert key.last_used_at is not None
    assert working.credential.last_success_at is not None
    assert refused.credential.last_error == "Incorrect API key"
    assert UsageEvent.objects.get(deployment_id=working.pk).provider_id == working.provider_id


@pytest.mark.parametrize("write", ["UPDATE usage_event SET cost = 0", "DELETE FROM usage_event"])
def test_the_ledger_is_append_only(write: str) -> None:
    take_in([usage_event()])
    with pytest.raises(Error, match="appended, never changed"), transaction.atomic():
        rows(write)
