"""The demonstration's organisation as plain tables. Everybody and everything is invented.

No Django here: the live traffic reads these tables too. `step` says with which publish of
`HISTORY` something came (0: the first). Weights are relative; `upstream` is the provider's
own name for a model.
"""

from dataclasses import dataclass, field
from typing import Literal

NAME = "Example Corp (demonstration)"
TIME_ZONE = "Europe/Berlin"
MAIN = "prod"  # the environment that live traffic goes to
MAIL_DOMAIN = "demo.example"
DAYS = 60
EVENTS = 300_000

# How much and what a program asks; see `profiles`.
Workload = Literal["chat", "support", "retrieval", "code", "agent", "batch", "embedding", "trial"]


@dataclass(frozen=True)
class TeamRow:
    slug: str
    name: str
    description: str


@dataclass(frozen=True)
class PersonRow:
    """`owns`: leads the team. `signs_in`: has a password, which is printed."""

    alias: str
    name: str
    team: str | None
    role: Literal["admin", "finance", "developer"] = "developer"
    owns: bool = False
    signs_in: bool = False

    @property
    def email(self) -> str:
        return f"{self.alias}@{MAIL_DOMAIN}"


@dataclass(frozen=True)
class ProviderRow:
    slug: str
    name: str
    kind: str


@dataclass(frozen=True)
class ModelRow:
    """`context_window` and `max_output_tokens` in tokens."""

    name: str
    description: str
    context_window: int
    max_output_tokens: int | None = None
    mode: str = "chat"


@dataclass(frozen=True)
class DeploymentRow:
    """`price`: "book", "none" (unpriced), or own US dollars per token (input, output)."""

    name: str
    model: str
    provider: str
    upstream: str
    step: int
    weight: int = 1
    price: Literal["book", "none"] | tuple[str, str] = "book"
    region: str = ""
    rpm: int | None = None
    tpm: int | None = None
    timeout_s: float | None = None


@dataclass(frozen=True)
class ChainRow:
    model: str
    kind: Literal["general", "context_window", "content_policy"]
    targets: tuple[str, ...]


@dataclass(frozen=True)
class KeyRow:
    """`mix`: model or alias -> share of the key's requests. No owner: the team's own key.

    `repeats`: share of its requests that ask what was asked before.
    """

    name: str
    team: str
    owner: str | None
    workload: Workload
    mix: dict[str, float]
    environment: str = "prod"
    restricted: bool = False  # to the models of `mix`
    state: Literal["active", "blocked", "revoked", "expired"] = "active"
    expires_days: int | None = None
    ended_days_ago: float | None = None  # since when it is blocked, revoked or expired
    tags: dict[str, str] = field(default_factory=dict)
    cache: Literal["off", "deterministic", "all"] = "off"
    repeats: float = 0.0


@dataclass(frozen=True)
class StepRow:
    """A publish of prod, so many days before the demonstration was made."""

    days_ago: float
    comment: str
    by: str


TEAMS = (
    TeamRow("support-copilot", "Support Copilot", "Answers tickets and drafts replies. Invented."),
    TeamRow("search", "Search Relevance", "Embeddings and answers from documents. Invented."),
    TeamRow("developer-tools", "Developer Tools", "Code completion and review. Invented."),
    TeamRow("document-intake", "Document Intake", "Reads contracts and invoices. Invented."),
    TeamRow("growth", "Growth Experiments", "Tries things out. Invented."),
)

PEOPLE = (
    PersonRow("admin", "Ada Admin", None, "admin", signs_in=True),
    PersonRow("finance", "Finn Finance", None, "finance", signs_in=True),
    PersonRow("developer", "Devon Developer", "support-copilot", owns=True, signs_in=True),
    PersonRow("ticket", "Tess Ticket", "support-copilot"),
    PersonRow("helpdesk", "Hal Helpdesk", "support-copilot"),
    PersonRow("macro", "Mia Macro", "support-copilot"),
    PersonRow("ranking", "Ray Ranking", "search", owns=True),
    PersonRow("query", "Quinn Query", "search"),
    PersonRow("vector", "Vic Vector", "search"),
    PersonRow("index", "Ina Index", "search"),
    PersonRow("compiler", "Cam Compiler", "developer-tools", owns=True),
    PersonRow("linter", "Lin Linter", "developer-tools"),
    PersonRow("pipeline", "Pip Pipeline", "developer-tools"),
    PersonRow("branch", "Bram Branch", "developer-tools"),
    PersonRow("scanner", "Sky Scanner", "document-intake", owns=True),
    PersonRow("invoice", "Ivy Invoice", "document-intake"),
    PersonRow("archive", "Archie Archive", "document-intake"),
    PersonRow("funnel", "Fay Funnel", "growth", owns=True),
    PersonRow("pixel", "Pat Pixel", "growth"),
    PersonRow("banner", "Ben Banner", "growth"),
)

