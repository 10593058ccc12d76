"""Differences, rollouts and replicas as pages show them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from django.urls import reverse
from django.utils import timezone

from gateway_admin.catalog.models import Environment
from gateway_admin.fleet.diff import Change
from gateway_admin.fleet.models import Replica, ReplicaWorker, Revision
from gateway_admin.fleet.queries import (
    LATE_AFTER,
    SILENT_AFTER,
    Rollout,
    running_at_publish,
    time_taken_ms,
)

TITLES = {
    "environment": "Environment defaults",
    "model": "Models",
    "alias": "Aliases",
    "chain": "Fallback chains",
    "deployment": "Deployments",
    "credential": "Credentials",
}
ICONS = {
    "environment": "stack-2",
    "model": "box",
    "alias": "replace",
    "chain": "route",
    "deployment": "server-2",
    "credential": "fingerprint",
}


@dataclass(frozen=True)
class Item:
    """One thing that differs, with all that differs in it."""

    action: str
    name: str
    url: str  # "" when there is nothing to open any more
    changes: list[Change]

    @property
    def summary(self) -> str:
        """What an added thing is, or a removed one was."""
        return self.changes[0].after or self.changes[0].before or ""


@dataclass(frozen=True)
class Group:
    """Things of one sort."""

    title: str
    icon: str
    items: list[Item] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(len(item.changes) for item in self.items)


def grouped(changes: Iterable[Change], environment: Environment) -> list[Group]:
    """Changes by thing and, within it, by what they are about; the order stays."""
    groups: dict[str, Group] = {}
    items: dict[tuple[str, str, str], Item] = {}
    for change in changes:
        group = groups.setdefault(change.thing, Group(TITLES[change.thing], ICONS[change.thing]))
        key = (change.thing, change.id, change.action)
        if key not in items:
            url = "" if change.action == "removed" else thing_url(change, environment)
            items[key] = Item(change.action, change.name, url, [])
            group.items.append(items[key])
        items[key].changes.append(change)
    return list(groups.values())


def thing_url(change: Change, environment: Environment) -> str:
    """Where the thing is edited."""
    query = f"?environment={environment.slug}"
    match change.thing:
        case "deployment":
            return reverse("catalog:deployment-detail", args=[change.id])
        case "credential":
            return reverse("catalog:credential-detail", args=[change.id])
        case "environment":
            return reverse("catalog:environment-edit", args=[environment.slug])
        case "model":
            return reverse("catalog:model-list") + query
        case "alias":
            return reverse("catalog:alias-list") + query
        case "chain":
            return reverse("catalog:chain-list") + query


@dataclass(frozen=True)
class Fault:
    """Why a worker rejected a revision, and the deployment at fault where it is known."""

    worker: ReplicaWorker
    deployment: str
    url: str


@dataclass(frozen=True)
class ReplicaProgress:
    """How far one replica has come with a revision."""

    replica: Replica
    state: str  # in_force, publishing, rejected or late
    done: int
    expected: int
    took_ms: float | None
    on_start: bool  # it started after the publish and took the revision then
    applied: str
    last_seen_at: datetime


@dataclass(frozen=True)
class RolloutView:
    """A rollout in words and rows."""

    rollout: Rollout
    replicas: list[ReplicaProgress]
    faults: list[Fault]

    @property
    def revision(self) -> Revision:
        return self.rollout.revision

    @property
    def headline(self) -> str:
        done, expected = len(self.rollout.in_force), self.rollout.expected
        workers = "worker" if expected == 1 else "workers"
        match self.rollout.state:
            case "superseded":
                return "Superseded by a later revision"
            case "unknown":
                return "No replica reports at the moment"
            case "rejected":
                rejected = len(self.rollout.rejected)
                return f"Rejected by {rejected} of {expected} {workers}"
            case "publishing":
                return f"In force on {done} of {expected} {workers} …"
        return f"In force on {done} of {expected} {workers}"

    @property
    def is_moving(self) -> bool:
        return self.rollout.state in {"publishing", "rejected"}


def rollout_view(rollout: Rollout) -> RolloutView:
    replicas: dict[object, list[tuple[str, ReplicaWorker]]] = {}
    for state, workers in (
        ("in_force", rollout.in_force),
        ("publishing", rollout.waiting),
        ("rejected", rollout.rejected),
        ("late", rollout.late),
    ):
        for worker in workers:
            replicas.setdefault(worker.replica_id, []).append((state, worker))
    rows = [_progress(rollout.revision, entries) for entries in replicas.values()]
    rows.sort(key=lambda row: (row.replica.hostname, str(row.replica.pk)))
    return RolloutView(rollout, rows, _faults(rollout))


def _progress(revision: Revision, entries: list[tuple[str, ReplicaWorker]]) -> ReplicaProgress:
    workers = [worker for _, worker in entries]
    states = {state for state, _ in entries}
    state = next(s for s in ("rejected", "publishing", "late", "in_force") if s in states)
    return ReplicaProgress(
        replica=workers[0].replica,
        state=state,
        done=sum(1 for entry, _ in entries if entry == "in_force"),
        expected=len(entries),
        took_ms=time_taken_ms(revision, workers) if state == "in_force" else None,
        on_start=state == "in_force" and not running_at_publish(revision, workers),
        applied=applied_words(workers),
        last_seen_at=max(worker.last_seen_at for worker in workers),
    )


def applied_words(workers: Iterable[ReplicaWorker]) -> str:
    """`12`, `11 and 12` while some workers lag, `none` before the first."""
    numbers = {worker.applied_revision for worker in workers}
    known = sorted(number for number in numbers if number is not None)
    words = [str(number) for number in known]
    return " and ".join((["none"] if None in numbers else []) + words)


def _faults(rollout: Rollout) -> list[Fault]:
    """One per distinct reason and replica: its workers fail for the same one."""
    if not rollout.rejected:
        return []
    names = {row["id"]: row["name"] for row in rollout.revision.document["deployments"]}
    faults: dict[tuple[object, str], Fault] = {}
    for worker in rollout.rejected:
        deployment = str(worker.rejected_deployment or "")
        known = deployment in names
        faults.setdefault(
            (worker.replica_id, worker.rejected_error),
            Fault(
                worker,
                names.get(deployment, ""),
                reverse("catalog:deployment-detail", args=[deployment]) if known else "",
            ),
        )
    return list(faults.values())


# Mode -> tone, word, what it means. In the order in which the page tells them.
COUNTER_WORDS = {
    "local": ("warn", "Alone", "Redis is away: each worker spends its share of what was left."),
    "own": ("quiet", "Alone", "This replica was given no Redis: it counts by itself."),
    "unbuilt": ("info", "Being built", "Redis was emptied: sums come anew from the ledger."),
    "shared": ("ok", "Together", "All workers count in Redis."),
    "": ("quiet", "Not told", "The worker does not say how it counts."),
}


@dataclass(frozen=True)
class CounterMode:
    """Workers of a replica that count budgets and limits in the same way."""

    tone: str
    word: str
    meaning: str
    workers: list[ReplicaWorker]
    of: int

    @property
    def detail(self) -> str:
        """`workers 0 and 3`; "" when it is all of them."""
        if len(self.workers) == self.of:
            return ""
        slots = [str(worker.slot) for worker in self.workers]
        names = " and ".join(filter(None, [", ".join(slots[:-1]), slots[-1]]))
        return f"worker{'s' if len(slots) > 1 else ''} {names}"

    @property
    def since(self) -> datetime | None:
        return min((w.counters_since for w in self.workers if w.counters_since), default=None)


@dataclass(frozen=True)
class ReplicaView:
    """One replica of the list."""

    replica: Replica
    workers: list[ReplicaWorker]
    desired: int | None
    now: datetime

    @property
    def last_seen_at(self) -> datetime:
        return max(
            (worker.last_seen_at for worker in self.workers), default=self.replica.first_seen_at
        )

    @property
    def silence_s(self) -> float:
        return (self.now - self.last_seen_at).total_seconds()

    @property
    def live(self) -> list[ReplicaWorker]:
        return [w for w in self.workers if self.now - w.last_seen_at <= LATE_AFTER]

    @property
    def state(self) -> str:
        """silent, late, rejected, behind, degraded or healthy: the worst that is true."""
        if self.silence_s > SILENT_AFTER.total_seconds():
            return "silent"
        if not self.live:
            return "late"
        if any(self._rejects(worker) for worker in self.live):
            return "rejected"
        if any(worker.applied_revision != self.desired for worker in self.live):
            return "behind"
        if self.reasons or len(self.live) < len(self.workers):
            return "degraded"
        return "healthy"

    def _rejects(self, worker: ReplicaWorker) -> bool:
        return self.desired is not None and worker.rejected_revision == self.desired

    @property
    def reasons(self) -> list[str]:
        """Why it is not well, each reason once."""
        found = [r for w in self.live if not w.healthy for r in (w.reasons or ["unhealthy"])]
        found += [w.rejected_error for w in self.live if self._rejects(w)]
        missing = len(self.workers) - len(self.live)
        if self.live and missing:
            found.append(f"{missing} of {len(self.workers)} workers do not report")
        return list(dict.fromkeys(found))

    @property
    def counters(self) -> list[CounterMode]:
        """How its live workers count, the usual way last; one line per way."""
        found: dict[str, list[ReplicaWorker]] = {}
        for worker in self.live:
            own = worker.counters == "local" and worker.healthy
            found.setdefault("own" if own else worker.counters, []).append(worker)
        return [
            CounterMode(*COUNTER_WORDS[mode], found[mode], len(self.live))
            for mode in COUNTER_WORDS
            if mode in found
        ]

    @property
    def applied(self) -> str:
        return applied_words(self.live or self.workers) if self.workers else "none"

    @property
    def acknowledged_at(self) -> datetime | None:
        return max((w.acknowledged_at for w in self.workers if w.acknowledged_at), default=None)

    @property
    def policy_version(self) -> int:
        return min((w.policy_version for w in self.live or self.workers), default=0)

    @property
    def spool_events(self) -> int:
        return sum(worker.spool_events for worker in self.workers)

    @property
    def spool_bytes(self) -> int:
        return sum(worker.spool_bytes for worker in self.workers)

    @property
    def dropped_events(self) -> int:
        return sum(worker.dropped_events for worker in self.workers)


def replica_views(
    replicas: Iterable[Replica], *, desired: int | None, now: datetime | None = None
) -> list[ReplicaView]:
    """Replicas with prefetched workers, as the list shows them."""
    now = now or timezone.now()
    return [ReplicaView(row, list(row.workers.all()), desired, now) for row in replicas]
