"""Requests that differ in anything at all are different requests: no wrong hit, ever."""

import copy
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.cache_key import CacheKeys
from proxy.snapshot import build_snapshot
from proxy.trace import Trace
from tests.proxy.cached import CHAT, CachedGateway, cached, set_key, started_cached
from tests.proxy.documents import FLEET_KEY, credential, deployment, document, envelope, policy

__all__ = ["cached", "started_cached"]

PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk"
    "+A8AAQUBAScY42YAAAAASUVORK5CYII="
)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Weather", "parameters": SCHEMA},
}
BASE: dict[str, Any] = {
    "model": "chat-openai",
    "messages": [
        {"role": "system", "content": "You are terse."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
            ],
        },
    ],
    "temperature": 0,
    "seed": 1,
    "top_p": 1,
    "max_tokens": 40,
    "stop": ["\n\n"],
    "user": "customer-1",
    "tools": [TOOL],
    "tool_choice": "auto",
    "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The base with one place replaced ("messages.0.content"), or taken out."""
    body = copy.deepcopy(BASE)
    *above, last = (int(part) if part.isdigit() else part for part in path.split("."))
    place: Any = body
    for part in above:
        place = place[part]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return body


def reordered() -> dict[str, Any]:
    """The same schema with its properties in another order: models write in that order."""
    properties = dict(reversed(SCHEMA["properties"].items()))
    return changed("response_format.json_schema.schema.properties", properties)


NEAR_MISSES: dict[str, dict[str, Any]] = {
    "system prompt": changed("messages.0.content", "You are terse"),
    "system prompt's role": changed("messages.0.role", "user"),
    "no system prompt": changed("messages.0", None),
    "one more message": {**BASE, "messages": [*BASE["messages"], {"role": "user", "content": "?"}]},
    "text": changed("messages.1.content.0.text", "What is this ?"),
    "unicode of the same look": changed("messages.1.content.0.text", "What is thіs?"),
    "image": changed("messages.1.content.1.image_url.url", PNG.replace("AAAAB", "AAAAC")),
    "detail of the image": changed("messages.1.content.1.image_url.detail", "high"),
    "no image": changed("messages.1.content.1", None),
    "temperature": changed("temperature", 0.01),
    "temperature as another number": changed("temperature", 0.0),
    "no temperature": changed("temperature", None),
    "seed": changed("seed", 2),
    "no seed": changed("seed", None),
    "top_p": changed("top_p", 0.9),
    "max_tokens": changed("max_tokens", 41),
    "max_completion_tokens": {**changed("max_tokens", None), "max_completion_tokens": 40},
    "stop": changed("stop", ["\n"]),
    "stop as text": changed("stop", "\n\n"),
    "n": {**BASE, "n": 2},
    "user": changed("user", "customer-2"),
    "no user": changed("user", None),
    "tool's name": changed("tools.0.function.name", "get_wether"),
    "tool's description": changed("tools.0.function.description", "Weather."),
    "tool's parameters": changed("tools.0.function.parameters.required", ["city"]),
    "two tools": {**BASE, "tools": [TOOL, TOOL]},
    "no tools": changed("tools", []),
    "tool choice": changed("tool_choice", "none"),
    "parallel calls": {**BASE, "parallel_tool_calls": False},
    "response format": changed("response_format", {"type": "json_object"}),
    "response format's name": changed("response_format.json_schema.name", "b"),
    "response format, strict": changed("response_format.json_schema.strict", True),
    "order of the schema's properties": reordered(),
    "stream": {**BASE, "stream": True},
    "stream with usage": {**BASE, "stream": True, "stream_options": {"include_usage": True}},
    "logit bias": {**BASE, "logit_bias": {"50256": -100}},
    "presence penalty": {**BASE, "presence_penalty": 0.5},
    "provider's parameter": {**BASE, "service_tier": "flex"},
    "reasoning effort": {**BASE, "reasoning_effort": "low"},
    "logprobs": {**BASE, "logprobs": True, "top_logprobs": 2},
    "metadata": {**BASE, "metadata": {"case": "7"}},
    "another model": {**BASE, "model": "chat-azure"},
}


def test_no_near_miss_hits(cached: CachedGateway) -> None:
    """Each request is new to the cache, whatever is in it already; then it is its own hit."""
    bodies = [BASE, *NEAR_MISSES.values()]
    first = [cached.ask(body) for body in bodies]
    told = {
        name: answer.headers.get("x-gateway-cache")
        for name, answer in zip(["base", *NEAR_MISSES], first, strict=True)
    }
    assert {name: state for name, state in told.items() if state != "miss"} == {}
    good = sum(answer.status_code == 200 for answer in first)
    assert good >= 0.9 * len(bodies)
    cached.peer.wait_for("all answers kept", lambda: cached.entries() == good)
    served = cached.served()
    for name, body, answer in zip(["base", *NEAR_MISSES], bodies, first, strict=True):
        if answer.status_code == 200:
            again = cached.ask(body)
            assert again.headers["x-gateway-cache"] == "hit", name
            assert again.content == answer.content, name
    assert cached.served() == served