PROVIDERS = (
    ProviderRow("demo-openai", "OpenAI (simulated)", "openai"),
    ProviderRow("demo-anthropic", "Anthropic (simulated)", "anthropic"),
    ProviderRow("demo-gemini", "Google Gemini (simulated)", "gemini"),
    ProviderRow("demo-azure", "Azure OpenAI (simulated)", "azure"),
    ProviderRow("demo-bedrock", "AWS Bedrock (simulated)", "bedrock"),
    ProviderRow("demo-ollama", "Ollama (simulated)", "ollama"),
)

MODELS = (
    ModelRow("gpt-4.1", "General work of high quality", 1_047_576, 32_768),
    ModelRow("gpt-4.1-mini", "Everyday work at a fifth of the price", 1_047_576, 32_768),
    ModelRow("o4-mini", "Reasons before it answers", 200_000, 100_000),
    ModelRow("claude-sonnet-4-5", "Code, agents, long documents", 200_000, 64_000),
    ModelRow("claude-haiku-4-5", "Quick answers of good quality", 200_000, 64_000),
    ModelRow("gemini-2.5-pro", "Very long contexts", 1_048_576, 65_536),
    ModelRow("gemini-2.5-flash", "Cheap, quick, very long contexts", 1_048_576, 65_536),
    ModelRow("nova-lite", "Extraction in bulk", 300_000, 10_000),
    ModelRow("llama-3.1-8b", "Open weights on our own machines", 8_192, 8_192),
    ModelRow("text-embedding-3-small", "Vectors for search", 8_191, mode="embedding"),
)

DEPLOYMENTS = (
    DeploymentRow("openai-gpt-4.1", "gpt-4.1", "demo-openai", "gpt-4.1", 0, weight=3, rpm=3_000),
    DeploymentRow(
        "openai-gpt-4.1-mini", "gpt-4.1-mini", "demo-openai", "gpt-4.1-mini", 0, weight=4
    ),
    DeploymentRow("openai-o4-mini", "o4-mini", "demo-openai", "o4-mini", 0),
    DeploymentRow(
        "openai-embedding-small",
        "text-embedding-3-small",
        "demo-openai",
        "text-embedding-3-small",
        0,
        tpm=5_000_000,
    ),
    DeploymentRow(
        "anthropic-sonnet", "claude-sonnet-4-5", "demo-anthropic", "claude-sonnet-4-5", 0, weight=3
    ),
    DeploymentRow("anthropic-haiku", "claude-haiku-4-5", "demo-anthropic", "claude-haiku-4-5", 0),
    DeploymentRow("azure-gpt-4.1", "gpt-4.1", "demo-azure", "gpt-4.1", 1, region="swedencentral"),
    # Azure's name of a deployment is the customer's own, so the price book cannot know it.
    DeploymentRow(
        "azure-mini-pilot", "gpt-4.1-mini", "demo-azure", "team-mini-pilot", 1, price="none"
    ),
    DeploymentRow("gemini-pro", "gemini-2.5-pro", "demo-gemini", "gemini-2.5-pro", 2),
    DeploymentRow("gemini-flash", "gemini-2.5-flash", "demo-gemini", "gemini-2.5-flash", 2),
    DeploymentRow(
        "bedrock-sonnet",
        "claude-sonnet-4-5",
        "demo-bedrock",
        "anthropic.claude-sonnet-4-5-20250929-v1:0",
        2,
        region="us-east-1",
    ),
    DeploymentRow("bedrock-nova-lite", "nova-lite", "demo-bedrock", "amazon.nova-lite-v1:0", 2),
    DeploymentRow(
        "rack-llama",
        "llama-3.1-8b",
        "demo-ollama",
        "llama3.1:8b",
        3,
        price=("0.00000005", "0.00000008"),
    ),
)

