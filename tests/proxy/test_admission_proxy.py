"""Admission as clients meet it: a replica of two workers, a real Redis, stock clients."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx
import openai
import pytest
import redis

from gateway_admin.demo.simulator.process import Simulator
from proxy.contract import SubjectPolicy, UsageEventDocument
from proxy.contract.counters import budget_key, epoch_key, holds_key, nano_dollars
from tests.proxy import control_plane, own_valkey
from tests.proxy.conftest import Gateway, standard_document, standard_secrets
from tests.proxy.control_plane import ControlPlanePeer
from tests.proxy.documents import ENVIRONMENT, budget, limit, new_key, policy, subject
from tests.proxy.own_valkey import OwnValkey
from tests.proxy.replica import running as running_replica

HELLO: Any = [{"role": "user", "content": "Hello there my friend"}]


@dataclass
class Counting(Gateway):
    """A gateway whose workers count together."""

    valkey: OwnValkey

    def rules(self, *rows: SubjectPolicy) -> None:
        """These rules and no others."""
        self.peer.clear_subjects()
        for row in rows:
            self.peer.set_subject(row)
        self.wait_all_know(self.peer.policy_version)

    def wait_all_know(self, version: int) -> None:
        """Wait until both workers know the policies."""
        self.peer.wait_for(
            f"policies {version} everywhere",
            lambda: (
                {r["worker"] for r in self.peer.reports[-40:] if r["policy_version"] >= version}
                == {0, 1}
            ),
        )

    def wait_mode(self, mode: str) -> None:
        """Wait until both workers count in a way."""
        seen = len(self.peer.reports)
        self.peer.wait_for(
            f"counting {mode}",
            lambda: (
                {r["worker"]: r.get("counters") for r in self.peer.reports[seen:][-4:]}
                == {0: mode, 1: mode}
            ),
            30.0,
        )

    @contextlib.contextmanager
    def counters(self) -> Iterator["redis.Redis"]:
        """A look into Redis."""
        with redis.Redis.from_url(self.valkey.url, decode_responses=True) as client:
            yield client

    def balance(self, budget_id: str, who: str) -> tuple[int, int]:
        """Spent and held of a budget's only counter, nano-dollars, when no hold is left."""
        with self.counters() as client:
            self.peer.wait_for("no hold", lambda: client.zcard(holds_key(ENVIRONMENT)) == 0)
            pattern = budget_key(ENVIRONMENT, f"{budget_id}:{who}:*")
            (name,) = client.keys(pattern)
            spent, held = client.hmget(name, ["s", "h"])
            return int(spent or 0), int(held or 0)


@pytest.fixture(scope="module")
def started(simulator: Simulator, both_lanes: str) -> Iterator[Counting]:
    peer = ControlPlanePeer()
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(own_valkey.running())

        def build() -> str:
            with redis.Redis.from_url(valkey.url) as client:
                client.set(epoch_key(ENVIRONMENT), f"epoch-{peer.counters_asked}")
            return f"epoch-{peer.counters_asked}"

        peer.build_counters = build
        stack.enter_context(control_plane.running(peer))
        peer.publish(standard_document(simulator), standard_secrets())
        peer.set_key(policy("alpha"))
        replica = stack.enter_context(
            running_replica(peer.url, REDIS_URL=valkey.url, GATEWAY_PROXY_WORKERS="2")
        )
        yield Counting(replica, peer, simulator, valkey)


@pytest.fixture
def counting(started: Counting) -> Counting:
    """Nothing limited, nothing in the ledger, both workers counting together."""
    started.rules()
    started.wait_mode("shared")
    started.peer.wait_delivered()
    started.simulator.reset()
    started.peer.events.clear()
    return started


