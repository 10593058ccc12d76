"""Connections are spread over a replica's workers, and one that hangs keeps nobody out."""

import contextlib
import os
import signal
import socket
import statistics
import time
from collections.abc import Iterator

import pytest

from proxy.doorman import ABSENT, Counts
from tests.proxy import control_plane
from tests.proxy.control_plane import ControlPlanePeer
from tests.proxy.documents import document, policy
from tests.proxy.replica import Replica
from tests.proxy.replica import running as running_replica

HEALTH = b"GET /health HTTP/1.1\r\nhost: test\r\n\r\n"
WORKERS = 3
ROUNDS = 7


@pytest.fixture(scope="module")
def replica() -> Iterator[Replica]:
    peer = ControlPlanePeer()
    with control_plane.running(peer):
        peer.publish(document([], []), {})
        peer.set_key(policy("alpha"))
        with running_replica(peer.url, GATEWAY_PROXY_WORKERS=str(WORKERS)) as found:
            peer.wait_for(
                "all workers", lambda: len({r["worker"] for r in peer.reports}) == WORKERS
            )
            yield found


@contextlib.contextmanager
def clients(replica: Replica, count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        found = [
            stack.enter_context(socket.create_connection(("127.0.0.1", replica.port), 5))
            for _ in range(count)
        ]
        yield found


def ask(client: socket.socket) -> None:
    client.sendall(HEALTH)
    client.settimeout(5)
    assert client.recv(65536).startswith(b"HTTP/1.1 ")


def spread(replica: Replica) -> list[int]:
    """Connections of each worker, fewest first."""
    wanted = f":{replica.port:04X} "
    served = set()
    with open("/proc/net/tcp") as lines:
        for line in lines:
            fields = line.split()
            if wanted.strip() in fields[1][-5:] and fields[3] == "01":
                served.add(f"socket:[{fields[9]}]")
    counts = []
    for pid in replica.children()[-WORKERS:]:  # the porter may not have left yet
        links = []
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                links.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        counts.append(sum(link in served for link in links))
    return sorted(counts)


@pytest.mark.parametrize("count", [6, 60])
def test_connections_are_spread(replica: Replica, count: int) -> None:
    fewest = []
    for _ in range(ROUNDS):  # after the first, those of the one before have left
        with clients(replica, count) as found:
            for client in found:
                ask(client)
            counts = spread(replica)
            assert sum(counts) == count
            fewest.append(counts[0])
        deadline = time.monotonic() + 5
        while sum(spread(replica)) and time.monotonic() < deadline:
            time.sleep(0.05)
    # The door is left for milliseconds only: on a busy machine somebody may sleep through a round.
    assert statistics.median(fewest) >= count // WORKERS // 2, fewest


def test_a_worker_that_hangs_keeps_nobody_out(replica: Replica) -> None:
    hung = replica.children()[-1]
    with clients(replica, 30) as before:
        for client in before:
            ask(client)
        os.kill(hung, signal.SIGSTOP)
        try:
            with clients(replica, 30) as found:
                for client in found:
                    ask(client)
        finally:
            os.kill(hung, signal.SIGCONT)


def test_a_worker_that_died_is_not_waited_for(replica: Replica) -> None:
    os.kill(replica.children()[-1], signal.SIGKILL)
    with clients(replica, 20) as found:
        for client in found:
            with contextlib.suppress(ConnectionResetError):  # it was the dead one's
                ask(client)
    deadline = time.monotonic() + 30
    while len(replica.children()) < WORKERS and time.monotonic() < deadline:
        time.sleep(0.05)
    replica.wait("/ready")


def test_counts_are_those_of_the_present() -> None:
    counts = Counts(3)
    assert counts.fewest() == 0
    counts.tell(0, 7)
    counts.tell(2, 5)
    assert counts.fewest() == 5
    counts.tell(2, ABSENT)
    assert counts.fewest() == 7
