"""The Router follows snapshots, also when one brings back what the last one removed."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

NAMES = [f"dep-{number}" for number in range(12)]


def snapshot(names: list[str]) -> Any:
    """As much of a snapshot as the Router is told."""
    params = {"model": "openai/gpt-4o", "api_key": "sk-anything-12345678"}
    rows = {
        name: SimpleNamespace(id=name, name=name, model="m", params=params, secrets=())
        for name in names
    }
    return SimpleNamespace(deployments=rows, models={"m": {"mode": "chat"}})


def test_what_comes_back_while_it_is_retired_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    from proxy import router  # imports LiteLLM

    monkeypatch.setattr(router, "RETIRE_AFTER_S", 0.0)
    monkeypatch.setattr(router, "YIELD_EVERY", 1)

    async def scenario() -> list[str]:
        found = router.new_router()
        applier = router.RouterApplier(found)
        await applier.apply(snapshot(NAMES))
        await applier.apply(snapshot([]))  # their removal is due at the next turn of the loop
        await applier.apply(snapshot(NAMES))
        await asyncio.sleep(0.01)
        present = [name for name in NAMES if found.has_model_id(name)]
        await applier.apply(snapshot(NAMES[:1]))
        await asyncio.sleep(0.01)
        assert [name for name in NAMES if found.has_model_id(name)] == NAMES[:1]
        return present

    assert asyncio.run(scenario()) == NAMES
