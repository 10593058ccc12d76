"""Kept answers: what is given out, to whom, and what the ledger says of it."""

import json
from decimal import Decimal
from typing import Any

import pytest

from tests.proxy.cached import CHAT, CachedGateway, cached, publish, purges, set_key, started_cached

__all__ = ["cached", "started_cached"]

HELLO: Any = [{"role": "user", "content": "Hello there my friend"}]
ASK: dict[str, Any] = {"model": "chat-openai", "messages": HELLO, "temperature": 0}
# Route -> a request that asks the same each time.
ROUTES: dict[str, dict[str, Any]] = {
    CHAT: ASK,
    "/v1/completions": {"model": "chat-openai", "prompt": "Hello there", "temperature": 0},
    "/v1/embeddings": {"model": "embed-openai", "input": ["Hello there", "my friend"]},
    "/v1/responses": {
        "model": "chat-openai", "input": "Hello there", "temperature": 0, "store": False,
    },
    "/v1/messages": {
        "model": "chat-anthropic", "messages": HELLO, "max_tokens": 40, "temperature": 0,
    },
}  # fmt: skip
STREAMED = [path for path in ROUTES if path != "/v1/embeddings"]


@pytest.mark.parametrize("path", ROUTES)
def test_a_whole_answer_comes_back_as_it_was(cached: CachedGateway, path: str) -> None:
    first = cached.ask_until_kept(ROUTES[path], path=path)
    assert first.status_code == 200, first.text
    assert first.headers["x-gateway-cache"] == "miss"
    again = cached.ask(ROUTES[path], path=path)
    assert again.headers["x-gateway-cache"] == "hit"
    assert int(again.headers["age"]) < 60
    assert again.content == first.content
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["x-gateway-deployment"] == first.headers["x-gateway-deployment"]
    assert again.headers["x-gateway-request-id"] != first.headers["x-gateway-request-id"]
    assert cached.served() == 1


@pytest.mark.parametrize("path", STREAMED)
def test_a_stream_comes_back_as_the_same_stream(cached: CachedGateway, path: str) -> None:
    body = {**ROUTES[path], "stream": True}
    first = cached.ask_until_kept(body, path=path)
    again = cached.ask(body, path=path)
    assert again.headers["x-gateway-cache"] == "hit"
    assert again.headers["content-type"].startswith("text/event-stream")
    assert "content-length" not in again.headers
    assert again.content == first.content
    assert first.content.count(b"data: ") > 3
    assert cached.served() == 1


def test_a_stream_is_no_answer_to_a_whole_request(cached: CachedGateway) -> None:
    cached.ask_until_kept({**ASK, "stream": True})
    whole = cached.ask(ASK)
    assert whole.headers["x-gateway-cache"] == "miss"
    assert whole.json()["object"] == "chat.completion"


def test_the_stock_clients_read_a_kept_stream(cached: CachedGateway) -> None:
    asked: Any = {**ASK, "stream": True, "stream_options": {"include_usage": True}}

    def read() -> list[Any]:
        return [chunk.model_dump() for chunk in cached.openai().chat.completions.create(**asked)]

    first = read()
    cached.peer.wait_for("the answer kept", lambda: cached.entries() == 1)
    assert read() == first
    assert first[-1]["usage"]["completion_tokens"] > 0
    assert cached.served() == 1


def test_a_hit_is_an_event_that_cost_nothing(cached: CachedGateway) -> None:
    bought = cached.event(cached.ask_until_kept({**ASK, "user": "customer-7"}))
    hit = cached.event(cached.ask({**ASK, "user": "customer-7"}))
    assert (hit["why"], hit["status"], hit["http_status"]) == ("cache", "ok", 200)
    assert hit["cost"] == "0"
    assert Decimal(hit["saved_cost"] or "nan") == Decimal(bought["cost"] or "nan") > 0
    assert (hit["input_tokens"], hit["output_tokens"], hit["attempts"]) == (0, 0, [])
    assert (hit["model"], hit["deployment"]) == (bought["model"], bought["deployment"])
    assert (hit["customer"], hit["team_id"]) == ("customer-7", "team-1")
    assert hit["overhead_ms"] is None


