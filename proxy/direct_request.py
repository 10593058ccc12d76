"""What the direct lane sends to a provider: the request that LiteLLM would send. Pure.

    Deployment + what LiteLLM knows of it -> Endpoint     once per deployment and snapshot
    Endpoint + the client's body -> the provider's body   for every request

Whatever LiteLLM would rewrite in a way that is not known here stays on its lane; the
functions then give the reason instead. docs/lanes.md lists the reasons.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

from proxy.direct_chat import ChatRules, wire_messages, wire_tools
from proxy.direct_responses import ResponsesRules, unwritten
from proxy.direct_rules import LiteLlmFacts, ParamRules, apply_params, reason
from proxy.routes import Kind
from proxy.snapshot import Deployment

__all__ = ["Endpoint", "LiteLlmFacts", "endpoint_of", "wire_body"]

# Parameters of a deployment that say how it is called, not what it is sent.
_HOW = frozenset({"api_base", "api_key", "max_retries", "model", "stream_timeout", "timeout"})
_KNOWN_PARAMS = {
    "openai": _HOW | {"organization"},
    "azure": _HOW | {"api_version"},
    "hosted_vllm": _HOW,
}
_PATHS: dict[Kind, str] = {
    "chat": "/chat/completions",
    "completion": "/completions",
    "embedding": "/embeddings",
    "responses": "/responses",
}
_OPENAI = "https://api.openai.com/v1"
_AZURE_DATED = re.compile(r"\d{4}-\d{2}-\d{2}(-preview)?")
_AZURE_UNDATED = frozenset({"v1", "latest", "preview"})
_DEFAULT_PORTS = {"http": 80, "https": 443}
_NOT_IN_A_HEADER = re.compile(r"[^\x21-\x7e]")
# What they change in LiteLLM's client, the lane's own does not know.
_TLS_VARIABLES = ("SSL_VERIFY", "SSL_CERTIFICATE", "SSL_SECURITY_LEVEL", "SSL_ECDH_CURVE")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How a deployment is called. The heads hold secrets: never printed."""

    origin: tuple[str, str, int]  # scheme, host, port
    model: str  # as the provider calls it
    heads: Mapping[Kind, bytes] = field(repr=False)  # of the request, up to its length
    params: Mapping[Kind, ParamRules] = field(repr=False)
    chat: ChatRules = field(repr=False)
    responses: ResponsesRules = field(repr=False)
    provider: str = ""


# --- once per deployment -----------------------------------------------------------------------


def endpoint_of(deployment: Deployment, known: LiteLlmFacts | str) -> Endpoint | str:
    """How to call a deployment; or why only LiteLLM can."""
    if isinstance(known, str):
        return known
    params = deployment.params
    allowed = _KNOWN_PARAMS.get(known.provider)
    if allowed is None:
        return "provider"
    unknown = sorted(name for name, value in params.items() if value and name not in allowed)
    if unknown:
        return f"params:{unknown[0]}"[:100]
    if known.environment:
        return f"environment:{known.environment}"[:100]
    called = _called(known, params)
    if isinstance(called, str):
        return called
    origin, heads = called
    if _is_behind_proxy(*origin):
        return "network"
    return Endpoint(
        origin,
        known.model,
        heads,
        {kind: rules for kind, rules in known.params.items() if kind in heads},
        known.chat,
        known.responses,
        known.provider,
    )


def _called(
    known: LiteLlmFacts, params: Mapping[str, Any]
) -> tuple[tuple[str, str, int], dict[Kind, bytes]] | str:
    """Origin and request heads, or the parameter that is out of the ordinary."""
    base = params.get("api_base") or (_OPENAI if known.provider == "openai" else "")
    parts = urlsplit(base) if isinstance(base, str) else None
    if parts is None or parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        return "params:api_base"
    if parts.query or parts.fragment or parts.username or _NOT_IN_A_HEADER.search(base):
        return "params:api_base"
    key = params.get("api_key") or ("fake-api-key" if known.provider == "hosted_vllm" else "")
    if not isinstance(key, str) or not key or _NOT_IN_A_HEADER.search(key):
        return "params:api_key"
    host, port = parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme]
    lines = _headers_of(parts.netloc.lower(), known, params, key)
    paths = _paths_of(parts.path.rstrip("/"), known, params)
    if isinstance(paths, str):
        return paths
    organization = params.get("organization") or ""
    if not isinstance(organization, str) or _NOT_IN_A_HEADER.search(organization):
        return "params:organization"
    named = [*lines, f"openai-organization: {organization}"] if organization else lines
    heads = {
        # LiteLLM names the organization on these routes alone.
        kind: _head(path, named if kind in ("chat", "completion") else lines)
        for kind, path in paths.items()
        if kind in known.params
    }
    return (parts.scheme, host, port), heads


