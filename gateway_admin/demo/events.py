"""Invented requests of a span of time, and what became of them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID
from zoneinfo import ZoneInfo

from gateway_admin.accounts.models import Organisation
from gateway_admin.catalog.prices import cost_of, plain_decimal
from gateway_admin.demo import organisation as tables
from gateway_admin.demo import profiles
from gateway_admin.demo.world import Key, Published, World
from proxy.contract import AttemptDocument, DeploymentDocument, UsageEventDocument

SEED = "gateway demonstration 1"
HOUR = timedelta(hours=1)

# Of the provider: class, HTTP status, its words, chance per call. All of these fall back.
TROUBLE = (
    ("rate_limit", 429, "Rate limit reached for requests. Please retry later.", 0.0080),
    ("overloaded", 529, "Overloaded", 0.0040),
    ("server_error", 500, "The server had an error while processing the request.", 0.0030),
    ("timeout", 408, "Request timed out.", 0.0012),
    ("connection", 502, "Connection error.", 0.0008),
)
OVERLOAD = TROUBLE[1]
OVERLOAD_CHANCE = 0.74  # per call to the provider of the incident
CONTENT_FILTER = ("content_policy", 400, "The response was filtered by the content policy.")
TOO_LONG = ("context_window", 400, "The prompt is longer than the model's context window.")
CONTENT_FILTER_CHANCE = 0.0016
BAD_REQUEST = ("invalid_request", 400, "Invalid value for 'temperature': expected at most 2.")
BAD_REQUEST_CHANCE = 0.0022
WRONG_NAME_CHANCE = 0.0008
ABORT_CHANCE = 0.022  # of streams
CUT_CHANCE = 0.0009  # of streams
REFUSED_DAYS = 2.5  # how long a program goes on with a key that has ended
REFUSED_SHARE = 0.15
DIRECT_KINDS = ("openai", "azure", "ollama")  # their requests take the direct lane
TRANSLATED_ONE_IN = 29
RUNAWAY = ("runaway-loop", 5.0, 300)  # key, its last hours before the block, requests per hour

Failure = tuple[str, int, str]


@dataclass(slots=True)
class _Run:
    """One request on its way through deployments."""

    at: datetime
    elapsed_ms: float = 0.0
    attempts: list[AttemptDocument] = field(default_factory=list)
    served: DeploymentDocument | None = None
    why: str = "first"
    failure: Failure | None = None


class EventSource:
    """Draws events; the same span of the same demonstration gives the same events."""

    def __init__(self, *, world: World, end: datetime, days: int, events: int) -> None:
        self._world = world
        self._end = end
        self._zone = ZoneInfo(Organisation.objects.values_list("time_zone", flat=True).get())
        self._local_end = end.astimezone(self._zone)
        self._weights = profiles.key_weights([key.row for key in world.keys])
        self._scale = 1.0
        self._scale = events / self._expected(end - timedelta(days=days))

    def events(self, start: datetime, stop: datetime) -> Iterator[tuple[str, UsageEventDocument]]:
        """Environment and event for each request from `start` to `stop`, at most a day."""
        draw = Random(f"{SEED} {start:%Y-%m-%d}")  # has to be repeatable
        mood = draw.lognormvariate(0, 0.07)  # no two days are alike
        for begins, ends in _hours(start, stop):
            for number, key in enumerate(self._world.keys):
                expected = self._rate(number, begins) * mood * ((ends - begins) / HOUR)
                for _ in range(profiles.counted(draw, expected)):
                    at = begins + (ends - begins) * draw.random()
                    event = self._event(draw, key, at)
                    if event is not None:
                        yield key.row.environment, event

    def _expected(self, start: datetime) -> float:
        return math.fsum(
            self._rate(number, begins) * ((ends - begins) / HOUR)
            for begins, ends in _hours(start, self._end)
            for number in range(len(self._world.keys))
        )

    def _rate(self, number: int, at: datetime) -> float:
        """Requests of a key that are expected in the hour that begins then."""
        row = self._world.keys[number].row
        local = at.astimezone(self._zone)
        age_days = (self._end - at) / timedelta(days=1)
        rate = self._scale * self._weights[number] * profiles.growth(age_days)
        rate *= profiles.hourly_rate(row.workload, local)
        if row.ended_days_ago is not None:
            since_end = row.ended_days_ago - age_days  # days
            if since_end >= REFUSED_DAYS:
                return 0.0
            if since_end >= 0:
                return rate * REFUSED_SHARE
            name, hours, per_hour = RUNAWAY
            if row.name == name and self._scale > 1 and since_end * 24 > -hours:
                return float(per_hour)
        return rate

    def _event(self, draw: Random, key: Key, at: datetime) -> UsageEventDocument | None:
        published = self._world.published(key.row.environment, at)
        if published is None:
            return None
        ended = key.row.ended_days_ago
        if ended is not None and at >= self._end - timedelta(days=ended):
            return _refused(draw, key, at, published, ended=True)
        if draw.random() < WRONG_NAME_CHANCE:
            return _refused(draw, key, at, published, ended=False)
        return self._asked(draw, key, at, published)

    def _asked(
        self, draw: Random, key: Key, at: datetime, published: Published
    ) -> UsageEventDocument:
        shape = profiles.SHAPES[key.row.workload]
        requested = _requested(draw, key.row, published)
        model = published.aliases.get(requested, requested)
        if model == "text-embedding-3-small":
            shape = profiles.SHAPES["embedding"]
        prompt, answer = profiles.sizes(draw, shape, longest=7_800 if not shape.answer else 10**9)
        run = self._run(draw, published, model, at=at, prompt=prompt)
        event = _blank(draw, key, at, published)
        event["requested_model"] = requested
        if not shape.answer:
            event["route"] = "/v1/embeddings"
        if shape.customers and draw.random() < shape.customers:
            number = int(tables.CUSTOMERS * draw.random() ** 2.4)
            event["customer"] = f"customer-{number + 1:03d}"
        event["streaming"] = bool(shape.answer) and draw.random() < shape.streamed
        event["attempts"] = run.attempts
        event["why"] = run.why
        if run.served is None:
            _failed(event, run, model)
        else:
            _served(draw, event, run, shape, prompt=prompt, answer=answer)
        _choose_lane(event, run.served)
        overhead = draw.lognormvariate(1.1, 0.35) * (0.25 if event["lane"] == "direct" else 1)
        event["overhead_ms"] = round(overhead, 2)
        event["latency_ms"] = round(event["latency_ms"] + overhead, 2)
        if self._repeats(draw, key, at, event):
            _from_cache(draw, event)
        return event

    def _repeats(self, draw: Random, key: Key, at: datetime, event: UsageEventDocument) -> bool:
        """Whether the same was asked, and answered, a short while before."""
        since = self._end - timedelta(days=tables.CACHE_SINCE_DAYS)
        if not key.row.repeats or at < since:
            return False
        bought = event["status"] == "ok" and event["why"] == "first"
        return bought and draw.random() < key.row.repeats

    def _run(
        self, draw: Random, published: Published, model: str, *, at: datetime, prompt: int
    ) -> _Run:
        """Call deployments until one answers: once more, then along the chain."""
        run = _Run(at)
        if draw.random() < BAD_REQUEST_CHANCE:
            self._attempt(draw, published, model, "first", run, prompt, forced=BAD_REQUEST)
            return run
        self._attempt(draw, published, model, "first", run, prompt)
        if run.failure is not None and run.failure[0] not in ("context_window", "content_policy"):
            self._attempt(draw, published, model, "retry", run, prompt)
        if run.failure is None:
            return run
        kind = run.failure[0]
        kind = kind if kind in ("context_window", "content_policy") else "general"
        for target in published.chains.get((model, kind), ()):
            why = "fallback" if kind == "general" else kind
            self._attempt(draw, published, target, why, run, prompt)
            if run.failure is None:
                break
        return run

    def _attempt(
        self,
        draw: Random,
        published: Published,
        model: str,
        why: str,
        run: _Run,
        prompt: int,
        forced: Failure | None = None,
    ) -> None:
        deployment = draw.choices(published.deployments[model], published.weights[model])[0]
        failure = forced or self._failure(draw, deployment, published, run.at, prompt)
        started = run.at + timedelta(milliseconds=run.elapsed_ms)
        attempt: AttemptDocument = {
            "deployment": deployment["id"],
            "model": model,
            "why": why,
            "started_at": started.isoformat(),
            "latency_ms": 0.0,
            "status": 200,
            "error_class": None,
            "error": None,
            "lane": "direct" if why == "first" and _speaks_openai(deployment) else "litellm",
        }
        run.attempts.append(attempt)
        run.why, run.failure = why, failure
        if failure is None:
            run.served = deployment
            return
        slow_ms = draw.lognormvariate(9.1 if failure[0] == "timeout" else 5.4, 0.6)
        attempt["latency_ms"] = round(slow_ms, 2)
        attempt["error_class"], attempt["status"], attempt["error"] = failure
        run.elapsed_ms += slow_ms

    def _failure(
        self,
        draw: Random,
        deployment: DeploymentDocument,
        published: Published,
        at: datetime,
        prompt: int,
    ) -> Failure | None:
        window = published.windows.get(deployment["model"])
        if window is not None and prompt > window:
            return TOO_LONG
        local = at.astimezone(self._zone)
        if deployment["provider"] == tables.INCIDENT_PROVIDER and profiles.in_incident(
            local, self._local_end
        ):
            return OVERLOAD[:3] if draw.random() < OVERLOAD_CHANCE else None
        chance = draw.random()
        for error_class, status, words, share in TROUBLE:
            chance -= share
            if chance < 0:
                return error_class, status, words
        filtered = deployment["provider_kind"] in ("azure", "gemini")
        return CONTENT_FILTER if filtered and chance < CONTENT_FILTER_CHANCE else None


def _hours(start: datetime, stop: datetime) -> Iterator[tuple[datetime, datetime]]:
    begins = start
    while begins < stop:
        ends = min(begins.replace(minute=0, second=0, microsecond=0) + HOUR, stop)
        yield begins, ends
        begins = ends


def _requested(draw: Random, row: tables.KeyRow, published: Published) -> str:
    """A model or alias of the key's mix that is served by then."""
    mix = {name: share for name, share in row.mix.items() if published.serves(name)}
    if not mix:
        return "default"
    return draw.choices(list(mix), list(mix.values()))[0]


