"""Refuses documents that do not have the shape this schema version promises."""

import re
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any
from uuid import UUID

from proxy.contract.documents import (
    ADMISSION_MODES,
    EVENT_STATUSES,
    LANES,
    PRICE_UNITS,
    SCHEMA_VERSION,
    RevisionDocument,
    UsageEventDocument,
)

MAX_CHARGED = 64  # counters that one request may be charged to
MAX_COUNTER_LENGTH = 200
_COUNTER = re.compile(r"[\w.@*-]+:[\w.@*-]+:[\w.-]+", re.ASCII)


class ContractError(ValueError):
    """A document does not have the shape that this schema version promises."""


def check_document(document: Any) -> RevisionDocument:
    """Return the document if its references hold, else raise ContractError naming the fault."""
    if not isinstance(document, dict) or document.get("schema") != SCHEMA_VERSION:
        found = document.get("schema") if isinstance(document, dict) else type(document).__name__
        raise ContractError(f"schema {found!r} is not {SCHEMA_VERSION}: upgrade the replica first")
    for part in ("environment", "models", "aliases", "credentials", "deployments", "chains"):
        if part not in document:
            raise ContractError(f"document has no {part!r}")
    models = {model["name"] for model in document["models"]}
    credentials = {credential["id"] for credential in document["credentials"]}
    for model in document["models"]:
        _check_lane(model.get("lane", "auto"), f"model {model['name']!r}")
    for deployment in document["deployments"]:
        _check_deployment(deployment, models, credentials)
    for alias, target in document["aliases"].items():
        if target not in models:
            raise ContractError(f"alias {alias!r} points to the unknown model {target!r}")
    for chain in document["chains"]:
        for name in (chain["model"], *chain["targets"]):
            if name not in models:
                raise ContractError(f"fallback chain names the unknown model {name!r}")
    return document  # type: ignore[return-value]


def _check_deployment(deployment: Any, models: set[str], credentials: set[str]) -> None:
    name = deployment.get("name") or deployment.get("id")
    if deployment["model"] not in models:
        raise ContractError(f"deployment {name!r} serves the unknown model {deployment['model']!r}")
    if deployment["credential"] is not None and deployment["credential"] not in credentials:
        raise ContractError(f"deployment {name!r} names an unknown credential")
    _check_lane(deployment.get("lane", "auto"), f"deployment {name!r}")
    price = deployment["price"]
    for unit, amount in (price["units"] if price else {}).items():
        if unit not in PRICE_UNITS:
            raise ContractError(f"deployment {name!r} has a price per unknown unit {unit!r}")
        _decimal(amount, f"price per {unit} of deployment {name!r}")


def _check_lane(lane: Any, what: str) -> None:
    if lane not in LANES:
        raise ContractError(f"{what} has the unknown lane {lane!r}")


_EVENT_COUNTS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)


def check_event(event: Any) -> UsageEventDocument:
    """Return the event if it can be stored, else raise ContractError with the reason."""
    if not isinstance(event, dict):
        raise ContractError("event is not an object")
    missing = [
        name
        for name in UsageEventDocument.__required_keys__
        if name not in event  # NotRequired fields may be absent
    ]
    if missing:
        raise ContractError(f"event lacks {', '.join(sorted(missing))}")
    _uuid(event["event_id"], "event_id")
    _aware_time(event["started_at"], "started_at")
    if event["status"] not in EVENT_STATUSES:
        raise ContractError(f"unknown status {event['status']!r}")
    for name in _EVENT_COUNTS:
        value = event[name]
        if type(value) is not int or not 0 <= value < 2**31:
            raise ContractError(f"{name} is not a count")
    if event["cost"] is not None and _decimal(event["cost"], "cost") < 0:
        raise ContractError("cost is negative")
    if event.get("saved_cost") is not None and _decimal(event["saved_cost"], "saved_cost") < 0:
        raise ContractError("saved_cost is negative")
    if event.get("admission") is not None:
        _check_admission(event["admission"])
    if not isinstance(event.get("lane_reason", ""), str):
        raise ContractError("lane_reason is no text")
    latency = event["latency_ms"]
    if type(latency) not in (int, float) or not 0 <= latency < 86_400_000:
        raise ContractError("latency_ms is not a duration below one day")
    return event  # type: ignore[return-value]


def _check_admission(admission: Any) -> None:
    if not isinstance(admission, dict) or admission.get("mode") not in ADMISSION_MODES:
        raise ContractError("admission has no known mode")
    charged = admission.get("charged")
    if not isinstance(admission.get("epoch"), str) or not isinstance(charged, list):
        raise ContractError("admission lacks its epoch or its charged counters")
    if len(charged) > MAX_CHARGED:
        raise ContractError(f"admission charges more than {MAX_CHARGED} counters")
    for pair in charged:
        name = pair.get("counter") if isinstance(pair, dict) else None
        if not isinstance(name, str) or not _is_counter(name):
            raise ContractError("admission charges something that is no counter")
        bucket = pair.get("bucket")
        if bucket is not None and (type(bucket) is not int or not 0 <= bucket < 2**53):
            raise ContractError("admission charges a bucket that is no number")


@lru_cache(maxsize=65_536)
def _is_counter(name: str) -> bool:
    """ "<budget id>:<subject>:<period id>", nothing that JSON would escape; they recur."""
    return len(name) <= MAX_COUNTER_LENGTH and _COUNTER.fullmatch(name) is not None


def _decimal(text: Any, what: str) -> Decimal:
    try:
        amount = Decimal(text) if isinstance(text, str) else None
    except InvalidOperation:
        amount = None
    if amount is None or not amount.is_finite():
        raise ContractError(f"{what} is not a decimal string")
    return amount


def _uuid(text: Any, what: str) -> None:
    try:
        UUID(text)
    except (ValueError, TypeError, AttributeError) as error:
        raise ContractError(f"{what} is not a UUID") from error


def _aware_time(text: Any, what: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except (ValueError, TypeError) as error:
        raise ContractError(f"{what} is not an RFC 3339 time") from error
    if moment.tzinfo is None:
        raise ContractError(f"{what} has no time zone")
    return moment
