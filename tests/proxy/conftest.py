"""One simulator, one control-plane peer and one replica per session; tests bring the rest."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx
import openai
import pytest

from gateway_admin.demo.simulator.connections import connection_params
from gateway_admin.demo.simulator.process import Simulator, running_simulator
from proxy.contract import RevisionDocument, UsageEventDocument
from tests.proxy import control_plane
from tests.proxy.control_plane import ControlPlanePeer
from tests.proxy.documents import (
    credential,
    deployment,
    document,
    every_deployment,
    new_key,
    policy,
)
from tests.proxy.replica import Replica
from tests.proxy.replica import running as running_replica

CANARY = "sk-canary-provider-1234567890"
CHAT = {
    "openai": "openai/gpt-4o",
    "anthropic": "anthropic/claude-sonnet-4-6",
    "gemini": "gemini/gemini-2.5-flash",
    "azure": "azure/gpt-4o",
    "bedrock": "bedrock/anthropic.claude-3-5-sonnet-20240620-v1:0",
    "ollama": "ollama_chat/llama3.2",
}
EMBEDDING = {
    "openai": "openai/text-embedding-3-small",
    "gemini": "gemini/gemini-embedding-001",
    "azure": "azure/text-embedding-3-small",
    "bedrock": "bedrock/amazon.titan-embed-text-v2:0",
    "ollama": "ollama/nomic-embed-text",
}
# Public name -> upstream model of the OpenAI simulator that always fails in one way.
FAULTY = {
    "fails": "openai/sim-server-error",
    "limited": "openai/sim-rate-limit",
    "overloaded": "openai/sim-overload",
    "too-long": "openai/sim-context-window",
    "filtered": "openai/sim-content-policy",
    "no-credit": "openai/sim-quota",
    "bad-credential": "openai/sim-auth",
    "cut": "openai/sim-cut-stream",
    "breaks": "openai/sim-stream-error",
}
MEDIA = {
    "image": ("openai/gpt-image-1", "image_generation", {"image": "0.04"}),
    "speech": ("openai/tts-1", "audio_speech", {"input_character": "0.000015"}),
    "whisper": ("openai/whisper-1", "audio_transcription", {"input_second": "0.0001"}),
    "rerank": ("cohere/rerank-v3.5", "rerank", {"query": "0.002"}),
    "moderation": ("openai/omni-moderation-latest", "moderation", {"request": "0"}),
}


def secret_of(kind: str) -> dict[str, str] | None:
    """What a credential of the kind keeps secret."""
    if kind == "ollama":
        return None
    if kind == "bedrock":
        return {"aws_access_key_id": "AKIACANARY0012345678", "aws_secret_access_key": CANARY}
    return {"api_key": CANARY}


def price_of(units: dict[str, str]) -> dict[str, Any]:
    """A price of our own."""
    return {"version": "price-1", "source": "own", "units": units}


def standard_document(simulator: Simulator, **environment: Any) -> RevisionDocument:
    """Every provider kind, every fault, the media routes, aliases and chains."""
    kinds = [*CHAT, "cohere"]
    credentials = [
        credential(kind, secret_of(kind), **connection_params(kind, simulator.base_url))
        for kind in kinds
    ]
    rows = [deployment(f"dep-{kind}", f"chat-{kind}", m, kind) for kind, m in CHAT.items()]
    rows += [deployment(f"emb-{kind}", f"embed-{kind}", m, kind) for kind, m in EMBEDDING.items()]
    rows += [deployment(f"bad-{name}", name, m, "openai") for name, m in FAULTY.items()]
    rows += [
        deployment(f"med-{name}", name, m, m.partition("/")[0], price=price_of(units))
        for name, (m, _, units) in MEDIA.items()
    ]
    rows.append(deployment("unpriced", "unpriced", "openai/gpt-4o-mini", "openai", price=None))
    chains = [
        {"model": "fails", "kind": "general", "targets": ["chat-openai"]},
        {"model": "limited", "kind": "general", "targets": ["fails", "chat-anthropic"]},
        {"model": "too-long", "kind": "context_window", "targets": ["chat-gemini"]},
        {"model": "filtered", "kind": "content_policy", "targets": ["chat-openai"]},
    ]
    return document(
        rows,
        credentials,
        aliases={"default": "chat-openai"},
        chains=chains,
        modes={name: mode for name, (_, mode, _) in MEDIA.items()}
        | {f"embed-{kind}": "embedding" for kind in EMBEDDING},
        **{"default_model": "default"} | environment,
    )


def standard_secrets() -> dict[str, dict[str, str]]:
    """Secrets of the standard document by credential."""
    found = {kind: secret_of(kind) for kind in [*CHAT, "cohere"]}
    return {kind: secret for kind, secret in found.items() if secret is not None}


@dataclass
class Gateway:
    """A running replica with its surroundings."""

    replica: Replica
    peer: ControlPlanePeer
    simulator: Simulator

    @property
    def url(self) -> str:
        """Base address of the replica."""
        return self.replica.url

    def client(self, public_id: str = "alpha", **options: Any) -> httpx.Client:
        """A plain HTTP client with a virtual key."""
        headers = {"authorization": f"Bearer {new_key(public_id)}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, **options)

    def openai(self, public_id: str = "alpha") -> openai.OpenAI:
        """The stock OpenAI client, without its retries."""
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key=new_key(public_id), max_retries=0, timeout=30
        )

    def anthropic(self, public_id: str = "alpha") -> anthropic.Anthropic:
        """The stock Anthropic client, without its retries."""
        return anthropic.Anthropic(
            base_url=self.url, api_key=new_key(public_id), max_retries=0, timeout=30
        )

    def event(self, response: Any) -> UsageEventDocument:
        """The delivered event of a response (httpx's, or a client's raw one)."""
        return self.peer.wait_event(response.headers["x-gateway-request-id"])

    def new_events(self, count: int) -> list[UsageEventDocument]:
        """Wait for so many events since `forget_events`, and return them."""
        self.peer.wait_for(f"{count} events", lambda: len(self.peer.events) >= count)
        return list(self.peer.events.values())

    def set_key(self, public_id: str, **changes: Any) -> None:
        """Create or change a key and wait until the replica knows."""
        self.peer.wait_policies(self.peer.set_key(policy(public_id, **changes)))


@pytest.fixture(scope="session")
def simulator() -> Iterator[Simulator]:
    with running_simulator() as found:
        yield found


@pytest.fixture(scope="session")
def started_gateway(simulator: Simulator) -> Iterator[Gateway]:
    """A replica that serves the standard document; shared by all tests of the session."""
    peer = ControlPlanePeer()
    with contextlib.ExitStack() as stack:
        stack.enter_context(control_plane.running(peer))
        peer.publish(standard_document(simulator), standard_secrets())
        peer.set_key(policy("alpha"))
        replica = stack.enter_context(running_replica(peer.url, GATEWAY_ABORT_DRAIN_S="3"))
        yield Gateway(replica, peer, simulator)


@pytest.fixture(scope="module", params=["auto", "litellm"])
def both_lanes(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs a module's tests with deployments as they are, then with all of them on LiteLLM."""
    every_deployment["lane"] = request.param
    yield request.param
    every_deployment["lane"] = "auto"


@pytest.fixture
def gateway(started_gateway: Gateway) -> Gateway:
    """The session's gateway with the standard document and an empty ledger on both sides."""
    peer = started_gateway.peer
    peer.usage_status = 200
    peer.refuse_event = lambda event: None
    wanted = standard_document(started_gateway.simulator)
    newest = peer.revisions[max(peer.revisions)]
    if newest["document"] != wanted:
        peer.wait_applied(peer.publish(wanted, standard_secrets()))
    peer.wait_delivered()
    started_gateway.simulator.reset()
    peer.events.clear()
    return started_gateway
