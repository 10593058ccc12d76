"""Hits cost nothing and never refuse; what budgets and limits did is in the metrics."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.proxy.cached import CachedGateway, cached, set_key, started_cached
from tests.proxy.documents import budget, limit, subject

__all__ = ["cached", "started_cached"]

HELLO: Any = [{"role": "user", "content": "Hello there my friend"}]
ASK: dict[str, Any] = {"model": "chat-openai", "messages": HELLO, "temperature": 0}
OTHER: dict[str, Any] = {**ASK, "messages": [{"role": "user", "content": "Something else"}]}


@pytest.fixture
def ruled(cached: CachedGateway) -> Iterator[CachedGateway]:
    """Rules of the test are nobody's afterwards."""
    yield cached
    cached.peer.wait_policies(cached.peer.clear_subjects())


def rules(gateway: CachedGateway, *rows: Any) -> None:
    """Give subjects rules; both workers know them (the last change is a key's)."""
    for row in rows:
        gateway.peer.set_subject(row)
    set_key(gateway, "lastofall")


REFUSING: dict[str, dict[str, Any]] = {
    "budget": {"budgets": [budget("tiny", "0.000000001")]},
    "rpm": {"limits": [limit("slow", rpm=1)]},
    "tpm": {"limits": [limit("few", tpm=1)]},
}


@pytest.mark.parametrize("rule", REFUSING)
def test_a_hit_is_never_refused_and_takes_nothing(ruled: CachedGateway, rule: str) -> None:
    set_key(ruled, "poor")
    rules(ruled, subject("key", "key-poor", **REFUSING[rule]))
    ruled.ask_until_kept(ASK)
    assert [ruled.ask(ASK, key="poor").status_code for _ in range(4)] == [200] * 4
    # Hits took nothing of the minute: the first other request finds it empty.
    answers = [ruled.ask(OTHER | {"seed": n}, key="poor").status_code for n in range(2)]
    assert answers == ([429, 429] if rule == "budget" else [200, 429])
    assert ruled.ask(ASK, key="poor").headers["x-gateway-cache"] == "hit"


def test_a_hit_says_that_nothing_was_counted(ruled: CachedGateway) -> None:
    rules(ruled, subject("team", "team-1", budgets=[budget("b", "5")]))
    bought = ruled.event(ruled.ask_until_kept(ASK))
    hit = ruled.event(ruled.ask(ASK))
    assert bought["admission"]["mode"] == "shared"
    assert hit.get("admission", {"mode": "none"})["mode"] == "none"


def test_blocked_teams_and_customers_get_no_hit(ruled: CachedGateway) -> None:
    body = {**ASK, "user": "customer-9"}
    ruled.ask_until_kept(body)
    assert ruled.ask(body).status_code == 200
    rules(ruled, subject("customer", "customer-9", blocked="unpaid"))
    refused = ruled.ask(body)
    assert refused.status_code == 403
    assert "unpaid" in refused.text


def test_refusals_are_counted_by_scope_and_rule(ruled: CachedGateway) -> None:
    set_key(ruled, "poor")
    rules(ruled, subject("key", "key-poor", budgets=[budget("tiny", "0.000000001")]))
    name, labels = "gateway_proxy_admission_refusals_total", {"scope": "key", "rule": "budget"}
    before = ruled.metric(name, **labels)
    for n in range(3):
        assert ruled.ask(ASK | {"seed": n}, key="poor").status_code == 429
    assert ruled.metric(name, **labels) == before + 3


def test_the_tightest_budget_is_told(ruled: CachedGateway) -> None:
    both = [budget("wide", "1000"), budget("narrow", "2", period="day")]
    rules(ruled, subject("team", "team-1", name="search", budgets=both))
    assert ruled.ask(ASK).status_code == 200

    def left() -> float:
        return ruled.metric("litellm_remaining_team_budget_metric", team="team-1")

    ruled.peer.wait_for("the balance", lambda: 1.9 < left() <= 2.0)
    text = httpx.get(f"{ruled.url}/metrics").text
    assert "key-alpha" not in text


def test_no_hold_is_left_behind(ruled: CachedGateway) -> None:
    rules(ruled, subject("team", "team-1", budgets=[budget("b", "50")]))
    for n in range(5):
        assert ruled.ask(ASK | {"seed": n}).status_code == 200
    ruled.peer.wait_for("no hold", lambda: ruled.metric("gateway_proxy_holds") == 0)
    assert ruled.metric("gateway_proxy_redis_up") == 1
