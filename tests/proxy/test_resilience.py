"""Outages and crashes: known keys are served, events are neither lost nor doubled."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import redis

from gateway_admin.demo.simulator.process import Simulator
from proxy.contract import bell_channel
from tests.proxy import control_plane
from tests.proxy.conftest import CANARY, Gateway, standard_document, standard_secrets
from tests.proxy.control_plane import ControlPlanePeer
from tests.proxy.documents import ENVIRONMENT, FLEET_TOKEN, policy
from tests.proxy.load import HELLO, steady_load
from tests.proxy.replica import Replica
from tests.proxy.replica import running as running_replica

pytestmark = pytest.mark.fleet


@pytest.fixture(scope="module")
def pair(simulator: Simulator) -> Iterator[Gateway]:
    """A replica with two workers that hears bells and hardly polls."""
    peer = ControlPlanePeer()
    with control_plane.running(peer):
        peer.publish(standard_document(simulator), standard_secrets())
        peer.set_key(policy("alpha"))
        environ = {
            "GATEWAY_PROXY_WORKERS": "2",
            # Longer than a test waits: what arrives earlier came with the bell.
            "GATEWAY_POLL_INTERVAL_S": "60",
            "REDIS_URL": os.environ["REDIS_URL"],
        }
        with running_replica(peer.url, **environ) as replica:
            yield Gateway(replica, peer, simulator)


def chat(gateway: Gateway) -> httpx.Response:
    with gateway.client() as client:
        return client.post("/v1/chat/completions", json={"model": "chat-openai", "messages": HELLO})


def workers_at(peer: ControlPlanePeer, number: int) -> set[int]:
    return {r["worker"] for r in peer.reports[-30:] if r["applied_revision"] == number}


def test_bell_reaches_every_worker(pair: Gateway) -> None:
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as bell:
        for retries in range(1, 6):
            content = standard_document(pair.simulator, num_retries=retries)
            number = pair.peer.publish(content, standard_secrets())
            bell.publish(bell_channel(ENVIRONMENT), f'{{"revision": {number}}}')
            pair.peer.wait_for(
                "both workers",
                lambda n=number: workers_at(pair.peer, n) == {0, 1},  # type: ignore[misc]
            )


def test_crashed_worker_is_replaced_and_its_spool_adopted(pair: Gateway) -> None:
    pair.peer.usage_status = 500
    ids = [chat(pair).headers["x-gateway-request-id"] for _ in range(10)]
    victims = pair.replica.children()
    assert len(victims) == 2
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    pair.replica.wait("/ready")
    pair.peer.usage_status = 200
    pair.peer.wait_for("all events", lambda: set(ids) <= set(pair.peer.events), 30)
    assert not set(pair.replica.children()) & set(victims)
    assert chat(pair).status_code == 200


def test_refused_token_is_told_and_does_not_stop_service(pair: Gateway) -> None:
    _control_plane_ends(pair.peer)
    try:
        with redis.Redis.from_url(os.environ["REDIS_URL"]) as bell:
            bell.publish(bell_channel(ENVIRONMENT), '{"revision": 1}')
        deadline = time.monotonic() + 30
        while "fleet token" not in str(pair.client().get("/health").json()["reasons"]):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert chat(pair).status_code == 200
    finally:
        pair.peer.token = FLEET_TOKEN


@pytest.fixture(scope="module")
def lone(simulator: Simulator) -> Iterator[Gateway]:
    """A replica with one worker that is killed, restarted and at last stopped, in this order."""
    peer = ControlPlanePeer()
    with control_plane.running(peer):
        peer.publish(standard_document(simulator), standard_secrets())
        peer.set_key(policy("alpha"))
        with running_replica(peer.url) as replica:
            yield Gateway(replica, peer, simulator)


def test_kill_9_under_load_loses_and_doubles_nothing(lone: Gateway) -> None:
    peer, replica = lone.peer, lone.replica
    with steady_load(lone.url) as load:
        time.sleep(2)
        replica.kill()
        replica.start()
        replica.wait("/ready")
        time.sleep(1)
    assert load.failures == []
    assert load.broken > 0
    assert len(load.answered) > 5
    peer.wait_for("answered events", lambda: set(load.answered) <= set(peer.events), 20)
    served = [event for event in peer.events.values() if event["status"] != "refused"]
    assert len(served) <= len(load.answered) + load.broken


def test_cold_start_with_the_control_plane_down(lone: Gateway) -> None:
    peer, replica = lone.peer, lone.replica
    peer.wait_delivered()
    _control_plane_ends(peer)
    served = [chat(lone).headers["x-gateway-request-id"] for _ in range(5)]
    replica.kill()  # a crash while nothing can be delivered
    replica.start()
    replica.wait("/health/liveliness")
    _check_the_porter(lone)
    with late_talkers(lone.url) as unanswered:
        replica.wait("/ready")
        time.sleep(1)
    assert unanswered == []
    served.append(chat(lone).headers["x-gateway-request-id"])
    assert not set(served) & set(peer.events)
    peer.token = FLEET_TOKEN
    peer.wait_for("delivery", lambda: set(served) <= set(peer.events), 30)
    assert CANARY not in replica_files(replica)


@contextmanager
def late_talkers(url: str, silent_s: float = 1.0) -> Iterator[list[str]]:
    """Clients that connect ten times a second and ask a while later; yields who got no answer."""
    address = urlsplit(url)
    unanswered: list[str] = []
    stop = threading.Event()

    def talk() -> None:
        try:
            with socket.create_connection((address.hostname, address.port), 20) as line:
                time.sleep(silent_s)
                line.sendall(b"GET /health HTTP/1.1\r\nhost: gateway\r\n\r\n")
                if not line.recv(100).startswith(b"HTTP/1.1 200"):
                    unanswered.append("closed without an answer")
        except OSError as error:
            unanswered.append(str(error))

    threads: list[threading.Thread] = []
    caller = threading.Thread(target=_every, args=(0.1, stop, threads, talk))
    caller.start()
    try:
        yield unanswered
    finally:
        stop.set()
        caller.join()
        for thread in threads:
            thread.join()


def _every(
    wait_s: float, stop: threading.Event, threads: list[threading.Thread], work: Callable[[], None]
) -> None:
    while not stop.wait(wait_s):
        thread = threading.Thread(target=work)
        thread.start()
        threads.append(thread)


def _check_the_porter(gateway: Gateway) -> None:
    """While LiteLLM is imported: refusals and lists from the last good state."""
    early = chat(gateway)
    assert (early.status_code, "retry-after" in early.headers) == (503, True)
    assert early.headers["connection"] == "close"
    wrong = httpx.get(f"{gateway.url}/v1/models", headers={"x-api-key": "sk-gw-a-b"})
    assert wrong.status_code == 401
    assert "chat-openai" in [model.id for model in gateway.openai().models.list()]


def _control_plane_ends(peer: ControlPlanePeer) -> None:
    """From now on it answers nobody (as far as a replica can tell)."""
    peer.token = "nobody has this token"


def replica_files(replica: Replica) -> str:
    """All that a replica left on disk."""
    return "".join(
        path.read_bytes().decode("latin-1")
        for path in replica.state_dir.rglob("*")
        if path.is_file()
    )


def test_sigterm_finishes_what_was_begun(lone: Gateway) -> None:
    peer, replica, simulator = lone.peer, lone.replica, lone.simulator
    simulator.reset()
    simulator.control(kind="openai", token_interval_ms=50, output_tokens=40)
    children = replica.children()
    body = {"model": "chat-openai", "messages": HELLO, "stream": True}
    with (
        lone.client() as client,
        client.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        chunks = answer.iter_text()
        next(chunks)
        assert replica.process is not None
        replica.process.terminate()
        text = "".join(chunks)
    simulator.reset()
    assert "[DONE]" in text
    assert replica.process.wait(60) == 0
    assert answer.headers["x-gateway-request-id"] in peer.events
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
