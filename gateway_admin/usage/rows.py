"""From a usage event of the contract to one line of PostgreSQL's COPY text format.

This is the hot path of ingest. An event that cannot be stored raises ContractError with
the reason; text that PostgreSQL cannot hold (NUL, lone surrogates) is replaced, and text
that is longer than a column is meant for is cut, because the money still counts.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any
from uuid import UUID

from proxy.contract import MAX_LANE_REASON, ContractError, check_event

COLUMNS = tuple(
    """event_id started_at environment_id replica_id revision key_id public_id user_id team_id
    customer tags route requested_model model deployment_id provider_id why status http_status
    error_class error input_tokens output_tokens cache_read_tokens cache_write_tokens
    reasoning_tokens other_units price_version unit_prices cost estimated streaming latency_ms
    ttft_ms overhead_ms lane lane_reason attempts saved_cost admission counter_epoch
    charged""".split()  # noqa: SIM905 (42 lines would say less)
)

NAME_LENGTH = 200  # models, customers, routes: indexed, so far below a page
ERROR_LENGTH = 2_000
MAX_ATTEMPTS = 100
MAX_JSON_LENGTH = 256 * 1024
MAX_COST_USD = Decimal(1_000_000)  # of one request; above it is a fault in pricing
SMALLEST_EXPONENT = -30  # digits after the point that a cost may have
MAX_DURATION_MS = 86_400_000
NULL = "\\N"
LONG_AGO = datetime.min.replace(tzinfo=UTC)
CREDENTIAL_REFUSALS = frozenset({"authentication", "permission", "quota"})

_ESCAPES = {92: "\\\\", 9: "\\t", 10: "\\n", 13: "\\r"}


class RowWriter:
    """Turns the events of one environment and replica to lines of COPY."""

    def __init__(
        self,
        *,
        environment_id: UUID,
        replica_id: UUID | None,
        providers: Mapping[str, str],
        oldest: datetime,
        newest: datetime,
    ) -> None:
        """`providers` maps ids of deployments to their provider's; times bound `started_at`."""
        self._place = f"{environment_id}\t{replica_id or NULL}"
        self._providers = providers
        self._oldest = oldest
        self._newest = newest
        self.keys_used: dict[str, datetime] = {}  # key -> its latest request
        self.succeeded: dict[str, datetime] = {}  # deployment -> its latest answer
        # deployment -> its latest refusal of our credential: when, error class, words
        self.failed: dict[str, tuple[datetime, str, str]] = {}

    def line(self, event: Any) -> tuple[date, bytes]:
        """The UTC day on which the event started and its line, or ContractError."""
        check_event(event)
        try:
            started_at = datetime.fromisoformat(event["started_at"]).astimezone(UTC)
            self._check_age(started_at)
            line = self._text(event, started_at).encode()
            if b"\0" in line:
                line = self._text(cleaned(event), started_at).encode()
        except UnicodeEncodeError:  # lone surrogates
            line = self._text(cleaned(event), started_at).encode()
        except (TypeError, AttributeError, ValueError, RecursionError) as error:
            if isinstance(error, ContractError):
                raise
            raise ContractError(f"a field has the wrong type: {error}") from error
        self._note(event, started_at)
        return started_at.date(), line

    def _note(self, event: Any, at: datetime) -> None:
        """Remember whose key and which providers' credentials were used."""
        key_id, deployment = _uuid(event["key_id"]), event["deployment"]
        if at > self.keys_used.get(key_id, LONG_AGO):
            self.keys_used[key_id] = at
        if event["status"] == "ok" and deployment is not None:
            deployment_id = _uuid(deployment)
            if at > self.succeeded.get(deployment_id, LONG_AGO):
                self.succeeded[deployment_id] = at
        if event["status"] == "error" or len(event["attempts"]) > 1:
            self._note_refusals(event["attempts"], at)

    def _note_refusals(self, attempts: Any, at: datetime) -> None:
        for attempt in attempts:
            if isinstance(attempt, dict) and attempt.get("error_class") in CREDENTIAL_REFUSALS:
                try:
                    deployment_id = _uuid(attempt.get("deployment"))
                except (ValueError, TypeError, AttributeError):
                    continue  # an attempt that names no deployment of ours tells nothing
                if deployment_id not in self.failed or at > self.failed[deployment_id][0]:
                    words = cleaned(str(attempt.get("error") or ""))
                    self.failed[deployment_id] = (at, attempt["error_class"], words)

    def _check_age(self, started_at: datetime) -> None:
        if started_at < self._oldest:
            raise ContractError(
                f"too old: started before {self._oldest:%Y-%m-%d %H:%M} UTC, the accepted age"
            )
        if started_at > self._newest:
            raise ContractError("started in the future: check the clock of the replica")

    def _text(self, event: Any, started_at: datetime) -> str:
        deployment = event["deployment"]
        deployment_id = NULL if deployment is None else _uuid(deployment)
        provider_id = self._providers.get(deployment_id, NULL)
        asked = (
            str(UUID(event["event_id"])),
            started_at.isoformat(),
            self._place,
            _optional_count(event["revision"], "revision"),
            _uuid(event["key_id"]),
            _name(event["public_id"]),
            _user(event["user_id"]),
            NULL if event["team_id"] is None else _uuid(event["team_id"]),
            _name(event["customer"]),
            _json(event["tags"], dict),
            _name(event["route"]),
            _name(event["requested_model"]),
            _name(event["model"]),
            deployment_id,
            provider_id,
        )
        return "\t".join((*asked, *_outcome(event), *_consumed(event), *_served(event))) + "\n"