def test_an_unpriced_answer_saves_an_unknown_amount(cached: CachedGateway) -> None:
    body = {**ASK, "model": "unpriced"}
    assert cached.event(cached.ask_until_kept(body))["cost"] is None
    hit = cached.event(cached.ask(body))
    assert (hit["why"], hit["cost"], hit["saved_cost"]) == ("cache", "0", None)


def test_an_alias_and_its_model_are_one(cached: CachedGateway) -> None:
    cached.ask_until_kept(ASK)
    assert cached.ask({**ASK, "model": "default"}).headers["x-gateway-cache"] == "hit"


# --- which requests ----------------------------------------------------------------------

WARM = {"model": "chat-openai", "messages": HELLO}
REMOTE: Any = [
    {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}],
    }
]


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ({**WARM, "temperature": 0}, True),
        ({**WARM, "temperature": 0.0}, True),
        ({**WARM, "seed": 7}, True),
        (WARM, False),
        ({**WARM, "temperature": 0.2}, False),
        ({**WARM, "temperature": False}, False),
        ({**WARM, "seed": None}, False),
        ({**WARM, "messages": REMOTE, "temperature": 0}, False),
        ({**WARM, "temperature": 0, "web_search_options": {}}, False),
        ({**WARM, "temperature": 0, "store": True}, False),
    ],
)
def test_deterministic_keys_keep_what_repeats_itself(
    cached: CachedGateway, body: dict[str, Any], kept: bool
) -> None:
    set_key(cached, "careful", cache="deterministic")
    told = cached.ask(body, key="careful").headers["x-gateway-cache"]
    assert told == ("miss" if kept else "bypass")


def test_one_request_opts_in(cached: CachedGateway) -> None:
    set_key(cached, "careful", cache="deterministic")
    wish = {"x-gateway-cache": "on"}
    cached.ask_until_kept(WARM, key="careful", headers=wish)
    assert cached.ask(WARM, key="careful", headers=wish).headers["x-gateway-cache"] == "hit"
    assert cached.ask(WARM, key="careful").headers["x-gateway-cache"] == "bypass"


@pytest.mark.parametrize("wish", [{"x-gateway-cache": "on"}, {}])
def test_a_key_that_is_off_stays_off(cached: CachedGateway, wish: dict[str, str]) -> None:
    set_key(cached, "plain", cache="off")
    for _ in range(2):
        assert "x-gateway-cache" not in cached.ask(ASK, key="plain", headers=wish).headers
    assert cached.served() == 2
    assert cached.entries() == 0


@pytest.mark.parametrize(
    "wish",
    [{"x-gateway-cache": "off"}, {"cache-control": "no-store"}, {"x-gateway-cache": "nonsense"}],
)
def test_off_neither_reads_nor_keeps(cached: CachedGateway, wish: dict[str, str]) -> None:
    cached.ask_until_kept(ASK)
    assert cached.ask(ASK, headers=wish).headers["x-gateway-cache"] == "bypass"
    assert cached.ask({**ASK, "seed": 1}, headers=wish).headers["x-gateway-cache"] == "bypass"
    assert cached.ask(ASK).headers["x-gateway-cache"] == "hit"
    assert (cached.entries(), cached.served()) == (1, 3)


@pytest.mark.parametrize("wish", [{"x-gateway-cache": "refresh"}, {"cache-control": "no-cache"}])
def test_refresh_asks_again_and_keeps_the_new(cached: CachedGateway, wish: dict[str, str]) -> None:
    first = cached.ask_until_kept(ASK)
    fresh = cached.ask(ASK, headers=wish)
    assert fresh.headers["x-gateway-cache"] == "bypass"
    assert fresh.content != first.content  # its id, at least
    cached.peer.wait_for("the new answer", lambda: cached.ask(ASK).content == fresh.content)
    assert cached.served() == 2


def test_environment_and_model_have_a_say(cached: CachedGateway) -> None:
    publish(cached, enabled=False)
    assert "x-gateway-cache" not in cached.ask(ASK).headers
    publish(cached)
    assert cached.ask(ASK).headers["x-gateway-cache"] == "miss"


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/v1/responses", {"store": True}),
        ("/v1/responses", {"store": None}),
        ("/v1/responses", {"previous_response_id": "resp_1"}),
        ("/v1/responses", {"background": True}),
    ],
)
def test_what_leaves_state_at_the_provider_goes_there(
    cached: CachedGateway, path: str, more: dict[str, Any]
) -> None:
    assert cached.ask(ROUTES[path] | more, path=path).headers["x-gateway-cache"] == "bypass"


