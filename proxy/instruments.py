"""Instruments of admission, routing and the cache, grouped as they are used.

Gauges of a state that all workers share (a breaker, a remaining budget) are "most recent":
whichever worker learned of it last tells it. Gauges of a worker's own state are summed, or
the worst one counts.
"""

from proxy.tally import Counter, Gauge, Histogram, Tally

_ADMISSION_BUCKETS_S = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
)  # fmt: skip
COUNTER_MODES = {"shared": 0, "local": 1, "unbuilt": 2}
BREAKER_STATES = {"closed": 0, "open": 1, "half_open": 2}
# LiteLLM's words for the same: healthy, partial outage, complete outage.
_DEPLOYMENT_STATES = {"closed": 0, "half_open": 1, "open": 2}
TEAM_SERIES_MAX = 200
SUBJECT_SERIES_MAX = 2_000


class AdmissionInstruments:
    """Budgets, limits, holds, and the Redis that counts them."""

    def __init__(self, registry: Tally) -> None:
        self.holds = Gauge(
            "gateway_proxy_holds", "Reservations of requests that run now", registry=registry,
            multiprocess_mode="livesum",
        )  # fmt: skip
        self._refused = Counter(
            "gateway_proxy_admission_refusals", "Requests refused by a rule", ["scope", "rule"],
            registry=registry,
        )  # fmt: skip
        self.local_admissions = Counter(
            "gateway_proxy_local_admissions", "Requests admitted on the worker's own share",
            registry=registry,
        )  # fmt: skip
        self.abandoned = Counter(
            "gateway_proxy_abandoned_holds", "Holds that expired and were swept by this replica",
            registry=registry,
        )  # fmt: skip
        self.settlements_lost = Counter(
            "gateway_proxy_unsettled_holds", "Settlements that did not reach Redis in time",
            registry=registry,
        )  # fmt: skip
        self.latency = Histogram(
            "gateway_proxy_admission_latency_seconds", "Seconds that admission took",
            buckets=_ADMISSION_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._mode = Gauge(
            "gateway_proxy_counters_mode", "How limits are counted: 0 shared, 1 local, 2 unbuilt",
            registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip
        self._link_failures = Counter(
            "gateway_proxy_redis_failures", "Commands that Redis did not do", registry=registry
        )
        self._link_failures_told = 0
        self._link_up = Gauge(
            "gateway_proxy_redis_up", "1 while every worker reaches Redis", registry=registry,
            multiprocess_mode="livemin",
        )  # fmt: skip

    def refused(self, scope: str, rule: str) -> None:
        """A rule refused. `rule`: budget, rpm, tpm, parallel, blocked, counters."""
        self._refused.labels(scope, rule).inc()

    def mode(self, mode: str) -> None:
        """How this worker counts now: shared, local or unbuilt."""
        self._mode.set(COUNTER_MODES[mode])

    def link_is(self, *, up: bool, failures: int) -> None:
        """Whether this worker reaches Redis; how many of its commands failed since its start."""
        self._link_up.set(1 if up else 0)
        self._link_failures.inc(failures - self._link_failures_told)
        self._link_failures_told = failures


class BudgetInstruments:
    """What is left of budgets, as LiteLLM names it.

    Teams are told always; keys, users and customers only when asked for, since there can
    be as many as the organisation has. Either way there is a most, and what is beyond it
    is counted instead of told.
    """

    def __init__(self, registry: Tally, *, every_subject: bool) -> None:
        self._every_subject = every_subject
        self._names: dict[str, dict[str, str]] = {}  # scope -> subject -> name
        self._key = Gauge(
            "litellm_remaining_api_key_budget_metric", "USD left of a key's tightest budget",
            ["hashed_api_key", "api_key_alias"], registry=registry,
            multiprocess_mode="livemostrecent",
        )  # fmt: skip
        self._team = Gauge(
            "litellm_remaining_team_budget_metric", "USD left of a team's tightest budget",
            ["team", "team_alias"], registry=registry, multiprocess_mode="livemostrecent",
        )  # fmt: skip
        self._user = Gauge(
            "litellm_remaining_user_budget_metric", "USD left of a user's tightest budget",
            ["user"], registry=registry, multiprocess_mode="livemostrecent",
        )  # fmt: skip
        self._customer = Gauge(
            "litellm_remaining_customer_budget_metric", "USD left of a customer's tightest budget",
            ["end_user"], registry=registry, multiprocess_mode="livemostrecent",
        )  # fmt: skip
        self._left_out = Counter(
            "gateway_proxy_budget_series_left_out", "Balances not told: too many subjects",
            ["scope"], registry=registry,
        )  # fmt: skip

    def tells(self, scope: str) -> bool:
        """Whether anything is told of a scope's subjects."""
        return scope == "team" or (self._every_subject and scope in ("key", "user", "customer"))

    def remaining(self, scope: str, subject: str, name: str, left: float) -> None:
        """What is left of a subject's tightest budget, USD.

        `subject` is the id (for customers the `user` field itself), `name` what people call
        it, or the id again where nobody gave it rules of its own.
        """
        if not self.tells(scope):
            return
        known = self._name(scope, subject, name)
        if known is None:
            self._left_out.labels(scope).inc()
            return
        if scope == "team":
            self._team.labels(subject, known).set(left)
        elif scope == "key":
            self._key.labels(subject, known).set(left)
        elif scope == "user":
            self._user.labels(known or subject).set(left)
        else:
            self._customer.labels(subject).set(left)

    def _name(self, scope: str, subject: str, name: str) -> str | None:
        """The name a subject was first told by (one series each); None: one too many."""
        names = self._names.setdefault(scope, {})
        if subject not in names:
            if len(names) >= (TEAM_SERIES_MAX if scope == "team" else SUBJECT_SERIES_MAX):
                return None
            names[subject] = name
        return names[subject]


class RoutingInstruments:
    """Attempts, breakers, fallbacks, credentials."""

    def __init__(self, registry: Tally) -> None:
        self.deployment_ok = Counter(
            "litellm_deployment_success_responses", "Attempts that a deployment answered",
            ["deployment"], registry=registry,
        )  # fmt: skip
        self.deployment_failed = Counter(
            "litellm_deployment_failure_responses", "Attempts that failed",
            ["deployment", "error_class"], registry=registry,
        )  # fmt: skip
        self.fallbacks = Counter(
            "litellm_deployment_successful_fallbacks", "Requests that a fallback answered",
            ["model"], registry=registry,
        )  # fmt: skip
        self.failed_fallbacks = Counter(
            "litellm_deployment_failed_fallbacks", "Requests that no fallback could answer either",
            ["model"], registry=registry,
        )  # fmt: skip
        self.retries = Counter(
            "gateway_proxy_retries", "Attempts after the first", ["model", "why"],
            registry=registry,
        )  # fmt: skip
        self.paused = Counter(
            "litellm_deployment_cooled_down", "Times a deployment was kept out",
            ["deployment", "reason"], registry=registry,
        )  # fmt: skip
        self.credential_alarms = Counter(
            "gateway_proxy_credential_alarms", "Attempts whose credential the provider refused",
            ["provider", "credential"], registry=registry,
        )  # fmt: skip
        self._breaker = Gauge(
            "llm_circuit_breaker_state", "0 closed, 1 open, 2 half-open",
            ["provider", "deployment"], registry=registry, multiprocess_mode="livemostrecent",
        )  # fmt: skip
        self._state = Gauge(
            "litellm_deployment_state", "0 healthy, 1 being tried again, 2 kept out",
            ["provider", "deployment"], registry=registry, multiprocess_mode="livemostrecent",
        )  # fmt: skip
        self._transitions = Counter(
            "gateway_proxy_breaker_transitions", "Changes of state caused by this replica",
            ["deployment", "state"], registry=registry,
        )  # fmt: skip

    def breaker(self, provider: str, deployment: str, state: str) -> None:
        """The present state of a deployment's breaker (id): closed, open or half_open."""
        self._breaker.labels(provider, deployment).set(BREAKER_STATES[state])
        self._state.labels(provider, deployment).set(_DEPLOYMENT_STATES[state])

    def transition(self, deployment: str, state: str) -> None:
        """This worker moved a breaker; an opened one counts as kept out."""
        self._transitions.labels(deployment, state).inc()
        if state == "open":
            self.paused.labels(deployment, "breaker").inc()


class CacheInstruments:
    """The response cache."""

    def __init__(self, registry: Tally) -> None:
        self.hits = Counter(
            "llm_cache_hits", "Requests answered from the cache", ["model"], registry=registry
        )
        self.misses = Counter(
            "llm_cache_misses", "Requests looked up and not found", ["model"], registry=registry
        )
        self.saved = Counter(
            "gateway_proxy_cache_saved_dollars", "USD that cached answers would have cost",
            ["model"], registry=registry,
        )  # fmt: skip
        self.stored = Counter(
            "gateway_proxy_cache_stored", "Answers kept", ["model"], registry=registry
        )
        self.not_stored = Counter(
            "gateway_proxy_cache_not_stored", "Answers that could have been kept, and were not",
            ["reason"], registry=registry,
        )  # fmt: skip
        self.failures = Counter(
            "gateway_proxy_cache_failures", "Look-ups and writes that failed", ["operation"],
            registry=registry,
        )  # fmt: skip
