"""The budgets' counters in Redis, seen from the control plane. Names and units: the contract.

Each function is one round trip, or few for many counters. Every failure of Redis is
`CountersAway`; callers decide what is done later then.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import redis
import structlog
from django.conf import settings
from redis.commands.core import Script

from proxy.contract import counters as names
from proxy.contract.periods import ROLLING_BUCKETS

log = structlog.get_logger(__name__)

TIMEOUT_S = 1.0
CHUNK = 1_000  # counters that one script touches at most; a few milliseconds of Redis' time
MARKER_LIFE_S = 86_400
AWAY_PAUSE_S = 2.0  # how long ingest does not try again after a failure

_DAY_S = 86_400
# Counters outlive their period by some days, for events and settlements that come late.
_LIFE_S = {"d": 4, "w": 11, "m": 35, "q": 97, "y": 371}


class CountersAway(Exception):
    """Redis did not do what was asked; the message says why."""


@dataclass(frozen=True)
class Delta:
    """What one batch adds to one counter. `epoch`: where it was settled; "": nowhere yet."""

    counter: str
    bucket: int | None
    epoch: str
    nano: int


@dataclass(frozen=True)
class Reading:
    """One counter, in nano-dollars; `buckets` of a rolling period only."""

    spent: int = 0
    held: int = 0
    unrecorded: int = 0  # settled, and not yet in the ledger
    buckets: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Correction:
    """What has to be added to one counter, in nano-dollars."""

    counter: str
    nano: int
    buckets: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Server:
    """Which start of which process answers, and what its clock says."""

    run_id: str
    now: datetime


def bucket_width_s(period_id: str) -> int | None:
    """Seconds that a bucket of a rolling period covers; None for other periods."""
    if period_id.startswith("r"):
        return int(period_id[1:]) * 3600 // ROLLING_BUCKETS
    return None


def oldest_bucket(period_id: str, now: datetime) -> int | None:
    """The oldest bucket that a rolling period still counts."""
    width_s = bucket_width_s(period_id)
    return int(now.timestamp()) // width_s - ROLLING_BUCKETS if width_s else None


def life_s(counter: str) -> int:
    """How long a counter's hash is kept, seconds from now; 0: for ever."""
    period_id = counter.rpartition(":")[2]
    if period_id.startswith("r"):
        return (int(period_id[1:]) * 3600) * 2 + _DAY_S
    return _LIFE_S.get(period_id[0], 0) * _DAY_S


def server() -> Server:
    """Who answers, and what time it is there."""
    with _failing_as_away():
        pipeline = _client().pipeline(False)
        pipeline.info("server")
        pipeline.time()
        info, (seconds, micros) = pipeline.execute()
    return Server(info["run_id"], datetime.fromtimestamp(seconds + micros / 1e6, UTC))


def epoch_of(environment: str) -> str | None:
    """Id of the present counters; None while they are not built."""
    with _failing_as_away():
        found: Any = _client().get(names.epoch_key(environment))
    return str(found) if found else None


def charge(environment: str, *, update: int, deltas: Sequence[Delta]) -> bool:
    """Tell the counters of an update, once however often it is told. False: not built yet."""
    with _failing_as_away():
        for start in range(0, len(deltas), CHUNK):
            part = deltas[start : start + CHUNK]
            keys = [names.epoch_key(environment), f"{names.tag(environment)}applied:{update}"]
            keys += [names.budget_key(environment, delta.counter) for delta in part]
            values: list[str | int] = [start, MARKER_LIFE_S]
            for delta in part:
                values += [delta.epoch, delta.nano, *_rolling(delta.counter, delta.bucket)]
                values.append(life_s(delta.counter))
            if _script("charge")(keys, values) is None:
                return False
    return True


def forget_update(environment: str, update: int) -> None:
    """The update can never be told again: its marker is not needed any longer."""
    with _failing_as_away():
        _client().unlink(f"{names.tag(environment)}applied:{update}")


def readings(environment: str) -> dict[str, Reading]:
    """All counters of the environment."""
    with _failing_as_away():
        found: dict[str, Reading] = {}
        prefix = names.budget_key(environment, "")
        for keys in _chunks(_scan(environment, "b:*"), CHUNK):
            pipeline = _client().pipeline(False)
            for key in keys:
                pipeline.hgetall(key)
            for key, fields in zip(keys, pipeline.execute(), strict=True):
                found[key[len(prefix) :]] = _reading(fields)
    return found


