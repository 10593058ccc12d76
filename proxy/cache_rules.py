"""Whether a request may be answered from the cache, and whether its answer may be kept.

Three have to agree: the environment and the model (in the revision) and the key (in its
policy). A key says which requests: none, those whose answer is meant to be the same each
time, or all. A single request can opt in, out, or ask for a fresh answer:

    x-gateway-cache: on        as if the key said "all"
    x-gateway-cache: refresh   not looked up, but kept           cache-control: no-cache
    x-gateway-cache: off       neither                           cache-control: no-store
"""

import re
from typing import Any, Literal

from proxy.cache_key import Headers
from proxy.trace import Trace

Use = Literal["off", "use", "refresh"]

_ROUTES = frozenset({"chat", "completion", "embedding", "responses", "messages"})
_OWN_TOOLS = frozenset({None, "function", "custom"})  # the client runs them, not the provider
# The provider fetches it, so the same request can mean something else tomorrow.
_REMOTE = re.compile(rb'"(?:\w*_)?(?:url|uri)":"https?://')
_SEEDED = frozenset({"chat", "completion"})
# Answers that leave something behind at the provider, or refer to what was left there.
_STATE = ("previous_response_id", "conversation", "background", "container", "audio")
_WISHES = frozenset({b"x-gateway-cache", b"cache-control"})


def is_offered(trace: Trace) -> bool:
    """Whether environment, model and key let any answer be kept."""
    if trace.inference is None or trace.snapshot is None:
        return False
    if trace.policy.get("cache", "off") == "off" or trace.inference.kind not in _ROUTES:
        return False
    model = trace.snapshot.models.get(trace.model)
    return (
        trace.snapshot.environment["cache"]["enabled"]
        and model is not None
        and model.get("cache", True)
    )


def use_for(trace: Trace, headers: Headers, body: bytes) -> Use:
    """What to do for a request that `is_offered` the cache."""
    wish = _wish(headers)
    if wish == "off" or _leaves_something(trace):
        return "off"
    everything = trace.policy["cache"] == "all" or wish == "on"
    if not everything and not _is_deterministic(trace, body):
        return "off"
    return "refresh" if wish == "refresh" else "use"


def _wish(headers: Headers) -> str:
    wish = ""
    for name, value in headers:
        if name not in _WISHES:
            continue
        text = value.decode("latin-1").strip().lower()
        if name == b"x-gateway-cache":
            # A word we do not know was meant as a restriction, more likely than not.
            wish = text if text in ("on", "refresh") else "off"
            break
        if name == b"cache-control" and "no-store" in text:
            wish = "off"
        elif name == b"cache-control" and "no-cache" in text:
            wish = wish or "refresh"
    return wish


def _leaves_something(trace: Trace) -> bool:
    body = trace.body
    if any(body.get(name) for name in _STATE):
        return True
    if trace.inference is not None and trace.inference.kind == "responses":
        return body.get("store") is not False  # stored by default
    return bool(body.get("store"))


def _is_deterministic(trace: Trace, body: bytes) -> bool:
    """Whether the same request is meant to give the same answer."""
    assert trace.inference is not None
    fields: dict[str, Any] = trace.body
    tools = fields.get("tools")
    for tool in tools if isinstance(tools, list) else []:
        if not isinstance(tool, dict) or tool.get("type") not in _OWN_TOOLS:
            return False
    if fields.get("web_search_options") is not None or _REMOTE.search(body):
        return False
    if trace.inference.kind == "embedding":
        return True
    temperature = fields.get("temperature")
    cold = type(temperature) in (int, float) and temperature == 0
    seeded = trace.inference.kind in _SEEDED and type(fields.get("seed")) is int
    return cold or seeded
