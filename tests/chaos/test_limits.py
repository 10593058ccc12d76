"""Limits are exact over any number of workers and replicas, in any 60 seconds."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.chaos.site import Site, running_site

WINDOW_S = 60.0
RPM = 60
MINUTES = 3


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running_site(workers_each=4) as running:
        running.stack.simulator.control(kind="openai", latency_ms=20, output_tokens=5)
        yield running


def test_requests_per_minute(site: Site) -> None:
    """Callers press as hard as they can for three minutes."""
    key = limited_key(site, "rpm", rpm=RPM)
    spans = asyncio.run(press(site, key, seconds=WINDOW_S * MINUTES))
    most = surely_in_a_window(spans)
    print(f"{len(spans)} admitted in {MINUTES} minutes, {most} in the fullest 60 s")  # noqa: T201
    assert most <= RPM
    assert len(spans) >= 58 * MINUTES


def test_tokens_per_minute(site: Site) -> None:
    """Input and output tokens of all answers in any 60 s stay within the limit."""
    limit = 3_000
    key = limited_key(site, "tpm", tpm=limit)
    spent: list[tuple[float, int]] = []
    asyncio.run(press(site, key, seconds=WINDOW_S * 2, tokens=spent))
    most = max(
        sum(tokens for at, tokens in spent if begin <= at < begin + WINDOW_S) for begin, _ in spent
    )
    print(f"{sum(t for _, t in spent)} tokens in 2 minutes, {most} in the fullest 60 s")  # noqa: T201
    assert limit * 0.8 <= most <= limit


def test_parallel_requests(site: Site) -> None:
    """Five at once, however many knock."""
    key = limited_key(site, "parallel", parallel=5)
    site.stack.simulator.reset()
    site.stack.simulator.control(kind="openai", latency_ms=1_500, output_tokens=5)
    running = asyncio.run(press(site, key, seconds=15))
    most = site.stack.simulator.ledger()["most_in_flight"]
    site.stack.simulator.control(kind="openai", latency_ms=20, output_tokens=5)
    print(f"{len(running)} answered, at most {most} at the provider at once")  # noqa: T201
    assert len(running) >= 25
    assert most == 5


def limited_key(site: Site, name: str, **limit: int) -> str:
    issued = site.stack.issue_key(name)
    site.stack.api.post("limits/", environment="prod", scope="key", subject=issued["id"], **limit)
    site.stack.policies_in_force()
    return str(issued["key"])


def surely_in_a_window(spans: list[tuple[float, float]]) -> int:
    """The most calls that were admitted within some 60 s, whenever within its span each was.

    A call is admitted between its start and its answer, so one that lies in a window with
    both was admitted in it.
    """
    return max(
        sum(1 for start, end in spans if begin <= start and end < begin + WINDOW_S)
        for begin, _ in spans
    )


async def press(
    site: Site,
    key: str,
    *,
    seconds: float,
    tokens: list[tuple[float, int]] | None = None,
) -> list[tuple[float, float]]:
    """16 callers, two replicas; when each answered call was sent and when it was answered."""
    spans: list[tuple[float, float]] = []
    until = time.monotonic() + seconds
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:

        async def caller(number: int) -> None:
            while time.monotonic() < until:
                number += 1
                began = time.monotonic()
                answer = await client.post(
                    f"{site.urls[number % 2]}/v1/chat/completions",
                    headers={"Authorization": f"Bearer {key}"},
                    json=body(number),
                )
                if answer.status_code == 200:
                    spans.append((began, time.monotonic()))
                    if tokens is not None:
                        tokens.append((began, answer.json()["usage"]["total_tokens"]))
                else:
                    assert answer.status_code == 429, answer.text
                    assert int(answer.headers["retry-after"]) >= 1
                    await asyncio.sleep(0.2)

        await asyncio.gather(*(caller(number) for number in range(16)))
    return spans


def body(number: int) -> dict[str, Any]:
    return {
        "model": "openai-chat",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": f"How are you today, number {number}?"}],
    }
