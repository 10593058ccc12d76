"""Accounting for requests whose worker ended before they did.

A hold that nobody renews is moved to a list by whichever worker notices. After a grace (its
worker may be starting again and deliver its spool), each is accounted for, once:

- Its event is in the ledger and was settled in the present counters: then the settlement was
  lost with the worker, and is made up for.
- Its event is in the ledger otherwise: ingest has charged it already; nothing is left to do.
- There is no event: one of status "abandoned" is appended, at the cost of the request's input
  as it was estimated when the request was admitted; ingest charges it.
"""

import json
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
CLOCKS_APART = timedelta(days=1)  # a hold's expiry and its request's start lie closer


@dataclass(frozen=True)
class Accounted:
    """How many holds were made up for, booked as abandoned, found charged, unreadable."""

    settled: int = 0
    booked: int = 0
    charged: int = 0
    unreadable: int = 0
    waiting: int = 0


def abandoned_account(*, environment: Environment) -> Accounted:
    """Account for the abandoned holds that are past their grace. CountersAway without Redis."""
    with charging.only_builder(environment.pk):  # a rebuild would change what to charge
        epoch = counter_store.epoch_of(environment.slug) or ""
        now_ms = counter_store.server().now.timestamp() * 1000
        due_ms = now_ms - settings.ABANDONED_GRACE_S * 1000
        counts = dict.fromkeys(("settled", "booked", "charged", "unreadable"), 0)
        for text in counter_store.abandoned(environment.slug, most=MOST_AT_ONCE):
            hold = _read(text)
            if hold is None:
                log.error("abandoned_hold_unreadable", hold=text[:200])
                counter_store.account(environment.slug, hold=text, epoch="", charges=[])
                counts["unreadable"] += 1
            elif hold["expires_ms"] <= due_ms:
                counts[_account(environment, hold, text, epoch)] += 1
        waiting = counter_store.abandoned_count(environment.slug)
    CounterState.objects.filter(pk=environment.pk).update(abandoned=waiting)
    if any(counts.values()):
        log.warning("abandoned_holds", environment=environment.slug, **counts)
    return Accounted(**counts, waiting=waiting)


def _account(environment: Environment, hold: HoldDocument, text: str, epoch: str) -> str:
    found = _event_of(environment, hold)
    if found is None:
        receipt = ingest(
            environment=environment,
            replica=None,
            batch={"replica_id": "", "batch_id": "", "events": [_abandoned_event(hold)]},
        )
        for refused in receipt["refused"]:
            log.error("abandoned_event_refused", event=hold["id"], reason=refused["reason"])
        if receipt["accepted"] or receipt["refused"]:
            counter_store.account(environment.slug, hold=text, epoch="", charges=[])
            return "unreadable" if receipt["refused"] else "booked"
        found = _event_of(environment, hold)  # it came at this very moment
    charges = _lost_charges(found, epoch) if found is not None else []
    counter_store.account(environment.slug, hold=text, epoch=epoch, charges=charges)
    return "settled" if charges else "charged"


def _event_of(environment: Environment, hold: HoldDocument) -> UsageEvent | None:
    at = datetime.fromisoformat(hold["event"]["started_at"])
    return UsageEvent.objects.filter(
        event_id=hold["id"],
        environment_id=environment.pk,
        started_at__gte=at - CLOCKS_APART,
        started_at__lt=at + CLOCKS_APART,
    ).first()


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
    return [{"counter": counter, "bucket": bucket} for counter, _, bucket in hold["budgets"]]


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
    }
