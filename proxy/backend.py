"""LiteLLM's proxy as a component: environment, configuration, start-up, Router.

Importing this module imports LiteLLM (seven seconds, 300 MB); only the launcher does,
once, before it forks the workers. `prepare_environment` must have run before.
"""

import asyncio
import importlib
import json
import logging
from collections.abc import Coroutine
from typing import Any

import litellm
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER
from litellm.proxy import proxy_server
from litellm.proxy.hooks.responses_id_security import ResponsesIDSecurity
from litellm.responses.utils import ResponsesAPIRequestUtils

from proxy.direct_request import LiteLlmFacts
from proxy.litellm_facts import facts_of
from proxy.plugin import INTERNAL_TOKEN, RECORDER
from proxy.router import RouterApplier, new_router
from proxy.snapshot import Deployment, Snapshot
from proxy.worker import AsgiApp

logger = logging.getLogger("gateway.backend")

# Of some families LiteLLM would fetch the tokenizer from Hugging Face while a request waits, and
# again whenever that fails: half a minute each time where the network does not let it out.
litellm.disable_hf_tokenizer_download = True

# It logs pages of traceback for every failed call; ours are in the usage events, scrubbed.
for _name in ("LiteLLM", "LiteLLM Proxy", "LiteLLM Router"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


# Imported by LiteLLM within its first requests, 0.7 s in all: better before anybody waits.
_LATE_IMPORTS = (
    "boto3",
    "litellm.litellm_core_utils.default_encoding",
    "litellm.llms.anthropic.pass_through.messages.streaming_iterator",
    "litellm.llms.azure.chat.gpt_transformation",
    "litellm.llms.azure.responses.transformation",
    "litellm.llms.bedrock.image_generation.cost_calculator",
    "litellm.llms.gemini.chat.transformation",
    "litellm.llms.ollama.chat.transformation",
    "litellm.llms.ollama.completion.transformation",
    "litellm.llms.vertex_ai.context_caching.vertex_ai_context_caching",
    "litellm.proxy._experimental.mcp_server.mcp_server_manager",
    "litellm.proxy.anthropic_endpoints.endpoints",
    "litellm.proxy.guardrails.anthropic_sse",
    "litellm.proxy.response_polling.polling_handler",
    "litellm.responses.mcp.litellm_proxy_mcp_handler",
    "nacl.signing",
    "openai.resources",
    "openai.types.responses",
)


def import_late_modules() -> None:
    """Import what LiteLLM would import while clients wait; a renamed module is no failure."""
    for name in _LATE_IMPORTS:
        try:
            importlib.import_module(name)
        except ImportError:
            logger.info("%s is not a part of this LiteLLM: first requests may be slower", name)


def load_tokenizers() -> None:
    """Before the fork: they are shared, 70 MB, and nobody waits a second for his count."""
    for model in ("gpt-4", "gpt-4o"):  # of the two vocabularies that everything is counted with
        litellm.token_counter(model=model, text="a word")


class LiteLlmError(Exception):
    """LiteLLM's own start-up failed."""


def _forget(async_coroutine: Coroutine[Any, Any, None]) -> None:
    async_coroutine.close()


class LiteLlm:
    """The Backend of a worker. Made in the parent, started in each worker."""

    def __init__(self) -> None:
        self.app: AsgiApp = proxy_server.app
        self.internal_token = INTERNAL_TOKEN
        self.state: dict[str, Any] = {}
        self._applier: RouterApplier | None = None
        self._to_app: asyncio.Queue[dict[str, Any]] | None = None
        self._from_app: asyncio.Queue[dict[str, Any]] | None = None
        self._lifespan: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Run LiteLLM's lifespan, then put our Router and plugin in their places."""
        self._to_app, self._from_app = asyncio.Queue(), asyncio.Queue()
        await self._to_app.put({"type": "lifespan.startup"})
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": self.state}

        async def run() -> None:
            assert self._to_app is not None
            assert self._from_app is not None
            await self.app(scope, self._to_app.get, self._from_app.put)  # type: ignore[arg-type]

        self._lifespan = asyncio.create_task(run())
        answer = await self._from_app.get()
        if answer["type"] != "lifespan.startup.complete":
            raise LiteLlmError(str(answer.get("message", ""))[:2000])
        # Nobody reads LiteLLM's logs of successes, which it makes after every answer: a sixth of
        # its time. What our events need of them, its hooks and headers tell before that.
        GLOBAL_LOGGING_WORKER.ensure_initialized_and_enqueue = _forget
        router = new_router()
        proxy_server.llm_router = router
        proxy_server.llm_model_list = []
        if RECORDER not in litellm.callbacks:
            litellm.callbacks.append(RECORDER)
        self._applier = RouterApplier(router)

    async def stop(self) -> None:
        """Run LiteLLM's shutdown, bounded: nothing of ours depends on it."""
        if self._lifespan is None or self._to_app is None:
            return
        await self._to_app.put({"type": "lifespan.shutdown"})
        await asyncio.wait({self._lifespan}, timeout=2)
        self._lifespan.cancel()

    async def apply(self, snapshot: Snapshot) -> int:
        """Load a snapshot into the Router."""
        if self._applier is None:
            raise LiteLlmError("a snapshot came before start-up was complete")
        return await self._applier.apply(snapshot)

    def facts_of(self, deployment: Deployment) -> LiteLlmFacts | str:
        """What LiteLLM knows of a deployment's model; or why it alone can serve it."""
        return facts_of(deployment)

    def count_tokens(self, model: str, content: Any) -> int:
        """Tokens of messages or of a text, by the tokenizer LiteLLM knows for the model."""
        if isinstance(content, list):
            try:
                return int(litellm.token_counter(model=model, messages=content))
            except (ValueError, TypeError, KeyError):
                content = json.dumps(content)
        return int(litellm.token_counter(model=model, text=str(content)))

    def deployment_of_response(self, response_id: str) -> str | None:
        """Which deployment made a response: LiteLLM writes it, encrypted, into the id."""
        own_id = ResponsesIDSecurity()._decrypt_response_id(response_id)[0]
        told = ResponsesAPIRequestUtils.decode_responses_api_response_id(own_id)
        return str(told["model_id"]) if told["model_id"] else None
