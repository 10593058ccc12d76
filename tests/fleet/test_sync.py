"""POST /fleet/v1/sync: workers report, and are told what they should run."""

from typing import Any
from uuid import uuid4

import pytest
from django.test import Client

from gateway_admin.accounts.models import AuditEvent
from gateway_admin.fleet.models import ReplicaWorker
from gateway_admin.fleet.services import (
    fleet_identity,
    open_token,
    revision_publish,
    token_rotate,
)
from tests import builders

pytestmark = pytest.mark.django_db


def test_it_orders_nothing_before_the_first_publish(prod: Any, replica_of: Any) -> None:
    order = replica_of(prod).sync().json()
    assert order["revision"] is None
    assert order["policy_version"] == 0


def test_it_orders_the_active_revision(prod: Any, gpt: Any, replica_of: Any, people: Any) -> None:
    published = revision_publish(environment=prod, actor=people.admin)
    order = replica_of(prod).sync().json()
    assert (order["revision"], order["digest"]) == (1, published.digest)


def test_it_orders_the_newest_policy_version(prod: Any, replica_of: Any, people: Any) -> None:
    builders.key(people.owner, environment=prod)
    assert replica_of(prod).sync().json()["policy_version"] == 1


@pytest.mark.parametrize(
    "header", ["", "Bearer ", "Bearer gwf-unknown", "Basic gwf-x", "Bearer \u00e9"]
)
def test_it_refuses_an_unknown_token(prod: Any, header: Any, replica_of: Any) -> None:
    fleet_identity(prod)
    client = Client(headers={"authorization": header} if header else {})
    answer = client.post("/fleet/v1/sync", "{}", content_type="application/json")
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "unknown_token"


def test_it_costs_three_queries(
    prod: Any, gpt: Any, replica_of: Any, people: Any, django_assert_num_queries: Any
) -> None:
    revision_publish(environment=prod, actor=people.admin)
    replica = replica_of(prod)
    replica.sync()
    with django_assert_num_queries(3):
        replica.sync(applied_revision=1)


def test_it_stores_when_a_revision_was_acknowledged(prod: Any, replica_of: Any) -> None:
    replica = replica_of(prod)
    replica.sync()
    assert ReplicaWorker.objects.get().acknowledged_at is None
    replica.sync(applied_revision=1, applied_digest="ab")
    first = ReplicaWorker.objects.get().acknowledged_at
    replica.sync(applied_revision=1, applied_digest="ab")
    assert ReplicaWorker.objects.get().acknowledged_at == first
    replica.sync(applied_revision=2, applied_digest="cd")
    second = ReplicaWorker.objects.get().acknowledged_at
    assert first is not None
    assert second is not None
    assert second > first


def test_it_audits_a_rejection_once(prod: Any, gpt: Any, replica_of: Any, people: Any) -> None:
    revision_publish(environment=prod, actor=people.admin)
    replica = replica_of(prod)
    rejected = {
        "rejected_revision": 1,
        "rejected_error": "deployment 'openai-gpt-4o': no such provider",
        "rejected_deployment": str(gpt.pk),
    }
    replica.sync(**rejected)
    replica.sync(**rejected)
    event = AuditEvent.objects.get(action="revision.reject")
    assert event.changes["reason"][1] == rejected["rejected_error"]
    assert ReplicaWorker.objects.get().rejected_deployment == gpt.pk


def test_each_worker_stands_for_itself(prod: Any, replica_of: Any) -> None:
    replica = replica_of(prod)
    replica.sync(worker=0, workers=2, applied_revision=1)
    replica.sync(worker=1, workers=2, pid=4712)
    applied = ReplicaWorker.objects.values_list("slot", "applied_revision")
    assert sorted(applied) == [(0, 1), (1, None)]


def test_a_restart_with_fewer_workers_drops_the_others(prod: Any, replica_of: Any) -> None:
    replica = replica_of(prod)
    for slot in range(3):
        replica.sync(worker=slot, workers=3)
    replica.sync(worker=0, workers=1, pid=5000)
    assert list(ReplicaWorker.objects.values_list("slot", flat=True)) == [0]


def test_a_replica_of_another_environment_is_refused(prod: Any, replica_of: Any) -> None:
    replica = replica_of(prod)
    replica.sync()
    stranger = replica_of(builders.environment("dev"))
    stranger.id = replica.id
    answer = stranger.sync()
    assert answer.status_code == 409
    assert "state directory" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("replica_id", "no uuid"),
        ("replica_id", 7),
        ("worker", -1),
        ("worker", "0"),
        ("pid", True),
        ("started_at", "yesterday"),
        ("started_at", "2026-11-20T12:00:00"),
        ("applied_revision", 2**40),
        ("policy_version", None),
        ("reasons", "ill"),
        ("hostname", {"a": 1}),
    ],
)
def test_a_malformed_report_is_refused_with_its_field(
    prod: Any, replica_of: Any, field: Any, value: Any
) -> None:
    answer = replica_of(prod).sync(**{field: value})
    assert answer.status_code == 400
    assert field in answer.json()["error"]["message"]
    assert not ReplicaWorker.objects.exists()


@pytest.mark.parametrize("body", ["", "[]", "null", "{", "[" * 50_000])
def test_what_is_no_report_is_refused(prod: Any, replica_of: Any, body: Any) -> None:
    client = replica_of(prod).client
    answer = client.post("/fleet/v1/sync", body, content_type="application/json")
    assert answer.status_code == 400


def test_a_large_body_is_refused(prod: Any, replica_of: Any) -> None:
    assert replica_of(prod).sync(reasons=["x" * 300_000]).status_code == 413


def test_control_characters_do_not_reach_the_database(prod: Any, replica_of: Any) -> None:
    answer = replica_of(prod).sync(hostname="gw\x00-1", rejected_error="a\x00b")
    assert answer.status_code == 200
    assert ReplicaWorker.objects.get().replica.hostname == "gw-1"


def test_a_rotated_token_keeps_the_previous_one_for_a_day(
    prod: Any, replica_of: Any, people: Any
) -> None:
    old = replica_of(prod)
    token_rotate(environment=prod, actor=people.admin)
    assert old.sync().status_code == 200
    assert replica_of(prod).sync().status_code == 200
    token_rotate(environment=prod, actor=people.admin, keep_previous=False)
    assert old.sync().status_code == 401


def test_an_identity_is_made_once(prod: Any) -> None:
    first, second = fleet_identity(prod), fleet_identity(prod)
    assert open_token(first) == open_token(second)
    assert open_token(first) not in str(first.__dict__)


def test_an_unknown_deployment_id_is_no_reason_to_refuse(prod: Any, replica_of: Any) -> None:
    assert replica_of(prod).sync(rejected_deployment="d1").status_code == 200
    assert replica_of(prod).sync(rejected_deployment=str(uuid4())).status_code == 200
