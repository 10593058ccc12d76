"""Steady traffic from a few threads, every failure kept."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.proxy.documents import new_key

HELLO: Any = [{"role": "user", "content": "Hello there my friend"}]


@dataclass
class Load:
    """What the clients saw."""

    answered: list[str] = field(default_factory=list)  # request ids of whole 200 answers
    failures: list[str] = field(default_factory=list)
    broken: int = 0  # connections that were cut: no whole answer
    slowest_s: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)


def _client(load: Load, url: str, model: str, *, stream: bool) -> None:
    headers = {"authorization": f"Bearer {new_key('alpha')}"}
    body = {"model": model, "messages": HELLO, "stream": stream}
    with httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False) as client:
        while not load.stop.is_set():
            started = time.perf_counter()
            try:
                answer = client.post("/v1/chat/completions", json=body)
            except httpx.HTTPError:
                load.broken += 1
                time.sleep(0.05)
                continue
            load.slowest_s = max(load.slowest_s, time.perf_counter() - started)
            whole = answer.status_code == 200 and (not stream or "[DONE]" in answer.text)
            if whole:
                load.answered.append(answer.headers["x-gateway-request-id"])
            elif answer.status_code == 503 and "starting" in answer.text:
                time.sleep(0.1)
            else:
                load.failures.append(f"{answer.status_code} {answer.text[:300]}")


@contextmanager
def steady_load(url: str, model: str = "chat-openai", threads: int = 4) -> Iterator[Load]:
    """Call the gateway without pause until the block ends; half of the calls are streams."""
    load = Load()
    workers = [
        threading.Thread(target=_client, args=(load, url, model), kwargs={"stream": n % 2 == 1})
        for n in range(threads)
    ]
    for worker in workers:
        worker.start()
    try:
        yield load
    finally:
        load.stop.set()
        for worker in workers:
            worker.join()
