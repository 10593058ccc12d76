"""Reads: what is active, what the draft would change, how far a publish has come."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from django.db.models import QuerySet
from django.utils import timezone

from gateway_admin.catalog.models import Environment
from gateway_admin.fleet.diff import Change, diff_documents
from gateway_admin.fleet.documents import Draft, draft
from gateway_admin.fleet.models import Replica, ReplicaWorker, Revision
from gateway_admin.fleet.pending import pending_count
from proxy.contract import RevisionDocument, document_digest

__all__ = [
    "active_revision",
    "changes_between",
    "changes_of",
    "draft_changes",
    "draft_state",
    "pending_count",
    "replicas_of",
    "revisions_of",
    "rollout_of",
    "workers_of",
]

LATE_AFTER = timedelta(seconds=15)  # a worker reports every 2 s
SILENT_AFTER = timedelta(minutes=5)
FORGOTTEN_AFTER = timedelta(hours=24)


def active_revision(environment: Environment) -> Revision | None:
    """What the environment serves; None before the first publish."""
    return Revision.objects.filter(environment=environment).order_by("-number").first()


def revisions_of(environment: Environment) -> QuerySet[Revision]:
    """History, newest first, without the documents."""
    return (
        Revision.objects.filter(environment=environment)
        .select_related("published_by", "environment")
        .defer("document")
        .order_by("-number")
    )


def draft_changes(environment: Environment) -> list[Change]:
    """What a publish would change now."""
    return draft_state(environment).changes


@dataclass(frozen=True)
class DraftState:
    """The draft beside the active revision."""

    active: Revision | None
    draft: Draft
    digest: str
    changes: list[Change]


def draft_state(environment: Environment) -> DraftState:
    """Draft, active revision and their differences."""
    active, current = active_revision(environment), draft(environment)
    digest = document_digest(current.document)
    if active is not None and active.digest == digest:
        return DraftState(active, current, digest, [])
    before = cast(RevisionDocument, active.document) if active is not None else None
    return DraftState(active, current, digest, diff_documents(before, current.document))


def changes_of(revision: Revision) -> list[Change]:
    """What this revision changed against the one before it."""
    before = Revision.objects.filter(
        environment_id=revision.environment_id, number=revision.number - 1
    ).first()
    return diff_documents(before.document if before else None, revision.document)


def changes_between(before: Revision | None, after: Revision) -> list[Change]:
    """What going from one revision to another changes."""
    return diff_documents(before.document if before else None, after.document)


@dataclass(frozen=True)
class Rollout:
    """How far a revision has come, worker by worker."""

    revision: Revision
    in_force: list[ReplicaWorker]
    waiting: list[ReplicaWorker]
    rejected: list[ReplicaWorker]
    late: list[ReplicaWorker]  # reported lately, but not within the last LATE_AFTER
    superseded: bool  # a later revision is active

    @property
    def expected(self) -> int:
        """Workers that report and so should serve it."""
        return len(self.in_force) + len(self.waiting) + len(self.rejected)

    @property
    def state(self) -> str:
        """superseded, unknown (no worker reports), rejected, publishing or in_force."""
        if self.superseded:
            return "superseded"
        if self.rejected:
            return "rejected"
        if self.waiting:
            return "publishing"
        return "in_force" if self.in_force else "unknown"

    @property
    def took_ms(self) -> float | None:
        """Milliseconds until the last worker that ran at the publish served it; else None."""
        return time_taken_ms(self.revision, self.in_force) if self.state == "in_force" else None


def milliseconds(since: datetime, until: datetime) -> float:
    """The time between two moments; 0 when the second is the earlier one."""
    return max(0.0, (until - since).total_seconds() * 1000)


def running_at_publish(revision: Revision, workers: Iterable[ReplicaWorker]) -> list[ReplicaWorker]:
    """Workers that were there to hear of the revision; later ones take it when they start."""
    return [worker for worker in workers if worker.started_at <= revision.published_at]


def time_taken_ms(revision: Revision, workers: Iterable[ReplicaWorker]) -> float | None:
    """Milliseconds from the publish to the last acknowledgement of those that ran then."""
    running = running_at_publish(revision, workers)
    times = [worker.acknowledged_at for worker in running if worker.acknowledged_at]
    return milliseconds(revision.published_at, max(times)) if times else None


def workers_of(environment: Environment) -> list[ReplicaWorker]:
    """All workers of the environment that are not forgotten."""
    return list(
        ReplicaWorker.objects.filter(replica__environment=environment)
        .select_related("replica")
        .order_by("replica__hostname", "replica_id", "slot")
    )


def rollout_of(revision: Revision, *, active_number: int | None = None) -> Rollout:
    """Where every worker stands with a revision."""
    environment = revision.environment
    if active_number is None:
        active = revisions_of(environment).first()
        active_number = active.number if active else revision.number
    workers = workers_of(environment)
    return sort_rollout(revision, workers, superseded=active_number > revision.number)


def sort_rollout(
    revision: Revision,
    workers: Iterable[ReplicaWorker],
    *,
    superseded: bool,
    now: datetime | None = None,
) -> Rollout:
    """Sort workers by what they did with the revision."""
    now = now or timezone.now()
    rollout = Rollout(revision, [], [], [], [], superseded)
    for worker in workers:
        silence = now - worker.last_seen_at
        if silence > SILENT_AFTER:
            continue
        if silence > LATE_AFTER:
            rollout.late.append(worker)
        elif worker.applied_revision == revision.number:
            rollout.in_force.append(worker)
        elif worker.rejected_revision == revision.number:
            rollout.rejected.append(worker)
        else:
            rollout.waiting.append(worker)
    return rollout


def replicas_of(environment: Environment) -> QuerySet[Replica]:
    """Replicas with their workers, in two queries."""
    return (
        Replica.objects.filter(environment=environment)
        .select_related("environment")
        .prefetch_related("workers")
        .order_by("hostname", "pk")
    )
