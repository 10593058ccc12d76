"""Takes one checked request through its attempts, and settles it whatever happens.

    walk.next ─► executor.attempt ─► succeeded: the answer goes to the client, to its end
        ▲              └─ Failure: nothing was sent yet
        └──────────────┘ until something answers, or nothing is left that could help

The client's connection is watched beside the attempt: when the client leaves, a stream
is read on for a moment (`abort_drain_s`) to learn its true usage, a whole answer until its
time-out, since the provider charges for all of it. Then the attempt is cancelled, which
closes the connection to the provider. No further attempt is made for nobody.
"""

import asyncio
import contextlib
import logging
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from proxy.admission_refusals import TargetRefused
from proxy.answer import Answer, anthropic_shape, gateway_headers, kept_headers, respond
from proxy.attempt import Call, Executor, Failure
from proxy.breaker import Permit
from proxy.clock import text_of
from proxy.contract import AttemptDocument, UsageEventDocument
from proxy.errors import code_of, type_of
from proxy.lanes import Prepared
from proxy.metering import Usage
from proxy.refusals import Refusal, error_body
from proxy.retry import UNHEALTHY
from proxy.routing import Step, Walk
from proxy.snapshot import Deployment
from proxy.trace import Trace
from proxy.usage import finished_event, needs_estimate, refused_event
from proxy.watch import EXTENSION, Watch
from proxy.worker import Kept, Scope, Send, Worker

__all__ = ["Relay", "respond"]

logger = logging.getLogger("gateway.relay")

CANCEL_GRACE_S = 2.0