# What the other environments serve: names of DEPLOYMENTS.
TRIALS_STEP = 3  # since when
OTHER_ENVIRONMENTS = {
    "staging": ("openai-gpt-4.1-mini", "anthropic-sonnet", "gemini-flash"),
    "dev": ("openai-gpt-4.1-mini", "rack-llama"),
}

# name, model, step: a later row of the same name repoints it.
ALIASES = (
    ("default", "gpt-4.1-mini", 0),
    ("fast", "claude-haiku-4-5", 0),
    ("fast", "gemini-2.5-flash", 6),
)
CHAINS_STEP = 4
CHAINS = (
    ChainRow("gpt-4.1", "general", ("claude-sonnet-4-5", "gemini-2.5-pro")),
    ChainRow("claude-sonnet-4-5", "general", ("gemini-2.5-pro",)),
    ChainRow("claude-haiku-4-5", "general", ("gemini-2.5-flash", "gpt-4.1-mini")),
    ChainRow("llama-3.1-8b", "context_window", ("gpt-4.1-mini",)),
    ChainRow("claude-haiku-4-5", "context_window", ("gemini-2.5-flash",)),
    ChainRow("gemini-2.5-flash", "content_policy", ("gpt-4.1-mini",)),
)
OWN_PRICE_STEP = 5  # the rack's own price is corrected
OWN_PRICE_AFTER = ("rack-llama", ("0.00000006", "0.0000001"))
TIMEOUT_STEP = 5
TIMEOUT_AFTER = ("openai-o4-mini", 180.0)

HISTORY = (
    StepRow(61.2, "First models: OpenAI and Anthropic", "admin"),
    StepRow(47.3, "Azure OpenAI as a second source of the GPT models", "admin"),
    StepRow(33.4, "Gemini and Bedrock join", "admin"),
    StepRow(22.1, "Llama on our own rack, at our own price", "admin"),
    StepRow(15.2, "Fallback chains for errors, long prompts and content filters", "admin"),
    StepRow(
        8.3, "After the overload: o4-mini may take three minutes; rack price corrected", "admin"
    ),
    StepRow(0.0, "The alias fast now means gemini-2.5-flash", "admin"),
)

# An overload of Anthropic: 529 for most calls, answered by the chains.
INCIDENT_DAYS_AGO = 9
INCIDENT_LOCAL_HOUR = 14
INCIDENT_HOURS = 2
INCIDENT_PROVIDER = "demo-anthropic"

CACHE_SINCE_DAYS = 34  # since when keys keep answers

_MINI, _FLASH, _SONNET, _HAIKU = (
    "gpt-4.1-mini",
    "gemini-2.5-flash",
    "claude-sonnet-4-5",
    "claude-haiku-4-5",
)
_EMBED = {"text-embedding-3-small": 1.0}

