"""The Requests page: the log, one request in detail, and how its cost came about."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from gateway_admin.dashboards.words import UNIT_WORDS
from gateway_admin.usage.event_queries import FALLBACK_REASONS
from gateway_admin.usage.labels import Labels, all_labels, labels_of
from gateway_admin.usage.lanes import lane_name, lane_of
from gateway_admin.usage.models import UsageEvent


@dataclass(frozen=True)
class LogRow:
    event: UsageEvent
    key: str
    team: str
    deployment: str

    @property
    def is_fallback(self) -> bool:
        return self.event.why in FALLBACK_REASONS

    @property
    def error_words(self) -> str:
        return self.event.error_class.replace("_", " ")

    @property
    def lane(self) -> str:
        return lane_name(lane_of(self.event))


def log_rows(events: Iterable[UsageEvent]) -> list[LogRow]:
    """Events with the names of what they mention. Three queries."""
    events = list(events)
    keys = labels_of("key", (event.key_id for event in events))
    teams = labels_of("team", (event.team_id for event in events))
    deployments = labels_of("deployment", (event.deployment_id for event in events))
    return [
        LogRow(
            event,
            keys.name(event.key_id),
            teams.name(event.team_id),
            deployments.name(event.deployment_id),
        )
        for event in events
    ]


NAMED_KINDS = ("key", "team", "user", "deployment", "provider")
CSV_COLUMNS = tuple(
    """event_id started_at environment key_id key public_id team user customer route
    requested_model model deployment provider why status http_status error_class error
    input_tokens output_tokens cache_read_tokens cache_write_tokens reasoning_tokens cost_usd
    estimated streaming latency_ms ttft_ms overhead_ms attempts revision
    price_version saved_cost_usd admission lane
    lane_reason""".split()  # noqa: SIM905 (a list would take 36 lines)
)


def csv_rows(events: QuerySet[UsageEvent], environment: str) -> Iterator[list[Any]]:
    """All matching events, newest first, through a server-side cursor: memory stays flat."""
    names = {kind: all_labels(kind) for kind in NAMED_KINDS}
    with transaction.atomic():  # a cursor of a transaction need not be materialised first
        for event in events.order_by("-started_at", "-event_id").iterator(chunk_size=2_000):
            yield _csv_row(event, names, environment)


def _csv_row(event: UsageEvent, names: dict[str, Labels], environment: str) -> list[Any]:
    return [
        event.event_id,
        event.started_at.astimezone(UTC).isoformat(),
        environment,
        event.key_id,
        names["key"].name(event.key_id),
        event.public_id,
        names["team"].name(event.team_id),
        names["user"].name(event.user_id),
        event.customer,
        event.route,
        event.requested_model,
        event.model,
        names["deployment"].name(event.deployment_id),
        names["provider"].name(event.provider_id),
        event.why,
        event.status,
        event.http_status,
        event.error_class,
        event.error,
        event.input_tokens,
        event.output_tokens,
        event.cache_read_tokens,
        event.cache_write_tokens,
        event.reasoning_tokens,
        "" if event.cost is None else f"{event.cost:f}",
        event.estimated,
        event.streaming,
        event.latency_ms,
        event.ttft_ms,
        event.overhead_ms,
        len(event.attempts),
        event.revision,
        event.price_version,
        "" if event.saved_cost is None else f"{event.saved_cost:f}",
        event.admission,
        lane_of(event),
        event.lane_reason,
    ]


@dataclass(frozen=True)
class CostPart:
    """A quantity at a unit price; `price` None: this unit has none."""

    words: str
    quantity: Decimal
    price: Decimal | None
    per_million: bool

    @property
    def amount(self) -> Decimal | None:
        return None if self.price is None else self.quantity * self.price

    @property
    def quoted(self) -> Decimal | None:
        """The price as it is quoted: of a million tokens, or of one of anything else."""
        return self.price * 1_000_000 if self.price is not None and self.per_million else self.price

    @property
    def quoted_text(self) -> str:
        if self.quoted is None:
            return ""
        return exact_money(self.quoted)

    @property
    def amount_text(self) -> str:
        return "no price" if self.amount is None else exact_money(self.amount)


def exact_money(amount: Decimal) -> str:
    """All digits, at least two after the point: `$0.00010755`, so that sums can be checked."""
    whole, _, digits = f"{amount.normalize():f}".partition(".")
    return f"${int(whole):,}.{digits.ljust(2, '0')}"


def cost_parts(event: UsageEvent) -> list[CostPart]:
    """How the cost came about at the unit prices that were in force.

    Cached and reasoning tokens have their own price where one is published; otherwise they
    are part of plain input and output, as the meter at the gateway counts them.
    """
    prices = {unit: Decimal(price) for unit, price in event.unit_prices.items()}
    other = {unit: Decimal(str(count)) for unit, count in event.other_units.items()}
    own = {
        "cache_read_token": Decimal(event.cache_read_tokens),
        "cache_write_token": Decimal(event.cache_write_tokens),
        "input_audio_token": other.pop("input_audio_token", Decimal(0)),
        "reasoning_token": Decimal(event.reasoning_tokens),
        "output_audio_token": other.pop("output_audio_token", Decimal(0)),
    }
    own = {unit: count for unit, count in own.items() if unit in prices}
    inputs = sum((own.get(unit, Decimal(0)) for unit in _OF_INPUT), Decimal(0))
    outputs = sum((own.get(unit, Decimal(0)) for unit in _OF_OUTPUT), Decimal(0))
    counts = {
        "input_token": max(Decimal(event.input_tokens) - inputs, Decimal(0)),
        "output_token": max(Decimal(event.output_tokens) - outputs, Decimal(0)),
        **own,
        **other,
    }
    if "request" in prices:
        counts["request"] = Decimal(1)
    return [
        CostPart(words, counts[unit], prices.get(unit), unit.endswith("_token"))
        for unit, words in UNIT_WORDS.items()
        if counts.get(unit)
    ]


_OF_INPUT = ("cache_read_token", "cache_write_token", "input_audio_token")
_OF_OUTPUT = ("reasoning_token", "output_audio_token")


@dataclass(frozen=True)
class AttemptBar:
    """One attempt on the timeline; `left` and `width` are hundredths of the whole request."""

    number: int
    deployment: str
    model: str
    why: str
    status: int | None
    error_class: str
    error: str
    lane: str
    latency_ms: float
    left: float
    width: float

    @property
    def state(self) -> str:
        return "failed" if self.error_class else "ok"

    @property
    def end(self) -> float:
        return self.left + self.width

    @property
    def left_text(self) -> str:
        return f"{self.left:.2f}"

    @property
    def width_text(self) -> str:
        return f"{self.width:.2f}"

    @property
    def why_words(self) -> str:
        return self.why.replace("_", " ")

    @property
    def error_words(self) -> str:
        return self.error_class.replace("_", " ")


def attempt_bars(event: UsageEvent) -> list[AttemptBar]:
    """The attempts in order, placed within the request's time. Fields may be missing."""
    attempts = [attempt for attempt in event.attempts if isinstance(attempt, dict)]
    ids = [_uuid(attempt.get("deployment")) for attempt in attempts]
    labels = labels_of("deployment", ids)
    whole_ms = max(event.latency_ms, 0.001)
    return [
        AttemptBar(
            number=number,
            deployment=labels.name(deployment_id),
            model=str(attempt.get("model") or ""),
            why=str(attempt.get("why") or ""),
            status=attempt.get("status"),
            error_class=str(attempt.get("error_class") or ""),
            error=str(attempt.get("error") or ""),
            lane=lane_name(str(attempt.get("lane") or "")),
            latency_ms=(latency_ms := float(attempt.get("latency_ms") or 0)),
            left=(left := min(_offset_ms(event, attempt) / whole_ms * 100, 99)),
            width=max(min(latency_ms / whole_ms * 100, 100 - left), 0.5),
        )
        for number, (attempt, deployment_id) in enumerate(zip(attempts, ids, strict=True), 1)
    ]


def _offset_ms(event: UsageEvent, attempt: dict[str, Any]) -> float:
    try:
        started_at = datetime.fromisoformat(str(attempt.get("started_at")))
        return max((started_at - event.started_at).total_seconds() * 1000, 0.0)
    except (ValueError, TypeError):
        return 0.0


def _uuid(text: Any) -> UUID | None:
    try:
        return UUID(str(text)) if text else None
    except ValueError:
        return None