class Relay:
    """One request on its way through its attempts."""

    def __init__(self, worker: Worker, trace: Trace, scope: Scope, send: Send) -> None:
        assert worker.backend is not None
        self.worker = worker
        self.trace = trace
        self.send = send
        self.answer = Answer(trace, send, self._settle)
        self.answer.extra_headers = lambda: worker.admission.headers(trace)
        self.settled = False
        self._settling = False
        self._headers = scope["headers"]
        self._watch = Watch(scope["extensions"][EXTENSION])
        self._call: Call | None = None
        self._prepared: Prepared | None = None
        self._unbooked: Kept | None = None
        self._permit: Permit | None = None

    async def run(self, body: bytes, content_type: bytes) -> None:
        """Serve the request to its end, then make sure that it is accounted for."""
        self.worker.metrics.in_flight.inc()
        try:
            await self._serve(body, content_type)
        except Refusal as refusal:
            await self._refuse(refusal)
            refusal.__traceback__ = None  # its frames refer to it
        finally:
            self._watch.stop()
            self.worker.metrics.in_flight.dec()
            if not self.settled:
                self._settle_now(aborted=True)
            self._book()
            self.worker.admission.settle(self.trace, cost=None, tokens=0)  # if nothing did yet
            self._tell_breaker("n")
            self.answer.release()

    # --- attempts --------------------------------------------------------------------------

    async def _serve(self, body: bytes, content_type: bytes) -> None:
        keeper = self._keeper()
        plan = self.worker.planner.plan(self.trace, keeper=keeper)
        walk = Walk(self.trace, plan, self.worker.breakers)
        while (step := walk.next()) is not None:
            await self._pause(step.wait_s)
            if self._is_abandoned():
                await self._end(None)
                return
            if not await self._admitted(step, walk):
                continue
            self._permit = await walk.acquire(step)
            if self._permit is None:
                continue
            if self._is_abandoned():  # asking took a while
                await self._end(None)
                return
            call = self._open(step, walk, body, content_type)
            executor = self._lane(call)
            failure = await self._attempt(executor, call)
            if self.answer.started or self.answer.client_gone:
                await self._end(failure)
                return
            failure = failure or Failure("internal", None, "The attempt ended without an answer.")
            self._close_failed(failure)
            walk.failed(step, failure)
        verdict = walk.verdict()
        if isinstance(verdict, Refusal):
            await self._refuse(verdict)
        else:
            await self._fail(verdict)

    async def _admitted(self, step: Step, walk: Walk) -> bool:
        """Budgets and limits: the request's before its first attempt, then each target's own."""
        admission, trace = self.worker.admission, self.trace
        try:
            if trace.grant is None:
                await admission.admit(
                    trace,
                    targets=walk.plan.targets,
                    first=step.deployment,
                    meanwhile=lambda: self._prepare(step.deployment),
                )
            else:
                await admission.enter(trace, step.deployment)
        except TargetRefused as error:
            walk.refused(step, error.refusal)
            return False
        return True

    def _prepare(self, row: Deployment) -> None:
        """What admission will most probably allow, while it is asked."""
        if self._prepared is None and self.worker.lanes is not None:
            self._prepared = self.worker.lanes.prepare(self.trace, row)

    def _keeper(self) -> str | None:
        """The deployment that keeps the conversation which a Responses request continues."""
        previous = self.trace.body.get("previous_response_id")
        if not isinstance(previous, str) or self.worker.backend is None:
            return None
        return self.worker.backend.deployment_of_response(previous)

    async def _pause(self, wait_s: float) -> None:
        """Wait before a retry, for no longer than the client does."""
        if wait_s > 0:
            await asyncio.wait({self._watch.gone()}, timeout=wait_s)

    def _is_abandoned(self) -> bool:
        """Whether the client left between attempts, or before the first; noted."""
        if not self._watch.left:
            return False
        self.answer.client_gone = True
        self.answer.capture.usage = Usage()  # what failed before is not charged
        return True

    def _open(self, step: Step, walk: Walk, body: bytes, content_type: bytes) -> Call:
        """Begin to record an attempt."""
        trace, row = self.trace, step.deployment
        trace.attempt_started = time.perf_counter()
        trace.attempts.append(
            {
                "deployment": row.id,
                "model": step.model,
                "why": step.why,
                "started_at": text_of(datetime.now(UTC)),
                "latency_ms": 0.0,
                "status": None,
                "error_class": None,
                "error": None,
            }
        )
        self._call = Call(
            trace,
            row,
            body,
            content_type,
            self._headers,
            timeout_s=max(min(self._limit_s(row), walk.remaining_s), 0.001),
            refusals_fail=walk.can_reach("content_policy"),
        )
        return self._call

    def _limit_s(self, row: Deployment) -> float:
        return row.stream_timeout_s if self.trace.streaming else row.timeout_s

    def _lane(self, call: Call) -> Executor:
        """The executor that makes the attempt; noted with the reason."""
        assert self.worker.lanes is not None
        first = len(self.trace.attempts) == 1
        executor, self.trace.lane_reason = self.worker.lanes.choose(
            call, first=first, prepared=self._prepared
        )
        self._running()["lane"] = executor.lane
        return executor

    async def _attempt(self, executor: Executor, call: Call) -> Failure | None:
        """One attempt, watched; None also when it was stopped because the client left."""
        if call.direct is not None:
            return await self._attempt_here(executor, call)
        return await self._attempt_in_task(executor, call)

    async def _attempt_here(self, executor: Executor, call: Call) -> Failure | None:
        """An executor that keeps its own time and can be told to stop needs no task.

        What need not be done before the provider is asked is done while it works.
        """
        timers: list[asyncio.TimerHandle] = []

        def left() -> None:
            self.answer.client_gone = call.abandoned = True
            loop = asyncio.get_running_loop()
            timers.append(loop.call_later(self._drain_s(call), call.give_up))

        def sent() -> None:
            self._watch.tell(left)
            if self.trace.grant is not None:
                self.worker.admission.note(self.trace.grant)

        call.on_sent = sent
        try:
            return await executor.attempt(call, self.answer)
        finally:
            call.on_sent = None
            self._watch.stop()
            for timer in timers:
                timer.cancel()

    async def _attempt_in_task(self, executor: Executor, call: Call) -> Failure | None:
        """LiteLLM has to be cancelled."""
        work, gone = asyncio.create_task(executor.attempt(call, self.answer)), self._watch.gone()
        either: set[asyncio.Future[Any]] = {work, gone}
        if self.trace.grant is not None:
            self.worker.admission.note(self.trace.grant)
        late_s = call.timeout_s + CANCEL_GRACE_S
        first = asyncio.FIRST_COMPLETED
        try:
            await asyncio.wait(either, timeout=late_s, return_when=first)
            if self.answer.started and not work.done():
                await asyncio.wait(either, return_when=first)
            if not work.done() and not gone.done():
                return _overdue(call)  # it did not end when its own time was over
            if not work.done():
                self.answer.client_gone = call.abandoned = True
                await asyncio.wait({work}, timeout=self._drain_s(call))
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait({work}, timeout=CANCEL_GRACE_S)
            if work.done() and work.cancelled():
                _let_go(work)
        if not work.done() or work.cancelled():
            return None
        return work.result()

    def _drain_s(self, call: Call) -> float:
        return self.worker.settings.abort_drain_s if self.trace.streaming else call.timeout_s

    # --- ends ------------------------------------------------------------------------------

    async def _end(self, failure: Failure | None) -> None:
        """The attempt was passed on, or nobody waits for it any more."""
        capture = self.answer.capture
        if not self.settled:
            if failure is not None and self.answer.started:
                capture.break_off(failure.error_class, failure.message)
            elif failure is not None:
                self._close_failed(failure)
            await self._settle()
        self._judge_answer()
        await self.answer.end_broken()

    async def _refuse(self, refusal: Refusal) -> None:
        """Nothing may be called: the request ends as a refusal of the edge does."""
        self.settled = True
        self.worker.metrics.refusals.labels(refusal.reason).inc()
        self.worker.record(refused_event(self.trace, refusal))
        self.trace.closed = True
        body = refusal.body(anthropic_shape=anthropic_shape(self.trace))
        headers = [*refusal.headers(), *gateway_headers(self.trace)]
        await respond(self.send, refusal.status, body, headers)

    async def _fail(self, failure: Failure) -> None:
        """No attempt succeeded: tell so in the shape and with the codes that clients know."""
        capture = self.answer.capture
        capture.status = failure.client_status
        capture.error_class, capture.error = failure.error_class, failure.message
        capture.sse_began = failure.charged
        status, message = failure.client_status, failure.message
        if failure.error_class == "authentication":
            # Not the caller's key: a 401 would send people looking in the wrong place.
            status = capture.status = 502
            message = (
                f"The provider refused this gateway's credential for {self.trace.model!r}: "
                f"{message} Tell an admin: the virtual key is fine."
            )
        elif failure.error_class == "internal":
            message = (
                "The gateway failed to answer this request. Retry; if it stays, tell an admin."
            )
        await self._settle()
        body = error_body(
            message,
            status=status,
            kind=type_of(failure.error_class),
            code=code_of(failure.error_class),
            param=None,
            anthropic_shape=anthropic_shape(self.trace),
        )
        skipped = (b"content-type", b"content-length")
        headers = [(n, v) for n, v in kept_headers(failure.headers) if n not in skipped]
        await respond(self.send, status, body, [*headers, *gateway_headers(self.trace)])

    # --- the breaker -------------------------------------------------------------------------

    def _tell_breaker(self, outcome: str, why: str = "") -> None:
        """How the attempt ended, once: s succeeded, f failed, n says nothing of its health."""
        if self._permit is not None:
            self.worker.breakers.record(self._permit, outcome, why)
            self._permit = None

    def _judge_failure(self, call: Call, failure: Failure) -> None:
        """What a failed attempt says of its deployment, and of its credential."""
        row, error_class = call.deployment, failure.error_class
        hurried = error_class == "timeout" and call.timeout_s < self._limit_s(row)
        unhealthy = error_class in UNHEALTHY and not hurried
        self._tell_breaker("f" if unhealthy else "n", error_class)
        if error_class == "rate_limit" and failure.reset_s:
            self.worker.breakers.pause(row.id, failure.reset_s)
        elif error_class == "authentication":
            alarms = self.worker.metrics.routing.credential_alarms
            alarms.labels(row.provider, row.credential or "").inc()

    def _judge_answer(self) -> None:
        """What an answer that reached its end, or broke off, says of its deployment."""
        capture, call = self.answer.capture, self._call
        if call is None or not self.answer.started or call.trace.snapshot is None:
            return
        slow_s = call.trace.snapshot.environment["breaker"]["slow_call_s"]
        if capture.error_class in UNHEALTHY:
            self._tell_breaker("f", str(capture.error_class))
        elif slow_s is not None and self.answer.began - self.trace.attempt_started > slow_s:
            self._tell_breaker("f", f"slower than {slow_s:g} s")
        elif capture.finished and capture.error_class is None:
            self._tell_breaker("s")

    # --- the record of attempts --------------------------------------------------------------

    def _running(self) -> AttemptDocument:
        return self.trace.attempts[-1]

    def _close_failed(self, failure: Failure) -> None:
        if self._call is not None:
            self._judge_failure(self._call, failure)
        attempt = self._running()
        attempt["latency_ms"] = self._latency_ms()
        attempt["status"] = failure.status
        attempt["error_class"] = failure.error_class
        attempt["error"] = failure.message
        attempt["cost"] = None if failure.charged else "0"

    def _close_attempt(self) -> None:
        """The event is about to be written; a stream's attempt lasts until its end."""
        if self._call is not None and self._running()["latency_ms"] == 0.0:
            attempt = self._running()
            attempt["latency_ms"] = self._latency_ms()
            if self.answer.started:
                attempt["status"] = attempt["status"] or self.answer.capture.status

    def _latency_ms(self) -> float:
        """Time in the provider, without LiteLLM's own work where its hooks tell the two apart."""
        call, now = self._call, time.perf_counter()
        if call is None or not call.provider_started:
            return (now - self.trace.attempt_started) * 1000
        ended = call.provider_ended if not self.trace.streaming else 0.0
        return ((ended or now) - call.provider_started) * 1000

    # --- settlement ----------------------------------------------------------------------

    async def _settle(self, *, book: bool = True) -> None:
        """Write the usage event; counting tokens ourselves is done outside the loop.

        Without `book` the rest waits for `_book`: what follows at once need not wait for it.
        """
        if self.settled or self._settling:
            return
        self._settling = True
        try:
            event = await self._finished_event()
        finally:
            self._settling = False
        self._account(event)
        if self.trace.cache is not None:
            self.trace.cache.settled(event)
        if book:
            self._book()

    async def _finished_event(self) -> UsageEventDocument:
        self._close_attempt()
        capture, aborted = self.answer.capture, self.answer.client_gone
        count = self.worker.backend.count_tokens if self.worker.backend else None
        if needs_estimate(capture, aborted=aborted):
            capture.decode()
            counting = asyncio.to_thread(
                finished_event, self.trace, capture, aborted=aborted, count_tokens=count
            )
            return await asyncio.shield(counting)
        return finished_event(self.trace, capture, aborted=aborted, count_tokens=None)

    def _settle_now(self, *, aborted: bool) -> None:
        """Last resort when this task itself is being cancelled."""
        self._close_attempt()
        count = self.worker.backend.count_tokens if self.worker.backend else None
        self.answer.capture.decode()
        event = finished_event(self.trace, self.answer.capture, aborted=aborted, count_tokens=count)
        self._account(event)

    def _account(self, event: UsageEventDocument) -> None:
        """Make the event durable."""
        self.settled = self.trace.closed = True
        if event["attempts"] and event["attempts"][-1].get("cost") is None:
            event["attempts"][-1]["cost"] = event["cost"]
        self._unbooked = self.worker.keep(event)

    def _book(self) -> None:
        """End the hold and count the event: where that gets lost, the ledger finds it."""
        kept, self._unbooked = self._unbooked, None
        if kept is None:
            return
        event = kept.event
        cost = Decimal(event["cost"]) if event["cost"] is not None else None
        tokens = event["input_tokens"] + event["output_tokens"]
        self.worker.admission.settle(self.trace, cost=cost, tokens=tokens)
        self.worker.count(kept)


def _let_go(cancelled: "asyncio.Task[Failure | None]") -> None:
    """Until somebody asks for it, a task keeps the exception that ended it, with every frame
    that it passed: the whole request, in a cycle through LiteLlmLane's clock."""
    with contextlib.suppress(asyncio.CancelledError):
        cancelled.result()


def _overdue(call: Call) -> Failure:
    call.over = True
    text = f"The attempt did not end within {call.timeout_s:g} s."
    return Failure("timeout", None, text, client_status=408)
