"""Our code inside LiteLLM: custom auth, what may be called, and the record of attempts.

LiteLLM imports this module by name (`proxy.plugin.…` in its generated configuration). It
is imported by the launcher first, so both see the same objects.
"""

import hmac
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from fastapi import HTTPException, Request
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import UserAPIKeyAuth

from proxy.contract import AttemptDocument
from proxy.errors import class_of_exception, error_text, of_report, status_of_exception
from proxy.routes import ALLOWED_UPSTREAM_PATHS
from proxy.trace import CURRENT, Trace

# Made anew in every process tree and known to nobody outside it: the edge puts it in the
# place of the client's key, so a virtual key never enters LiteLLM.
INTERNAL_TOKEN = "sk-edge-" + secrets.token_urlsafe(32)


async def authenticate(request: Request, api_key: str) -> UserAPIKeyAuth:
    """LiteLLM's custom auth: only the edge may come in, and only to inference routes."""
    if not hmac.compare_digest(api_key.encode(), INTERNAL_TOKEN.encode()):
        raise HTTPException(status_code=401, detail="only the gateway's edge may call this")
    return UserAPIKeyAuth(api_key="gateway-edge", allowed_routes=list(ALLOWED_UPSTREAM_PATHS))


class DeploymentNotAllowed(Exception):
    """LiteLLM chose a deployment that this request's key may not use."""

    status_code = 403


class AttemptRecorder(CustomLogger):  # type: ignore[misc]  # LiteLLM ships no types
    """Writes each call to a deployment into the trace of its request."""

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: Any
    ) -> dict[str, Any]:
        """Fallbacks are ours to give: per request, limited to what the key may use."""
        trace = CURRENT.get()
        if trace is not None:
            data.update(trace.fallbacks)
        return data

    async def async_pre_call_deployment_hook(
        self, kwargs: dict[str, Any], call_type: Any
    ) -> dict[str, Any] | None:
        """A deployment was chosen and is about to be called."""
        trace = CURRENT.get()
        if trace is None or trace.closed:
            return None
        deployment_id = _deployment_id(kwargs)
        deployment = trace.deployment(deployment_id)
        if deployment is not None and deployment.model not in trace.allowed_models:
            raise DeploymentNotAllowed(f"deployment {deployment.name!r} may not serve this request")
        model = deployment.model if deployment else trace.model
        _open_attempt(trace, deployment_id, model, _reported_failure(kwargs))
        return None

    async def async_post_call_success_deployment_hook(
        self, request_data: dict[str, Any], response: Any, call_type: Any
    ) -> None:
        """The deployment answered (a stream: it began to)."""
        trace = CURRENT.get()
        attempt = trace.served_by() if trace is not None and not trace.closed else None
        if trace is not None and attempt is not None and attempt["error_class"] is None:
            attempt["latency_ms"] = (time.perf_counter() - trace.attempt_started) * 1000
            attempt["status"] = 200

    async def async_post_call_failure_deployment_hook(
        self,
        request_data: Mapping[str, object],
        exception: Exception,
        call_type: Any,
        fallback_depth: int | None = None,
    ) -> None:
        """The deployment failed; LiteLLM may try another."""
        trace = CURRENT.get()
        if trace is not None and not trace.closed:
            fail_attempt(trace, exception)


def fail_attempt(trace: Trace, exception: BaseException) -> None:
    """Close the running attempt with its error."""
    attempt = trace.served_by()
    if attempt is None or attempt["error_class"] is not None:
        return
    deployment = trace.deployment(attempt["deployment"])
    attempt["latency_ms"] = (time.perf_counter() - trace.attempt_started) * 1000
    attempt["status"] = status_of_exception(exception)
    attempt["error_class"] = class_of_exception(exception)
    attempt["error"] = error_text(str(exception), deployment.secrets if deployment else ())


class ReportedFailure(NamedTuple):
    """The newest failure that LiteLLM's retry carries along, for calls without a failure hook.

    Gemini's streams are called only when they are read, and then no hook tells of a failure.
    """

    mark: tuple[int, Any]  # differs between one failure and the next
    deployment: str
    name: str
    text: str


def _reported_failure(kwargs: Mapping[str, Any]) -> ReportedFailure | None:
    for holder in (kwargs.get("metadata"), kwargs.get("litellm_metadata")):
        reports = holder.get("previous_models") if isinstance(holder, Mapping) else None
        if reports:
            last = reports[-1]
            return ReportedFailure(
                mark=(len(reports), last.get("attempted_retries")),
                deployment=str(last.get("deployment_id")),
                name=str(last.get("exception_type")),
                text=str(last.get("exception_string")),
            )
    return None


def _open_attempt(
    trace: Trace, deployment_id: str | None, model: str, failure: ReportedFailure | None
) -> None:
    last = trace.served_by()
    if last is not None and is_open(last):
        known = failure is None or failure.mark == trace.failure_mark
        if known and last["deployment"] == deployment_id:
            # LiteLLM translates between APIs by calling itself: one call to the provider.
            return
        if failure is not None and not known and failure.deployment == last["deployment"]:
            _close_reported(trace, last, failure)
    trace.failure_mark = failure.mark if failure else None
    trace.attempt_started = time.perf_counter()
    trace.attempts.append(
        {
            "deployment": deployment_id,
            "model": model,
            "why": _why(trace, model),
            "started_at": datetime.now(UTC).isoformat(),
            "latency_ms": 0.0,
            "status": None,
            "error_class": None,
            "error": None,
        }
    )


def _close_reported(trace: Trace, attempt: AttemptDocument, failure: ReportedFailure) -> None:
    deployment = trace.deployment(attempt["deployment"])
    attempt["latency_ms"] = (time.perf_counter() - trace.attempt_started) * 1000
    attempt["status"], attempt["error_class"] = of_report(failure.name, failure.text)
    attempt["error"] = error_text(failure.text, deployment.secrets if deployment else ())


def is_open(attempt: AttemptDocument) -> bool:
    """Whether nothing is known yet of how an attempt ended."""
    return attempt["status"] is None and attempt["error_class"] is None


def _why(trace: Trace, model: str) -> str:
    previous = trace.served_by()
    if previous is None:
        return "first"
    if previous["model"] == model:
        return "retry"
    failed = previous["error_class"]
    kind = {"context_window": "context_window", "content_policy": "content_policy"}.get(
        failed or ""
    )
    return kind if kind and f"{kind}_fallbacks" in trace.fallbacks else "fallback"


def _deployment_id(kwargs: Mapping[str, Any]) -> str | None:
    for holder in (kwargs, kwargs.get("metadata"), kwargs.get("litellm_metadata")):
        info = holder.get("model_info") if isinstance(holder, Mapping) else None
        if isinstance(info, Mapping) and info.get("id"):
            return str(info["id"])
    return None


RECORDER = AttemptRecorder()
