"""Documents exchanged between the control plane and the replicas, and their digest.

The only module that both planes share. Standard library only, so that neither plane
pulls in the other's dependencies. All documents are plain JSON: the types below state
their shapes, `check_document` and `check_event` refuse what does not have them.

Amounts of money and unit prices travel as decimal strings (never floats), times as
RFC 3339 strings in UTC ("2026-11-20T21:40:25.123456+00:00"), durations in the unit that
their name ends with. Unit prices are US dollars per one unit (per token, not per million).
"""

import hashlib
import json
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, NotRequired, TypedDict
from uuid import UUID

SCHEMA_VERSION = 1

MAX_BATCH_EVENTS = 5_000
MAX_BATCH_BYTES = 16 * 1024 * 1024

ChainKind = Literal["general", "context_window", "content_policy"]
CHAIN_KINDS: tuple[ChainKind, ...] = ("general", "context_window", "content_policy")

# What a price can be quoted in. Every figure is US dollars per one of the unit.
PRICE_UNITS: tuple[str, ...] = (
    "input_token",
    "output_token",
    "cache_read_token",
    "cache_write_token",
    "reasoning_token",
    "input_audio_token",
    "output_audio_token",
    "image",
    "input_second",
    "output_second",
    "input_character",
    "query",
    "request",
)

EventStatus = Literal["ok", "error", "refused", "aborted"]
EVENT_STATUSES: tuple[EventStatus, ...] = ("ok", "error", "refused", "aborted")

# The classes of failure that pages, metrics and the API speak of.
ERROR_CLASSES: tuple[str, ...] = (
    "authentication",  # the provider refused our credential
    "permission",  # key may not use the model or the route
    "not_found",  # unknown model or deployment
    "invalid_request",  # the provider or the edge refused the request's content
    "context_window",
    "content_policy",
    "rate_limit",
    "quota",  # provider account or budget exhausted
    "overloaded",  # 529, 503 of the provider
    "timeout",
    "connection",
    "server_error",  # 5xx of the provider
    "cut_stream",  # the stream ended before its last event
    "client_abort",
    "internal",  # our own fault
)


class ContractError(ValueError):
    """A document does not have the shape that this schema version promises."""


class PriceDocument(TypedDict):
    """Unit prices of one deployment. `version` names the immutable price row."""

    version: str
    source: Literal["book", "own"]
    units: dict[str, str]  # unit of PRICE_UNITS -> decimal string


class EnvironmentDocument(TypedDict):
    slug: str
    name: str
    default_model: str | None  # a model's or an alias' name
    fallback_enabled: bool
    timeout_s: float  # whole attempt, non-streaming
    stream_timeout_s: float  # until the first byte of a stream
    num_retries: int  # per deployment group, beside the chain


class ModelDocument(TypedDict):
    name: str
    mode: str  # chat, completion, embedding, responses, image, audio_speech, ...
    context_window: int | None  # tokens
    max_output_tokens: int | None


class CredentialDocument(TypedDict):
    id: str
    name: str
    provider: str  # provider slug
    secret_id: str | None  # key into RevisionEnvelope.secrets; None: nothing secret (Ollama)
    fingerprint: str | None  # changes when the secret changes
    params: dict[str, Any]  # not secret: api_base, api_version, aws_region_name, ...


class DeploymentDocument(TypedDict):
    id: str
    name: str
    model: str  # the public name it serves
    provider: str  # provider slug
    provider_kind: str  # openai, anthropic, gemini, azure, bedrock, ollama, other
    upstream_model: str  # the provider's own name for the model
    litellm_model: str  # with LiteLLM's provider prefix: "azure/gpt-4o"
    credential: str | None  # CredentialDocument.id
    params: dict[str, Any]  # further LiteLLM parameters; wins over the credential's
    rpm: int | None
    tpm: int | None
    weight: int
    timeout_s: float | None
    stream_timeout_s: float | None
    region: str
    price: PriceDocument | None  # None: unpriced


class ChainDocument(TypedDict):
    model: str
    kind: ChainKind
    targets: list[str]  # public model names, in order


