"""Prometheus metrics of the data plane, summed over its workers.

Uses prometheus_client's multiprocess mode: each worker writes memory-mapped files, any
worker can answer /metrics for all. Labels are bounded: routes, models and deployments of
the snapshot, statuses, classes. Subjects of budgets are told up to a fixed number only (see
instruments.py). What LiteLLM's or others' dashboards call by another name is copied when
the metrics are read, so that a request counts each thing once.
"""

import os
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import prometheus_client
from prometheus_client import CollectorRegistry, multiprocess
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from proxy.contract import UsageEventDocument
from proxy.instruments import (
    AdmissionInstruments,
    BudgetInstruments,
    CacheInstruments,
    RoutingInstruments,
)
from proxy.tally import Counter, Gauge, Histogram, Tally

KEY_LABELS_VARIABLE = "GATEWAY_METRICS_KEY_LABELS"
MULTIPROC_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_LATENCY_BUCKETS_S = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0,
)  # fmt: skip


class Metrics:
    """All instruments. Made once per process, before the first worker is forked or in it."""

    def __init__(self) -> None:
        self._registry = Tally()
        # Also at the end of a process that has no loop, or ends before its next round.
        weakref.finalize(self, self._registry.flush)
        self._make_requests(self._registry)
        self._make_consumption(self._registry)
        self._make_delivery(self._registry)
        self._make_state(self._registry)
        self.admission = AdmissionInstruments(self._registry)
        self.budgets = BudgetInstruments(self._registry, every_subject=_wants_every_subject())
        self.routing = RoutingInstruments(self._registry)
        self.cache = CacheInstruments(self._registry)

    def _make_requests(self, registry: Tally) -> None:
        """Requests and where their time went."""
        served = ["route", "model", "status"]
        self.requests = Counter(
            "litellm_proxy_total_requests_metric", "Requests of identified keys", served,
            registry=registry,
        )  # fmt: skip
        self.failed = Counter(
            "litellm_proxy_failed_requests_metric", "Requests that did not succeed",
            ["route", "model", "error_class"], registry=registry,
        )  # fmt: skip
        self.latency = Histogram(
            "litellm_request_total_latency_metric", "Seconds from request to last byte",
            ["model"], buckets=_LATENCY_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self.provider_latency = Histogram(
            "litellm_llm_api_latency_metric", "Seconds spent in providers", ["model"],
            buckets=_LATENCY_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self.first_token = Histogram(
            "litellm_llm_api_time_to_first_token_metric", "Seconds to the first content of streams",
            ["model"], buckets=_LATENCY_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self.overhead = Histogram(
            "litellm_overhead_latency_metric", "Seconds added by the gateway", ["model"],
            buckets=_LATENCY_BUCKETS_S, registry=registry,
        )  # fmt: skip

    def _make_consumption(self, registry: Tally) -> None:
        """Money and tokens."""
        self.spend = Counter(
            "litellm_spend_metric", "USD at published prices", ["model"], registry=registry
        )
        self.input_tokens = Counter(
            "litellm_input_tokens_metric", "Input tokens", ["model"], registry=registry
        )
        self.output_tokens = Counter(
            "litellm_output_tokens_metric", "Output tokens", ["model"], registry=registry
        )
        self.total_tokens = Counter(
            "litellm_total_tokens_metric", "Input and output tokens", ["model"], registry=registry
        )
        self.in_flight = Gauge(
            "litellm_in_flight_requests", "Requests being served", registry=registry,
            multiprocess_mode="livesum",
        )  # fmt: skip
        self.unpriced = Counter(
            "gateway_proxy_unpriced_requests", "Requests without a published price", ["model"],
            registry=registry,
        )  # fmt: skip
        self.refusals = Counter(
            "gateway_proxy_refusals", "Requests refused by the edge", ["reason"], registry=registry
        )

    def _make_delivery(self, registry: Tally) -> None:
        """Usage events on their way to the control plane."""
        self.spool_events = Gauge(
            "gateway_proxy_spool_events", "Usage events that wait to be delivered",
            registry=registry, multiprocess_mode="livesum",
        )  # fmt: skip
        self.spool_bytes = Gauge(
            "gateway_proxy_spool_bytes", "Bytes of usage events on disk", registry=registry,
            multiprocess_mode="livesum",
        )  # fmt: skip
        self.spool_age_s = Gauge(
            "gateway_proxy_spool_age_seconds", "Age of the oldest undelivered event",
            registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip
        self.dropped = Counter(
            "gateway_proxy_dropped_events", "Usage events lost: disk and memory were full",
            registry=registry,
        )  # fmt: skip
        self.shipped = Counter(
            "gateway_proxy_shipped_events", "Usage events the control plane committed",
            registry=registry,
        )  # fmt: skip
        self.events_refused = Counter(
            "gateway_proxy_refused_events", "Usage events the control plane will never take",
            registry=registry,
        )  # fmt: skip

    def _make_state(self, registry: Tally) -> None:
        """What this replica runs, and how it keeps up."""
        self.revision = Gauge(
            "gateway_proxy_applied_revision", "Lowest revision served by a worker",
            registry=registry, multiprocess_mode="livemin",
        )  # fmt: skip
        self.policy_version = Gauge(
            "gateway_proxy_policy_version", "Lowest policy version known to a worker",
            registry=registry, multiprocess_mode="livemin",
        )  # fmt: skip
        self.tasks = Gauge(
            "gateway_proxy_tasks", "asyncio tasks: those of the workers, and of running requests",
            registry=registry, multiprocess_mode="livesum",
        )  # fmt: skip
        self.snapshot_age_s = Gauge(
            "gateway_proxy_snapshot_age_seconds",
            "Longest time since a worker last heard from the control plane",
            registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip
        self.sync_failures = Counter(
            "gateway_proxy_sync_failures", "Failed rounds of synchronisation", ["reason"],
            registry=registry,
        )  # fmt: skip
        self.rejected = Counter(
            "gateway_proxy_rejected_revisions", "Revisions a worker could not build",
            registry=registry,
        )  # fmt: skip

    def observe(self, event: UsageEventDocument) -> None:
        """Count one finished request. Model labels come from the snapshot alone."""
        model, route = event["model"], event["route"]
        self.requests.labels(route, model, event["status"]).inc()
        if event["status"] != "ok":
            self.failed.labels(route, model, event["error_class"] or "internal").inc()
        if event["status"] == "refused":
            return
        self.latency.labels(model).observe(event["latency_ms"] / 1000)
        if event["overhead_ms"] is not None:
            self.overhead.labels(model).observe(event["overhead_ms"] / 1000)
            in_provider_ms = event["latency_ms"] - event["overhead_ms"]
            self.provider_latency.labels(model).observe(in_provider_ms / 1000)
        if event["ttft_ms"] is not None:
            self.first_token.labels(model).observe(event["ttft_ms"] / 1000)
        self.input_tokens.labels(model).inc(event["input_tokens"])
        self.output_tokens.labels(model).inc(event["output_tokens"])
        self.total_tokens.labels(model).inc(event["input_tokens"] + event["output_tokens"])
        if event["cost"] is None:
            self.unpriced.labels(model).inc()
        else:
            self.spend.labels(model).inc(float(event["cost"]))
        self._observe_attempts(event)

    def _observe_attempts(self, event: UsageEventDocument) -> None:
        for attempt in event["attempts"]:
            deployment = attempt["deployment"] or "unknown"
            if attempt["error_class"] is None:
                self.routing.deployment_ok.labels(deployment).inc()
            else:
                self.routing.deployment_failed.labels(deployment, attempt["error_class"]).inc()
        if event["why"] in ("fallback", "context_window", "content_policy"):
            answered = event["status"] == "ok"
            routing = self.routing
            (routing.fallbacks if answered else routing.failed_fallbacks).labels(
                event["model"]
            ).inc()
        for attempt in event["attempts"][1:]:
            self.routing.retries.labels(attempt["model"], attempt["why"]).inc()

    def flush(self) -> None:
        """Tell what changed, so that whichever worker is asked next knows it."""
        self._registry.flush()

    def render(self) -> bytes:
        """Exposition text over all workers; of this one, exact as of now."""
        source: Collector = self._registry
        self._registry.flush()
        if os.environ.get(MULTIPROC_VARIABLE):
            merged = CollectorRegistry()
            multiprocess.MultiProcessCollector(merged)  # type: ignore[no-untyped-call]
            source = merged
        return prometheus_client.generate_latest(_WithAliases(source))


@dataclass(frozen=True, slots=True)
class _Alias:
    """Another name of a metric, with fewer labels where it has fewer."""

    name: str  # as in "# TYPE"; a counter's samples end in "_total"
    source: str
    kind: str
    labels: tuple[str, ...] = ("model",)


ALIASES = (
    _Alias("llm_requests", "litellm_proxy_total_requests_metric", "counter", ("model", "status")),
    _Alias("litellm_requests_metric", "litellm_proxy_total_requests_metric", "counter"),
    _Alias("llm_request_latency_seconds", "litellm_request_total_latency_metric", "histogram"),
    _Alias("llm_input_tokens", "litellm_input_tokens_metric", "counter"),
    _Alias("llm_output_tokens", "litellm_output_tokens_metric", "counter"),
    # Known by this very name; a counter's would have to end in "_total".
    _Alias("llm_estimated_cost_dollars", "litellm_spend_metric", "gauge"),
    _Alias("litellm_cache_hits_metric", "llm_cache_hits", "counter"),
    _Alias("litellm_cache_misses_metric", "llm_cache_misses", "counter"),
)


class _WithAliases(CollectorRegistry):
    """All metrics of a registry, and those that have a second name."""

    def __init__(self, source: Collector) -> None:
        super().__init__()
        self._source = source

    def collect(self) -> Iterator[Metric]:
        """Families in the source's order, then the aliases."""
        families = list(self._source.collect())
        yield from families
        by_name = {family.name: family for family in families}
        for alias in ALIASES:
            if (source := by_name.get(alias.source)) is not None:
                yield _renamed(source, alias)


def _renamed(source: Metric, alias: _Alias) -> Metric:
    """The family under its other name; samples that differ in dropped labels are added up."""
    family = Metric(alias.name, source.documentation, alias.kind)
    kept = {*alias.labels, "le"}
    sums: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for sample in source.samples:
        ending = sample.name.removeprefix(alias.source)
        if ending == "_created":
            continue
        name = alias.name + ("" if alias.kind == "gauge" else ending)
        place = (name, _labels(sample.labels, kept))
        sums[place] = sums.get(place, 0.0) + sample.value
    for (name, labels), value in sums.items():
        family.add_sample(name, dict(labels), value)
    return family


def _labels(labels: Mapping[str, str], kept: Iterable[str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in labels.items() if name in kept)


def _wants_every_subject() -> bool:
    return os.environ.get(KEY_LABELS_VARIABLE, "").lower() in ("on", "true", "1", "yes")


def prepare_directory(directory: Path) -> None:
    """Empty the multiprocess directory: its files belong to an earlier process tree."""
    for path in directory.glob("*.db"):
        path.unlink(missing_ok=True)


def forget_worker(pid: int, directory: Path) -> None:
    """Drop the live gauges of a worker that is gone; its counters stay in the sum."""
    multiprocess.mark_process_dead(pid, path=str(directory))  # type: ignore[no-untyped-call]
