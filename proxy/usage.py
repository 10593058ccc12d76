"""Trace and capture of a request -> its usage event."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson

from proxy.capture import Capture
from proxy.clock import text_of
from proxy.contract import AttemptDocument, EventStatus, UsageEventDocument
from proxy.grant import admission_document
from proxy.metering import Usage, cost_of, plain
from proxy.refusals import Refusal
from proxy.snapshot import Deployment
from proxy.trace import Trace

# Providers do not charge for these.
FREE_KINDS = ("count_tokens", "moderation")

# (model, text or messages) -> tokens. Supplied by the launcher, since LiteLLM does it.
CountTokens = Callable[[str, Any], int]


@dataclass(slots=True)
class _End:
    """How a request ended and what it consumed."""

    status: EventStatus
    http_status: int
    error_class: str | None
    error: str | None
    usage: Usage
    cost: Decimal | None
    ttft_ms: float | None = None


def refused_event(trace: Trace, refusal: Refusal) -> UsageEventDocument:
    """An identified key was turned away by the edge: nothing was spent."""
    end = _End(
        status="refused",
        http_status=refusal.status,
        error_class=refusal.error_class,
        error=refusal.message[:500],
        usage=Usage(),
        cost=Decimal(0),
    )
    return _event(trace, end, None)


def cached_event(
    trace: Trace, *, model: str, deployment: str | None, saved_cost: str | None
) -> UsageEventDocument:
    """The edge answered with a kept answer: nothing was consumed, this much was saved."""
    end = _End(
        status="ok",
        http_status=200,
        error_class=None,
        error=None,
        usage=Usage(),
        cost=Decimal(0),
        ttft_ms=trace.elapsed_ms() if trace.streaming else None,
    )
    event = _event(trace, end, None)
    event["why"], event["saved_cost"] = "cache", saved_cost
    event["model"], event["deployment"] = model, deployment
    return event


def finished_event(
    trace: Trace, capture: Capture, *, aborted: bool, count_tokens: CountTokens | None
) -> UsageEventDocument:
    """The request ran; whatever became of it, this is what it consumed."""
    _close_attempt(trace)
    deployment = _served_deployment(trace, capture)
    status, error_class, error = _outcome(trace, capture, aborted=aborted)
    usage = capture.usage
    if usage is None and _was_produced(capture, aborted=aborted):
        usage = _estimate(trace, capture, deployment, count_tokens)
    if usage is not None and _counted_by_litellm(trace, deployment):
        usage.estimated = True
    cost = _cost(usage, deployment, capture, status=status)
    end = _End(
        status=status,
        http_status=499 if status == "aborted" else capture.status or 500,
        error_class=error_class,
        error=error,
        usage=usage or Usage(),
        cost=cost,
        ttft_ms=capture.ttft_ms,
    )
    return _event(trace, end, deployment)


def needs_estimate(capture: Capture, *, aborted: bool) -> bool:
    """Whether tokens will have to be counted by us (slow: better done in a thread)."""
    return capture.usage is None and _was_produced(capture, aborted=aborted)


def encode(event: UsageEventDocument) -> bytes:
    """The event as a spool record."""
    return orjson.dumps(event)


def _was_produced(capture: Capture, *, aborted: bool) -> bool:
    """Whether the provider did work that it will charge for."""
    if capture.trace.served_by() is None and capture.header_deployment is None:
        return False
    if capture.text or aborted:
        return True
    if capture.error_class == "cut_stream" or (capture.sse_began and capture.error_class):
        return True  # accepted, then broken off: the input is charged
    return capture.finished and capture.error_class is None


def _counted_by_litellm(trace: Trace, deployment: Deployment | None) -> bool:
    """Gemini's embedding API reports no usage: LiteLLM fills in what it counted itself."""
    return (
        trace.inference is not None
        and trace.inference.kind == "embedding"
        and deployment is not None
        and deployment.provider_kind == "gemini"
    )


def _close_attempt(trace: Trace) -> None:
    """A stream's attempt lasts until the stream's end, not until its headers."""
    last = trace.served_by()
    if last is not None and trace.streaming and not last["status"]:
        last["latency_ms"] = (time.perf_counter() - trace.attempt_started) * 1000
        if last["error_class"] is None:
            last["status"] = last["status"] or 200


def _served_deployment(trace: Trace, capture: Capture) -> Deployment | None:
    last = trace.served_by()
    if last is not None:
        return trace.deployment(last["deployment"])
    return trace.deployment(capture.header_deployment)


