"""Building, checking and mending the budgets' counters from the ledger.

At any moment, for each counter: spent = (sum of the ledger) + (settled, not yet in the
ledger). A check reads both sides at one instant: it holds the counter lock alone for as long
as it takes to begin a snapshot of the database and to read the counters, which is
milliseconds; then it sums the snapshot at leisure. Since every other writer keeps the
equation, what it finds wrong is added to the counters later, however they moved meanwhile.
"""

import uuid
from collections.abc import Collection, Container, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.db import connection, transaction
from django.utils import timezone

from gateway_admin.catalog.models import Environment
from gateway_admin.keys.calendar import calendar
from gateway_admin.keys.models import Budget
from gateway_admin.usage import charging, counter_store
from gateway_admin.usage.counter_store import Correction, CountersAway, Reading, Server
from gateway_admin.usage.models import CounterState, CounterUpdate
from gateway_admin.usage.spent import current_period, question_of, spent
from proxy.contract import counters as names
from proxy.contract.counters import dollars

log = structlog.get_logger(__name__)

ANYBODY = "*"
SETTLED_AFTER = timedelta(minutes=10)  # no request that began before a budget runs longer


@dataclass(frozen=True)
class Outcome:
    """What a rebuild or a repair did. Amounts in nano-dollars."""

    epoch: str
    built: bool = False
    counters: int = 0
    corrections: list[Correction] = field(default_factory=list)

    @property
    def drift_nano(self) -> int:
        return sum(abs(correction.nano) for correction in self.corrections)


def counters_ensure(*, environment: Environment) -> str:
    """The epoch of the environment's counters, built now if they are absent.

    They know then of everything that the ledger knows: what waits to be told is told first,
    so a worker that was cut off may go on in them. Concurrent callers share one build.
    CountersAway when Redis cannot be used.
    """
    if epoch := counter_store.epoch_of(environment.slug):
        with charging.counters_held(environment.pk, alone=False):
            charging.deliver_waiting(environment)
        return epoch
    with charging.only_builder(environment.pk):
        if epoch := counter_store.epoch_of(environment.slug):
            return epoch
        return _rebuild(environment).epoch


def counters_are_known(*, environment: Environment) -> bool:
    """Whether the counters are those of our last check; CountersAway without Redis."""
    state = CounterState.objects.filter(pk=environment.pk).first()
    epoch = counter_store.epoch_of(environment.slug)
    return state is not None and state.is_of(epoch or "?", counter_store.server().run_id)


def counters_rebuild(*, environment: Environment) -> Outcome:
    """Forget the counters and build them from the ledger, as a new epoch."""
    with charging.only_builder(environment.pk):
        return _rebuild(environment)


def counters_repair(
    *, environment: Environment, budgets: Collection[UUID] | None = None
) -> Outcome:
    """Compare the counters with the ledger and correct them; build them if they are absent.

    `budgets` limits it to some, for example those just created. A Redis that was started
    anew may have come back with an older state, which nothing else would show: its counters
    are built as new ones.
    """
    with charging.only_builder(environment.pk):
        epoch, server = counter_store.epoch_of(environment.slug), counter_store.server()
        state = CounterState.objects.filter(pk=environment.pk).first()
        if epoch is None or state is None or not state.is_of(epoch, server.run_id):
            return _rebuild(environment)
        return _repair(environment, epoch, server, budgets)


def counters_seed(*, environment: Environment, budgets: Collection[UUID]) -> None:
    """Let new budgets start at what was spent already; without Redis, there is nothing to seed."""
    try:
        counters_repair(environment=environment, budgets=budgets)
    except CountersAway as error:
        # They are built from the ledger, these budgets included, before they are used again.
        log.warning("counters_not_seeded", environment=environment.slug, error=str(error))


def _rebuild(environment: Environment) -> Outcome:
    counter_store.wipe(environment.slug)
    server = counter_store.server()
    chosen = _budgets(environment, None)
    with _snapshot(environment, updates="drop"):
        sums = _expected(environment, chosen, server.now)
    epoch = uuid.uuid4().hex
    spent_now = {
        counter: Reading(spent=sum(parts.values()), buckets=_only_buckets(parts))
        for counter, parts in sums.items()
    }
    counter_store.build(environment.slug, epoch=epoch, spent=spent_now)
    now = timezone.now()
    CounterState.objects.update_or_create(
        environment_id=environment.pk,
        defaults={
            "epoch": epoch,
            "server_run_id": server.run_id,
            "built_at": now,
            "checked_at": now,
            "counters": len(spent_now),
            "drift_nano": 0,
        },
    )
    log.info("counters_built", environment=environment.slug, counters=len(spent_now))
    with charging.counters_held(environment.pk, alone=False):
        charging.deliver_waiting(environment)  # of batches that came while it was built
    return Outcome(epoch, built=True, counters=len(spent_now))


