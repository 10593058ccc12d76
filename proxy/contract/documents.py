"""Documents exchanged between the control plane and the replicas, and their digest.

All documents are plain JSON: the types below state their shapes, `check_document` and
`check_event` refuse what does not have them.

Amounts of money and unit prices travel as decimal strings (never floats), times as
RFC 3339 strings in UTC ("2026-11-20T21:40:25.123456+00:00"), durations in the unit that
their name ends with. Unit prices are US dollars per one unit (per token, not per million).
"""

import hashlib
import json
from typing import Any, Literal, NotRequired, TypedDict

SCHEMA_VERSION = 1

MAX_BATCH_EVENTS = 5_000
MAX_BATCH_BYTES = 16 * 1024 * 1024

ChainKind = Literal["general", "context_window", "content_policy"]
CHAIN_KINDS: tuple[ChainKind, ...] = ("general", "context_window", "content_policy")

# auto: the edge calls the provider itself where it can; litellm: every call goes through LiteLLM.
Lane = Literal["auto", "litellm"]
LANES: tuple[Lane, ...] = ("auto", "litellm")
MAX_LANE_REASON = 100  # signs; what is longer is cut at ingest

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

# abandoned: the worker died with the request; what is known is what it had reserved.
EventStatus = Literal["ok", "error", "refused", "aborted", "abandoned"]
EVENT_STATUSES: tuple[EventStatus, ...] = ("ok", "error", "refused", "aborted", "abandoned")

# Who a budget, a limit or a block speaks of. "credential" takes budgets only.
Scope = Literal["environment", "team", "user", "key", "customer", "credential"]
BreakerState = Literal["closed", "open", "half_open"]

# The classes of failure that pages, metrics and the API speak of.
ERROR_CLASSES: tuple[str, ...] = (
    "authentication",  # the provider refused our credential
    "permission",  # key may not use the model or the route
    "not_found",  # unknown model or deployment
    "invalid_request",  # the provider or the edge refused the request's content
    "context_window",
    "content_policy",
    "rate_limit",
    "quota",  # the provider's account is exhausted
    "budget",  # one of our budgets is exhausted
    "circuit_open",  # every deployment that could serve is kept out by its breaker
    "overloaded",  # 529, 503 of the provider
    "timeout",
    "connection",
    "server_error",  # 5xx of the provider
    "cut_stream",  # the stream ended before its last event
    "client_abort",
    "internal",  # our own fault
)


class PriceDocument(TypedDict):
    """Unit prices of one deployment. `version` names the immutable price row."""

    version: str
    source: Literal["book", "own"]
    units: dict[str, str]  # unit of PRICE_UNITS -> decimal string


class BreakerDocument(TypedDict):
    """When a deployment is kept out, and how it comes back."""

    enabled: bool
    consecutive_failures: int  # open after so many in a row
    failure_percent: int  # or when so many percent of at least
    minimum_calls: int  # so many calls
    window_s: int  # within so many seconds failed
    open_s: int  # then half-open after so many seconds
    half_open_permits: int  # calls let through at once by the whole fleet while half-open
    close_after_successes: int
    slow_call_s: float | None  # a call slower than this counts as failed; None: never
    all_open: Literal["refuse", "try"]  # when every deployment of a request is kept out


class CacheDocument(TypedDict):
    """The response cache of an environment. Keys opt in by their own `cache` mode."""

    enabled: bool
    ttl_s: int
    max_entry_bytes: int


class EnvironmentDocument(TypedDict):
    slug: str
    name: str
    default_model: str | None  # a model's or an alias' name
    fallback_enabled: bool
    timeout_s: float  # one attempt, non-streaming
    stream_timeout_s: float  # until the first byte of a stream
    total_timeout_s: float  # all attempts together, until the first byte of a stream
    num_retries: int  # on the same model, beside the chain
    retry_backoff_s: float  # before the first retry; doubles, with jitter
    default_output_tokens: int | None  # cap given to requests that state none
    on_counter_outage: Literal["share", "refuse"]  # when limits cannot be counted together
    breaker: BreakerDocument
    cache: CacheDocument


class ModelDocument(TypedDict):
    name: str
    mode: str  # chat, completion, embedding, responses, image, audio_speech, ...
    context_window: int | None  # tokens
    max_output_tokens: int | None
    cache: bool  # answers may be kept where a key asks for it
    lane: NotRequired[Lane]  # absent: auto


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
    lane: NotRequired[Lane]  # absent: auto


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


class BudgetDocument(TypedDict):
    """How much may be spent in each period. Counters are kept per budget, subject and period."""

    id: str
    name: str  # what refusals call it
    model: str | None  # a public model name: only what this model costs; None: everything
    limit_nano: int  # nano-dollars (1e-9 USD) in one period; the refusal is at this amount
    period: Literal["day", "week", "month", "quarter", "year", "rolling", "lifetime"]
    rolling_hours: int | None  # for "rolling"
    soft_percent: list[int]  # thresholds that alert and do not refuse
    override_nano: int | None  # limit until `override_until`, in the limit's place
    override_until: str | None


