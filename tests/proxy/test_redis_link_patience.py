"""A worker that was busy does not blame Redis for it."""

import asyncio
import os
import time
from typing import Any

import pytest
import uvloop

from proxy.redis_link import LinkDown, RedisLink

TIMEOUT_S = 0.1


def test_a_reply_that_came_in_time_is_read_after_a_stall(valkey: Any) -> None:
    uvloop.run(_stall())  # as in production: its timers come before what can be read


async def _stall() -> None:
    link = RedisLink(os.environ["REDIS_URL"], TIMEOUT_S)
    await link.start()
    asking = asyncio.create_task(link.call("PING"))
    await asyncio.sleep(0)  # it is queued
    await asyncio.sleep(0)  # and has left
    time.sleep(4 * TIMEOUT_S)  # noqa: ASYNC251  # the loop is busy with something else
    assert await asking == b"PONG"
    assert link.up
    await link.stop()


async def test_a_reply_that_does_not_come_takes_the_connection_with_it(valkey: Any) -> None:
    link = RedisLink(os.environ["REDIS_URL"], TIMEOUT_S)
    await link.start()
    with pytest.raises(LinkDown):
        await link.call("BLPOP", "patience:nothing-here", "1")
    await link.stop()