def _outcome(
    trace: Trace, capture: Capture, *, aborted: bool
) -> tuple[EventStatus, str | None, str | None]:
    if aborted:
        return "aborted", "client_abort", "the client closed the connection before the end"
    if capture.error_class is not None:
        return "error", capture.error_class, capture.error
    if capture.status >= 400:
        return "error", "internal", None
    if not capture.finished:
        capture.break_off("cut_stream", "the stream ended before its last event")
        return "error", capture.error_class, capture.error
    return "ok", None, None


def _estimate(
    trace: Trace, capture: Capture, deployment: Deployment | None, count: CountTokens | None
) -> Usage:
    usage = capture.reported_input() or Usage()
    usage.estimated = True
    if count is None:
        return usage
    model = str(deployment.params["model"]) if deployment else trace.model
    if not usage.input_tokens:
        usage.input_tokens = count(model, prompt_of(trace.body))
    if capture.text:
        usage.output_tokens = count(model, "".join(capture.text))
    return usage


def prompt_of(body: dict[str, Any]) -> Any:
    """The part of a request that costs input tokens."""
    messages = body.get("messages")
    if isinstance(messages, list):
        return messages
    prompt = body.get("prompt", body.get("input", ""))
    return prompt if isinstance(prompt, str) else orjson.dumps(prompt).decode()


def _cost(
    usage: Usage | None, deployment: Deployment | None, capture: Capture, *, status: EventStatus
) -> Decimal | None:
    """Exact cost; None when something was consumed that our price does not cover."""
    if usage is None:
        return Decimal(0)  # an error before any answer
    inference = capture.trace.inference
    free = inference is not None and inference.kind in FREE_KINDS
    if deployment is None or deployment.price is None:
        nobody_served = deployment is None and (status == "error" or not capture.trace.attempts)
        return Decimal(0) if free or nobody_served else None
    cost = cost_of(usage, deployment.price)
    measured = bool(usage.input_tokens or usage.output_tokens or usage.other_units)
    if cost is not None and (measured or cost > 0 or status != "ok"):
        return cost
    if free:
        return cost or Decimal(0)
    if deployment.price.source == "book":
        # LiteLLM knows sizes, qualities and durations that the answer does not tell.
        return capture.litellm_cost
    return None if any(deployment.price.units.values()) else cost


def _event(trace: Trace, end: _End, deployment: Deployment | None) -> UsageEventDocument:
    """One dictionary in one go: this is written for every request."""
    policy, usage, attempts = trace.policy, end.usage, trace.attempts
    served = attempts[-1] if attempts else None
    price = deployment.price if deployment is not None else None
    model = deployment.model if deployment is not None else trace.model
    latency_ms = trace.elapsed_ms()
    return {
        "event_id": trace.event_id,
        "started_at": text_of(trace.started_at),
        "revision": trace.snapshot.revision if trace.snapshot is not None else None,
        "key_id": policy["key_id"],
        "public_id": policy["public_id"],
        "user_id": policy["user_id"],
        "team_id": policy["team_id"],
        "customer": trace.customer,
        "tags": policy["tags"],
        "route": trace.route,
        "requested_model": trace.requested_model,
        "model": model,
        "deployment": _deployment_id(deployment, served),
        "why": served["why"] if served is not None else "first",
        "status": end.status,
        "http_status": end.http_status,
        "error_class": end.error_class,
        "error": end.error,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "other_units": _plain_units(usage.other_units),
        "price_version": price.version if price is not None else None,
        "unit_prices": price.texts if price is not None else {},
        "cost": plain(end.cost) if end.cost is not None else None,
        "estimated": usage.estimated,
        "streaming": trace.streaming,
        "latency_ms": round(latency_ms, 3),
        "ttft_ms": round(end.ttft_ms, 3) if end.ttft_ms is not None else None,
        "overhead_ms": _overhead_ms(latency_ms, attempts),
        "attempts": attempts,
        "lane": served.get("lane", "litellm") if served is not None else "litellm",
        "lane_reason": trace.lane_reason,
        "admission": admission_document(trace.grant, model=model, served=deployment),
        "saved_cost": None,
    }


def _deployment_id(deployment: Deployment | None, served: AttemptDocument | None) -> str | None:
    """Of a deployment that the snapshot no longer has, too."""
    if deployment is not None:
        return deployment.id
    return served["deployment"] if served is not None else None


def _plain_units(units: dict[str, Decimal]) -> dict[str, str]:
    return {unit: plain(count) for unit, count in units.items()} if units else {}


def _overhead_ms(latency_ms: float, attempts: list[AttemptDocument]) -> float | None:
    """Latency without what the attempts took; None when nothing was attempted."""
    if not attempts:
        return None
    for attempt in attempts:
        latency_ms -= attempt["latency_ms"]
    return round(max(latency_ms, 0.0), 3)