def _blank(draw: Random, key: Key, at: datetime, published: Published) -> UsageEventDocument:
    return {
        "event_id": str(UUID(int=draw.getrandbits(128), version=4)),
        "started_at": at.astimezone(UTC).isoformat(),
        "revision": published.number,
        "key_id": key.key_id,
        "public_id": key.public_id,
        "user_id": key.user_id,
        "team_id": key.team_id,
        "customer": "",
        "tags": key.tags,
        "route": "/v1/chat/completions",
        "requested_model": "",
        "model": "",
        "deployment": None,
        "why": "first",
        "status": "ok",
        "http_status": 200,
        "error_class": None,
        "error": None,
        "input_tokens": 0,
        "output_tokens": 0,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
        "reasoning_tokens": 0,
        "other_units": {},
        "price_version": None,
        "unit_prices": {},
        "cost": "0",
        "estimated": False,
        "streaming": False,
        "latency_ms": 0.0,
        "ttft_ms": None,
        "overhead_ms": None,
        "attempts": [],
        "lane": "litellm",
        "lane_reason": "",
        "admission": {"mode": "shared", "epoch": "", "charged": []},
    }


def _speaks_openai(deployment: DeploymentDocument) -> bool:
    return deployment["provider_kind"] in DIRECT_KINDS and deployment.get("lane") != "litellm"