def mend(environment: str, *, epoch: str, corrections: Iterable[Correction]) -> bool:
    """Apply corrections to the counters of an epoch; False when they are others by now."""
    with _failing_as_away():
        for part in _chunks(corrections, CHUNK):
            keys = [names.epoch_key(environment)]
            keys += [names.budget_key(environment, one.counter) for one in part]
            values: list[str | int] = [epoch]
            for one in part:
                buckets = {str(bucket): str(nano) for bucket, nano in one.buckets.items()}
                values += [one.nano, life_s(one.counter), json.dumps(buckets) if buckets else ""]
            if not _script("mend")(keys, values):
                return False
    return True


def wipe(environment: str) -> None:
    """Forget the counters and what is reserved in them; running requests settle in none."""
    with _failing_as_away():
        client = _client()
        client.delete(names.epoch_key(environment), names.holds_key(environment))
        for pattern in ("hold:*", "b:*"):
            for keys in _chunks(_scan(environment, pattern), CHUNK):
                client.unlink(*keys)


def build(environment: str, *, epoch: str, spent: Mapping[str, Reading]) -> None:
    """Write all counters as new ones and then name their epoch."""
    with _failing_as_away():
        for part in _chunks(spent.items(), CHUNK):
            pipeline = _client().pipeline(False)
            for counter, reading in part:
                key = names.budget_key(environment, counter)
                fields: dict[Any, Any] = {"s": reading.spent}
                fields |= {f"b{index}": nano for index, nano in reading.buckets.items()}
                if reading.buckets:
                    fields["o"] = min(reading.buckets)
                pipeline.delete(key)
                pipeline.hset(key, mapping=fields)
                if life := life_s(counter):
                    pipeline.expire(key, life)
            pipeline.execute()
        _client().set(names.epoch_key(environment), epoch)


def abandoned(environment: str, *, most: int) -> list[str]:
    """Holds that expired, as JSON, at most so many."""
    with _failing_as_away():
        found = _client().lrange(names.abandoned_key(environment), 0, most - 1)
    return [str(hold) for hold in found]


def abandoned_count(environment: str) -> int:
    """How many holds wait to be accounted for."""
    with _failing_as_away():
        return int(_client().llen(names.abandoned_key(environment)))


def account(environment: str, *, hold: str, epoch: str, charges: Sequence[Delta]) -> bool:
    """End an abandoned hold and settle its charges; False when it was ended already."""
    keys = [names.epoch_key(environment), names.abandoned_key(environment)]
    keys += [names.budget_key(environment, charge.counter) for charge in charges]
    values: list[str | int] = [hold, epoch]
    for one in charges:
        values += [one.nano, *_rolling(one.counter, one.bucket)]
    with _failing_as_away():
        return bool(_script("account")(keys, values))


def _rolling(counter: str, bucket: int | None) -> tuple[str | int, str | int]:
    """Bucket and its width for a script; two empty words for other periods."""
    width_s = bucket_width_s(counter.rpartition(":")[2])
    return ("", "") if bucket is None or width_s is None else (bucket, width_s)


def _reading(fields: Mapping[str, str]) -> Reading:
    buckets = {int(name[1:]): int(nano) for name, nano in fields.items() if name[0] == "b"}
    spent, held, unrecorded = (int(fields.get(name, 0)) for name in "shp")
    return Reading(spent, held, unrecorded, buckets)


def _scan(environment: str, pattern: str) -> Iterator[str]:
    """Each key once; SCAN may name one twice."""
    found = _client().scan_iter(f"{names.tag(environment)}{pattern}", count=1_000)
    return iter(dict.fromkeys(found))


def _chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


@cache
def _client() -> redis.Redis:
    return redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        decode_responses=True,
    )


@cache
def _script(name: str) -> Script:
    text = (Path(__file__).parent / "lua" / f"{name}.lua").read_text()
    return _client().register_script(text)


def forget_connection() -> None:
    """The next call connects anew, to where the settings say by then."""
    _client.cache_clear()
    _script.cache_clear()
    _Pause.until = 0.0


class _Pause:
    """Since when Redis is away; a batch need not wait for a time-out that is known."""

    until = 0.0


def is_paused() -> bool:
    """Redis failed a moment ago: not worth a try on the way of a batch."""
    return time.monotonic() < _Pause.until


class _failing_as_away:
    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, redis.RedisError):
            if not is_paused():
                log.warning("counters_away", error=str(error))
            _Pause.until = time.monotonic() + AWAY_PAUSE_S
            raise CountersAway(str(error) or type(error).__name__) from error
        if error is None:
            _Pause.until = 0.0
