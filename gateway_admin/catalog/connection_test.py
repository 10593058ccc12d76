"""*Test*: one real call through a deployment, and what it says in plain words.

The call is made by `probe` in a process of its own. The secret goes to it on standard
input; whatever comes back is scrubbed of it before it is stored or shown.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from django.db import transaction
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from gateway_admin.accounts.models import User
from gateway_admin.accounts.services import audit
from gateway_admin.catalog import kinds, prices
from gateway_admin.catalog.credentials import credentials_seen, secret_open
from gateway_admin.catalog.models import Deployment
from gateway_admin.catalog.queries import current_price
from gateway_admin.lib.errors import Conflict

log = structlog.get_logger(__name__)

CALL_TIMEOUT_S = 30.0
PROCESS_TIMEOUT_S = 75.0  # the import of LiteLLM included
RUNNING_FOR_S = 100.0  # a test that is older than this and still running was lost
MESSAGE_LENGTH = 400
PROBE = Path(__file__).with_name("probe.py")

# What the helper process may see of our environment: how to reach the network, nothing of ours.
_PASSED_ON = re.compile(
    r"^(PATH|HOME|LANG|LC_\w+|TZ|SSL_CERT_\w+|REQUESTS_CA_BUNDLE|(https?|all|no)_proxy|AWS_\w+)$",
    re.IGNORECASE,
)

# LiteLLM's exceptions -> error classes of proxy.contract; the most special first.
_CLASSES = (
    ("ContextWindowExceededError", "context_window"),
    ("ContentPolicyViolationError", "content_policy"),
    ("PaymentRequiredError", "quota"),
    ("AuthenticationError", "authentication"),
    ("PermissionDeniedError", "permission"),
    ("NotFoundError", "not_found"),
    ("RateLimitError", "rate_limit"),
    ("Timeout", "timeout"),
    ("APITimeoutError", "timeout"),
    ("ServiceUnavailableError", "overloaded"),
    ("BadGatewayError", "server_error"),
    ("InternalServerError", "server_error"),
    ("APIConnectionError", "connection"),
    ("UnprocessableEntityError", "invalid_request"),
    ("BadRequestError", "invalid_request"),
)
_UNREACHED = frozenset(
    {"ConnectError", "ConnectionRefusedError", "ClientConnectorError", "gaierror", "SSLError"}
)
_TOO_SLOW = frozenset({"Timeout", "APITimeoutError", "ConnectTimeout", "ReadTimeout"})
_QUOTA = re.compile(
    r"insufficient_quota|current quota|quota .{0,40}used up|billing|credit balance|out of credit"
)

ADVICE = {
    "authentication": (
        "The provider refused the credential",
        "Replace its secret, and check that the key may use this model.",
    ),
    "permission": (
        "The credential may not use this model",
        "Grant the account access to the model at the provider, or use another credential.",
    ),
    "not_found": (
        "The provider does not know this model",
        "Check the provider's model name, and that the account has access to it.",
    ),
    "rate_limit": (
        "The provider's rate limit is reached",
        "The credential works. Wait a minute, or ask the provider for a higher limit.",
    ),
    "quota": (
        "The provider's account has no credit left",
        "Top the account up or raise its spending limit, then test again.",
    ),
    "overloaded": (
        "The provider is overloaded",
        "The credential was accepted. Try again in a few minutes.",
    ),
    "timeout": (
        "The provider did not answer in time",
        "Check the base URL and that the network lets this machine reach it.",
    ),
    "connection": (
        "The provider cannot be reached",
        "Check the base URL, its port, and that the network lets this machine reach it.",
    ),
    "invalid_request": (
        "The provider refused the request",
        "Check the further LiteLLM parameters, the API version and the model's mode.",
    ),
    "context_window": ("The test was too long for the model", "Check the model's name."),
    "content_policy": (
        "The provider's content filter refused the test",
        "The credential works. Check the filter's settings at the provider.",
    ),
    "server_error": (
        "The provider failed",
        "This is on the provider's side. Look at its status page, then try again.",
    ),
    "internal": (
        "The test could not be run",
        "Look at the worker's log, then try again.",
    ),
}


@dataclass(frozen=True)
class TestResult:
    """What a test found; stored as `Deployment.last_test`."""

    __test__ = False  # not a test case, whatever its name says

    state: str  # running, ok or error
    at: str  # RFC 3339
    by: str = ""
    latency_ms: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: str | None = None  # US dollars; None: unpriced
    error_class: str = ""
    status: int | None = None
    title: str = ""
    advice: str = ""
    message: str = ""  # the provider's own words

    def document(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value not in (None, "")}


def connection_test(*, deployment: Deployment, actor: User | None) -> dict[str, Any]:
    """Make one real call, store and return what came of it (see TestResult). Takes seconds."""
    deployment = Deployment.objects.select_related(
        "environment", "model", "provider", "credential__secret"
    ).get(pk=deployment.pk)
    secret = secret_open(deployment.credential.secret) if deployment.credential.secret else {}
    order = {
        "mode": deployment.model.mode,
        "timeout_s": min(deployment.timeout_s or CALL_TIMEOUT_S, CALL_TIMEOUT_S),
        "params": {**kinds.litellm_params(deployment), **secret},
    }
    answer = _run_probe(order)
    result = _result_of(answer, deployment=deployment, actor=actor, secret=secret)
    _store(deployment, result, actor=actor)
    return result.document()


@transaction.atomic
def connection_test_begin(*, deployment: Deployment, actor: User | None) -> None:
    """Mark a test as running and queue it."""
    if is_running(deployment):
        raise Conflict("A test of this deployment is running already.")
    running = TestResult(state="running", at=timezone.now().isoformat(), by=_label(actor))
    Deployment.objects.filter(pk=deployment.pk).update(last_test=running.document())
    deployment_id, actor_id = str(deployment.pk), actor.pk if actor else None

    def queue() -> None:
        from gateway_admin.catalog.tasks import run_connection_test

        run_connection_test.delay(deployment_id, actor_id)

    transaction.on_commit(queue)


def is_running(deployment: Deployment) -> bool:
    """A test was begun and can still finish."""
    test = deployment.last_test or {}
    begun = parse_datetime(test.get("at", "")) if test.get("state") == "running" else None
    return begun is not None and (timezone.now() - begun).total_seconds() < RUNNING_FOR_S


def _run_probe(order: dict[str, Any]) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if _PASSED_ON.match(name)}
    environment |= {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
        "LITELLM_MODE": "PRODUCTION",
    }
    try:
        finished = subprocess.run(
            [sys.executable, "-P", str(PROBE)],
            input=json.dumps(order).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # LiteLLM may write a request there, key included
            env=environment,
            cwd="/",
            timeout=PROCESS_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _failed("Timeout", f"no answer within {PROCESS_TIMEOUT_S:.0f} s")
    try:
        answer: dict[str, Any] = json.loads(finished.stdout)
    except ValueError:
        log.error("connection_test_helper_failed", exit_code=finished.returncode)
        return _failed("", f"the helper process ended with code {finished.returncode}")
    return answer


def _failed(kind: str, message: str) -> dict[str, Any]:
    error = {"type": kind, "ancestors": [kind], "status": None, "message": message}
    return {"ok": False, "latency_ms": None, "error": error}


def _result_of(
    answer: dict[str, Any], *, deployment: Deployment, actor: User | None, secret: dict[str, str]
) -> TestResult:
    now = timezone.now().isoformat()
    if answer["ok"]:
        usage = answer["usage"]
        price = current_price(deployment)
        cost = prices.cost_of(usage, price.units) if price else None
        return TestResult(
            state="ok",
            at=now,
            by=_label(actor),
            latency_ms=answer["latency_ms"],
            input_tokens=usage.get("input_tokens"),
            output_tokens=usage.get("output_tokens"),
            cost=None if cost is None else prices.plain_decimal(cost),
        )
    error = answer["error"]
    error_class = classify(error)
    title, advice = ADVICE[error_class]
    return TestResult(
        state="error",
        at=now,
        by=_label(actor),
        latency_ms=answer["latency_ms"],
        error_class=error_class,
        # Without an answer of the provider, the status is LiteLLM's own invention.
        status=None if error_class in {"connection", "timeout"} else error["status"],
        title=title,
        advice=advice,
        message=scrub(error["message"], secret),
    )


def classify(error: dict[str, Any]) -> str:
    """The error class of what LiteLLM raised; `error` is as `probe.describe` writes it."""
    words = str(error["message"]).lower()
    names = set(error["ancestors"])
    if _QUOTA.search(words):
        return "quota"
    if names & _UNREACHED and not names & _TOO_SLOW:
        return "connection"
    found = next((cls for name, cls in _CLASSES if name in names), "internal")
    if found in {"connection", "internal", "invalid_request"}:
        # LiteLLM reports some refusals as something vague, but keeps status and words.
        return _by_words(words) or _by_status(error["status"]) or found
    return found


def _by_words(words: str) -> str | None:
    if re.search(r"api.?key.{0,20}(not valid|invalid)", words):
        return "authentication"  # Gemini answers 400
    if re.search(r"model (identifier is invalid|.{0,80}(not found|does not exist))", words):
        return "not_found"  # Bedrock answers 400
    return None


def _by_status(status: int | None) -> str | None:
    named = {401: "authentication", 403: "permission", 404: "not_found", 429: "rate_limit"}
    if status in named:
        return named[status]
    return "server_error" if status is not None and status >= 500 else None


def scrub(text: str, secret: dict[str, str]) -> str:
    """The provider's words, shortened, without any of the secret's values."""
    for value in sorted(secret.values(), key=len, reverse=True):
        if len(value) >= 4:
            text = text.replace(value, "…")
    text = re.sub(r"\s+", " ", re.sub(r"^(litellm\.\w+: )+", "", text)).strip()
    return text if len(text) <= MESSAGE_LENGTH else f"{text[:MESSAGE_LENGTH]}…"


@transaction.atomic
def _store(deployment: Deployment, result: TestResult, *, actor: User | None) -> None:
    Deployment.objects.filter(pk=deployment.pk).update(last_test=result.document())
    at = timezone.now()
    credential = deployment.credential_id
    if result.state == "ok":
        credentials_seen(succeeded={credential: at})
    elif result.error_class in {"authentication", "quota"}:
        credentials_seen(failed=[(credential, at, result.error_class, result.message)])
    audit(
        actor=actor,
        action="deployment.test",
        target=deployment,
        environment=deployment.environment.slug,
        changes={"result": [None, result.error_class or "ok"]},
    )


def _label(actor: User | None) -> str:
    return str(actor) if actor else "system"
