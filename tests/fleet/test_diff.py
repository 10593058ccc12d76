"""diff_documents: what changed, in words."""

import copy
from typing import Any

import pytest

from gateway_admin.fleet.diff import diff_documents, money_per_unit
from tests.contract import golden


@pytest.fixture
def before() -> Any:
    return golden.read("every_provider")["document"]


@pytest.fixture
def after(before: Any) -> Any:
    return copy.deepcopy(before)


def texts(before: Any, after: Any) -> Any:
    return [change.text for change in diff_documents(before, after)]


def deployment(document: Any, name: Any) -> Any:
    return next(row for row in document["deployments"] if row["name"] == name)


def credential(document: Any, name: Any) -> Any:
    return next(row for row in document["credentials"] if row["name"] == name)


def test_equal_documents_have_no_changes(before: Any, after: Any) -> None:
    assert texts(before, after) == []


def test_a_price_is_told_per_million(before: Any, after: Any) -> None:
    deployment(after, "openai-gpt-4o")["price"]["units"]["input_token"] = "0.000002"
    assert texts(before, after) == [
        "openai-gpt-4o: price per 1M input tokens $2.50 → $2.00",
    ]


def test_losing_the_price_is_told(before: Any, after: Any) -> None:
    deployment(after, "openai-embed")["price"] = None
    assert "openai-embed: price none → unpriced" in texts(before, after)


def test_a_replaced_secret_shows_nothing_of_it(before: Any, after: Any) -> None:
    credential(after, "OpenAI main").update(secret_id="x", fingerprint="other")
    assert texts(before, after) == ["OpenAI main: secret replaced"]


def test_a_secret_that_is_set_or_removed(before: Any, after: Any) -> None:
    credential(after, "GPU cellar").update(secret_id="x", fingerprint="f")
    credential(after, "Google").update(secret_id=None, fingerprint=None)
    assert texts(before, after) == ["Google: secret removed", "GPU cellar: secret set"]


def test_the_order_of_a_chain_is_told(before: Any, after: Any) -> None:
    chain = next(c for c in after["chains"] if c["kind"] == "general")
    chain["targets"].reverse()
    assert texts(before, after) == [
        "gpt-4o: order claude-sonnet, gemini-flash → gemini-flash, claude-sonnet"
    ]


def test_a_renamed_credential_is_one_change(before: Any, after: Any) -> None:
    credential(after, "OpenAI main")["name"] = "OpenAI EU"
    assert texts(before, after) == ["OpenAI EU: name OpenAI main → OpenAI EU"]


def test_another_credential_is_told_by_name(before: Any, after: Any) -> None:
    openai = credential(after, "OpenAI main")["id"]
    deployment(after, "azure-gpt-4o")["credential"] = openai
    assert texts(before, after) == ["azure-gpt-4o: credential Azure West Europe → OpenAI main"]


def test_a_twin_credential_of_the_same_name_is_told_apart(before: Any, after: Any) -> None:
    twin = {**credential(after, "OpenAI main"), "id": "11111111-0000-4000-8000-000000000000"}
    after["credentials"].append(twin)
    deployment(after, "openai-embed")["credential"] = twin["id"]
    assert "openai-embed: credential OpenAI main (00000000) → OpenAI main (11111111)" in texts(
        before, after
    )


def test_things_are_added_and_removed(before: Any, after: Any) -> None:
    after["deployments"].remove(deployment(after, "mistral-embed"))
    after["aliases"]["smart"] = "claude-sonnet"
    assert texts(before, after) == [
        "smart: alias added (points to claude-sonnet)",
        "mistral-embed: deployment removed",
    ]


def test_an_alias_that_moves(before: Any, after: Any) -> None:
    after["aliases"]["default"] = "claude-sonnet"
    assert texts(before, after) == ["default: points to gpt-4o → claude-sonnet"]


def test_environment_defaults(before: Any, after: Any) -> None:
    after["environment"].update(fallback_enabled=False, timeout_s=30.0, default_model=None)
    assert texts(before, after) == [
        "Production: default model default → none",
        "Production: fallback chains on → off",
        "Production: time-out 120 s → 30 s",
    ]


def test_a_lane_is_told(before: Any, after: Any) -> None:
    deployment(after, "openai-gpt-4o")["lane"] = "litellm"
    model = next(row for row in after["models"] if row["name"] == "gpt-4o")
    model["lane"] = "litellm"
    changed = "lane direct when possible → always through LiteLLM"
    assert texts(before, after) == [f"gpt-4o: {changed}", f"openai-gpt-4o: {changed}"]
    back = "lane always through LiteLLM → direct when possible"
    assert texts(after, before) == [f"gpt-4o: {back}", f"openai-gpt-4o: {back}"]


def test_parameters_are_named(before: Any, after: Any) -> None:
    deployment(after, "cellar-llama")["params"] = {"temperature": 0.5, "stop": ["a", "b"]}
    assert texts(before, after) == [
        "cellar-llama: stop none → a, b",
        "cellar-llama: temperature 0.2 → 0.5",
        "cellar-llama: keep_alive 5m → none",
    ]


def test_a_new_price_version_of_the_same_amount_is_a_change(before: Any, after: Any) -> None:
    deployment(after, "openai-gpt-4o")["price"]["version"] = "another"
    assert texts(before, after) == ["openai-gpt-4o: entered again with the same values"]


def test_the_first_publish_adds_everything(after: Any) -> None:
    changes = diff_documents(None, after)
    assert {change.action for change in changes} == {"added"}
    assert len(changes) == 5 + 2 + 3 + 8 + 7


@pytest.mark.parametrize("part", ["models", "credentials", "deployments", "chains"])
def test_no_difference_is_silent(before: Any, part: Any) -> None:
    """Whatever differs in the bytes has a line: a digest never changes without one."""
    for index, row in enumerate(before[part]):
        for field in row:
            after = copy.deepcopy(before)
            after[part][index][field] = _other(field, row[field])
            if after[part][index][field] != row[field]:
                assert diff_documents(before, after), field


def _other(field: Any, value: Any) -> Any:
    if isinstance(value, dict) or field == "price":
        return {**(value or {}), "version": "x", "source": "own", "units": {"request": "1"}}
    if isinstance(value, list):
        return value[1:]
    return f"{value}x" if isinstance(value, str) else 77


@pytest.mark.parametrize(
    ("unit", "amount", "words"),
    [
        ("input_token", "0.0000025", "$2.50"),
        ("input_token", "0.000000075", "$0.075"),
        ("input_token", "0", "$0.00"),
        ("image", "0.04", "$0.04"),
        ("request", "1000", "$1,000.00"),
        ("input_second", "0.0001", "$0.0001"),
    ],
)
def test_prices_in_words(unit: Any, amount: Any, words: Any) -> None:
    assert money_per_unit(unit, amount) == words
