"""How the shared counters stand, from what was stored of them: no call to Redis."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from django.db.models import Count, Min
from django.utils import timezone

from gateway_admin.catalog.models import Environment
from gateway_admin.usage.models import CounterState, CounterUpdate
from proxy.contract.counters import dollars

UNCHECKED_AFTER = timedelta(minutes=12)  # two checks were missed
LATE_AFTER = timedelta(seconds=30)


@dataclass(frozen=True)
class CounterHealth:
    """The counters of one environment. `drift`: US dollars that the last check mended."""

    environment: Environment
    epoch: str = ""
    built_at: datetime | None = None
    checked_at: datetime | None = None
    counters: int = 0
    drift: Decimal = Decimal(0)
    drift_at: datetime | None = None
    abandoned: int = 0  # holds whose worker died, still within their grace
    waiting: int = 0  # batches that Redis was not told of yet
    waiting_since: datetime | None = None

    def is_stale(self, at: datetime | None = None) -> bool:
        """Spend is in the ledger that the counters do not know, or nobody has checked."""
        at = at or timezone.now()
        late = self.waiting_since is not None and self.waiting_since < at - LATE_AFTER
        unchecked = self.checked_at is not None and self.checked_at < at - UNCHECKED_AFTER
        return late or unchecked


def counters_health() -> list[CounterHealth]:
    """All environments, by name. Three queries."""
    states = {state.environment_id: state for state in CounterState.objects.all()}
    waiting = {
        row["environment_id"]: (row["number"], row["since"])
        for row in CounterUpdate.objects.values("environment_id").annotate(
            number=Count("pk"), since=Min("created_at")
        )
    }
    return [
        _health(environment, states.get(environment.pk), *waiting.get(environment.pk, (0, None)))
        for environment in Environment.objects.order_by("name")
    ]


def _health(
    environment: Environment,
    state: CounterState | None,
    waiting: int,
    since: datetime | None,
) -> CounterHealth:
    if state is None:
        return CounterHealth(environment, waiting=waiting, waiting_since=since)
    return CounterHealth(
        environment,
        epoch=state.epoch,
        built_at=state.built_at,
        checked_at=state.checked_at,
        counters=state.counters,
        drift=dollars(state.drift_nano),
        drift_at=state.drift_at,
        abandoned=state.abandoned,
        waiting=waiting,
        waiting_since=since,
    )