# The busiest first: the share of a key falls with its place (see `profiles.key_weights`).
KEYS = (
    KeyRow("support-bot", "support-copilot", None, "support", {_MINI: 5, "default": 3, _HAIKU: 2}),
    KeyRow(
        "search-indexer",
        "search",
        None,
        "embedding",
        _EMBED,
        restricted=True,
        cache="deterministic",
        repeats=0.12,
    ),
    KeyRow("ide-completion", "developer-tools", None, "code", {_HAIKU: 5, _SONNET: 2, "fast": 3}),
    KeyRow("answer-service", "search", "ranking", "retrieval", {_MINI: 4, _FLASH: 4, "gpt-4.1": 2}),
    KeyRow("invoice-reader", "document-intake", None, "batch", {"nova-lite": 6, _MINI: 4}),
    KeyRow("review-agent", "developer-tools", "compiler", "agent", {_SONNET: 8, "o4-mini": 2}),
    KeyRow("ticket-triage", "support-copilot", "ticket", "support", {"llama-3.1-8b": 6, _MINI: 4}),
    KeyRow("contract-summary", "document-intake", "scanner", "retrieval", {"gemini-2.5-pro": 1}),
    KeyRow("chat-widget", "support-copilot", "developer", "chat", {"default": 7, "fast": 3}),
    KeyRow(
        "query-rewriter",
        "search",
        "query",
        "chat",
        {"fast": 6, _MINI: 4},
        cache="deterministic",
        repeats=0.24,
    ),
    KeyRow("ci-explainer", "developer-tools", "pipeline", "code", {_MINI: 6, _HAIKU: 4}),
    KeyRow("newsletter-drafts", "growth", "funnel", "chat", {"gpt-4.1": 6, _FLASH: 4}),
    KeyRow("night-reindex", "search", "index", "batch", {**_EMBED, "nova-lite": 0.4}),
    KeyRow("macro-writer", "support-copilot", "macro", "chat", {_MINI: 1}, restricted=True),
    KeyRow("archive-tagger", "document-intake", "archive", "batch", {"llama-3.1-8b": 7, _MINI: 3}),
    KeyRow("test-writer", "developer-tools", "linter", "agent", {_SONNET: 6, "gpt-4.1": 4}),
    KeyRow("landing-pages", "growth", "pixel", "chat", {_HAIKU: 5, "gpt-4.1": 5}),
    KeyRow("relevance-judge", "search", "vector", "batch", {"o4-mini": 5, _MINI: 5}),
    KeyRow("helpdesk-voice", "support-copilot", "helpdesk", "chat", {"fast": 1}, expires_days=5),
    KeyRow("migration-helper", "developer-tools", "branch", "agent", {_SONNET: 1}),
    KeyRow("fraud-notes", "document-intake", "invoice", "retrieval", {"gpt-4.1": 1}),
    KeyRow("ab-copy", "growth", "banner", "trial", {_FLASH: 4, _MINI: 3, _HAIKU: 3}),
    KeyRow(
        "faq-generator",
        "support-copilot",
        "ticket",
        "batch",
        {_FLASH: 1},
        cache="all",
        repeats=0.45,
    ),
    KeyRow("release-notes", "developer-tools", "pipeline", "chat", {"default": 1}),
    KeyRow("ocr-cleanup", "document-intake", "scanner", "batch", {"nova-lite": 1}, restricted=True),
    KeyRow("synonym-miner", "search", "query", "batch", {"llama-3.1-8b": 1}),
    KeyRow("survey-reader", "growth", "funnel", "retrieval", {_FLASH: 1}),
    KeyRow("devon-notebook", "support-copilot", "developer", "trial", {"gpt-4.1": 2, "o4-mini": 1}),
    KeyRow("compiler-notebook", "developer-tools", "compiler", "trial", {_SONNET: 2, _MINI: 1}),
    KeyRow("vector-notebook", "search", "vector", "trial", {"gemini-2.5-pro": 1, _FLASH: 1}),
    KeyRow(
        "old-widget",
        "support-copilot",
        "helpdesk",
        "chat",
        {_MINI: 1},
        state="revoked",
        ended_days_ago=25,
    ),
    KeyRow(
        "hackathon", "growth", "pixel", "trial", {"gpt-4.1": 1}, state="expired", ended_days_ago=12
    ),
    KeyRow(
        "leaked-in-repo",
        "developer-tools",
        "branch",
        "code",
        {_HAIKU: 1},
        state="blocked",
        ended_days_ago=6.2,
    ),
    KeyRow(
        "runaway-loop", "growth", "banner", "agent", {_MINI: 1}, state="blocked", ended_days_ago=3.6
    ),
    KeyRow("support-staging", "support-copilot", None, "trial", {_MINI: 1}, "staging"),
    KeyRow("agent-staging", "developer-tools", "linter", "trial", {_SONNET: 1}, "staging"),
    KeyRow("search-staging", "search", "ranking", "trial", {_FLASH: 1}, "staging"),
    KeyRow("devon-dev", "support-copilot", "developer", "trial", {_MINI: 1}, "dev"),
    KeyRow("branch-dev", "developer-tools", "branch", "trial", {"llama-3.1-8b": 1}, "dev"),
    KeyRow("funnel-dev", "growth", "funnel", "trial", {_MINI: 1}, "dev"),
)

BLOCK_REASONS = {
    "leaked-in-repo": "Found in a public repository. Ask Cam Compiler for a new key.",
    "runaway-loop": "Called itself in a loop. Unblocked once the agent has a step limit.",
}
CUSTOMERS = 120  # invented end customers, in the `user` field of some requests
