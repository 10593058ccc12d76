"""What replicas tell of themselves, and what their silence tells."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from django.urls import reverse

from gateway_admin.dashboards.condition import Condition, earliest, names_of
from gateway_admin.fleet.presentation import ReplicaView


@dataclass(frozen=True)
class Complaint:
    """A reason that workers give, found by its words; `one` and `many` follow their names."""

    pattern: str
    key: str
    tone: str
    one: str
    many: str
    meaning: str
    now: str


COMPLAINTS = (
    Complaint(
        "spool cannot be written",
        "disk-spool",
        "error",
        "cannot write usage to its disk",
        "cannot write usage to their disks",
        "The disk is full or broken. Usage is kept in memory; when that is full, events are "
        "dropped and counted.",
        "Calls are served. What is in memory arrives here as usual.",
    ),
    Complaint(
        "state cannot be written",
        "disk-state",
        "warning",
        "cannot save what it serves",
        "cannot save what they serve",
        "The disk is full or broken. Restarted without this site, it would not know its newest "
        "revision and keys.",
        "Calls are served. Saving is tried again with each change.",
    ),
    Complaint(
        "usage events wait since",
        "spool-waiting",
        "warning",
        "has usage waiting",
        "have usage waiting",
        "Spend on these pages is too low until it arrives.",
        "It waits safely on the replica's disk and is delivered by itself.",
    ),
    Complaint(
        "events were refused",
        "usage-refused",
        "warning",
        "had usage refused",
        "had usage refused",
        "Some events could not be read here and count nowhere.",
        "They are kept on the replica's disk, with the reason beside each.",
    ),
    Complaint(
        "rejected",
        "rejected",
        "error",
        "rejects what was published",
        "reject what was published",
        "It cannot build the revision; the page of publishing says why.",
        "It goes on serving the revision before.",
    ),
)
# Other conditions tell these, with figures.
TOLD_ELSEWHERE = re.compile(
    r"^redis |counters|are counted by|events were dropped|workers do not report"
)


def replica_conditions(replicas: Sequence[ReplicaView], *, published: bool) -> list[Condition]:
    """Silence, complaints and lost usage."""
    return [*_silence(replicas, published=published), *_complaints(replicas), *_lost(replicas)]


def _silence(replicas: Sequence[ReplicaView], *, published: bool) -> Iterator[Condition]:
    gone = [view for view in replicas if not view.live]
    if published and len(gone) == len(replicas):
        yield Condition(
            "no-replica",
            "error",
            "No replica reports",
            "None runs, or none reaches this site.",
            "A replica that runs goes on serving what it knows and keeps its usage on disk.",
            max((view.last_seen_at for view in replicas), default=None),
            *_link(),
        )
    elif gone:
        yield Condition(
            "silent-replica",
            "warning",
            f"{_who(gone)} {'does' if len(gone) == 1 else 'do'} not report",
            "It was stopped, or it does not reach this site.",
            "If it runs, it goes on serving what it knows and keeps its usage on disk. It is "
            "forgotten after 24 hours.",
            max(view.last_seen_at for view in gone),
            *_link(),
        )
    for view in replicas:
        if view.live and len(view.live) < len(view.workers):
            yield Condition(
                f"workers-{view.replica.pk}",
                "warning",
                f"{len(view.workers) - len(view.live)} of {len(view.workers)} workers of "
                f"{view.replica.hostname} do not report",
                "They were killed or hang.",
                "The replica's other workers serve its calls. What they had reserved is given "
                "back within a minute.",
                min(worker.last_seen_at for worker in view.workers),
                *_link(),
            )


def _complaints(replicas: Sequence[ReplicaView]) -> Iterator[Condition]:
    """Why workers say they are not well, each cause once."""
    affected: dict[Complaint, list[ReplicaView]] = defaultdict(list)
    for view in replicas:
        reasons = [r for worker in view.live if not worker.healthy for r in worker.reasons]
        for complaint in dict.fromkeys(_complaint(reason) for reason in reasons):
            if complaint is not None:
                affected[complaint].append(view)
    for complaint, views in sorted(affected.items(), key=lambda pair: pair[0].key):
        yield Condition(
            complaint.key,
            complaint.tone,
            f"{_who(views)} {complaint.one if len(views) == 1 else complaint.many}",
            complaint.meaning,
            complaint.now,
            earliest(worker.unwell_since for view in views for worker in view.live),
            *_link(),
        )


def _complaint(reason: str) -> Complaint | None:
    """The words for a reason; the worker's own where there are none."""
    for complaint in COMPLAINTS:
        if re.search(complaint.pattern, reason):
            return complaint
    if TOLD_ELSEWHERE.search(reason):
        return None
    return Complaint(
        reason,
        reason,
        "warning",
        "is not well",
        "are not well",
        f"The worker says: {reason}.",
        "It serves calls as far as it can.",
    )


def _lost(replicas: Sequence[ReplicaView]) -> Iterator[Condition]:
    losing = [view for view in replicas if view.live and view.dropped_events]
    if not losing:
        return
    names = names_of([view.replica.hostname for view in losing])
    lost = sum(view.dropped_events for view in losing)
    yield Condition(
        "dropped",
        "error",
        f"{lost:,} usage event{'s were' if lost != 1 else ' was'} lost",
        f"Disk and memory of {names} were full. What these requests cost is not in the ledger.",
        "New usage is taken as soon as there is room. The count stands until the replica is "
        "restarted.",
        None,
        *_link(),
    )


def _who(views: Sequence[ReplicaView]) -> str:
    """The beginning of a sentence: `Replica gw-1`, `Replicas gw-1 and gw-2`."""
    names = names_of([view.replica.hostname for view in views])
    return f"Replica {names}" if len(views) == 1 else f"Replicas {names}"


def _link() -> tuple[str, str]:
    return reverse("fleet:replica-list"), "See the replicas"
