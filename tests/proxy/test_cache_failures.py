"""What must never be kept, what Redis holds, and what happens when it is away."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway_admin.demo.simulator.process import Simulator
from gateway_admin.lib.embedded_state import EmbeddedState
from gateway_admin.supervisor.embedded import EmbeddedValkey, wait_until_ready
from proxy.cache_entry import CachedAnswer, UnreadableEntry, open_answer, seal_answer
from proxy.cache_near import NEAR_S
from tests.proxy import control_plane
from tests.proxy.cached import (
    CHAT,
    CachedGateway,
    cached,
    cached_document,
    keyed,
    publish,
    set_key,
    started_cached,
)
from tests.proxy.conftest import standard_secrets
from tests.proxy.control_plane import ControlPlanePeer
from tests.proxy.replica import running as running_replica

__all__ = ["cached", "started_cached"]

SECRET_WORDS = "zanzibar quixotic marmalade"
HELLO: Any = [{"role": "user", "content": SECRET_WORDS}]
ASK: dict[str, Any] = {"model": "chat-openai", "messages": HELLO, "temperature": 0}


@pytest.mark.parametrize(
    "model",
    ["fails", "limited", "overloaded", "too-long", "filtered", "bad-credential", "no-credit"],
)
def test_errors_and_fallbacks_are_not_kept(cached: CachedGateway, model: str) -> None:
    for _ in range(2):
        answer = cached.ask({**ASK, "model": model})
        assert answer.headers["x-gateway-cache"] == "miss"
        cached.event(answer)
    assert cached.entries() == 0


@pytest.mark.parametrize("model", ["cut", "breaks"])
def test_broken_streams_are_not_kept(cached: CachedGateway, model: str) -> None:
    for _ in range(2):
        answer = cached.ask({**ASK, "model": model, "stream": True})
        assert answer.headers["x-gateway-cache"] == "miss"
        assert cached.event(answer)["status"] == "error"
    assert cached.entries() == 0


def test_a_stream_that_its_client_left_is_not_kept(cached: CachedGateway) -> None:
    cached.simulator.control(kind="openai", token_interval_ms=50, output_tokens=200)
    body = {**ASK, "stream": True}
    with cached.client() as client, client.stream("POST", CHAT, json=body) as answer:
        next(answer.iter_lines())
        told = answer
    assert cached.event(told)["status"] == "aborted"
    assert cached.entries() == 0


def test_too_large_an_answer_is_not_kept(cached: CachedGateway) -> None:
    publish(cached, max_entry_bytes=200)
    before = cached.metric("gateway_proxy_cache_not_stored_total", reason="too_large")
    for body in (ASK, {**ASK, "stream": True}):
        cached.event(cached.ask(body))
        assert cached.ask(body).headers["x-gateway-cache"] == "miss"
    after = cached.metric("gateway_proxy_cache_not_stored_total", reason="too_large")
    assert after == before + 4
    assert cached.entries() == 0


def test_redis_holds_nothing_readable(cached: CachedGateway) -> None:
    set_key(cached, "alpha", name="key of zanzibar", team="search")
    texts = [SECRET_WORDS]
    for body in (ASK, {**ASK, "stream": True}):
        told = cached.ask_until_kept(body).text
        assert "chat.completion" in told
        texts += [told[start : start + 24] for start in range(0, len(told) - 24, 24)]
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as server:
        names = list(server.scan_iter("*"))
        dump = b"\0".join([*names, *(server.dump(name) or b"" for name in names)])
        dump += b"".join(server.get(name) or b"" for name in names if b":answer:" in name)
    assert dump.count(b":answer:") == 2
    found = [text for text in texts if text.encode() in dump]
    assert found == []
    assert not any(word.encode() in dump for word in SECRET_WORDS.split())


def test_an_entry_opens_under_its_own_name_only() -> None:
    answer = CachedAnswer(b"body", [["content-type", "a/b"]], False, 1.0, "m", None, "0.1")
    sealed = seal_answer(answer, AESGCM(bytes(32)), "one")
    assert open_answer(sealed, AESGCM(bytes(32)), "one") == answer
    for key, name, raw in (
        (bytes(32), "two", sealed),
        (bytes([1]) * 32, "one", sealed),
        (bytes(32), "one", sealed[:-1] + bytes([sealed[-1] ^ 1])),
        (bytes(32), "one", b""),
        (bytes(32), "one", b"planted"),
    ):
        with pytest.raises(UnreadableEntry):
            open_answer(raw, AESGCM(key), name)


def test_a_foreign_entry_is_a_miss(cached: CachedGateway) -> None:
    """Somebody with access to Redis moves or plants entries: they are not given out."""
    first = cached.ask_until_kept(ASK)
    cached.ask_until_kept({**ASK, "seed": 1})
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as server:
        one, other = sorted(server.scan_iter("{gw:prod}:answer:*"))
        moved = server.get(one)
        server.set(one, server.get(other) or b"", keepttl=True)
        server.set(other, moved or b"", keepttl=True)
    before = cached.metric("gateway_proxy_cache_failures_total", operation="unreadable")
    again = cached.ask(ASK)
    assert again.headers["x-gateway-cache"] == "miss"
    assert again.content != first.content
    after = cached.metric("gateway_proxy_cache_failures_total", operation="unreadable")
    assert after == before + 1


def test_the_cache_stays_within_its_bounds(simulator: Simulator) -> None:
    with own_redis() as (valkey, _), replica_with(simulator, valkey.url, max_bytes=4_000) as small:
        for seed in range(20):
            assert small.ask({**ASK, "seed": seed}).status_code == 200
        wanted = "gateway_proxy_cache_not_stored_total"
        small.peer.wait_for("a full cache", lambda: small.metric(wanted, reason="full") > 5)
        with redis.Redis.from_url(valkey.url) as server:
            sizes = [server.strlen(name) for name in server.scan_iter("{gw:prod}:answer:*")]
            told = sum(int(size) for size in server.hvals("{gw:prod}:answer-bytes"))
        assert 0 < sum(sizes) <= 4_000
        assert told == sum(sizes)
        # What replaces an entry needs no more room than it leaves.
        kept = small.metric("gateway_proxy_cache_stored_total")
        refreshed = small.ask({**ASK, "seed": 0}, headers={"x-gateway-cache": "refresh"})
        assert refreshed.status_code == 200
        stored = "gateway_proxy_cache_stored_total"
        small.peer.wait_for("the new answer", lambda: small.metric(stored) == kept + 1)


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_without_redis_everything_is_served_by_its_provider(
    simulator: Simulator, how: signal.Signals
) -> None:
    """Slow or gone: misses, each counted; and hits again when it is back."""
    with (
        own_redis() as (valkey, process),
        replica_with(simulator, valkey.url) as gateway,
    ):
        gateway.ask_until_kept(ASK)
        assert gateway.ask(ASK).headers["x-gateway-cache"] == "hit"
        time.sleep(NEAR_S)  # what the worker has just read it still knows
        process.send_signal(how)
        for _ in range(5):
            answer = gateway.ask(ASK)
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-gateway-cache"] == "miss"
        assert gateway.metric("gateway_proxy_cache_failures_total", operation="lookup") >= 5
        if how is signal.SIGSTOP:
            process.send_signal(signal.SIGCONT)
            gateway.peer.wait_for("hits again", lambda: _hits(gateway))


def _hits(gateway: CachedGateway) -> bool:
    return bool(gateway.ask(ASK).headers["x-gateway-cache"] == "hit")


@contextmanager
def own_redis() -> Iterator[tuple[EmbeddedValkey, "subprocess.Popen[bytes]"]]:
    """A server that a test may stop."""
    with tempfile.TemporaryDirectory(prefix="gwr-") as folder:
        server = EmbeddedValkey(Path(folder) / "v", EmbeddedState.fresh().valkey, throwaway=True)
        server.prepare()
        process = subprocess.Popen(server.command(), start_new_session=True)
        try:
            wait_until_ready([server], 20)
            yield server, process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


@contextmanager
def replica_with(
    simulator: Simulator, redis_url: str, max_bytes: int | None = None
) -> Iterator[CachedGateway]:
    """A replica of one worker on a Redis of its own."""
    simulator.reset()
    peer = ControlPlanePeer()
    with control_plane.running(peer):
        peer.publish(cached_document(simulator), standard_secrets())
        peer.set_key(keyed("alpha"))
        environ = {"REDIS_URL": redis_url}
        if max_bytes is not None:
            environ["GATEWAY_CACHE_MAX_BYTES"] = str(max_bytes)
        with running_replica(peer.url, **environ) as replica:
            yield CachedGateway(replica, peer, simulator)


def test_counts_add_up(cached: CachedGateway) -> None:
    """Hits and misses of both workers, by model; what was saved in dollars."""
    names = ("llm_cache_hits_total", "llm_cache_misses_total")
    before = [cached.metric(name, model="chat-gemini") for name in names]
    saved = cached.metric("gateway_proxy_cache_saved_dollars_total", model="chat-gemini")
    body = {**ASK, "model": "chat-gemini"}
    cost = float(cached.event(cached.ask_until_kept(body))["cost"] or "nan")
    for _ in range(6):
        with httpx.Client() as fresh:  # a connection each, so that both workers get some
            fresh.post(
                cached.url + CHAT,
                json=body,
                headers={"authorization": cached.client().headers["authorization"]},
            )
    after = [cached.metric(name, model="chat-gemini") for name in names]
    hits, misses = (new - old for new, old in zip(after, before, strict=True))
    assert hits + misses == 7
    assert misses == 1
    told = cached.metric("gateway_proxy_cache_saved_dollars_total", model="chat-gemini") - saved
    assert abs(told - hits * cost) < 1e-9
