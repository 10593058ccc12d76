"""The state of the shared counters for Prometheus, read from the database at each scrape."""

from collections.abc import Callable, Iterator
from datetime import datetime

import structlog
from django.db import Error
from django.utils import timezone
from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway_admin.usage.counter_health import CounterHealth, counters_health

log = structlog.get_logger(__name__)

Figure = Callable[[CounterHealth, datetime], float | None]


def _age(moment: datetime | None, now: datetime) -> float | None:
    return None if moment is None else max((now - moment).total_seconds(), 0.0)


# Name -> help, figure; None leaves the environment out.
GAUGES: dict[str, tuple[str, Figure]] = {
    "gateway_counters_epoch_age_seconds": (
        "Time since the budgets' counters were built",
        lambda health, now: _age(health.built_at, now),
    ),
    "gateway_counters_checked_age_seconds": (
        "Time since they were compared with the ledger",
        lambda health, now: _age(health.checked_at, now),
    ),
    "gateway_counters_drift_dollars": (
        "What the last comparison had to mend",
        lambda health, now: float(health.drift),
    ),
    "gateway_counters_abandoned_holds": (
        "Requests whose worker ended, waiting to be accounted for",
        lambda health, now: health.abandoned,
    ),
    "gateway_counters_waiting_updates": (
        "Committed batches that the counters were not told of yet",
        lambda health, now: health.waiting,
    ),
    "gateway_counters_waiting_age_seconds": (
        "Age of the oldest of them",
        lambda health, now: _age(health.waiting_since, now) or 0.0,
    ),
}


class CounterCollector(Collector):
    """Gauges by environment. Without the database there are none, and the rest is served."""

    def describe(self) -> list[GaugeMetricFamily]:
        """Names without a query, for the registration."""
        return [GaugeMetricFamily(name, words) for name, (words, _) in GAUGES.items()]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        try:
            found = counters_health()
        except Error as error:
            log.warning("counter_metrics_unavailable", error=str(error).split("\n")[0])
            return
        now = timezone.now()
        for name, (words, figure) in GAUGES.items():
            family = GaugeMetricFamily(name, words, labels=["environment"])
            for health in found:
                value = figure(health, now)
                if value is not None:
                    family.add_metric([health.environment.slug], value)
            yield family


_collector = CounterCollector()


def register() -> None:
    """Add them to the process' registry, once."""
    if _collector not in REGISTRY._collector_to_names:
        REGISTRY.register(_collector)
