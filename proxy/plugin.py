"""Our code inside LiteLLM: custom auth, the guard of each call, and what failed inside it.

LiteLLM imports this module by name (`proxy.plugin.…` in its generated configuration). It
is imported by the launcher first, so both see the same objects.
"""

import hmac
import secrets
import time
from collections.abc import Mapping
from typing import Any

from fastapi import HTTPException, Request
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import UserAPIKeyAuth

from proxy.attempt import CALL, Call, Reported
from proxy.errors import class_of_exception, error_text, status_of_exception
from proxy.routes import ALLOWED_UPSTREAM_PATHS

# Made anew in every process tree and known to nobody outside it: the edge puts it in the
# place of the client's key, so a virtual key never enters LiteLLM.
INTERNAL_TOKEN = "sk-edge-" + secrets.token_urlsafe(32)

_ROUTING = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "num_retries")


async def authenticate(request: Request, api_key: str) -> UserAPIKeyAuth:
    """LiteLLM's custom auth: only the edge may come in, and only to inference routes."""
    if not hmac.compare_digest(api_key.encode(), INTERNAL_TOKEN.encode()):
        raise HTTPException(status_code=401, detail="only the gateway's edge may call this")
    return UserAPIKeyAuth(api_key="gateway-edge", allowed_routes=list(ALLOWED_UPSTREAM_PATHS))


class DeploymentNotAllowed(Exception):
    """LiteLLM chose another deployment than the one it was told to call."""

    status_code = 403


class CallObserver(CustomLogger):  # type: ignore[misc]  # LiteLLM ships no types
    """Tells the running call what only LiteLLM sees: the provider's time and its errors."""

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: Any
    ) -> dict[str, Any]:
        """Which deployment comes next is decided by the relay alone."""
        call = CALL.get()
        if call is None:
            return data
        for name in _ROUTING:
            data.pop(name, None)
        data["disable_fallbacks"] = True
        if call.refusals_fail:
            # Never followed, since fallbacks are disabled; but LiteLLM raises for an answer
            # that the provider's content filter ended only where it believes in a fallback.
            data["content_policy_fallbacks"] = [{call.deployment.id: ["content-policy-chain"]}]
        return data

    async def async_pre_call_deployment_hook(
        self, kwargs: dict[str, Any], call_type: Any
    ) -> dict[str, Any] | None:
        """A deployment was chosen and is about to be called."""
        call = _running()
        if call is None:
            return None
        deployment_id = _deployment_id(kwargs)
        if deployment_id != call.deployment.id:
            raise DeploymentNotAllowed(f"deployment {deployment_id!r} may not serve this request")
        # LiteLLM translates between APIs by calling itself: the first is the outer one.
        call.provider_started = call.provider_started or time.perf_counter()
        return None

    async def async_post_call_success_deployment_hook(
        self, request_data: dict[str, Any], response: Any, call_type: Any
    ) -> None:
        """The deployment answered (not called for all streams)."""
        call = _running()
        if call is not None:
            call.provider_ended, call.answered = time.perf_counter(), True

    async def async_post_call_failure_deployment_hook(
        self,
        request_data: Mapping[str, object],
        exception: Exception,
        call_type: Any,
        fallback_depth: int | None = None,
    ) -> None:
        """The deployment failed."""
        call = _running()
        if call is not None:
            call.provider_ended = time.perf_counter()
            call.reported = call.reported or _report(call, exception)

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        """The request failed; some streams are called so late that no other hook tells."""
        call = _running()
        if call is not None and not isinstance(original_exception, HTTPException):
            call.reported = call.reported or _report(call, original_exception)


def _running() -> Call | None:
    call = CALL.get()
    return call if call is not None and not call.over else None


def _report(call: Call, exception: BaseException) -> Reported:
    return Reported(
        class_of_exception(exception),
        status_of_exception(exception),
        error_text(str(exception), call.deployment.secrets),
        _headers_of(exception),
    )


def _headers_of(exception: BaseException) -> tuple[tuple[str, str], ...]:
    """The provider's headers, wherever the exception carries them."""
    response = getattr(exception, "response", None)
    for found in (
        getattr(exception, "litellm_response_headers", None),
        getattr(response, "headers", None),
        getattr(exception, "headers", None),
    ):
        if found:
            return tuple((str(name), str(value)) for name, value in dict(found).items())
    return ()


def _deployment_id(kwargs: Mapping[str, Any]) -> str | None:
    for holder in (kwargs, kwargs.get("metadata"), kwargs.get("litellm_metadata")):
        info = holder.get("model_info") if isinstance(holder, Mapping) else None
        if isinstance(info, Mapping) and info.get("id"):
            return str(info["id"])
    return None


RECORDER = CallObserver()
