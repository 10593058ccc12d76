"""How far a revision has come, sorted by what each worker did with it."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from gateway_admin.fleet.models import ReplicaWorker
from gateway_admin.fleet.presentation import rollout_view
from gateway_admin.fleet.queries import rollout_of
from gateway_admin.fleet.services import revision_publish
from tests import builders

pytestmark = pytest.mark.django_db


@pytest.fixture
def revision(prod: Any, gpt: Any, people: Any) -> Any:
    return revision_publish(environment=prod, actor=people.admin)


def heard(seconds_ago: float) -> None:
    ReplicaWorker.objects.update(last_seen_at=timezone.now() - timedelta(seconds=seconds_ago))


def test_without_replicas_nothing_is_known(revision: Any) -> None:
    rollout = rollout_of(revision)
    assert (rollout.state, rollout.expected, rollout.took_ms) == ("unknown", 0, None)


def test_it_is_in_force_when_every_worker_serves_it(
    revision: Any, prod: Any, replica_of: Any
) -> None:
    replica = replica_of(prod)
    replica.sync(worker=0, workers=2, applied_revision=1)
    replica.sync(worker=1, workers=2)
    assert rollout_of(revision).state == "publishing"
    replica.sync(worker=1, workers=2, applied_revision=1)
    rollout = rollout_of(revision)
    assert (rollout.state, rollout.expected) == ("in_force", 2)
    worker = ReplicaWorker.objects.get(slot=1)
    assert worker.acknowledged_at is not None
    took = worker.acknowledged_at - revision.published_at
    assert rollout.took_ms == pytest.approx(took.total_seconds() * 1000)


def test_a_worker_that_started_later_took_it_on_start(
    revision: Any, prod: Any, replica_of: Any
) -> None:
    replica_of(prod).sync(applied_revision=1)
    late = revision.published_at + timedelta(hours=52)
    ReplicaWorker.objects.update(started_at=late, acknowledged_at=late + timedelta(seconds=1))
    rollout = rollout_of(revision)
    assert (rollout.state, rollout.took_ms) == ("in_force", None)
    (row,) = rollout_view(rollout).replicas
    assert (row.on_start, row.took_ms) == (True, None)


def test_one_rejection_is_a_rejection(revision: Any, prod: Any, replica_of: Any) -> None:
    replica_of(prod).sync(applied_revision=1)
    replica_of(prod).sync(rejected_revision=1, rejected_error="no")
    assert rollout_of(revision).state == "rejected"


def test_a_worker_that_is_late_is_not_waited_for(revision: Any, prod: Any, replica_of: Any) -> None:
    replica_of(prod).sync()
    heard(seconds_ago=60)
    replica_of(prod).sync(applied_revision=1)
    rollout = rollout_of(revision)
    assert (rollout.state, len(rollout.late)) == ("in_force", 1)


def test_a_silent_worker_is_left_out(revision: Any, prod: Any, replica_of: Any) -> None:
    replica_of(prod).sync()
    heard(seconds_ago=400)
    rollout = rollout_of(revision)
    assert (rollout.state, rollout.late) == ("unknown", [])


def test_a_later_revision_supersedes_it(
    revision: Any, prod: Any, people: Any, replica_of: Any
) -> None:
    builders.deployment(environment=prod)
    revision_publish(environment=prod, actor=people.admin)
    assert rollout_of(revision).state == "superseded"


def test_other_environments_do_not_count(revision: Any, replica_of: Any) -> None:
    replica_of(builders.environment("dev")).sync(applied_revision=1)
    assert rollout_of(revision).state == "unknown"
