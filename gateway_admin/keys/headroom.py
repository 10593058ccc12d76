"""How much of the rate limits is in use at this moment, from the shared counters.

The layout of a window is the data plane's (proxy/lua/admit.lua): each second has an entry
"requests tokens moment", the last being that of its last request (ms); what is 60 s past
that moment does not count any more, though it may still be there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from redis.client import Pipeline

from gateway_admin.keys import live
from gateway_admin.keys.models import RateLimit
from gateway_admin.keys.subjects import Subject
from proxy.contract import counters

Pair = tuple[RateLimit, Subject]
WORDS = {"rpm": "requests per minute", "tpm": "tokens per minute", "parallel": "parallel requests"}


@dataclass(frozen=True)
class Gauge:
    """One respect in which a subject is limited. `used` is None while it is unknown."""

    kind: str  # rpm, tpm, parallel
    limit: int
    used: int | None

    @property
    def words(self) -> str:
        return WORDS[self.kind]

    @property
    def left(self) -> int | None:
        return None if self.used is None else max(self.limit - self.used, 0)

    @property
    def tick(self) -> float:
        """Where the bar begins to warn."""
        return self.limit * 0.8


@dataclass(frozen=True)
class Headroom:
    limit: RateLimit
    subject: Subject
    gauges: list[Gauge]


def headroom_of(pairs: Sequence[Pair]) -> list[Headroom]:
    """Present use of each limit by its subject, in the order given; one round trip."""
    if not pairs:
        return []
    asks: list[Any] = [_ask_time]
    for limit, subject in pairs:
        asks += [partial(_ask_epoch, subject), partial(_ask_window, limit, subject)]
        asks.append(partial(_ask_parallel, limit, subject))
    answers = live.read(asks)
    if answers is None:
        return [Headroom(limit, subject, _gauges(limit, {})) for limit, subject in pairs]
    seconds, micros = answers[0]
    now_ms = seconds * 1000 + micros // 1000
    found = []
    for index, (limit, subject) in enumerate(pairs):
        epoch, window, running = answers[1 + index * 3 : 4 + index * 3]
        used = _used(window, running, now_ms) if epoch else {}
        found.append(Headroom(limit, subject, _gauges(limit, used)))
    return found


def _used(
    window: Mapping[str, str], running: Sequence[tuple[str, float]], now_ms: int
) -> dict[str, int]:
    since = now_ms - counters.WINDOW_S * 1000
    seconds = [[*map(int, entry.split())] for name, entry in window.items() if name.isdigit()]
    counted = [(requests, tokens) for requests, tokens, last_ms in seconds if last_ms > since]
    return {
        "rpm": sum(requests for requests, _ in counted),
        "tpm": sum(tokens for _, tokens in counted),
        "parallel": sum(1 for _, expires_ms in running if expires_ms > now_ms),
    }


def _gauges(limit: RateLimit, used: Mapping[str, int]) -> list[Gauge]:
    given = ((kind, getattr(limit, kind)) for kind in WORDS)
    return [Gauge(kind, most, used.get(kind)) for kind, most in given if most is not None]


def _ask_time(pipeline: Pipeline) -> None:
    pipeline.time()


def _ask_epoch(subject: Subject, pipeline: Pipeline) -> None:
    pipeline.get(counters.epoch_key(subject.environment.slug))


def _ask_window(limit: RateLimit, subject: Subject, pipeline: Pipeline) -> None:
    pipeline.hgetall(counters.limit_key(*_place(limit, subject)))


def _ask_parallel(limit: RateLimit, subject: Subject, pipeline: Pipeline) -> None:
    pipeline.zrange(counters.parallel_key(*_place(limit, subject)), 0, -1, withscores=True)


def _place(limit: RateLimit, subject: Subject) -> tuple[str, str, str, str | None]:
    scope = str(subject.scope)
    return subject.environment.slug, scope, subject.counter_ref, limit.model or None