def _outcome(event: Any) -> tuple[str, ...]:
    return (
        _name(event["why"]),
        event["status"],
        _http_status(event["http_status"]),
        _name(event["error_class"] or ""),
        _escaped(event["error"] or "", ERROR_LENGTH),
    )


def _consumed(event: Any) -> tuple[str, ...]:
    return (
        f"{event['input_tokens']}\t{event['output_tokens']}\t{event['cache_read_tokens']}"
        f"\t{event['cache_write_tokens']}\t{event['reasoning_tokens']}",
        _json(event["other_units"], dict),
        NULL if event["price_version"] is None else _name(event["price_version"]),
        _json(event["unit_prices"], dict),
        _cost(event["cost"]),
        _flag(event["estimated"], "estimated"),
    )


def _served(event: Any) -> tuple[str, ...]:
    return (
        _flag(event["streaming"], "streaming"),
        repr(event["latency_ms"]),
        _duration(event["ttft_ms"], "ttft_ms"),
        _duration(event["overhead_ms"], "overhead_ms"),
        _name(event.get("lane") or ""),
        _escaped(event.get("lane_reason") or "", MAX_LANE_REASON),
        _attempts(event["attempts"]),
        _cost(event.get("saved_cost")),
        _admission(event.get("admission")),
    )


@lru_cache(maxsize=16_384)
def _uuid(text: str) -> str:
    """Canonical form; the ids of keys, teams and deployments recur."""
    return str(UUID(text))


def _escaped(text: str, length: int) -> str:
    return text[:length].translate(_ESCAPES)


def _name(text: str) -> str:
    return text[:NAME_LENGTH].translate(_ESCAPES)


def _json(value: Any, kind: type) -> str:
    if type(value) is not kind:
        raise ContractError(f"expected {kind.__name__}, found {type(value).__name__}")
    if not value:
        return "{}" if kind is dict else "[]"
    text = json.dumps(value, allow_nan=False)
    if "\\" in text:
        if "\\u" in text:  # NUL and lone surrogates are no text for jsonb
            text = json.dumps(cleaned(value), allow_nan=False)
        text = text.replace("\\", "\\\\")
    if len(text) > MAX_JSON_LENGTH:
        raise ContractError("tags, prices or attempts are too long")
    return text


def _attempts(value: Any) -> str:
    if type(value) is list and len(value) > MAX_ATTEMPTS:
        raise ContractError(f"more than {MAX_ATTEMPTS} attempts")
    return _json(value, list)


def _admission(value: Any) -> str:
    """Mode, epoch and charged counters, whose names have nothing to escape (`check_event`)."""
    if value is None:
        return "\t\t{}"
    charged = ",".join(
        [
            f'"{pair["counter"]}":{"null" if pair.get("bucket") is None else pair["bucket"]}'
            for pair in value["charged"]
        ]
    )
    return f"{value['mode']}\t{_name(value['epoch'])}\t{{{charged}}}"


def _user(value: str | None) -> str:
    if value is None:
        return NULL
    if not value.isdecimal() or not value.isascii() or len(value) > 18:
        raise ContractError("user_id is not the number of a person")
    return value


def _optional_count(value: int | None, what: str) -> str:
    if value is None:
        return NULL
    if type(value) is not int or not 0 <= value < 2**31:
        raise ContractError(f"{what} is not a count")
    return str(value)


def _http_status(value: int) -> str:
    if type(value) is not int or not 0 <= value < 1_000:
        raise ContractError("http_status is not an HTTP status")
    return str(value)


def _cost(value: str | None) -> str:
    if value is None:
        return NULL
    amount = Decimal(value)
    exponent = amount.as_tuple().exponent
    if amount > MAX_COST_USD or (isinstance(exponent, int) and exponent < SMALLEST_EXPONENT):
        raise ContractError("cost is beyond a million dollars or finer than 30 decimals")
    return str(amount)


def _flag(value: bool, what: str) -> str:
    if value is True:
        return "t"
    if value is False:
        return "f"
    raise ContractError(f"{what} is neither true nor false")


def _duration(value: float | None, what: str) -> str:
    if value is None:
        return NULL
    if type(value) not in (int, float) or not 0 <= value < MAX_DURATION_MS:
        raise ContractError(f"{what} is not a duration below one day")
    return repr(value)


_CLEANERS: dict[type, Callable[[Any], Any]] = {
    str: lambda text: text.encode("utf-8", "replace").decode().replace("\0", "\ufffd"),
    list: lambda items: [cleaned(item) for item in items],
    dict: lambda items: {cleaned(key): cleaned(value) for key, value in items.items()},
}


def cleaned(value: Any) -> Any:
    """The same with NUL replaced by U+FFFD and lone surrogates by "?", at any depth."""
    cleaner = _CLEANERS.get(type(value))
    return cleaner(value) if cleaner else value