HEADERS = {
    "user-agent": "another-client/1.0",
    "accept": "application/json",
    "anthropic-beta": "context-1m-2025-08-07",
    "anthropic-version": "2099-01-01",
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_reach_the_provider_count(cached: CachedGateway, name: str) -> None:
    cached.ask_until_kept(BASE)
    other = cached.ask(BASE, headers={name: HEADERS[name]})
    assert other.headers["x-gateway-cache"] == "miss"


def test_caps_that_are_filled_in_count(cached: CachedGateway) -> None:
    set_key(cached, "capped", max_output_tokens=5)
    body = changed("max_tokens", None)
    cached.ask_until_kept(body)
    assert cached.ask(body, key="capped").headers["x-gateway-cache"] == "miss"


def test_routes_do_not_share(cached: CachedGateway) -> None:
    both = {"model": "chat-openai", "prompt": "Hi", "input": "Hi", "messages": BASE["messages"]}
    cached.ask_until_kept(both | {"temperature": 0}, path=CHAT)
    other = cached.ask(both | {"temperature": 0}, path="/v1/completions")
    assert other.headers["x-gateway-cache"] == "miss"


def test_tenants_times_near_misses(cached: CachedGateway) -> None:
    """Every tenant gets its own answer to every variant, never one bought by another."""
    tenants = {"alpha": "team-1", "two": "team-2", "again": "team-1", "lone": None}
    for key, team in list(tenants.items())[1:]:
        set_key(cached, key, team_id=team, team=team)
    variants = [BASE, NEAR_MISSES["system prompt"], NEAR_MISSES["seed"], NEAR_MISSES["stream"]]
    owner: dict[bytes, str | None] = {}
    for _ in range(2):
        for body in variants:
            for key, team in tenants.items():
                answer = cached.ask(body, key=key)
                assert answer.status_code == 200, answer.text
                assert owner.setdefault(answer.content, team) == team
        cached.peer.wait_for("answers kept", lambda: cached.entries() == 3 * len(variants))
    assert cached.served() == 3 * len(variants)  # the team of two keys bought each once


# --- names of entries, for any body -------------------------------------------------------

UNHURRIED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
_scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(0, 2) | st.text(max_size=4)
_json = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
_bodies = st.dictionaries(
    st.sampled_from([*BASE, "n", "stream", "extra", "safety_settings", "thinking"]), _json
)


@pytest.fixture(scope="module")
def facts() -> SimpleNamespace:
    """A snapshot and names of its cache, without a replica."""
    row = deployment("dep-a", "chat", "openai/gpt-4o", "openai")
    content = document([row], [credential("openai", {"api_key": "sk-1"})])
    sent = envelope(1, content, {"openai": {"api_key": "sk-1"}})
    snapshot = build_snapshot(sent, environment="prod", fleet_key=FLEET_KEY)
    return SimpleNamespace(snapshot=snapshot, keys=CacheKeys(FLEET_KEY, "prod"))


def name_of(facts: SimpleNamespace, body: bytes, **changes: Any) -> str:
    trace = Trace(route=CHAT, policy=policy("alpha"), snapshot=facts.snapshot, model="chat")
    for field, value in changes.items():
        setattr(trace, field, value)
    name: str = facts.keys.name(trace, [], body)
    return name


@settings(max_examples=150, suppress_health_check=UNHURRIED)
@given(one=_bodies, other=_bodies)
def test_equal_names_only_for_equal_bodies(
    facts: SimpleNamespace, one: dict[str, Any], other: dict[str, Any]
) -> None:
    first, second = orjson.dumps(one), orjson.dumps(other)
    assert (name_of(facts, first) == name_of(facts, second)) == (first == second)


@settings(max_examples=500, suppress_health_check=UNHURRIED)
@given(data=st.data())
def test_one_mutation_anywhere_is_another_name(facts: SimpleNamespace, data: Any) -> None:
    paths = list(_leaves(BASE))
    path = data.draw(st.sampled_from(paths))
    mutated = copy.deepcopy(BASE)
    place: Any = mutated
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = data.draw(_json)
    same = orjson.dumps(mutated) == orjson.dumps(BASE)
    assert (name_of(facts, orjson.dumps(mutated)) == name_of(facts, orjson.dumps(BASE))) == same


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from _leaves(inner, (*path, key))


@settings(max_examples=300, suppress_health_check=UNHURRIED)
@given(
    teams=st.tuples(st.none() | st.text(max_size=5), st.none() | st.text(max_size=5)),
    keys=st.tuples(st.text(min_size=1, max_size=5), st.text(min_size=1, max_size=5)),
    versions=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_equal_names_only_within_a_tenant(
    facts: SimpleNamespace,
    teams: tuple[str | None, str | None],
    keys: tuple[str, str],
    versions: tuple[int, int],
) -> None:
    def name(number: int) -> str:
        rules = policy(
            "k", team_id=teams[number], key_id=keys[number], cache_version=versions[number]
        )
        return name_of(facts, b"{}", policy=rules)

    def tenant(number: int) -> tuple[str, str]:
        team = teams[number]
        return ("team", team) if team else ("key", keys[number])

    same = tenant(0) == tenant(1) and versions[0] == versions[1]
    assert (name(0) == name(1)) == same


def test_environments_and_fleet_keys_have_names_of_their_own(facts: SimpleNamespace) -> None:
    body = json.dumps(BASE).encode()
    trace = Trace(route=CHAT, policy=policy("alpha"), snapshot=facts.snapshot, model="chat")
    names = {
        CacheKeys(key, environment).name(trace, [], body).partition("answer:")[2]
        for key in (FLEET_KEY, bytes(32))
        for environment in ("prod", "dev")
    }
    assert len(names) == 4
