"""What admitted a request is read late; by then others may have told something newer."""

from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from proxy.contract.counters import nano_dollars
from proxy.redis_link import LinkDown
from proxy.worker import Worker
from tests.proxy.documents import budget, subject
from tests.proxy.drill import Drill

LIMIT = 100


@pytest.fixture
async def drill() -> AsyncIterator[Drill]:
    async with Drill() as found:
        yield found


async def worker_with_budget(drill: Drill) -> Worker:
    drill.subjects = [subject("key", "key-alpha", budgets=[budget("b", str(LIMIT))])]
    return await drill.worker()


def spent(worker: Worker) -> int:
    """As far as this worker knows, nano-dollars."""
    (balance,) = (one for name, one in worker.admission.book.balances.items() if "b:" in name)
    return balance.spent


async def test_an_old_answer_does_not_undo_a_newer_one(drill: Drill) -> None:
    worker = await worker_with_budget(drill)
    early = await drill.admit(worker)  # at its provider for a while: its answer is not noted yet
    assert early.grant is not None
    assert early.grant.untold is not None
    other = await drill.admit(worker)
    await drill.finish(worker, other, usd="95")
    newest = await drill.admit(worker)
    assert newest.grant is not None
    worker.admission.note(newest.grant)
    assert spent(worker) == nano_dollars(Decimal(95))
    worker.admission.note(early.grant)
    assert spent(worker) == nano_dollars(Decimal(95))


@pytest.mark.parametrize("how", ["lost", "unbuilt"])
async def test_counting_alone_begins_with_all_that_was_told(drill: Drill, how: str) -> None:
    worker = await worker_with_budget(drill)
    early = await drill.admit(worker)
    assert early.grant is not None
    if how == "lost":
        worker.admission.lost(LinkDown("a drill"))
    else:
        await drill.redis.flushdb()
        await drill.try_admit(worker)
    assert worker.admission.state.mode != "shared"
    assert early.grant.untold is None
    alone = await drill.admit(worker)
    worker.admission.settle(alone, cost=Decimal(90), tokens=0)
    (rule,) = (rule for rule, _ in early.grant.budgets())
    left = worker.admission.book.left(rule)
    worker.admission.settle(early, cost=None, tokens=0)
    assert worker.admission.book.left(rule) == left < nano_dollars(Decimal(11))