def _headers_of(host: str, known: LiteLlmFacts, params: Mapping[str, Any], key: str) -> list[str]:
    lines = [f"host: {host}", "accept: application/json", "accept-encoding: identity"]
    if known.provider == "azure" and params.get("api_version") not in _AZURE_UNDATED:
        lines.append(f"api-key: {key}")
    else:
        lines.append(f"authorization: Bearer {key}")
    return [*lines, "content-type: application/json"]


def _paths_of(base: str, known: LiteLlmFacts, params: Mapping[str, Any]) -> dict[Kind, str] | str:
    if known.provider != "azure":
        return {kind: base + path for kind, path in _PATHS.items()}
    version = params.get("api_version")
    if "openai" in base:
        return "params:api_base"  # LiteLLM takes such addresses apart
    if version in _AZURE_UNDATED:
        return {"chat": f"{base}/openai/v1/chat/completions"}
    if not isinstance(version, str) or not _AZURE_DATED.fullmatch(version):
        return "params:api_version"
    root = f"{base}/openai/deployments/{quote(known.model, safe='')}"
    paths: dict[Kind, str] = {
        kind: f"{root}{_PATHS[kind]}?api-version={version}" for kind in ("chat", "embedding")
    }
    return {**paths, "responses": f"{base}/openai/responses?api-version={version}"}


def _head(path: str, lines: list[str]) -> bytes:
    head = "\r\n".join([f"POST {path} HTTP/1.1", *lines, "content-length: "])
    return head.encode("ascii")


def _is_behind_proxy(scheme: str, host: str, port: int) -> bool:
    """Whether the environment sends requests to the host another way than straight."""
    if scheme == "https" and any(os.environ.get(name) for name in _TLS_VARIABLES):
        return True
    proxies = getproxies()
    return bool(proxies.get(scheme) or proxies.get("all")) and not proxy_bypass(f"{host}:{port}")


# --- for every request -------------------------------------------------------------------------


def wire_body(endpoint: Endpoint, kind: Kind, body: dict[str, Any]) -> dict[str, Any] | str:
    """The body as LiteLLM would send it, but for the model's name; or why it must send it.

    The same object when nothing changes.
    """
    rules = endpoint.params.get(kind)
    if rules is None:
        return "route"
    wired = apply_params(rules, body)
    if wired.__class__ is str:
        return wired
    assert isinstance(wired, dict)
    if kind == "embedding":
        return _embedding(endpoint, wired)
    if kind == "responses":
        unknown = unwritten(endpoint.responses, wired)
        return reason(unknown) if unknown else wired
    stream = wired.get("stream")
    if stream is True:
        options = wired.get("stream_options")
        if not isinstance(options, dict) or options.get("include_usage") is not True:
            return reason("stream_options")  # LiteLLM would ask for it, too
    elif (stream is not None and stream is not False) or "stream_options" in wired:
        return reason("stream" if "stream_options" not in wired else "stream_options")
    return _chat(endpoint.chat, wired) if kind == "chat" else _completion(endpoint, wired)


def _chat(rules: ChatRules, body: dict[str, Any]) -> dict[str, Any] | str:
    messages = body["messages"]
    wired = wire_messages(rules, messages)
    if wired is None:
        return reason("messages")
    if wired is not messages:
        body = {**body, "messages": wired}
    if "tools" in body or "tool_choice" in body:
        changed = wire_tools(rules, body)
        return reason(changed) if isinstance(changed, str) else changed
    return body


def _completion(endpoint: Endpoint, body: dict[str, Any]) -> dict[str, Any] | str:
    prompt = body.get("prompt")
    if isinstance(prompt, list) and not all(isinstance(item, str) for item in prompt):
        return reason("prompt")
    if prompt == [] or not isinstance(prompt, str | list):
        return reason("prompt")
    return body


def _embedding(endpoint: Endpoint, body: dict[str, Any]) -> dict[str, Any] | str:
    if endpoint.provider == "azure" and "encoding_format" not in body:
        return reason("encoding_format")  # its client asks for base64 and decodes it
    if endpoint.provider == "hosted_vllm" and isinstance(body.get("input"), str):
        return {**body, "input": [body["input"]]}
    return body
