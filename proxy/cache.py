"""The response cache of one worker: exact requests, answers kept in Redis for a while.

    lookup   before admission: the answer, or None; never fails, and never for long
    replay   sends a kept answer, with its usage event written first
    CacheUse travels with a request that was not found, and collects what the client gets;
             only a complete, successful first-choice answer is kept

Whatever Redis does, the worst that happens is that a request is served by its provider.
The cache has its own connection: large entries must not delay admission.
"""

import asyncio
import logging
import time
from importlib import resources

import orjson
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from proxy.cache_entry import CachedAnswer, UnreadableEntry, open_answer, seal_answer
from proxy.cache_key import CacheKeys, Headers, derived_key
from proxy.cache_near import NearAnswers
from proxy.cache_rules import use_for
from proxy.cache_use import CacheUse
from proxy.contract import UsageEventDocument
from proxy.metrics import Metrics
from proxy.redis_link import LinkDown, RedisLink
from proxy.settings import ProxySettings
from proxy.trace import Trace

logger = logging.getLogger("gateway.cache")

WRITES_MAX = 64  # answers on their way to Redis; each holds its body in memory
THREAD_FROM_BYTES = 64 * 1024  # larger ones are compressed beside the loop
_STORE = resources.files("proxy").joinpath("lua/cache_store.lua").read_text()


class ResponseCache:
    """Answers of this environment. Without Redis everything is a miss."""

    def __init__(self, settings: ProxySettings, metrics: Metrics) -> None:
        fleet = settings.fleet
        self._metrics = metrics.cache
        self._keys = CacheKeys(fleet.fleet_key, fleet.environment)
        self._key = AESGCM(derived_key(fleet.fleet_key, fleet.environment, "entries"))
        self._most_bytes = settings.cache_max_bytes
        self._near = NearAnswers()
        self._writes: set[asyncio.Task[None]] = set()
        self._link: RedisLink | None = None
        if fleet.redis_url is not None:
            self._link = RedisLink(fleet.redis_url, settings.counter_timeout_s)
            self._store = self._link.script(_STORE)

    async def start(self) -> None:
        """Connect, without insisting."""
        if self._link is not None:
            await self._link.start()

    async def stop(self) -> None:
        """Finish the writes under way, close the connection."""
        if self._writes:
            await asyncio.wait(self._writes, timeout=1.0)
        if self._link is not None:
            await self._link.stop()

    # --- reading -------------------------------------------------------------------------

    async def lookup(self, trace: Trace, headers: Headers) -> CachedAnswer | None:
        """The kept answer to a request that is offered the cache; else what to collect is set."""
        if self._link is None:
            return None
        headers, body = list(headers), orjson.dumps(trace.body)
        use = use_for(trace, headers, body)
        if use == "off":
            trace.cache = CacheUse.bypassed()
            return None
        assert trace.snapshot is not None
        rules = trace.snapshot.environment["cache"]
        ttl_s = trace.policy.get("cache_ttl_s") or rules["ttl_s"]
        name = self._keys.name(trace, headers, body)
        answer = await self._read(name, ttl_s) if use == "use" else None
        if answer is not None:
            self._metrics.hits.labels(trace.model).inc()
            if answer.saved_usd is not None:
                self._metrics.saved.labels(trace.model).inc(answer.saved_usd)
            trace.cache = CacheUse.hit(answer)
            return answer
        if use == "use":
            self._metrics.misses.labels(trace.model).inc()
        trace.cache = CacheUse(
            state="miss" if use == "use" else "bypass",
            name=name,
            model=trace.model,
            ttl_s=ttl_s,
            max_bytes=rules["max_entry_bytes"],
            keep=self._keep,
        )
        return None

    async def _read(self, name: str, ttl_s: int) -> CachedAnswer | None:
        """Absent, unreadable, out of reach: all the same to the caller."""
        answer = self._near.find(name) or await self._fetch(name)
        # The entry may be another key's of the team, who keeps answers for longer.
        return answer if answer is not None and answer.age_s() < ttl_s else None

    async def _fetch(self, name: str) -> CachedAnswer | None:
        assert self._link is not None
        try:
            sealed = await self._link.call("GET", name)
        except LinkDown:
            self._metrics.failures.labels("lookup").inc()
            return None
        if sealed is None:
            return None
        try:
            answer = open_answer(sealed, self._key, name)
        except UnreadableEntry as error:
            self._metrics.failures.labels("unreadable").inc()
            logger.warning("a cached answer could not be read: %s", error)
            return None
        self._near.keep(name, answer)
        return answer

    # --- writing -------------------------------------------------------------------------

    def _keep(
        self, use: CacheUse, event: UsageEventDocument, body: bytes, headers: list[list[str]]
    ) -> None:
        """Called by a request's CacheUse when the client has its whole answer."""
        reason = "busy" if len(self._writes) >= WRITES_MAX else use.refusal(event, body)
        if reason is not None:
            self._metrics.not_stored.labels(reason).inc()
            return
        answer = CachedAnswer(
            body=body,
            headers=headers,
            streaming=event["streaming"],
            stored_at=time.time(),
            model=event["model"],
            deployment=event["deployment"],
            cost=event["cost"],
        )
        task = asyncio.create_task(self._write(use.name, answer, use.ttl_s))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _write(self, name: str, answer: CachedAnswer, ttl_s: int) -> None:
        if len(answer.body) > THREAD_FROM_BYTES:
            sealed = await asyncio.to_thread(seal_answer, answer, self._key, name)
        else:
            sealed = seal_answer(answer, self._key, name)
        try:
            kept = await self._store([name, self._keys.sizes()], [sealed, ttl_s, self._most_bytes])
        except LinkDown:
            self._metrics.failures.labels("store").inc()
            self._metrics.not_stored.labels("redis").inc()
            return
        self._near.forget(name)
        if kept:
            self._metrics.stored.labels(answer.model).inc()
        else:
            self._metrics.not_stored.labels("full").inc()