def many(counting: Counting, count: int, **body: Any) -> list[httpx.Response]:
    """So many calls at once."""

    async def run() -> list[httpx.Response]:
        headers = {"authorization": f"Bearer {new_key('alpha')}"}
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(
            base_url=counting.url, headers=headers, timeout=60, limits=limits
        ) as client:
            content = {"model": "chat-openai", "messages": HELLO, "max_tokens": 20, **body}
            calls = [client.post("/v1/chat/completions", json=content) for _ in range(count)]
            return list(await asyncio.gather(*calls))

    return asyncio.run(run())


def spent_by(events: list[UsageEventDocument]) -> int:
    """Nano-dollars of the ledger."""
    return sum(nano_dollars(Decimal(event["cost"] or "0")) for event in events)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_nearly_empty_budget_is_never_overspent(counting: Counting, stream: bool) -> None:
    (probe,) = many(counting, 1)
    assert probe.status_code == 200
    cost = spent_by(counting.new_events(1))
    counting.peer.events.clear()
    counting.simulator.control(kind="openai", latency_ms=150)
    limit_nano = 12 * cost + 600_000
    name = f"near-{stream}"
    counting.rules(
        subject("team", "team-1", budgets=[budget(name, "1", limit_nano=limit_nano)]),
        subject("key", "key-alpha", budgets=[budget(f"k{name}", "1")]),
    )
    answers = many(counting, 100, stream=stream)
    events = counting.new_events(100)
    passed = [answer for answer in answers if answer.status_code == 200]
    assert passed
    assert {answer.status_code for answer in answers} == {200, 429}
    spent, held = counting.balance(name, "team-1")
    assert (spent, held) == (spent_by(events), 0)
    assert spent <= limit_nano
    assert counting.balance(f"k{name}", "key-alpha") == (spent, 0)
    refused = [event for event in events if event["status"] == "refused"]
    assert len(refused) == 100 - len(passed)
    assert {event["error_class"] for event in refused} == {"budget"}
    served = next(event for event in events if event["status"] == "ok")
    assert served["admission"]["mode"] == "shared"
    assert {entry["counter"].split(":")[0] for entry in served["admission"]["charged"]} == {
        name,
        f"k{name}",
    }


def test_the_stock_client_does_not_retry_a_budget(counting: Counting) -> None:
    counting.rules(subject("user", "user-1", budgets=[budget("poor", "0", limit_nano=1)]))
    client = openai.OpenAI(base_url=f"{counting.url}/v1", api_key=new_key("alpha"), max_retries=5)
    with pytest.raises(openai.RateLimitError) as error:
        client.chat.completions.create(model="chat-openai", messages=HELLO)
    assert (error.value.code, error.value.type) == ("insufficient_quota", "insufficient_quota")
    for word in ("budget poor", "person", "limit $", "spent $", "held $", "resets at"):
        assert word in str(error.value)
    assert error.value.response.headers["x-should-retry"] == "false"
    (event,) = counting.new_events(1)
    assert (event["status"], event["http_status"], event["error_class"]) == (
        "refused",
        429,
        "budget",
    )


def test_the_stock_client_retries_a_rate_limit_and_succeeds(counting: Counting) -> None:
    counting.rules(subject("customer", "*", limits=[limit("one", parallel=1)]))
    counting.simulator.control(kind="openai", latency_ms=1_200)
    client = openai.OpenAI(base_url=f"{counting.url}/v1", api_key=new_key("alpha"), max_retries=3)

    def call() -> None:
        client.chat.completions.create(model="chat-openai", messages=HELLO, user="jane")

    first = threading.Thread(target=call)
    first.start()
    time.sleep(0.5)
    call()
    first.join()
    events = counting.new_events(3)
    assert sorted(event["status"] for event in events) == ["ok", "ok", "refused"]
    (refused,) = [event for event in events if event["status"] == "refused"]
    assert refused["error_class"] == "rate_limit"
    assert refused["customer"] == "jane"