def _choose_lane(event: UsageEventDocument, served: DeploymentDocument | None) -> None:
    """Of the attempt that answered; some requests have a parameter that is translated."""
    last = event["attempts"][-1]
    event["lane"] = last["lane"]
    if len(event["attempts"]) > 1:
        event["lane_reason"] = "retry"
    elif last["lane"] == "litellm":
        kept = served is not None and served.get("lane") == "litellm"
        event["lane_reason"] = "setting" if kept else "provider"
    elif UUID(event["event_id"]).int % TRANSLATED_ONE_IN == 0:
        event["lane"] = last["lane"] = "litellm"
        event["lane_reason"] = "parameter:logit_bias"


def _refused(
    draw: Random, key: Key, at: datetime, published: Published, *, ended: bool
) -> UsageEventDocument:
    """The edge turned it away: nothing was called, nothing was spent."""
    event = _blank(draw, key, at, published)
    event["status"] = "refused"
    event["admission"] = {"mode": "none", "epoch": "", "charged": []}
    if ended:
        event["requested_model"] = event["model"] = _requested(draw, key.row, published)
        event["http_status"], event["error_class"] = 401, "authentication"
        event["error"] = f"This key is {key.row.state}."
    else:
        event["requested_model"] = event["model"] = "gpt-4.1-minni"
        event["http_status"], event["error_class"] = 404, "not_found"
        event["error"] = "There is no model gpt-4.1-minni here."
    event["latency_ms"] = event["overhead_ms"] = round(draw.lognormvariate(0.2, 0.3), 3)
    return event