class LimitDocument(TypedDict):
    """How fast. None: not limited in this respect."""

    id: str
    model: str | None  # a public model name; None: everything together
    rpm: int | None  # requests in any 60 s
    tpm: int | None  # tokens in any 60 s
    parallel: int | None  # requests at once


class SubjectPolicy(TypedDict):
    """Rules for one subject of one scope, or for each subject without its own ("*").

    A subject's own budgets replace the default budgets of its scope, its own limits the
    default limits; each replaces only rules of the same kind and the same `model`.
    """

    scope: Scope
    # id of the row; customer: the `user` field itself; environment: its slug; or "*"
    subject: str
    name: str  # what refusals call it
    blocked: str | None  # reason, shown to the caller; None: not blocked
    budgets: list[BudgetDocument]
    limits: list[LimitDocument]


class CalendarDocument(TypedDict):
    """How the organisation cuts its periods."""

    time_zone: str  # IANA name
    week_start: int  # ISO: 1 Monday to 7 Sunday
    fiscal_year_month: int  # 1 to 12: first month of a year, and so of the quarters


class BreakerOrder(TypedDict):
    """What a person told the breaker of one deployment to do; each order is followed once."""

    id: int  # rising
    deployment: str
    action: Literal["open", "close", "reset"]  # "open" holds until another order


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
    cache: Literal["off", "deterministic", "all"]  # which of its answers may be kept
    cache_ttl_s: int | None  # None: the environment's
    cache_version: int  # higher after a purge: older entries are never found again
    max_output_tokens: int | None  # cap for requests that state none; wins over the environment's


class PolicyFeed(TypedDict):
    version: int
    full: bool  # True: forget every key that is not listed here
    pepper: str  # base64(nonce + ciphertext + tag) under the fleet key
    keys: list[KeyPolicy]
    removed: list[str]  # public ids revoked or deleted
    subjects: list[SubjectPolicy]
    removed_subjects: list[list[str]]  # [scope, subject] without any rule left
    calendar: CalendarDocument
    breaker_orders: list[BreakerOrder]  # the newest of each deployment; always all of them


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
    counters: NotRequired[Literal["shared", "local", "unbuilt"]]  # how limits are counted now
    breaker_transitions: NotRequired[list["BreakerTransition"]]  # this worker's, since the last


class BreakerTransition(TypedDict):
    """A breaker changed its state. Reported by the worker that caused it; at least once."""

    deployment: str
    generation: int  # of the new state; with the deployment it names the transition
    state: BreakerState
    at: str
    reason: str  # "5 failures in a row: timeout", "permits answered", "by hand"


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
    cost: NotRequired[str | None]  # decimal string in USD; None: not known
    lane: NotRequired[str]  # litellm or direct


class ChargedCounter(TypedDict):
    """A budget's counter that a request was reserved on (see counters.py)."""

    counter: str  # "<budget id>:<subject>:<period id>"
    bucket: int | None  # of a rolling period


AdmissionMode = Literal["shared", "local", "none"]
ADMISSION_MODES: tuple[AdmissionMode, ...] = ("shared", "local", "none")


class AdmissionDocument(TypedDict):
    """How a request was admitted, so that ingest can keep the shared counters right.

    shared    reserved in the shared counters of `epoch`; settlement there is by the hold
    local     counted by the worker alone; the shared counters learn of it at ingest
    none      nothing to count: no rule applied

    `charged` names the counters that the event's cost belongs to, and no others: budgets
    without a model or of the event's `model`, the credential of its `deployment`. What was
    reserved for targets that did not serve is released without a charge.
    """

    mode: AdmissionMode
    epoch: str  # "" unless shared
    charged: list[ChargedCounter]


class HoldDocument(TypedDict):
    """What a running request reserved: the JSON behind `hold_key`, later in `abandoned_key`.

    `event` has the fields of UsageEventDocument that are known when a request is admitted, at
    least: started_at, key_id, public_id, user_id, team_id, customer, tags, route,
    requested_model, model, deployment, streaming, revision; those left out take their
    natural empty value. `started_at` is the very text that the request's event will carry,
    and lies in the periods that `budgets` names.
    """

    id: str  # event_id of the request
    epoch: str
    expires_ms: int  # server time; when it may be counted as abandoned
    # Counter, reserved nano-dollars, rolling bucket, 1 if the present target costs it something.
    budgets: list[tuple[str, int, int | None, int]]
    limits: list[tuple[str, int, int]]  # limit key, bucket, reserved tokens
    parallel: list[str]  # keys of the sets that it is a member of
    abandon_nano: int  # what it is booked at when nothing better is known: its input
    event: dict[str, Any]


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
    lane: NotRequired[str]  # litellm or direct: of the attempt that answered
    lane_reason: NotRequired[str]  # why LiteLLM served: "provider", "parameter:<name>"; "" direct
    admission: NotRequired[AdmissionDocument]
    saved_cost: NotRequired[str | None]  # what a cached answer would have cost, in USD


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
