"""What is measured, and how each of it is called."""

from dataclasses import dataclass, field

from tests.bench.lanes.answers import UPSTREAM_MODEL, request_body
from tests.bench.lanes.rivals import MASTER_KEY
from tests.bench.lanes.wrk import Request
from tests.proxy.documents import new_key

CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Variant:
    """One way for a request to go."""

    name: str
    title: str
    server: str  # whose process is measured: "", ours, litellm, tuned, portkey
    key: str = "bench"  # of ours
    model: str = ""  # of ours: which lane's models
    status: int = 200
    event: str = ""  # what our event of an answered request must be; "": there is none
    streams: bool = True

    @property
    def calls_provider(self) -> bool:
        """Whether every request reaches the mock."""
        return self.status == 200 and self.event != "hit"


VARIANTS = (
    Variant("mock", "straight to the mock", ""),
    Variant("litellm", "LiteLLM as installed", "litellm"),
    Variant("tuned", "LiteLLM tuned", "tuned"),
    Variant("lane", "ours, LiteLLM's lane", "ours", model="lane", event="ok:litellm"),
    Variant("direct", "ours, direct lane", "ours", model="direct", event="ok:direct"),
    Variant("portkey", "Portkey 1.15.2", "portkey"),
    Variant("hit", "ours, cache hit", "ours", key="hit", model="hit", event="hit"),
    Variant(
        "unknown", "ours, unknown key", "ours", key="", model="direct", status=401, streams=False
    ),
    Variant(
        "broke", "ours, over budget", "ours",
        key="broke", model="direct", status=429, event="429", streams=False,
    ),
)  # fmt: skip
BY_NAME = {variant.name: variant for variant in VARIANTS}


@dataclass(frozen=True, order=True)
class Case:
    """One kind of load."""

    stream: bool
    ms: int
    connections: int

    @property
    def title(self) -> str:
        """`plain, 20 ms, 16 connections`."""
        kind = "stream" if self.stream else "plain"
        lines = "1 connection" if self.connections == 1 else f"{self.connections} connections"
        return f"{kind}, provider {self.ms} ms, {lines}"


@dataclass
class Site:
    """Where everything listens."""

    provider: str
    ports: dict[str, int] = field(default_factory=dict)  # by server
    pids: dict[str, int] = field(default_factory=dict)

    def request(self, variant: Variant, case: Case, *, usage: bool = False) -> Request:
        """The request of a variant."""
        headers = {"content-type": "application/json"}
        url = f"http://127.0.0.1:{self.ports.get(variant.server, 0)}{CHAT}"
        model = f"{variant.server}-{case.ms}"
        if variant.server == "ours":
            known = new_key(variant.key) if variant.key else "sk-gw-nobody-" + "x" * 40
            headers["authorization"] = f"Bearer {known}"
            model = f"{variant.model}-{case.ms}"
        elif variant.server == "":
            url, model = f"{self.provider}/mock/{case.ms}{CHAT}", UPSTREAM_MODEL
        elif variant.server == "portkey":
            model = UPSTREAM_MODEL
            headers["x-portkey-provider"] = "openai"
            headers["x-portkey-custom-host"] = f"{self.provider}/portkey/{case.ms}/v1"
            headers["authorization"] = "Bearer sk-mock"
        else:
            headers["authorization"] = f"Bearer {MASTER_KEY}"
        return Request(url, headers, request_body(model, stream=case.stream, usage=usage))