# --- time and purge ----------------------------------------------------------------------


def test_an_entry_lives_as_long_as_its_key_says(cached: CachedGateway, valkey: Any) -> None:
    set_key(cached, "brief", cache_ttl_s=60, team_id=None)
    cached.ask_until_kept(ASK, key="brief")
    (name,) = valkey.scan_iter("{gw:prod}:answer:*")
    assert 0 < valkey.ttl(name) <= 60
    cached.ask_until_kept({**ASK, "seed": 5})
    longest = max(valkey.ttl(name) for name in valkey.scan_iter("{gw:prod}:answer:*"))
    assert 3500 < longest <= 3600
    valkey.delete(name)  # what Redis does when the time is over
    assert cached.ask(ASK, key="brief").headers["x-gateway-cache"] == "miss"


def test_an_answer_of_the_team_may_be_too_old_for_a_key(cached: CachedGateway) -> None:
    set_key(cached, "brief", cache_ttl_s=4)  # its own answer is kept for so long, then
    cached.ask_until_kept(ASK)

    def refused() -> bool:
        return cached.ask(ASK, key="brief").headers["x-gateway-cache"] == "miss"

    cached.peer.wait_for("the answer being too old", refused)
    assert cached.ask(ASK).headers["x-gateway-cache"] == "hit"


def test_a_purge_makes_it_new(cached: CachedGateway) -> None:
    set_key(cached, "mine", team_id=None)
    cached.ask_until_kept(ASK, key="mine")
    assert cached.ask(ASK, key="mine").headers["x-gateway-cache"] == "hit"
    purges["all"] += 1
    set_key(cached, "mine", team_id=None)
    assert cached.ask(ASK, key="mine").headers["x-gateway-cache"] == "miss"


def test_another_deployment_begins_anew(cached: CachedGateway) -> None:
    cached.ask_until_kept(ASK)
    content = json.loads(json.dumps(cached.peer.revisions[max(cached.peer.revisions)]["document"]))
    row = next(row for row in content["deployments"] if row["id"] == "dep-openai")
    row["params"] = {"service_tier": "flex"}
    from tests.proxy.conftest import standard_secrets

    cached.peer.wait_applied(cached.peer.publish(content, standard_secrets()))

    def asked_anew() -> bool:
        return cached.ask(ASK).headers["x-gateway-cache"] == "miss"

    cached.peer.wait_for("a miss", asked_anew)


# --- whose ---------------------------------------------------------------------------------


def test_a_team_shares_and_nobody_else(cached: CachedGateway) -> None:
    set_key(cached, "colleague", user_id="user-2", user="owner@example.com")
    set_key(cached, "stranger", team_id="team-2", team="ads")
    set_key(cached, "lone", team_id=None, team=None)
    set_key(cached, "lone2", team_id=None, team=None)
    cached.ask_until_kept(ASK)
    assert cached.ask(ASK, key="colleague").headers["x-gateway-cache"] == "hit"
    for key in ("stranger", "lone", "lone2"):
        assert cached.ask(ASK, key=key).headers["x-gateway-cache"] == "miss"
    assert cached.served() == 4


def test_a_team_named_like_a_key_is_another_tenant(cached: CachedGateway) -> None:
    set_key(cached, "lone", team_id=None, team=None, key_id="same-id")
    set_key(cached, "member", team_id="same-id", key_id="key-member")
    cached.ask_until_kept(ASK, key="lone")
    assert cached.ask(ASK, key="member").headers["x-gateway-cache"] == "miss"


def test_a_hit_needs_a_key_that_may(cached: CachedGateway) -> None:
    cached.ask_until_kept(ASK)
    set_key(cached, "limited", models=["chat-gemini"])
    set_key(cached, "stopped", state="blocked", reason="left the company")
    set_key(cached, "late", expires_at="2020-01-01T00:00:00+00:00")
    assert cached.ask(ASK, key="limited").status_code == 403
    assert cached.ask(ASK, key="stopped").status_code in (401, 403)
    assert cached.ask(ASK, key="late").status_code == 401
    assert cached.ask(ASK, key="nobody").status_code == 401