class RevisionDocument(TypedDict):
    """What one environment serves. Lists are sorted, so equal content is equal bytes."""

    schema: int
    environment: EnvironmentDocument
    models: list[ModelDocument]
    aliases: dict[str, str]  # alias -> model name
    credentials: list[CredentialDocument]
    deployments: list[DeploymentDocument]
    chains: list[ChainDocument]


class RevisionEnvelope(TypedDict):
    """A revision as it travels: secrets beside it, encrypted with the fleet key.

    Secrets are not part of the digest (their encryption is randomised); the
    credentials' `fingerprint` is.
    """

    revision: int
    digest: str
    document: RevisionDocument
    secrets: dict[str, str]  # secret_id -> base64(nonce + ciphertext + tag)


class KeyPolicy(TypedDict):
    """All that a replica knows of one virtual key. `digest` is not reversible."""

    public_id: str
    digest: str  # hex HMAC-SHA256 of the whole key with the environment's pepper
    name: str
    state: Literal["active", "blocked"]
    reason: str  # why it is blocked, shown to the caller
    expires_at: str | None
    key_id: str
    team_id: str | None
    team: str | None  # slug
    user_id: str | None
    user: str | None  # e-mail of the owner
    models: list[str] | None  # public names and aliases; None: every model
    tags: dict[str, str]


class PolicyFeed(TypedDict):
    version: int
    full: bool  # True: forget every key that is not listed here
    pepper: str  # base64(nonce + ciphertext + tag) under the fleet key
    keys: list[KeyPolicy]
    removed: list[str]  # public ids revoked or deleted


class SyncReport(TypedDict):
    """One worker process tells where it stands."""

    replica_id: str
    hostname: str
    version: str
    worker: int
    workers: int
    pid: int
    started_at: str
    applied_revision: int | None
    applied_digest: str | None
    rejected_revision: int | None
    rejected_error: str | None
    rejected_deployment: str | None  # DeploymentDocument.id at fault, when known
    policy_version: int
    spool_events: int
    spool_bytes: int
    dropped_events: int
    healthy: bool
    reasons: list[str]


class SyncOrder(TypedDict):
    """What the worker should be running."""

    revision: int | None  # None: nothing was published yet
    digest: str | None
    policy_version: int
    server_time: str


class AttemptDocument(TypedDict):
    """One call to one deployment."""

    deployment: str | None
    model: str
    why: str  # first, retry, fallback, context_window, content_policy
    started_at: str
    latency_ms: float
    status: int | None  # HTTP status of the provider
    error_class: str | None
    error: str | None  # the provider's words, shortened, without secrets


class UsageEventDocument(TypedDict):
    """One request of a client, whatever became of it."""

    event_id: str  # UUID; the idempotency key
    started_at: str
    revision: int | None
    key_id: str
    public_id: str
    user_id: str | None
    team_id: str | None
    customer: str  # the `user` field of the request, or ""
    tags: dict[str, str]
    route: str  # "/v1/chat/completions"
    requested_model: str  # as the client wrote it; "" when it named none
    model: str  # public name that served or should have served it
    deployment: str | None
    why: str  # first, retry, fallback, context_window, content_policy, cache
    status: EventStatus
    http_status: int
    error_class: str | None
    error: str | None
    input_tokens: int  # includes cached reads and writes
    output_tokens: int  # includes reasoning
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    other_units: dict[str, str]  # units beside tokens: {"image": "2"}
    price_version: str | None
    unit_prices: dict[str, str]
    cost: str | None  # decimal string in USD; None: unpriced
    estimated: bool  # tokens were counted by us, not reported by the provider
    streaming: bool
    latency_ms: float
    ttft_ms: float | None  # to the first byte of the answer's content
    overhead_ms: float | None  # latency minus the time spent in the provider's attempts
    attempts: list[AttemptDocument]
    lane: NotRequired[str]  # litellm or direct


class UsageBatch(TypedDict):
    replica_id: str
    batch_id: str
    events: list[UsageEventDocument]


class RefusedEvent(TypedDict):
    event_id: str
    reason: str


class UsageReceipt(TypedDict):
    accepted: int
    duplicates: int
    refused: list[RefusedEvent]


