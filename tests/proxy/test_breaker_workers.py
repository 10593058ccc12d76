"""One breaker for two worker processes: opened for both, and exactly its permits in a burst."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gateway_admin.demo.simulator.process import Simulator
from proxy.defaults import BREAKER
from tests.proxy import control_plane
from tests.proxy.conftest import Gateway, standard_document, standard_secrets
from tests.proxy.control_plane import ControlPlanePeer
from tests.proxy.documents import policy
from tests.proxy.replica import running as running_replica

pytestmark = pytest.mark.fleet

HELLO: Any = [{"role": "user", "content": "Hello there my friend"}]
RULES = {
    "consecutive_failures": 4,
    "open_s": 6,  # a slow machine asks both workers twenty times meanwhile
    "half_open_permits": 3,
    "close_after_successes": 3,
}


@pytest.fixture(scope="module")
def pair(simulator: Simulator) -> Iterator[Gateway]:
    """A replica with two workers on Redis."""
    peer = ControlPlanePeer()
    content = standard_document(simulator, breaker={**BREAKER, **RULES})
    with control_plane.running(peer):
        peer.publish(content, standard_secrets())
        peer.set_key(policy("alpha"))
        environ = {"GATEWAY_PROXY_WORKERS": "2", "REDIS_URL": os.environ["REDIS_URL"]}
        with running_replica(peer.url, **environ) as replica:
            yield Gateway(replica, peer, simulator)


def chat(gateway: Gateway, *_: object) -> int:
    """One call on a connection of its own, so any worker may get it."""
    with gateway.client() as client:
        body = {"model": "chat-openai", "messages": HELLO}
        return client.post("/v1/chat/completions", json=body).status_code


def asked(gateway: Gateway) -> int:
    return int(gateway.simulator.settled_ledger()["totals"]["requests"])


def states(gateway: Gateway) -> list[str]:
    """The transitions that were reported, each once, in order."""
    found = {
        one["generation"]: one["state"]
        for report in gateway.peer.reports
        for one in report.get("breaker_transitions", [])
        if one["deployment"] == "dep-openai"
    }
    return [found[generation] for generation in sorted(found)]


def test_a_burst_while_half_open_gets_exactly_the_permits(pair: Gateway) -> None:
    pair.simulator.reset()
    pair.simulator.control(kind="openai", faults=[{"type": "server_error"}])
    with ThreadPoolExecutor(20) as pool:
        while chat(pair) != 503:
            pass
        pair.peer.wait_for("the report", lambda: states(pair) == ["open"])
        before = asked(pair)
        assert set(pool.map(lambda _: chat(pair), range(20))) == {503}  # on both workers
        assert asked(pair) == before
        # Trial calls that take long: all the others come while they are under way.
        pair.simulator.reset()
        pair.simulator.control(kind="openai", latency_ms=6000)
        time.sleep(RULES["open_s"] + 0.2)
        outcomes = Counter(pool.map(lambda _: chat(pair), range(20)))
        assert outcomes == {200: 3, 503: 17}
        assert asked(pair) == 3
        pair.peer.wait_for("the way back", lambda: states(pair) == ["open", "half_open", "closed"])
        pair.simulator.reset()
        assert set(pool.map(lambda _: chat(pair), range(20))) == {200}
