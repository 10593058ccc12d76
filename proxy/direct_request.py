"""What the direct lane sends to a provider: the request that LiteLLM would send. Pure.

    Deployment + what LiteLLM knows of it -> Endpoint     once per deployment and snapshot
    Endpoint + the client's body -> the provider's body   for every request

Whatever LiteLLM would rewrite in a way that is not known here stays on its lane; the
functions then give the reason instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from proxy.routes import Kind
from proxy.snapshot import Deployment

# Parameters of a deployment that say how it is called, not what it is sent.
_KNOWN_PARAMS = frozenset(
    {"api_base", "api_key", "organization", "max_retries", "model", "stream_timeout", "timeout"}
)
_PATHS: dict[Kind, str] = {"chat": "/chat/completions"}
_OPENAI = "https://api.openai.com/v1"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_CHAT = frozenset(
    {"messages", "model", "stream", "stream_options", "temperature", "max_tokens", "top_p", "stop"}
)


@dataclass(frozen=True, slots=True)
class LiteLlmFacts:
    """What LiteLLM knows of a deployment's model that decides what it sends."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How a deployment is called. The heads hold secrets: never printed."""

    origin: tuple[str, str, int]  # scheme, host, port
    model: str  # as the provider calls it
    heads: Mapping[Kind, bytes] = field(repr=False)  # of the request, up to its length


def endpoint_of(deployment: Deployment, known: LiteLlmFacts) -> Endpoint | str:
    """How to call a deployment; or why only LiteLLM can."""
    provider, _, model = str(deployment.params["model"]).partition("/")
    if provider != "openai":
        return "provider"
    unknown = sorted(set(deployment.params) - _KNOWN_PARAMS)
    if unknown:
        return f"params:{unknown[0]}"[:100]
    base = urlsplit(str(deployment.params.get("api_base") or _OPENAI))
    port = base.port or _DEFAULT_PORTS[base.scheme]
    origin = (base.scheme, base.hostname or "", port)
    heads = {
        kind: _head(base.netloc, base.path.rstrip("/") + path, deployment)
        for kind, path in _PATHS.items()
    }
    return Endpoint(origin, model, heads)


def _head(host: str, path: str, deployment: Deployment) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        f"host: {host}",
        "accept: application/json",
        f"authorization: Bearer {deployment.params.get('api_key')}",
        "content-type: application/json",
        "content-length: ",
    ]
    return "\r\n".join(lines).encode("latin-1")


def wire_body(endpoint: Endpoint, kind: Kind, body: dict[str, Any]) -> dict[str, Any] | str:
    """The body as LiteLLM would send it, but for the model's name; or why it must send it."""
    if body.keys() <= _CHAT:
        return body
    return f"parameter:{sorted(body.keys() - _CHAT)[0]}"[:100]
