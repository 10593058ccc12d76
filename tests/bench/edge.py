"""How long the edge takes to turn a request away.

    python -m tests.bench.edge [--requests 2000]

One replica with one worker and one client that keeps its connection. Each kind of refusal
is asked for again and again; LiteLLM must not have been woken by any of them, which the
replica's own counter and the simulator's ledger show. Fails when a 99th percentile is over
the bound. Times are the client's: from the first byte sent to the last byte read.
"""

import argparse
import os
import socket
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context

import httpx
import orjson

from gateway_admin.demo.simulator.process import running_simulator
from tests.proxy import control_plane
from tests.proxy.conftest import standard_document, standard_secrets
from tests.proxy.control_plane import ControlPlanePeer
from tests.proxy.documents import new_key, policy
from tests.proxy.replica import running as running_replica

BOUND_MS = 5.0
WARM_UP = 100
MESSAGES = [{"role": "user", "content": "hi"}]


@dataclass(frozen=True)
class Kind:
    """One way to be refused."""

    name: str
    status: int
    path: str = "/v1/chat/completions"
    key: str = "alpha"
    body: bytes = orjson.dumps({"model": "chat-openai", "messages": MESSAGES})

    def request(self) -> bytes:
        """The whole request, ready to send."""
        head = (
            f"POST {self.path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer "
            f"{new_key(self.key) if self.key else 'sk-gw-no-body'}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(self.body)}\r\n\r\n"
        )
        return head.encode() + self.body


KINDS = (
    Kind("unknown key", 401, key=""),
    Kind("blocked key", 401, key="blocked"),
    Kind("unknown route", 404, path="/v1/files"),
    Kind("unknown model", 404, body=orjson.dumps({"model": "nope", "messages": MESSAGES})),
    Kind("model not allowed", 403, key="narrow"),
    Kind("not JSON", 400, body=b"{"),
    Kind("field missing", 400, body=b'{"model":"chat-openai"}'),
    Kind("field not allowed", 400, body=b'{"model":"chat-openai","api_base":"http://x.example"}'),
)


def ask(line: socket.socket, request: bytes) -> int:
    """One request on a connection that stays open; gives the status."""
    line.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += line.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += line.recv(65536)
    return int(head.split(b" ", 2)[1])


def measure(line: socket.socket, kind: Kind, requests: int) -> list[float]:
    """Milliseconds of each request."""
    request, took_ms = kind.request(), []
    for number in range(WARM_UP + requests):
        started = time.perf_counter()
        status = ask(line, request)
        if number >= WARM_UP:
            took_ms.append((time.perf_counter() - started) * 1000)
        assert status == kind.status, (kind.name, status)
    return took_ms


def measure_all(port: int, requests: int) -> dict[str, list[float]]:
    """Milliseconds of each request, by kind of refusal."""
    with socket.create_connection(("127.0.0.1", port), 10) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return {kind.name: measure(line, kind, requests) for kind in KINDS}


def attempts(url: str) -> float:
    """Calls that LiteLLM has made for this replica, by the replica's own counter."""
    lines = httpx.get(f"{url}/metrics", trust_env=False).text.splitlines()
    found = [line for line in lines if line.startswith("litellm_deployment_")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in found)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the edge's refusals.")
    parser.add_argument("--requests", type=int, default=2000, help="of each kind")
    requests = parser.parse_args().requests
    peer = ControlPlanePeer()
    with ExitStack() as stack:
        simulator = stack.enter_context(running_simulator())
        stack.enter_context(control_plane.running(peer))
        peer.publish(standard_document(simulator), standard_secrets())
        for key in (
            policy("alpha"), policy("blocked", state="blocked"), policy("narrow", models=["image"]),
        ):  # fmt: skip
            peer.set_key(key)
        replica = stack.enter_context(running_replica(peer.url))
        before = attempts(replica.url)
        # A process of its own: here the control plane's threads would hold the client up.
        client = stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
        figures = client.submit(measure_all, replica.port, requests).result()
        woken = attempts(replica.url) - before
        called = len(simulator.ledger()["rows"])
    report(figures, requests)
    assert (woken, called) == (0, 0), "LiteLLM was woken"


def report(figures: dict[str, list[float]], requests: int) -> None:
    """Print the table; fail when a bound is broken."""
    load = os.getloadavg()[0]
    print(f"{requests} requests each, load average {load:.1f}; LiteLLM not called")  # noqa: T201
    print("| refusal | p50 | p99 |\n|---|---|---|")  # noqa: T201
    slowest = 0.0
    for name, took_ms in figures.items():
        p99 = statistics.quantiles(took_ms, n=100)[98]
        slowest = max(slowest, p99)
        print(f"| {name} | {statistics.median(took_ms):.2f} ms | {p99:.2f} ms |")  # noqa: T201
    assert slowest < BOUND_MS, f"p99 of {slowest:.2f} ms"


if __name__ == "__main__":
    main()
