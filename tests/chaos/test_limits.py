"""Limits are exact over any number of workers and replicas, in any 60 seconds."""

import asyncio
import time
from bisect import bisect_left
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
    admitted = asyncio.run(press(site, key, seconds=WINDOW_S * MINUTES))
    most = most_in_a_window(admitted)
    print(f"{len(admitted)} admitted in {MINUTES} minutes, {most} in the fullest 60 s")  # noqa: T201
    assert 58 <= most <= RPM
    assert len(admitted) >= 58 * MINUTES


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
    site.stack.simulator.control(kind="openai", latency_ms=1_500, output_tokens=5)
    running: list[tuple[float, float]] = []
    asyncio.run(press(site, key, seconds=15, spans=running))
    site.stack.simulator.control(kind="openai", latency_ms=20, output_tokens=5)
    edges = sorted([(begin, 1) for begin, _ in running] + [(end, -1) for _, end in running])
    now = most = 0
    for _, step in edges:
        now += step
        most = max(most, now)
    # Spans are the caller's: answers overlap a little on the wire with the next one's start.
    print(f"{len(running)} answered, at most {most} at once")  # noqa: T201
    assert len(running) >= 25
    assert 5 <= most <= 6


def limited_key(site: Site, name: str, **limit: int) -> str:
    issued = site.stack.issue_key(name)
    site.stack.api.post("limits/", environment="prod", scope="key", subject=issued["id"], **limit)
    site.stack.policies_in_force()
    return str(issued["key"])


def most_in_a_window(moments: list[float]) -> int:
    """The most moments in any 60 s."""
    ordered = sorted(moments)
    return max(
        bisect_left(ordered, begin + WINDOW_S) - index for index, begin in enumerate(ordered)
    )


async def press(
    site: Site,
    key: str,
    *,
    seconds: float,
    tokens: list[tuple[float, int]] | None = None,
    spans: list[tuple[float, float]] | None = None,
) -> list[float]:
    """16 callers, two replicas; the moments at which answered calls were sent."""
    admitted: list[float] = []
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
                    admitted.append(began)
                    note(answer, began)
                else:
                    assert answer.status_code == 429, answer.text
                    assert int(answer.headers["retry-after"]) >= 1
                    await asyncio.sleep(0.2)

        def note(answer: httpx.Response, began: float) -> None:
            if tokens is not None:
                tokens.append((began, answer.json()["usage"]["total_tokens"]))
            if spans is not None:
                spans.append((began, time.monotonic()))

        await asyncio.gather(*(caller(number) for number in range(16)))
    return admitted


def body(number: int) -> dict[str, Any]:
    return {
        "model": "openai-chat",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": f"How are you today, number {number}?"}],
    }