def _repair(
    environment: Environment, epoch: str, server: Server, budgets: Collection[UUID] | None
) -> Outcome:
    chosen = _budgets(environment, budgets)
    with _snapshot(environment, updates="tell") as readings:
        sums = _expected(environment, chosen, server.now)
        current = _current_names(chosen, server.now)
    corrections = []
    for counter in {**sums, **readings}:
        if counter not in sums and not _is_current(counter, current):
            continue  # of a period that is over, or of a budget that is gone
        correction = _difference(
            counter, sums.get(counter, {}), readings.get(counter, Reading()), server.now
        )
        if correction is not None:
            corrections.append(correction)
    if not counter_store.mend(environment.slug, epoch=epoch, corrections=corrections):
        return _rebuild(environment)
    outcome = Outcome(epoch, counters=len({**sums, **readings}), corrections=corrections)
    if budgets is None:  # else they were changed, and follow
        _record(environment, outcome, chosen, readings)
    return outcome


@contextmanager
def _snapshot(environment: Environment, *, updates: str) -> Iterator[dict[str, Reading]]:
    """One instant of the database, and the counters of the same instant.

    `updates` that wait to be told: "tell" them first, or "drop" them, because counters that
    are built from this snapshot have them already.
    """
    readings: dict[str, Reading] = {}
    with ExitStack() as stack:
        with charging.counters_held(environment.pk, alone=True):
            if updates == "tell":
                charging.deliver_waiting(environment)
                readings = counter_store.readings(environment.slug)
            begins = not connection.in_atomic_block
            stack.enter_context(transaction.atomic())
            with connection.cursor() as cursor:
                if begins:  # else the caller's transaction is the snapshot
                    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                cursor.execute("SELECT count(*) FROM usage_counter_state")  # it begins here
            if updates == "drop":
                CounterUpdate.objects.filter(environment_id=environment.pk).delete()
        yield readings


def _budgets(environment: Environment, chosen: Collection[UUID] | None) -> list[Budget]:
    budgets = Budget.objects.filter(environment=environment)
    return list(budgets if chosen is None else budgets.filter(pk__in=chosen))


def _expected(
    environment: Environment, budgets: Collection[Budget], at: datetime
) -> dict[str, Mapping[int | None, int]]:
    """Counter -> what the ledger has for it, by bucket where the period rolls."""
    cut = calendar()
    sums = spent(environment, map(question_of, budgets), at=at)
    found: dict[str, Mapping[int | None, int]] = {}
    for budget in budgets:
        question = question_of(budget)
        period = current_period(question, at=at, cut=cut)
        for subject, parts in sums[question].items():
            if budget.subject in (subject, ANYBODY):
                ref = names.subject_ref(budget.scope, subject)
                found[names.counter_name(str(budget.pk), ref, period.id)] = parts
    return found


def _current_names(budgets: Collection[Budget], at: datetime) -> dict[str, str]:
    """Budget -> id of its current period."""
    cut = calendar()
    return {
        str(budget.pk): current_period(question_of(budget), at=at, cut=cut).id for budget in budgets
    }


def _is_current(counter: str, current: Mapping[str, str]) -> bool:
    budget, _, rest = counter.partition(":")
    return current.get(budget) == rest.rpartition(":")[2]


def _only_buckets(parts: Mapping[int | None, int]) -> dict[int, int]:
    return {bucket: nano for bucket, nano in parts.items() if bucket is not None}


def _difference(
    counter: str, parts: Mapping[int | None, int], reading: Reading, now: datetime
) -> Correction | None:
    """What to add to a counter so that it is what the ledger says; None: nothing."""
    oldest = counter_store.oldest_bucket(counter.rpartition(":")[2], now)
    if oldest is None:
        nano = sum(parts.values()) + reading.unrecorded - reading.spent
        return Correction(counter, nano) if nano else None
    ledger = _only_buckets(parts)
    counted = {bucket: nano for bucket, nano in reading.buckets.items() if bucket >= oldest}
    missing = sum(ledger.values()) + reading.unrecorded - sum(counted.values())
    nano = missing + sum(reading.buckets.values()) - reading.spent
    if not missing:
        return Correction(counter, nano) if nano else None
    # What is not in the ledger yet is put into the newest bucket: it stays longest there.
    wanted = dict(ledger)
    newest = max([*ledger, *counted, oldest])
    wanted[newest] = wanted.get(newest, 0) + reading.unrecorded
    changes = {
        bucket: wanted.get(bucket, 0) - counted.get(bucket, 0) for bucket in {**wanted, **counted}
    }
    return Correction(counter, nano, {bucket: add for bucket, add in changes.items() if add})


def _record(
    environment: Environment, outcome: Outcome, budgets: Collection[Budget], known: Container[str]
) -> None:
    """Keep and log what was wrong.

    A counter that was not there yet was not wrong, nor is one of a budget that is new: requests
    which ran when it was set do not know of it, and are found in the ledger only.
    """
    now = timezone.now()
    settled = {str(budget.pk) for budget in budgets if budget.updated_at < now - SETTLED_AFTER}
    wrong = [
        one
        for one in outcome.corrections
        if one.counter in known and one.counter.partition(":")[0] in settled
    ]
    drift_nano = sum(abs(one.nano) for one in wrong)
    state = CounterState.objects.filter(pk=environment.pk)
    state.update(checked_at=now, counters=outcome.counters, drift_nano=drift_nano)
    if wrong:
        state.update(drift_at=now)
        log.warning(
            "counters_drifted",
            environment=environment.slug,
            counters=len(wrong),
            dollars=str(dollars(drift_nano)),
            largest=max(wrong, key=lambda one: abs(one.nano)).counter,
        )
