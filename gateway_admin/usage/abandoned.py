"""Accounting for requests whose worker ended before they did.

A hold that nobody renews is moved to a list by whichever worker notices. Each is accounted
for, once:

- Its event is in the ledger and was settled in the present counters: then the settlement was
  lost with the worker, and is made up for.
- Its event is in the ledger otherwise: ingest has charged it already; nothing is left to do.
- There is no event after a grace, within which its worker may have started again and delivered
  its spool: one of status "abandoned" is appended, at the cost of the request's input
  as it was estimated when the request was admitted; ingest charges it.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings

from gateway_admin.catalog.models import Environment
from gateway_admin.usage import charging, counter_store
from gateway_admin.usage.counter_store import Delta
from gateway_admin.usage.models import CounterState, UsageEvent
from gateway_admin.usage.services import ingest
from proxy.contract import HoldDocument, UsageEventDocument
from proxy.contract.counters import dollars, nano_dollars

log = structlog.get_logger(__name__)

MOST_AT_ONCE = 5_000
SLACK = timedelta(hours=1)


@dataclass(frozen=True)
class Accounted:
    """How many holds were made up for, booked as abandoned, found charged, unreadable."""

    settled: int = 0
    booked: int = 0
    charged: int = 0
    unreadable: int = 0
    waiting: int = 0


def abandoned_account(*, environment: Environment) -> Accounted:
    """Account for the abandoned holds. CountersAway without Redis.

    Where there is an event nothing is waited for; where there is none, the grace.
    """
    with charging.only_builder(environment.pk):  # a rebuild would change what to charge
        epoch = counter_store.epoch_of(environment.slug) or ""
        now_ms = counter_store.server().now.timestamp() * 1000
        due_ms = now_ms - settings.ABANDONED_GRACE_S * 1000
        texts = counter_store.abandoned(environment.slug, most=MOST_AT_ONCE)
        holds = {text: hold for text in texts if (hold := _read(text)) is not None}
        events = _events_of(environment, holds.values())
        counts = dict.fromkeys(("settled", "booked", "charged", "unreadable"), 0)
        for text in texts:
            hold = holds.get(text)
            event = events.get(UUID(hold["id"])) if hold is not None else None
            if hold is None:
                log.error("abandoned_hold_unreadable", hold=text[:200])
                counter_store.account(environment.slug, hold=text, epoch="", charges=[])
                counts["unreadable"] += 1
            elif event is not None:
                counts[_settle(environment, text, event, epoch)] += 1
            elif hold["expires_ms"] <= due_ms:
                counts[_book(environment, hold, text, epoch)] += 1
        waiting = counter_store.abandoned_count(environment.slug)
    CounterState.objects.filter(pk=environment.pk).update(abandoned=waiting)
    if any(counts.values()):
        log.warning("abandoned_holds", environment=environment.slug, **counts)
    return Accounted(**counts, waiting=waiting)


def _settle(environment: Environment, text: str, event: UsageEvent, epoch: str) -> str:
    """The request's event is in the ledger; its settlement may be lost."""
    charges = _lost_charges(event, epoch)
    counter_store.account(environment.slug, hold=text, epoch=epoch, charges=charges)
    return "settled" if charges else "charged"


def _book(environment: Environment, hold: HoldDocument, text: str, epoch: str) -> str:
    """Nobody will tell any more what became of it."""
    receipt = ingest(
        environment=environment,
        replica=None,
        batch={"replica_id": "", "batch_id": "", "events": [_abandoned_event(hold)]},
    )
    for refused in receipt["refused"]:
        log.error("abandoned_event_refused", event=hold["id"], reason=refused["reason"])
    if not receipt["accepted"] and not receipt["refused"]:  # it came at this very moment
        event = _events_of(environment, [hold]).get(UUID(hold["id"]))
        if event is not None:
            return _settle(environment, text, event, epoch)
    counter_store.account(environment.slug, hold=text, epoch="", charges=[])
    if receipt["refused"]:
        return "unreadable"
    return "booked" if receipt["accepted"] else "charged"


def _events_of(environment: Environment, holds: Collection[HoldDocument]) -> dict[UUID, UsageEvent]:
    if not holds:
        return {}
    times = [datetime.fromisoformat(hold["event"]["started_at"]) for hold in holds]
    events = UsageEvent.objects.filter(
        event_id__in=[hold["id"] for hold in holds],
        environment_id=environment.pk,
        started_at__range=(min(times) - SLACK, max(times) + SLACK),  # spares other partitions
    ).only("event_id", "admission", "counter_epoch", "charged", "cost")
    return {event.event_id: event for event in events}


def _lost_charges(event: UsageEvent, epoch: str) -> list[Delta]:
    """What the settlement of an event had to add; nothing where ingest has charged it."""
    if event.admission != "shared" or event.counter_epoch != epoch or not event.cost:
        return []
    nano = nano_dollars(event.cost)
    return [Delta(counter, bucket, epoch, nano) for counter, bucket in event.charged.items()]


def _read(text: str) -> HoldDocument | None:
    """The hold, if it has what accounting needs."""
    try:
        hold: HoldDocument = json.loads(text)
        UUID(hold["id"])
        datetime.fromisoformat(hold["event"]["started_at"]).utcoffset()
        if isinstance(hold["expires_ms"], int) and isinstance(hold["abandon_nano"], int):
            return hold
    except (ValueError, TypeError, KeyError):
        return None
    return None


def _abandoned_event(hold: HoldDocument) -> UsageEventDocument:
    """What can be said of a request that nobody told the end of."""
    cost = dollars(hold["abandon_nano"])
    event: dict[str, Any] = {
        **_nothing_known(),
        **hold["event"],
        "event_id": hold["id"],
        "status": "abandoned",
        "http_status": 0,
        "error_class": "internal",
        "error": "The process that served the request ended before the request did.",
        "cost": f"{cost:f}",
        "estimated": True,
        "admission": {
            "mode": "local",
            "epoch": "",
            "charged": _charged(hold) if cost > Decimal(0) else [],
        },
    }
    document: UsageEventDocument = event  # type: ignore[assignment]
    return document


def _charged(hold: HoldDocument) -> list[dict[str, Any]]:
    """The counters of the target that was called; what others held is given back."""
    return [
        {"counter": counter, "bucket": bucket}
        for counter, _, bucket, *belongs in hold["budgets"]
        if belongs != [0]  # an earlier version did not say
    ]


def _nothing_known() -> dict[str, Any]:
    return {
        "started_at": "",
        "revision": None,
        "key_id": "00000000-0000-0000-0000-000000000000",
        "public_id": "",
        "user_id": None,
        "team_id": None,
        "customer": "",
        "tags": {},
        "route": "",
        "requested_model": "",
        "model": "",
        "deployment": None,
        "why": "first",
        "input_tokens": 0,
        "output_tokens": 0,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
        "reasoning_tokens": 0,
        "other_units": {},
        "price_version": None,
        "unit_prices": {},
        "streaming": False,
        "latency_ms": 0.0,
        "ttft_ms": None,
        "overhead_ms": None,
        "attempts": [],
        "lane": "",
        "lane_reason": "",
    }
