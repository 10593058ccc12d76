"""The launcher alone is killed: its workers let go of the port, whatever they were doing."""

import contextlib
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway_admin.demo.simulator.process import Simulator
from proxy.launch import BIND_PATIENCE_S
from tests.proxy import control_plane
from tests.proxy.conftest import Gateway, standard_document, standard_secrets
from tests.proxy.control_plane import ControlPlanePeer
from tests.proxy.documents import policy
from tests.proxy.load import HELLO
from tests.proxy.replica import Replica
from tests.proxy.replica import running as running_replica

pytestmark = pytest.mark.fleet

GONE_MAX_S = 20.0


def kill_the_launcher(replica: Replica) -> float:
    """Seconds until somebody else may have the port."""
    assert replica.process is not None
    replica.process.kill()
    replica.process.wait()
    began = time.monotonic()
    while not _is_free(replica.port):
        assert time.monotonic() - began < GONE_MAX_S, "the port is still taken"
        time.sleep(0.02)
    return time.monotonic() - began


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
    return True


def wait_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + GONE_MAX_S
    while left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


@contextmanager
def silent_control_plane() -> Iterator[str]:
    """Takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_workers_that_start(tmp_path: Path) -> None:
    with silent_control_plane() as url:
        replica = Replica(url, tmp_path / "state", environ={"GATEWAY_PROXY_WORKERS": "2"})
        replica.start()
        try:
            replica.wait("/health/liveliness")
            deadline = time.monotonic() + 60
            while len(children := replica.children()) < 3:  # the porter and two workers
                assert time.monotonic() < deadline, replica.log_path.read_text()[-3000:]
                time.sleep(0.05)
            time.sleep(1)  # they wait for the control plane now
            assert kill_the_launcher(replica) < BIND_PATIENCE_S / 2
            wait_gone(children)
        finally:
            with contextlib.suppress(ProcessLookupError):
                replica.kill()


@pytest.fixture
def gateway(simulator: Simulator) -> Iterator[Gateway]:
    peer = ControlPlanePeer()
    with control_plane.running(peer):
        peer.publish(standard_document(simulator), standard_secrets())
        peer.set_key(policy("alpha"))
        with running_replica(peer.url, GATEWAY_PROXY_WORKERS="2") as replica:
            yield Gateway(replica, peer, simulator)


def test_workers_that_serve(gateway: Gateway) -> None:
    gateway.simulator.control(kind="openai", token_interval_ms=50, output_tokens=60)
    children = gateway.replica.children()
    body = {"model": "chat-openai", "messages": HELLO, "stream": True}
    with (
        gateway.client() as client,
        client.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        chunks = answer.iter_text()
        next(chunks)
        assert kill_the_launcher(gateway.replica) < BIND_PATIENCE_S / 2
        text = "".join(chunks)
    gateway.simulator.reset()
    assert "[DONE]" in text
    wait_gone(children)
