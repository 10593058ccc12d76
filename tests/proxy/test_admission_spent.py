"""Refused before a route is planned: only what would be refused anyway."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy import admission_spent
from proxy.refusals import Refusal
from proxy.worker import Worker
from tests.proxy.documents import PEPPER, budget, policy, sealed, subject
from tests.proxy.drill import Drill

ASKS: list[dict[str, Any]] = [{}, {"max_tokens": 5_000}, {"user": "jane"}]


@pytest.fixture
async def drill() -> AsyncIterator[Drill]:
    async with Drill() as found:
        yield found


async def refusing(drill: Drill, limit_nano: int, **request: Any) -> Worker:
    """A worker that has refused a request twice, by its key's budget."""
    drill.subjects = [
        subject("key", "key-alpha", budgets=[budget("b", "1", limit_nano=limit_nano)])
    ]
    worker = await drill.worker()
    for _ in range(2):
        assert isinstance(await drill.try_admit(worker, **request), Refusal)
    return worker


@pytest.mark.parametrize("request_", ASKS)
async def test_the_next_of_its_kind_is_told_the_same(
    drill: Drill, request_: dict[str, Any]
) -> None:
    worker = await refusing(drill, 1, **request_)
    told = worker.admission.spent(drill.request(worker, **request_))
    again = await drill.try_admit(worker, **request_)
    assert told is not None
    assert isinstance(again, Refusal)
    assert (told.message, told.headers(), told.code) == (
        again.message,
        again.headers(),
        "insufficient_quota",
    )


async def test_a_smaller_request_is_asked_for(drill: Drill) -> None:
    worker = await refusing(drill, 2_000_000, max_tokens=5_000)
    assert worker.admission.spent(drill.request(worker, max_tokens=5_000)) is not None
    assert worker.admission.spent(drill.request(worker, max_tokens=1)) is None
    assert not isinstance(await drill.try_admit(worker, max_tokens=1), Refusal)


async def test_another_key_or_model_is_asked_for(drill: Drill) -> None:
    drill.keys.append(policy("beta"))
    worker = await refusing(drill, 1)
    assert worker.admission.spent(drill.request(worker, key="beta")) is None
    assert not isinstance(await drill.try_admit(worker, key="beta"), Refusal)


async def test_a_raised_budget_admits_at_once(drill: Drill) -> None:
    worker = await refusing(drill, 1)
    drill.subjects = [subject("key", "key-alpha", budgets=[budget("b", "1000")])]
    drill.tell(worker)
    assert worker.admission.spent(drill.request(worker)) is None
    assert not isinstance(await drill.try_admit(worker), Refusal)


async def test_it_is_asked_for_again_after_a_moment(drill: Drill) -> None:
    worker = await refusing(drill, 1)
    for balance in worker.admission.book.balances.values():
        balance.seen_ms -= 1_000
    assert worker.admission.spent(drill.request(worker)) is None
    assert len(worker.admission.spent_budgets) == 0


async def test_without_the_shared_counters_nothing_is_remembered(drill: Drill) -> None:
    worker = await refusing(drill, 1)
    worker.admission.state.lost("a drill")
    assert worker.admission.spent(drill.request(worker)) is None


async def test_callers_cannot_make_it_grow(drill: Drill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_spent, "KINDS_MAX", 10)
    worker = await refusing(drill, 1)
    for number in range(50):
        await drill.try_admit(worker, user=f"customer {number}")
        assert len(worker.admission.spent_budgets) <= 10


async def test_a_raised_budget_admits_although_others_keep_its_balance_fresh(drill: Drill) -> None:
    """A feed of what changed leaves the key's own policy as it was."""
    drill.keys.append(policy("beta"))
    drill.subjects = [subject("team", "team-1", budgets=[budget("b", "1", limit_nano=1)])]
    worker = await drill.worker()
    for _ in range(2):
        assert isinstance(await drill.try_admit(worker), Refusal)
    assert worker.admission.spent(drill.request(worker)) is not None
    raised = [subject("team", "team-1", budgets=[budget("b", "1000")])]
    worker.apply_policies(
        {
            "version": drill.version + 1, "full": False, "pepper": sealed("pepper", PEPPER),
            "keys": [], "removed": [], "subjects": raised, "removed_subjects": [],
            "calendar": drill.calendar, "breaker_orders": [],
        }
    )  # fmt: skip
    assert not isinstance(await drill.try_admit(worker, key="beta"), Refusal)
    assert worker.admission.spent(drill.request(worker)) is None
    assert not isinstance(await drill.try_admit(worker), Refusal)


async def test_a_fallbacks_budget_is_not_that_of_the_model_asked_for(drill: Drill) -> None:
    """The chain was followed since the model's own deployments were kept out."""
    dear = budget("b", "1", limit_nano=1, model="dear")
    drill.subjects = [subject("key", "key-alpha", budgets=[dear])]
    worker = await drill.worker()
    assert worker.snapshot is not None
    rows = worker.snapshot.by_model
    for _ in range(3):
        trace = drill.request(worker)
        with pytest.raises(Refusal):
            await worker.admission.admit(
                trace, targets=(*rows["chat"], *rows["dear"]), first=rows["dear"][0]
            )
    assert worker.admission.spent(drill.request(worker)) is None
