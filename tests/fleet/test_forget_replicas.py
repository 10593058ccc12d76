"""Replicas that went away are forgotten after a day."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from gateway_admin.accounts.models import AuditEvent
from gateway_admin.fleet.models import Replica, ReplicaWorker
from gateway_admin.fleet.tasks import forget_silent_replicas

pytestmark = pytest.mark.django_db


def _heard(hours: Any) -> None:
    ago = timezone.now() - timedelta(hours=hours)
    ReplicaWorker.objects.update(last_seen_at=ago)
    Replica.objects.update(first_seen_at=ago)


def test_a_day_of_silence_is_the_end(prod: Any, replica_of: Any) -> None:
    replica_of(prod).sync()
    _heard(hours=25)
    forget_silent_replicas()
    assert not Replica.objects.exists()
    assert AuditEvent.objects.get(action="replica.forget").target_label == "gw-1"


def test_less_is_not(prod: Any, replica_of: Any) -> None:
    replica_of(prod).sync()
    _heard(hours=23)
    forget_silent_replicas()
    assert Replica.objects.exists()


def test_one_worker_that_reports_is_enough(prod: Any, replica_of: Any) -> None:
    replica = replica_of(prod)
    replica.sync(worker=0, workers=2)
    _heard(hours=25)
    replica.sync(worker=1, workers=2)
    forget_silent_replicas()
    assert Replica.objects.exists()


def test_a_forgotten_replica_may_come_back(prod: Any, replica_of: Any) -> None:
    replica = replica_of(prod)
    replica.sync()
    _heard(hours=25)
    forget_silent_replicas()
    assert replica.sync().status_code == 200
    assert Replica.objects.count() == 1
