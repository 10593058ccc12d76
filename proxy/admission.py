"""Who may spend, decided before the call.

    admit    before the first attempt: all rules of the request and of its first target, in
             one round trip, all or nothing; writes the hold
    enter    before an attempt on another target: that target's own rules, on the same hold
    settle   when the usage event is written: queued, never waits, never fails

While the shared counters are away a worker counts its own share (admission_local.py), or
refuses, as the environment says. `run` keeps holds alive and finds the way back.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from operator import sub
from typing import TYPE_CHECKING

from proxy.admission_denied import Denied, by_reply, by_share, used_up
from proxy.admission_headers import remaining_headers
from proxy.admission_local import LocalBook
from proxy.admission_plan import PlanBook, Reservation
from proxy.admission_refusals import (
    TargetRefused,
    counters_unavailable,
)
from proxy.admission_request import AdmissionRequest
from proxy.admission_rules import RuleBook, RuleSet
from proxy.admission_scripts import FOUND, Counters, Reply
from proxy.admission_settle import Settlements
from proxy.admission_spent import SpentBudgets
from proxy.admission_state import CountersState
from proxy.admission_wire import Settlement, belongs, given_back, settlement
from proxy.contract import AdmissionDocument
from proxy.contract.counters import nano_dollars
from proxy.estimate import countable_text
from proxy.grant import Grant, admission_document
from proxy.redis_link import LinkDown
from proxy.refusals import Refusal
from proxy.snapshot import Deployment
from proxy.trace import Trace

if TYPE_CHECKING:
    from proxy.worker import Worker

COUNTED_MAX = 4_000_000  # bytes; no model reads more, and counting takes its time
TRIES = 4  # a period that just ended, an estimate that is counted anew


class Admission:
    """Admission of one worker."""

    def __init__(self, worker: "Worker") -> None:
        self.worker = worker
        self.environment = worker.settings.fleet.environment
        self.book = LocalBook()
        self.book.workers, self.book.rank = worker.settings.workers, worker.slot
        self.rules = RuleBook(worker.policies, self.environment)
        self.plans = PlanBook(self.rules, worker.metrics.budgets.tells)
        self.state = CountersState(worker.metrics.admission, has_redis=worker.link is not None)
        self.counters: Counters | None = None
        self.settlements: Settlements | None = None
        if worker.link is not None:
            self.counters = Counters(worker.link, self.environment, worker.clock)
            self.settlements = Settlements(self.counters, worker.metrics.admission)
        self.spent_budgets = SpentBudgets()
        self._asking = 0  # requests whose question is on its way
        self.live: dict[str, Grant] = {}  # requests that hold something in the shared counters

    # --- before the attempts ---------------------------------------------------------------

    async def admit(
        self,
        trace: Trace,
        *,
        targets: Sequence[Deployment],
        first: Deployment,
        meanwhile: Callable[[], None] | None = None,
    ) -> None:
        """Let the request pass, or raise Refusal or TargetRefused. Sets `trace.grant`.

        `meanwhile` is called, if at all, while the shared counters are thinking.
        """
        started = time.perf_counter()
        request = AdmissionRequest(trace, targets, first, meanwhile)
        try:
            await self._admit(request)
        finally:
            self.worker.metrics.admission.latency.observe(time.perf_counter() - started)

    async def _admit(self, request: AdmissionRequest) -> None:
        denied: Denied | None = None
        for _ in range(TRIES):
            wanted = self._wanted(request)
            if (denied := self._exhausted(request, wanted)) is not None:
                pass
            elif not self.state.shared or (reply := await self._ask(request, wanted)) is None:
                denied = self._alone(request, wanted)
            elif reply.verdict == "ok":
                self._take(request, wanted, reply)
                return
            elif reply.verdict == "stale":
                # The period ended (or our clock was ahead): the request belongs to the new one.
                request.trace.started_at = self.worker.clock.now()
                continue
            else:
                self._learn(wanted, reply)
                denied = self._denied(wanted, reply)
            if denied is None or not await self._count_tokens(request, wanted, denied):
                break
        else:
            denied = self._alone(request, self._wanted(request))
        if denied is not None:
            self._refuse(denied, request.first)

    def spent(self, trace: Trace) -> Refusal | None:
        """The refusal of a request whose budget has just refused one of its kind; asks nobody."""
        known = self.spent_budgets.find(trace)
        if known is None:
            return None
        if self.state.shared and self.plans.holds(known.plan, trace.snapshot, trace.started_at):
            request = AdmissionRequest(trace, (), known.plan.first)
            wanted = known.plan.reserve(request.demand)
            if self.book.is_exhausted(wanted, known.index, self.worker.clock.now_ms()):
                denied = self._used_up(wanted, known.index)
                if self._may_count(request, wanted, denied):
                    return None
                self.worker.metrics.admission.refused(denied.scope, denied.kind)
                return denied.refusal
        self.spent_budgets.forget(trace)
        return None

    def _exhausted(self, request: AdmissionRequest, wanted: Reservation) -> Denied | None:
        """A budget that the shared counters have just told to be used up need not be asked for."""
        if not self.state.shared:
            return None
        index = self.book.exhausted(wanted, self.worker.clock.now_ms())
        if index is None:
            return None
        if wanted.plan.first.model == request.trace.model:  # not of the chain that is followed
            self.spent_budgets.remember(request.trace, wanted.plan, index)
        return self._used_up(wanted, index)

    def _used_up(self, wanted: Reservation, index: int) -> Denied:
        counter = wanted.rules.budgets[index].counter
        return used_up(wanted, index, self.book.balances[counter], self.book.own(counter))

    def _denied(self, wanted: Reservation, reply: Reply) -> Denied:
        is_budget = reply.kind == "budget"
        own = self.book.own(wanted.rules.budgets[reply.index].counter) if is_budget else 0
        return by_reply(wanted, reply, own)

    def _refuse(self, denied: Denied, target: Deployment) -> None:
        if denied.of_target:
            raise TargetRefused(target, denied.refusal)
        self.worker.metrics.admission.refused(denied.scope, denied.kind)
        raise denied.refusal

    def _wanted(self, request: AdmissionRequest) -> Reservation:
        """Everything the request has to keep when its first target is the chosen one."""
        trace = request.trace
        plan = self.plans.find(
            trace.policy,
            trace.customer,
            trace.snapshot,
            request.targets,
            request.first,
            trace.started_at,
        )
        return plan.reserve(request.demand)

    async def _ask(
        self, request: AdmissionRequest, wanted: Reservation, grant: Grant | None = None
    ) -> Reply | None:
        """Ask the shared counters; None when they cannot tell."""
        assert self.counters is not None
        assert self.settlements is not None
        self.settlements.hurry()
        trace = request.trace
        least_nano = wanted.plan.least_nano(request.demand)
        if self.book.owes:
            wanted = self._less_own(wanted)
        # Alone: nobody else's question will come along in this turn of the loop.
        alone = not self.live and not self._asking
        self._asking += 1
        try:
            command = self.counters.question(trace, wanted, least_nano, grant)
            reply = await self.counters.admit(
                command, wanted, at_once=alone, meanwhile=request.meanwhile
            )
        except LinkDown as error:
            self.lost(error)
            if grant is None:
                # It may have been admitted before the answer was lost.
                self._end_hold(given_back(trace.event_id))
            return None
        except BaseException:
            if grant is None:
                self._end_hold(given_back(trace.event_id))
            raise
        finally:
            self._asking -= 1
        if reply.verdict == "unbuilt":
            self.note_all()
            self.state.unbuilt()
            return None
        return reply

    def _less_own(self, wanted: Reservation) -> Reservation:
        """Budgets less what this worker spent alone and the ledger does not know yet."""
        rules = wanted.rules
        budgets = [rule.reduced(self.book.own(rule.counter)) for rule in rules.budgets]
        less = RuleSet(budgets, rules.windows, rules.parallel)
        return Reservation(replace(wanted.plan, rules=less, wire=None), wanted.nano, wanted.tokens)

    def _take(self, request: AdmissionRequest, wanted: Reservation, reply: Reply) -> None:
        """The shared counters admitted it. What that tells is noted once the provider is asked."""
        grant = Grant("shared", reply.epoch)
        wanted.second = reply.now_ms // 1000
        grant.parts.append(wanted)
        grant.target = wanted.plan.first
        grant.untold = wanted, reply
        request.trace.grant = grant
        self.live[request.trace.event_id] = grant

    def note(self, grant: Grant) -> None:
        """Learn from the answer that admitted a request, if that was not done yet."""
        if grant.untold is None:
            return
        (wanted, reply), grant.untold = grant.untold, None
        self._learn(wanted, reply)
        self.book.enter(wanted, reply.now_ms, alone=False)
        grant.headers = remaining_headers(self.book, wanted, reply)
        self.worker.metrics.admission.holds.set(len(self.live))

    def _learn(self, wanted: Reservation, reply: Reply) -> None:
        """Remember balances for the time when the counters are away."""
        raw = reply.raw
        if len(raw) < FOUND:  # nothing was looked at
            return
        budgets = wanted.plan.rules.budgets
        told = () if self.book.knows_better(wanted, reply.heard_s) else wanted.plan.told
        for owner, places in told:
            left = min([
                budgets[p].limit_nano - raw[FOUND + 2 * p] - raw[FOUND + 2 * p + 1] for p in places
            ])  # fmt: skip
            self.worker.metrics.budgets.remaining(
                owner.scope, owner.subject, owner.name, max(left, 0) / 1e9
            )
        if reply.verdict == "ok":  # from here on the answer says how it is with this request
            at = FOUND + 1
            for nano in wanted.nano:
                raw[at] += nano
                at += 2
        self.book.saw(wanted, raw, FOUND, reply.now_ms, reply.heard_s)

    async def _count_tokens(
        self, request: AdmissionRequest, wanted: Reservation, denied: Denied
    ) -> bool:
        """Whether a truer estimate, by the tokenizer, could fit where the bound did not."""
        demand, backend = request.demand, self.worker.backend
        if backend is None or not self._may_count(request, wanted, denied):
            return False
        request.counted = True
        model = str(request.first.params["model"])
        text = countable_text(request.trace.body)
        tokens = await asyncio.to_thread(backend.count_tokens, model, text)
        request.refine(demand.counted(tokens))
        return request.demand.input_tokens < demand.input_tokens

    def _may_count(self, request: AdmissionRequest, wanted: Reservation, denied: Denied) -> bool:
        """Whether counting its tokens could make a request fit."""
        demand = request.demand
        if denied.kind != "budget" or request.counted or not demand.text_only:
            return False
        if denied.spent_all or demand.input_tokens > COUNTED_MAX:
            return False
        least = wanted.plan.reserve(request.least_demand())
        return max(map(sub, wanted.nano, least.nano), default=0) >= denied.missing_nano

    # --- counting alone --------------------------------------------------------------------

    def lost(self, error: LinkDown) -> None:
        """The shared counters cannot be reached."""
        self.note_all()
        self.state.lost(str(error))

    def note_all(self) -> None:
        """Before counting alone: the share begins with all that was told."""
        for grant in self.live.values():
            self.note(grant)

    def _alone(self, request: AdmissionRequest, wanted: Reservation) -> Denied | None:
        environment = request.trace.snapshot.environment if request.trace.snapshot else None
        refuses = environment is not None and environment["on_counter_outage"] == "refuse"
        if refuses and self.counters is not None and wanted.rules:
            return Denied(counters_unavailable(), "counters", "environment", of_target=False)
        grant = Grant("local", "")
        denied = self._alone_on(grant, wanted)
        if denied is None:
            grant.headers = remaining_headers(self.book, wanted, None)
            request.trace.grant = grant
            if wanted.rules:
                self.worker.metrics.admission.local_admissions.inc()
        return denied

    def _alone_on(self, grant: Grant, wanted: Reservation) -> Denied | None:
        now_ms = self.worker.clock.now_ms()
        found = self.book.check(wanted, now_ms)
        if found is not None:
            return by_share(wanted, found, self.book.balances)
        if grant.mode == "local":
            self.book.hold(wanted)
        self._grow(grant, wanted, None)
        return None

    # --- further targets -------------------------------------------------------------------

    async def enter(self, trace: Trace, deployment: Deployment) -> None:
        """Reserve for an attempt on another target; raises TargetRefused."""
        grant = trace.grant
        if grant is None or grant.closed:
            return
        self.note(grant)
        request = AdmissionRequest(trace, (deployment,), deployment)
        wanted = self._further(request, grant)
        if not wanted.rules and not _is_of_another(grant, deployment):
            return
        if grant.mode == "shared" and self.state.shared:
            reply = await self._ask(request, wanted, grant)
            if reply is None or reply.verdict not in ("ok", "refused"):
                # Cannot be told now; the attempt goes on, and settlement charges it.
                grant.certain = False
                self._grow(grant, wanted, None)
                return
            self._learn(wanted, reply)
            if reply.verdict == "refused":
                raise TargetRefused(deployment, self._denied(wanted, reply).refusal)
            self._grow(grant, wanted, reply)
            return
        denied = self._alone_on(grant, wanted)
        if denied is not None:
            raise TargetRefused(deployment, denied.refusal)

    def _further(self, request: AdmissionRequest, grant: Grant) -> Reservation:
        """The rules of a target that the grant does not cover yet. Attempts count each time."""
        trace, at, row = request.trace, request.trace.started_at, request.first
        rules = self.rules.of_model(trace.policy, trace.customer, row.model, at)
        target = self.rules.of_target(row, at)
        held = {rule.counter for rule, _ in grant.budgets()}
        counted = {use.key for use in grant.windows}
        target.budgets = [rule for rule in target.budgets if rule.counter not in held]
        rules.budgets = [rule for rule in rules.budgets if rule.counter not in held]
        rules.windows = [window for window in rules.windows if window.key not in counted]
        rules.parallel = [one for one in rules.parallel if one.key not in grant.parallel]
        plan = self.plans.compile(trace.policy, trace.snapshot, rules, target, (row,), row)
        return plan.reserve(request.demand)

    def _grow(self, grant: Grant, wanted: Reservation, reply: Reply | None) -> None:
        """Without a reply the shared windows have yet to be told."""
        now_ms = self.worker.clock.now_ms() if reply is None else reply.now_ms
        self.book.enter(wanted, now_ms, alone=reply is None and self.counters is not None)
        wanted.second = now_ms // 1000
        grant.parts.append(wanted)
        grant.target = wanted.plan.first

    # --- afterwards ------------------------------------------------------------------------

    def settle(self, trace: Trace, *, cost: Decimal | None, tokens: int) -> None:
        """The request ended, at a cost in USD (None: not known). Only the first call counts."""
        grant = trace.grant
        if grant is None or grant.closed:
            return
        self.note(grant)
        grant.closed = True
        served = _served(trace)
        model = served.model if served is not None else trace.model
        nano = nano_dollars(cost) if cost is not None else 0
        endings = [part.plan.ending(model, served) for part in grant.parts]
        self.book.leave(grant, endings, tokens)
        if self.live.pop(trace.event_id, None) is not None:
            self.worker.metrics.admission.holds.set(len(self.live))
        if grant.mode == "shared":
            one = settlement(trace.event_id, grant, endings, nano=nano, tokens=tokens)
            self._end_hold(one, at_once=not self.live)
            return
        charged = [one for ending in endings for one in ending.charged]
        for (rule, held), is_charged in zip(grant.budgets(), charged, strict=True):
            self.book.spend(rule, held, nano if is_charged else None)

    def counters_renewed(self, epoch: str) -> None:
        """The counters were built anew: what ran before is known to this worker alone."""
        for hold_id, grant in list(self.live.items()):
            if grant.epoch == epoch:
                continue
            self.note(grant)
            del self.live[hold_id]
            self._end_hold(given_back(hold_id))
            grant.mode, grant.epoch = "local", ""
            for rule, nano in grant.budgets():
                self.book.hold_again(rule, nano)
        self.worker.metrics.admission.holds.set(len(self.live))

    def _end_hold(self, settlement: Settlement, *, at_once: bool = False) -> None:
        if self.settlements is not None:
            self.settlements.add(settlement, at_once=at_once)

    def describe(self, trace: Trace) -> AdmissionDocument:
        """How the request was admitted, for its event."""
        served = _served(trace)
        model = served.model if served is not None else trace.model
        return admission_document(trace.grant, model=model, served=served)

    def headers(self, trace: Trace) -> list[tuple[bytes, bytes]]:
        """What is left of limits and budgets, for the answer."""
        if trace.grant is None:
            return []
        self.note(trace.grant)
        return trace.grant.headers


def _served(trace: Trace) -> Deployment | None:
    last = trace.served_by()
    return trace.deployment(last["deployment"]) if last is not None else None


def _is_of_another(grant: Grant, row: Deployment) -> bool:
    """Whether the hold names budgets that this target's cost does not belong to, or not all."""
    was = grant.target
    return was is not None and any(
        belongs(rule, was) != belongs(rule, row) for rule, _ in grant.budgets()
    )
