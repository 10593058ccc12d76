"""The most that a request may cost: bounds hold, caps are found, units are counted."""

from decimal import Decimal
from typing import Any

import orjson
import pytest

from proxy.contract import EnvironmentDocument, ModelDocument
from proxy.defaults import with_defaults
from proxy.estimate import (
    DEFAULT_OUTPUT_TOKENS,
    IMAGE_TOKENS,
    Demand,
    cap_output,
    demand_of,
    worst_cost,
)
from proxy.routes import Kind
from proxy.snapshot import Price
from tests.proxy.documents import policy

MODEL: ModelDocument = {
    "name": "m",
    "mode": "chat",
    "context_window": 128_000,
    "max_output_tokens": 16_384,
    "cache": True,
}


def demand(kind: Kind = "chat", **body: Any) -> Demand:
    """Demand of a JSON body."""
    return demand_of(body, kind, body_bytes=len(orjson.dumps(body)), form=False)


def price(**units: str) -> Price:
    """Unit prices."""
    return Price("p", "own", {unit: Decimal(amount) for unit, amount in units.items()})


@pytest.mark.parametrize(
    "text", ["hello", "日本語のテキスト" * 50, "\x00\x01\x02" * 99, "🦊" * 333, ""]
)
def test_there_are_never_more_tokens_than_bytes(text: str) -> None:
    found = demand(messages=[{"role": "user", "content": text}])
    assert found.input_tokens >= len(text.encode())
    assert found.text_only


def test_images_audio_and_documents_are_not_counted_as_text() -> None:
    picture = "data:image/png;base64," + "A" * 400_000
    parts = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": "?"}]
    found = demand(messages=[{"role": "user", "content": parts}])
    assert IMAGE_TOKENS <= found.input_tokens < IMAGE_TOKENS + 1_000
    assert not found.text_only
    source = {"type": "base64", "media_type": "image/png", "data": "A" * 400_000}
    found = demand(
        "messages", messages=[{"role": "user", "content": [{"type": "image", "source": source}]}]
    )
    assert IMAGE_TOKENS <= found.input_tokens < IMAGE_TOKENS + 1_000
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 16_000, "format": "wav"}}
    found = demand(messages=[{"role": "user", "content": [sound]}])
    assert found.audio
    assert 1_000 <= found.input_tokens < 2_000
    paper = {"type": "file", "file": {"file_data": "data:application/pdf;base64," + "A" * 9_000}}
    found = demand(messages=[{"role": "user", "content": [paper]}])
    assert found.input_bound(MODEL) == 128_000


def test_a_body_of_any_shape_is_measured() -> None:
    schema = {"type": "object", "properties": {"name": {"type": ["string", "null"]}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    assert demand(messages=[], tools=tools).text_only
    deep: Any = "x"
    for _ in range(1_000):
        deep = [deep]
    body = {"messages": deep, "modalities": 3}
    assert demand_of(body, "chat", body_bytes=2_100, form=False).text_only


@pytest.mark.parametrize("body", [{"previous_response_id": "resp_1"}, {"conversation": "conv_1"}])
def test_what_lies_with_the_provider_is_bounded_by_the_context_window(body: dict[str, Any]) -> None:
    found = demand("responses", input="go on", **body)
    assert found.input_bound(MODEL) == 128_000
    assert not found.text_only


@pytest.mark.parametrize(
    ("kind", "body", "cap"),
    [
        ("chat", {"max_tokens": 7}, 7),
        ("chat", {"max_tokens": 7, "max_completion_tokens": 9}, 9),
        ("chat", {"max_tokens": 7, "n": 3}, 21),
        ("completion", {"max_tokens": 7, "prompt": ["a", "b"], "n": 2, "best_of": 3}, 42),
        ("completion", {"max_tokens": 7, "prompt": [1, 2, 3]}, 7),
        ("responses", {"max_output_tokens": 5}, 5),
        ("messages", {"max_tokens": 11}, 11),
        ("embedding", {"input": "x"}, 0),
        ("chat", {}, 16_384),
        ("chat", {"n": 2}, 32_768),
        ("chat", {"max_tokens": 0}, 16_384),
        ("chat", {"max_tokens": "many"}, 16_384),
    ],
)
def test_output_is_capped_by_what_is_stated_or_by_the_model(
    kind: Kind, body: dict[str, Any], cap: int
) -> None:
    found = demand(kind, **body)
    assert found.output_cap(MODEL) == cap
    assert found.output_cap({**MODEL, "max_output_tokens": None}) == (
        DEFAULT_OUTPUT_TOKENS * found.choices if cap > 1_000 else cap
    )


def environment(tokens: int | None) -> EnvironmentDocument:
    """An environment with that cap."""
    return with_defaults({"default_output_tokens": tokens})  # type: ignore[typeddict-item]


def test_caps_of_ours_are_written_into_requests_that_state_none() -> None:
    body: dict[str, Any] = {"messages": []}
    cap_output(body, "chat", policy("a"), environment(None))
    assert "max_tokens" not in body
    cap_output(body, "chat", policy("a"), environment(50))
    assert body["max_tokens"] == 50
    stated: dict[str, Any] = {"max_completion_tokens": 9}
    cap_output(stated, "chat", policy("a", max_output_tokens=20), environment(50))
    assert stated == {"max_completion_tokens": 9}
    answer: dict[str, Any] = {}
    cap_output(answer, "responses", policy("a", max_output_tokens=20), environment(50))
    assert answer == {"max_output_tokens": 20}
    vector: dict[str, Any] = {}
    cap_output(vector, "embedding", policy("a", max_output_tokens=20), environment(50))
    assert vector == {}


def test_the_dearest_way_to_use_tokens_counts() -> None:
    plain = demand(messages=[{"role": "user", "content": "x"}], max_tokens=10)
    cached = demand(
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {}}]}
        ],
        max_tokens=10,
    )
    units = {"input_token": "0.001", "cache_write_token": "0.002", "output_token": "0.01"}
    assert worst_cost(plain, price(**units), MODEL) == plain.input_tokens * Decimal(
        "0.001"
    ) + Decimal("0.1")
    assert worst_cost(cached, price(**units), MODEL) == cached.input_tokens * Decimal(
        "0.002"
    ) + Decimal("0.1")
    thinking = price(output_token="0.01", reasoning_token="0.05")
    assert worst_cost(plain, thinking, MODEL) == Decimal("0.5")


def test_what_is_not_sold_by_tokens_is_counted_in_its_units() -> None:
    assert worst_cost(demand("image", prompt="a cat", n=3), price(image="0.04"), None) == Decimal(
        "0.12"
    )
    speech = demand("speech", input="abc" * 100)
    assert worst_cost(speech, price(input_character="0.01"), None) == 3
    ranking = demand("rerank", query="q", documents=["a", "b"])
    assert worst_cost(ranking, price(query="0.002"), None) >= Decimal("0.002")
    sound = demand_of({"model": "whisper"}, "transcription", body_bytes=60_000, form=True)
    assert worst_cost(sound, price(input_second="0.0001"), None) == Decimal("0.006")
    assert worst_cost(demand(), price(request="0.5"), None) == Decimal("0.5")
    assert worst_cost(demand("count_tokens"), price(input_token="1", request="1"), None) == 0


def test_token_limits_reserve_what_is_likely_and_what_is_stated() -> None:
    text = [{"role": "user", "content": "word " * 3_000}]
    assert demand(messages=text, max_tokens=9_000).rough_tokens(MODEL) == pytest.approx(
        14_000, 0.05
    )
    assert demand(messages=text).rough_tokens(MODEL) == pytest.approx(6_000, 0.05)