def canonical_json(document: object) -> bytes:
    """UTF-8 JSON with sorted keys and no white space; equal content gives equal bytes."""
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def document_digest(document: RevisionDocument) -> str:
    """Hex SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(document)).hexdigest()


def secret_context(environment: str, secret_id: str) -> bytes:
    """Associated data that binds a travelling secret to its environment and its place."""
    return f"fleet:{environment}:{secret_id}".encode()


def bell_channel(environment: str) -> str:
    """Redis channel on which "a newer version exists" is announced."""
    return f"gateway:bell:{environment}"


def check_document(document: Any) -> RevisionDocument:
    """Return the document if its references hold, else raise ContractError naming the fault."""
    if not isinstance(document, dict) or document.get("schema") != SCHEMA_VERSION:
        found = document.get("schema") if isinstance(document, dict) else type(document).__name__
        raise ContractError(f"schema {found!r} is not {SCHEMA_VERSION}: upgrade the replica first")
    for part in ("environment", "models", "aliases", "credentials", "deployments", "chains"):
        if part not in document:
            raise ContractError(f"document has no {part!r}")
    models = {model["name"] for model in document["models"]}
    credentials = {credential["id"] for credential in document["credentials"]}
    for deployment in document["deployments"]:
        _check_deployment(deployment, models, credentials)
    for alias, target in document["aliases"].items():
        if target not in models:
            raise ContractError(f"alias {alias!r} points to the unknown model {target!r}")
    for chain in document["chains"]:
        for name in (chain["model"], *chain["targets"]):
            if name not in models:
                raise ContractError(f"fallback chain names the unknown model {name!r}")
    return document  # type: ignore[return-value]


def _check_deployment(deployment: Any, models: set[str], credentials: set[str]) -> None:
    name = deployment.get("name") or deployment.get("id")
    if deployment["model"] not in models:
        raise ContractError(f"deployment {name!r} serves the unknown model {deployment['model']!r}")
    if deployment["credential"] is not None and deployment["credential"] not in credentials:
        raise ContractError(f"deployment {name!r} names an unknown credential")
    price = deployment["price"]
    for unit, amount in (price["units"] if price else {}).items():
        if unit not in PRICE_UNITS:
            raise ContractError(f"deployment {name!r} has a price per unknown unit {unit!r}")
        _decimal(amount, f"price per {unit} of deployment {name!r}")


_EVENT_COUNTS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)


def check_event(event: Any) -> UsageEventDocument:
    """Return the event if it can be stored, else raise ContractError with the reason."""
    if not isinstance(event, dict):
        raise ContractError("event is not an object")
    missing = [
        name
        for name in UsageEventDocument.__required_keys__
        if name not in event  # NotRequired fields may be absent
    ]
    if missing:
        raise ContractError(f"event lacks {', '.join(sorted(missing))}")
    _uuid(event["event_id"], "event_id")
    _aware_time(event["started_at"], "started_at")
    if event["status"] not in EVENT_STATUSES:
        raise ContractError(f"unknown status {event['status']!r}")
    for name in _EVENT_COUNTS:
        value = event[name]
        if type(value) is not int or not 0 <= value < 2**31:
            raise ContractError(f"{name} is not a count")
    if event["cost"] is not None and _decimal(event["cost"], "cost") < 0:
        raise ContractError("cost is negative")
    latency = event["latency_ms"]
    if type(latency) not in (int, float) or not 0 <= latency < 86_400_000:
        raise ContractError("latency_ms is not a duration below one day")
    return event  # type: ignore[return-value]


def _decimal(text: Any, what: str) -> Decimal:
    try:
        amount = Decimal(text) if isinstance(text, str) else None
    except InvalidOperation:
        amount = None
    if amount is None or not amount.is_finite():
        raise ContractError(f"{what} is not a decimal string")
    return amount


def _uuid(text: Any, what: str) -> None:
    try:
        UUID(text)
    except (ValueError, TypeError, AttributeError) as error:
        raise ContractError(f"{what} is not a UUID") from error


def _aware_time(text: Any, what: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except (ValueError, TypeError) as error:
        raise ContractError(f"{what} is not an RFC 3339 time") from error
    if moment.tzinfo is None:
        raise ContractError(f"{what} has no time zone")
    return moment