def _failed(event: UsageEventDocument, run: _Run, model: str) -> None:
    error_class, status, words = run.failure or ("internal", 500, "")
    event["status"], event["http_status"] = "error", status
    event["error_class"], event["error"] = error_class, words
    last = run.attempts[-1]
    event["model"], event["deployment"] = model, last["deployment"]
    event["latency_ms"] = run.elapsed_ms


def _served(
    draw: Random,
    event: UsageEventDocument,
    run: _Run,
    shape: profiles.Shape,
    *,
    prompt: int,
    answer: int,
) -> None:
    """Book what the provider that answered has produced."""
    deployment = run.served
    assert deployment is not None
    model = deployment["model"]
    ended = _ending(draw, event, answer)
    first_ms, whole_ms = profiles.durations(draw, model, prompt=prompt, answer=answer)
    if ended:
        sent = max(1, int(answer * draw.uniform(0.05, 0.9)))
        whole_ms = first_ms + (whole_ms - first_ms) * sent / answer
        answer = sent
    event["model"], event["deployment"] = model, deployment["id"]
    event["input_tokens"], event["output_tokens"] = prompt, answer
    if not ended:
        if model in profiles.REASONING and answer:
            event["reasoning_tokens"] = int(answer * profiles.REASONING[model])
        _cached(draw, event, shape, deployment, prompt)
    if event["streaming"]:
        event["ttft_ms"] = round(run.elapsed_ms + first_ms, 2)
    run.attempts[-1]["latency_ms"] = round(whole_ms, 2)
    event["latency_ms"] = run.elapsed_ms + whole_ms
    _price(event, deployment)


def _from_cache(draw: Random, event: UsageEventDocument) -> None:
    """The edge answered: what a provider would have charged is saved."""
    event["why"], event["saved_cost"], event["cost"] = "cache", event["cost"], "0"
    event["price_version"], event["unit_prices"] = None, {}
    event["input_tokens"] = event["output_tokens"] = event["reasoning_tokens"] = 0
    event["cache_read_tokens"] = event["cache_write_tokens"] = 0
    event["attempts"], event["overhead_ms"] = [], None
    event["latency_ms"] = round(draw.lognormvariate(0.5, 0.4), 3)
    if event["streaming"]:
        event["ttft_ms"] = event["latency_ms"]
    event["admission"] = {"mode": "none", "epoch": "", "charged": []}


def _ending(draw: Random, event: UsageEventDocument, answer: int) -> bool:
    """Whether a stream ends early: the client went away, or the provider broke off."""
    if not event["streaming"] or answer < 3:
        return False
    chance = draw.random()
    if chance < ABORT_CHANCE:
        event["status"], event["http_status"] = "aborted", 499
        event["error_class"], event["error"] = "client_abort", "The client went away."
    elif chance < ABORT_CHANCE + CUT_CHANCE:
        event["status"] = "error"
        event["error_class"] = "cut_stream"
        event["error"] = "The provider ended the stream before its last event."
    else:
        return False
    event["estimated"] = True
    return True


def _cached(
    draw: Random,
    event: UsageEventDocument,
    shape: profiles.Shape,
    deployment: DeploymentDocument,
    prompt: int,
) -> None:
    """Part of the prompt was in the provider's cache, in blocks of 128 tokens."""
    price = deployment["price"]
    if not shape.cached or prompt < 1_024 or price is None:
        return
    if "cache_read_token" in price["units"] and draw.random() < shape.cached * 1.4:
        event["cache_read_tokens"] = int(prompt * draw.uniform(0.45, 0.95)) // 128 * 128
    elif "cache_write_token" in price["units"] and draw.random() < 0.2:
        event["cache_write_tokens"] = int(prompt * 0.6)


def _price(event: UsageEventDocument, deployment: DeploymentDocument) -> None:
    price = deployment["price"]
    if price is None:
        event["cost"] = None
        return
    event["price_version"], event["unit_prices"] = price["version"], price["units"]
    usage = {
        "input_tokens": event["input_tokens"],
        "output_tokens": event["output_tokens"],
        "cache_read_tokens": event["cache_read_tokens"],
        "cache_write_tokens": event["cache_write_tokens"],
        "reasoning_tokens": event["reasoning_tokens"],
    }
    cost = cost_of(usage, price["units"])
    event["cost"] = None if cost is None else plain_decimal(cost)
