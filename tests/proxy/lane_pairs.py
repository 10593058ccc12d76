"""Deployments in pairs: the same upstream, once told to stay on LiteLLM's lane.

Each pair is two models, `<name>` and `<name>-litellm`; a body sent to both shows whether the
lanes are equal.
"""

from dataclasses import dataclass
from typing import Any

import httpx

from gateway_admin.demo.simulator.process import Simulator
from proxy.contract import RevisionDocument, UsageEventDocument
from tests.proxy.conftest import CANARY, Gateway
from tests.proxy.documents import credential, deployment, document

HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Hello there my friend"}]
ROUTES = {
    "chat": "/v1/chat/completions",
    "completion": "/v1/completions",
    "embedding": "/v1/embeddings",
    "responses": "/v1/responses",
}

# Name of the pair -> LiteLLM's model, credential.
PAIRS = {
    "plain": ("openai/gpt-4o", "openai"),
    "unknown": ("openai/my-own-model", "openai"),
    "reasoner": ("openai/gpt-5", "openai"),
    "effortless": ("openai/gpt-5.1", "openai"),
    "o-series": ("openai/o3-mini", "openai"),
    "organized": ("openai/gpt-4o", "organized"),
    "vllm": ("hosted_vllm/meta/llama", "hosted_vllm"),
    "azure": ("azure/gpt-4o", "azure"),
    "azure-old": ("azure/gpt-4o", "azure-old"),
    "azure-v1": ("azure/gpt-4o", "azure-v1"),
    "azure-reasoner": ("azure/gpt-5", "azure"),
    "azure-o-series": ("azure/o3-mini", "azure"),
    "newest": ("openai/gpt-5.4", "openai"),
    "text": ("openai/gpt-3.5-turbo-instruct", "openai"),
    "small": ("openai/text-embedding-3-small", "openai"),
    "azure-small": ("azure/text-embedding-3-small", "azure"),
    # Never on the direct lane.
    "anthropic": ("anthropic/claude-sonnet-4-6", "anthropic"),
    "ollama": ("ollama_chat/llama3.2", "ollama"),
    "tuned": ("openai/gpt-4o", "tuned"),
}
_MODES = {"text": "completion", "small": "embedding", "azure-small": "embedding"}


def pairs_document(simulator: Simulator, **environment: Any) -> RevisionDocument:
    """Every pair, priced."""
    root = simulator.base_url
    params: dict[str, dict[str, Any]] = {
        "openai": {"api_base": f"{root}/openai/v1"},
        "organized": {"api_base": f"{root}/openai/v1", "organization": "org-1"},
        "tuned": {"api_base": f"{root}/openai/v1", "additional_drop_params": ["seed"]},
        "hosted_vllm": {"api_base": f"{root}/openai/v1"},
        "azure": {"api_base": f"{root}/azure", "api_version": "2024-10-21"},
        "azure-old": {"api_base": f"{root}/azure", "api_version": "2024-02-01"},
        "azure-v1": {"api_base": f"{root}/azure", "api_version": "v1"},
        "anthropic": {"api_base": f"{root}/anthropic"},
        "ollama": {"api_base": f"{root}/ollama"},
    }
    credentials = [
        credential(name, {"api_key": CANARY}, **values) for name, values in params.items()
    ]
    rows = []
    for name, (model, found) in PAIRS.items():
        rows.append(deployment(f"dep-{name}", name, model, found))
        rows.append(
            deployment(f"dep-{name}-litellm", f"{name}-litellm", model, found, lane="litellm")
        )
    modes = {f"{name}{end}": mode for name, mode in _MODES.items() for end in ("", "-litellm")}
    return document(rows, credentials, modes=modes, **environment)


def pairs_secrets() -> dict[str, dict[str, str]]:
    """The secrets of all credentials."""
    return {name: {"api_key": CANARY} for _, name in PAIRS.values()}


@dataclass
class Asked:
    """One body on one lane: what came back, and what the provider received of it."""

    answer: httpx.Response
    received: list[dict[str, Any]]
    gateway: Gateway

    @property
    def event(self) -> UsageEventDocument:
        """Its usage event."""
        return self.gateway.event(self.answer)


def ask(
    gateway: Gateway, client: httpx.Client, model: str, kind: str, body: dict[str, Any]
) -> Asked:
    """Send a body to a model."""
    gateway.simulator.received()
    answer = client.post(ROUTES[kind], json={**body, "model": model})
    posts = [one for one in gateway.simulator.received() if one["method"] == "POST"]
    return Asked(answer, posts, gateway)


def ask_both(
    gateway: Gateway, client: httpx.Client, pair: str, kind: str, body: dict[str, Any]
) -> tuple[Asked, Asked]:
    """The same body on the lane of choice, and on LiteLLM's."""
    free = ask(gateway, client, pair, kind, body)
    return free, ask(gateway, client, f"{pair}-litellm", kind, body)
