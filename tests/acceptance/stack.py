"""A whole installation under test, configured through its REST API only.

`manage.py up` with two proxy workers, the provider simulator as all six providers, one
model and one deployment per provider kind, and a virtual key.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any

import httpx
import psycopg
from psycopg.rows import dict_row

from gateway_admin.demo.simulator.connections import connection_params
from gateway_admin.demo.simulator.process import Simulator, running_simulator
from gateway_admin.lib.embedded_state import EmbeddedState, free_port
from tests.supervisor.installation import Installation, Up

ADMIN = "admin@example.com"
PASSWORD = "correct horse battery staple"
TOKEN = "gwt-acceptance-canaryTokenAbcdefghijklmnopqrstuv"
WORKERS = 2

# Public name -> (provider kind, the provider's model, LiteLLM's mode)
CHAT_MODELS = {
    "openai-chat": ("openai", "gpt-4o-mini"),
    "anthropic-chat": ("anthropic", "claude-sonnet-4-5-20250929"),
    "gemini-chat": ("gemini", "gemini-2.5-flash"),
    "azure-chat": ("azure", "gpt-4o"),
    "bedrock-chat": ("bedrock", "anthropic.claude-3-5-sonnet-20240620-v1:0"),
    "ollama-chat": ("ollama", "llama3.1"),
}
EMBEDDING_MODELS = {
    "openai-embedding": ("openai", "text-embedding-3-small"),
    "gemini-embedding": ("gemini", "gemini-embedding-001"),
    "azure-embedding": ("azure", "text-embedding-3-large"),
    "bedrock-embedding": ("bedrock", "amazon.titan-embed-text-v2:0"),
    "ollama-embedding": ("ollama", "nomic-embed-text"),
}
# US dollars per token; whole cents come out only when nothing is rounded on the way.
PRICES = {
    "input_token": Decimal("0.00000271"),
    "output_token": Decimal("0.00001307"),
    "cache_read_token": Decimal("0.00000027"),
    "cache_write_token": Decimal("0.00000339"),
}


class Api:
    """The REST API as the first administrator; an unexpected status fails the test."""

    def __init__(self, base_url: str) -> None:
        self._client = httpx.Client(
            base_url=f"{base_url}/api/v1/",
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=30,
            trust_env=False,
        )

    def call(self, method: str, path: str, **body: Any) -> Any:
        answer = self._client.request(method, path, json=body or None)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def post(self, path: str, **body: Any) -> Any:
        return self.call("POST", path, **body)

    def patch(self, path: str, **body: Any) -> Any:
        return self.call("PATCH", path, **body)

    def get(self, path: str, **params: Any) -> Any:
        answer = self._client.get(path, params=params or None)
        assert answer.is_success, f"GET {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def pages(self, path: str, **params: Any) -> Iterator[dict[str, Any]]:
        """All rows of a paged list."""
        answer = self.get(path, page_size=500, **params)
        while True:
            yield from answer["results"]
            if not answer["next"]:
                return
            answer = self.get(answer["next"])

    def close(self) -> None:
        self._client.close()


class Stack:
    def __init__(
        self, installation: Installation, simulator: Simulator, *, workers: int, **settings: str
    ) -> None:
        self.worker_count = workers  # of the whole fleet: more replicas may join
        self.installation = installation
        self.simulator = simulator
        self.api = Api(installation.web)
        self.settings = {
            "GATEWAY_ADMIN_EMAIL": ADMIN,
            "GATEWAY_ADMIN_PASSWORD": PASSWORD,
            "GATEWAY_ADMIN_TOKEN": TOKEN,
            "GATEWAY_PROXY_WORKERS": str(workers),
            **settings,
        }
        self.credentials: dict[str, str] = {}  # provider kind -> id
        self.secrets: list[str] = []  # every secret that was entered or issued
        self.models: dict[str, str] = {}  # name -> id
        self.deployments: dict[str, str] = {}
        self.key = ""
        self.running: Up | None = None

    @property
    def proxy(self) -> str:
        return self.installation.proxy

    def up(self) -> Up:
        self.running = self.installation.up(**self.settings)
        self.running.wait_until(self.serves, "web and proxy healthy", timeout_s=120)
        return self.running

    def serves(self) -> bool:
        try:
            web = httpx.get(f"{self.installation.web}/readyz", timeout=5)
            proxy = httpx.get(f"{self.proxy}/health", timeout=5)
        except httpx.TransportError:
            return False
        return web.status_code == 200 and "still starting" not in proxy.text

    def configure(self) -> None:
        """Six providers with a credential each, all models, one publish, one key."""
        for kind in dict.fromkeys(kind for kind, _ in CHAT_MODELS.values()):
            self._add_provider(kind)
        for name, (kind, upstream) in CHAT_MODELS.items():
            self.add_model(name, kind, upstream)
        for name, (kind, upstream) in EMBEDDING_MODELS.items():
            self.add_model(name, kind, upstream, mode="embedding")
        self.publish("all providers")
        self.key = self.issue_key("acceptance")["key"]

    def _add_provider(self, kind: str) -> None:
        provider = self.api.post("providers/", name=f"{kind.title()} simulated", kind=kind)
        self.credentials[kind] = self.add_credential(provider["id"], kind, f"{kind} main")

    def add_credential(self, provider: str, kind: str, name: str) -> str:
        canary = f"sk-canary-{kind}-{len(self.secrets)}-Zx81Qm47Lw"
        secret = {"api_key": canary}
        if kind == "bedrock":
            secret = {
                "aws_access_key_id": f"AKIACANARY{len(self.secrets)}Zx81Qm",
                "aws_secret_access_key": canary,
            }
        self.secrets += secret.values()
        body = {
            "environment": "prod",
            "provider": provider,
            "name": name,
            "params": connection_params(kind, self.simulator.base_url),
            "secret": secret,
        }
        created: str = self.api.post("credentials/", **body)["id"]
        return created

    def add_model(self, name: str, kind: str, upstream: str, mode: str = "chat") -> None:
        self.models[name] = self.api.post("models/", name=name, mode=mode)["id"]
        self.add_deployment(name, name, kind, upstream)

    def add_deployment(self, name: str, model: str, kind: str, upstream: str) -> None:
        created = self.api.post(
            "deployments/",
            environment="prod",
            name=name,
            model=model,
            credential=self.credentials[kind],
            upstream_model=upstream,
            lane=os.environ.get("GATEWAY_TEST_LANE", "auto"),
            price={
                "source": "own",
                "units": {unit: str(amount) for unit, amount in PRICES.items()},
            },
        )
        self.deployments[name] = created["id"]

    def issue_key(self, name: str, **fields: Any) -> dict[str, Any]:
        issued: dict[str, Any] = self.api.post(
            "keys/", name=name, environment="prod", owner=ADMIN, **fields
        )
        self.secrets.append(issued["key"])
        self.wait_for(lambda: self._knows(issued["key"]), "the key is known to every worker")
        return issued

    def _knows(self, secret: str) -> bool:
        """Ask often enough that each worker answered."""
        statuses = {
            httpx.get(
                f"{self.proxy}/v1/models",
                headers={"Authorization": f"Bearer {secret}", "Connection": "close"},
            ).status_code
            for _ in range(4 * self.worker_count)
        }
        return statuses == {200}

    def policies_in_force(self) -> None:
        """Wait until every worker knows the newest rules."""
        row = self.database(
            "SELECT version FROM keys_policyclock JOIN catalog_environment e"
            " ON e.id = environment_id WHERE e.slug = 'prod'"
        )[0]

        def known() -> bool:
            workers = self.workers()
            return len(workers) >= self.worker_count and all(
                worker["policy_version"] >= row["version"] for worker in workers
            )

        self.wait_for(known, f"policy version {row['version']} in force")

    def publish(self, comment: str) -> int:
        """Publish and wait until every worker serves it; the revision's number."""
        number: int = self.api.post("environments/prod/publish/", comment=comment)["number"]
        self.wait_for(lambda: self._in_force(number), f"revision {number} in force")
        return number

    def _in_force(self, number: int) -> bool:
        workers = self.workers()
        return len(workers) >= self.worker_count and all(
            worker["applied_revision"] == number for worker in workers
        )

    def workers(self) -> list[dict[str, Any]]:
        """The workers of the replica that serves now, as the control plane knows them."""
        replicas = self.api.get("replicas/")["results"]
        return [worker for replica in replicas for worker in replica["workers"]]

    def wait_for(self, condition: Callable[[], bool], what: str, *, timeout_s: float = 30) -> float:
        """Seconds until the condition held."""
        began = time.monotonic()
        while not condition():
            waited = time.monotonic() - began
            output = self.running.output[-4000:] if self.running else ""
            assert waited < timeout_s, f"not within {timeout_s} s: {what}\n{output}"
            time.sleep(0.05)
        return time.monotonic() - began

    def database(self, query: str, *values: object) -> list[dict[str, Any]]:
        """Rows of the installation's own PostgreSQL: a look behind the API, for proofs only."""
        state = EmbeddedState.read(self.installation.data_dir)
        assert state is not None
        with psycopg.connect(state.database_url, row_factory=dict_row) as connection:
            return connection.execute(query.encode(), values).fetchall()

    def events(self, since: datetime) -> list[dict[str, Any]]:
        return list(self.api.pages("usage/events/", **{"from": since.isoformat()}))

    def settled_events(
        self, since: datetime, count: int, customers: Iterable[str] = ()
    ) -> list[dict[str, Any]]:
        """Events since a moment, once there are `count`, one of each customer among them."""
        found: list[dict[str, Any]] = []
        expected = set(customers)

        def arrived() -> bool:
            nonlocal found
            found = self.events(since)
            missing = expected - {event["customer"] for event in found}
            waiting = any(worker["spool_events"] for worker in self.workers())
            return len(found) >= count and not missing and not waiting

        self.wait_for(arrived, f"{count} events in the ledger", timeout_s=60)
        return found


@contextmanager
def running_stack(*, workers: int = WORKERS, **settings: str) -> Iterator[Stack]:
    """Everything up and configured; nothing is left behind.

    `settings` are environment variables of `manage.py up`.
    """
    installation = Installation()
    try:
        with running_simulator(free_port()) as simulator:
            stack = Stack(installation, simulator, workers=workers, **settings)
            try:
                stack.up()
                stack.configure()
                yield stack
            except AssertionError as error:
                error.add_note(stack.running.output[-6000:] if stack.running else "not started")
                raise
            finally:
                stack.api.close()
    finally:
        installation.remove()