def test_requests_per_minute_are_exact_over_workers_and_told(counting: Counting) -> None:
    counting.rules(subject("environment", ENVIRONMENT, limits=[limit("rate", rpm=20, tpm=90_000)]))
    answers = many(counting, 60)
    passed = [answer for answer in answers if answer.status_code == 200]
    assert len(passed) == 20
    left = sorted(int(answer.headers["x-ratelimit-remaining-requests"]) for answer in passed)
    assert left == list(range(20))
    assert passed[0].headers["x-ratelimit-limit-requests"] == "20"
    assert passed[0].headers["x-ratelimit-limit-tokens"] == "90000"
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-gateway-limit-scope"] == "environment"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"


@pytest.mark.parametrize(
    ("scope", "who"), [("team", "team-1"), ("user", "user-1"), ("customer", "jane")]
)
def test_blocked_subjects_are_refused_with_the_reason(
    counting: Counting, scope: str, who: str
) -> None:
    counting.rules(subject(scope, who, blocked="invoice 4711 is open", name="Somebody"))
    with counting.client() as client:
        body = {"model": "chat-openai", "messages": HELLO, "user": "jane"}
        answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 403
    error = answer.json()["error"]
    assert error["code"] == f"{scope}_blocked"
    assert "invoice 4711 is open" in error["message"]
    assert "Somebody" in error["message"]
    assert counting.event(answer)["error_class"] == "permission"


def test_a_cap_of_the_key_or_the_environment_is_a_promise(counting: Counting) -> None:
    counting.simulator.control(kind="openai", output_tokens=500)
    counting.peer.set_key(policy("capped", max_output_tokens=40))
    counting.wait_all_know(counting.peer.policy_version)
    with counting.client("capped") as client:
        body = {"model": "chat-openai", "messages": HELLO}
        answer = client.post("/v1/chat/completions", json=body)
        assert counting.event(answer)["output_tokens"] == 40
        answer = client.post("/v1/chat/completions", json={**body, "max_tokens": 90})
        assert counting.event(answer)["output_tokens"] == 90


def test_an_exact_count_lets_a_long_prompt_pass_where_the_bound_does_not(
    counting: Counting,
) -> None:
    # 40,000 bytes are 10,000 tokens at most likely, and 0.1 USD by their bytes.
    prompt: Any = [{"role": "user", "content": "international " * 2_900}]
    counting.rules(subject("key", "key-alpha", budgets=[budget("exact", "0.05")]))
    with counting.client() as client:
        body = {"model": "chat-openai", "messages": prompt, "max_tokens": 10}
        answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert Decimal(answer.headers["x-gateway-budget-remaining"]) < Decimal("0.05")


def test_redis_stops_and_comes_back_empty_without_a_hand(counting: Counting) -> None:
    counting.rules(subject("team", "team-1", limits=[limit("wide", rpm=1_000)]))
    asked = counting.peer.counters_asked
    counting.valkey.stop()
    answers = many(counting, 20)
    assert {answer.status_code for answer in answers} == {200}
    events = counting.new_events(20)
    assert {event["admission"]["mode"] for event in events} == {"none"}  # no budget to tell of
    counting.wait_mode("local")
    report = counting.peer.reports[-1]
    assert any("counted by shares" in reason for reason in report["reasons"])
    counting.valkey.start()
    counting.wait_mode("shared")
    assert counting.peer.counters_asked > asked
    assert {answer.status_code for answer in many(counting, 4)} == {200}


def test_a_redis_that_hangs_delays_nobody_for_long(counting: Counting) -> None:
    counting.rules(subject("team", "team-1", budgets=[budget("hang", "10")]))
    many(counting, 2)
    counting.valkey.pause()
    try:
        answers = many(counting, 30)
        assert {answer.status_code for answer in answers} == {200}
    finally:
        counting.valkey.resume()
    counting.wait_mode("shared")
    counting.new_events(32)
    assert counting.balance("hang", "team-1")[1] == 0
