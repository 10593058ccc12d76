"""What a worker has just read from the response cache: given out again, for a moment."""

import os
import time

import redis

from proxy import cache_near
from proxy.cache_entry import CachedAnswer
from proxy.cache_near import NEAR_S, NearAnswers
from tests.proxy.cached import CHAT, CachedGateway, cached, purges, set_key, started_cached

__all__ = ["cached", "started_cached"]

ASK = {
    "model": "chat-openai",
    "messages": [{"role": "user", "content": "Hello there my friend"}],
    "temperature": 0,
}


def test_what_was_just_read_is_not_asked_for_again(cached: CachedGateway) -> None:
    """For a moment, by the worker that read it."""
    cached.ask_until_kept(ASK)
    with cached.client() as client:

        def told() -> str:
            return client.post(CHAT, json=ASK).headers["x-gateway-cache"]

        assert told() == "hit"
        forget_entries()
        assert told() == "hit"
        time.sleep(NEAR_S)
        assert told() == "miss"


def test_what_was_just_read_is_purged_as_well(cached: CachedGateway) -> None:
    cached.ask_until_kept(ASK)
    assert cached.ask(ASK).headers["x-gateway-cache"] == "hit"
    purges["all"] += 1  # the next test's is another one: the answer below may be kept late
    set_key(cached, "alpha")
    assert cached.ask(ASK).headers["x-gateway-cache"] == "miss"


def test_a_fresh_answer_takes_the_place_of_what_was_just_read(cached: CachedGateway) -> None:
    first = cached.ask_until_kept(ASK)
    with cached.client() as client:
        assert client.post(CHAT, json=ASK).content == first.content
        fresh = client.post(CHAT, json=ASK, headers={"x-gateway-cache": "refresh"})
        time.sleep(0.1)  # to be kept
        assert client.post(CHAT, json=ASK).content == fresh.content != first.content


def forget_entries() -> None:
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as server:
        for name in server.scan_iter("{gw:prod}:answer:*"):
            server.delete(name)


def test_what_was_just_read_keeps_within_its_bound() -> None:
    near = NearAnswers()
    large = answer_of(cache_near.ENTRY_MAX_BYTES)
    for number in range(100):
        near.keep(str(number), large)
    assert len(near) == cache_near.NEAR_MAX_BYTES // cache_near.ENTRY_MAX_BYTES
    assert near.find("0") is None
    assert near.find("99") is large
    near.keep("99", large)  # read once more: counted once
    near.keep("huge", answer_of(cache_near.ENTRY_MAX_BYTES + 1))
    assert near.find("huge") is None
    assert near.find("98") is large
    time.sleep(NEAR_S)
    assert near.find("98") is None
    near.keep("new", large)
    assert len(near) == 1


def answer_of(size: int) -> CachedAnswer:
    return CachedAnswer(bytes(size), [], False, time.time(), "m", None, None)
