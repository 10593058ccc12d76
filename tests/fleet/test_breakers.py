"""Circuit breakers: what workers tell is kept once; what people order reaches the feed at once."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from gateway_admin.accounts.models import AuditEvent
from gateway_admin.fleet.breakers import (
    breaker_of,
    breaker_order,
    states_of,
    transitions_forget,
)
from gateway_admin.fleet.models import BreakerTransition, ReplicaWorker
from gateway_admin.lib.errors import InvalidInput
from tests import builders

pytestmark = pytest.mark.django_db


def told(
    deployment: Any, state: str, *, generation: int = 1, ago: float = 0, reason: str = ""
) -> Any:
    """A transition as a worker reports it; `ago` in seconds."""
    return {
        "deployment": str(deployment.pk),
        "generation": generation,
        "state": state,
        "at": (timezone.now() - timedelta(seconds=ago)).isoformat(),
        "reason": reason,
    }


def test_a_transition_is_kept_once(prod: Any, gpt: Any, replica_of: Any) -> None:
    replica = replica_of(prod)
    entry = told(gpt, "open", reason="5 failures in a row: timeout")
    for _ in range(3):
        assert replica.sync(breaker_transitions=[entry]).status_code == 200
    row = BreakerTransition.objects.get()
    assert (row.state, row.generation, row.reason) == ("open", 1, "5 failures in a row: timeout")
    assert (row.environment, row.replica) == (prod, "gw-1, worker 0")


def test_late_reports_keep_their_place(prod: Any, gpt: Any, replica_of: Any) -> None:
    one, other = replica_of(prod), replica_of(prod)
    one.sync(breaker_transitions=[told(gpt, "half_open", generation=2, ago=30)])
    other.sync(breaker_transitions=[told(gpt, "open", generation=1, ago=60)])
    breaker = breaker_of(gpt)
    assert breaker.state == "half_open"
    assert [span.state for span in breaker.spans] == ["open", "half_open"]
    assert breaker.opened == 1


def test_generations_may_begin_anew(prod: Any, gpt: Any, replica_of: Any) -> None:
    """Redis was emptied: the same generation names another transition."""
    replica = replica_of(prod)
    replica.sync(breaker_transitions=[told(gpt, "open", ago=7_200), told(gpt, "open", ago=5)])
    assert BreakerTransition.objects.count() == 2


def test_a_clock_that_is_ahead_does_not_hide_what_follows(
    prod: Any, gpt: Any, replica_of: Any
) -> None:
    replica = replica_of(prod)
    replica.sync(breaker_transitions=[told(gpt, "open", ago=-86_400)])
    replica.sync(breaker_transitions=[told(gpt, "closed", generation=2, ago=-1)])
    assert states_of([gpt.pk]) == {gpt.pk: "closed"}


@pytest.mark.parametrize(
    "broken", [{"state": "ajar"}, {"generation": "x"}, {"at": "yesterday"}, {"reason": 3}]
)
def test_a_malformed_transition_is_refused(
    prod: Any, gpt: Any, replica_of: Any, broken: Any
) -> None:
    entry = {**told(gpt, "open"), **broken}
    assert replica_of(prod).sync(breaker_transitions=[entry]).status_code == 400
    assert not BreakerTransition.objects.exists()


def test_a_deployment_without_a_readable_id_does_not_stop_the_report(
    prod: Any, gpt: Any, replica_of: Any
) -> None:
    entries = [{**told(gpt, "open"), "deployment": "d-1"}, told(gpt, "open")]
    assert replica_of(prod).sync(breaker_transitions=entries).status_code == 200
    assert BreakerTransition.objects.count() == 1


def test_a_replica_speaks_of_its_own_environment_only(prod: Any, gpt: Any, replica_of: Any) -> None:
    dev = replica_of(builders.environment("dev"))
    assert dev.sync(breaker_transitions=[told(gpt, "open")]).status_code == 200
    assert not BreakerTransition.objects.exists()


def test_it_knows_since_when_a_worker_counts_alone(prod: Any, replica_of: Any) -> None:
    replica = replica_of(prod)
    replica.sync(counters="shared")
    replica.sync(counters="local")
    since = ReplicaWorker.objects.get().counters_since
    replica.sync(counters="local")
    worker = ReplicaWorker.objects.get()
    assert (worker.counters, worker.counters_since) == ("local", since)
    replica.sync()  # an older replica does not say
    assert ReplicaWorker.objects.get().counters == ""
    assert replica.sync(counters="sometimes").status_code == 400


def test_it_knows_since_when_a_worker_is_unwell(prod: Any, replica_of: Any) -> None:
    replica = replica_of(prod)
    replica.sync()
    assert ReplicaWorker.objects.get().unwell_since is None
    replica.sync(healthy=False, reasons=["redis down"])
    since = ReplicaWorker.objects.get().unwell_since
    replica.sync(healthy=False, reasons=["redis down", "spool full"])
    assert ReplicaWorker.objects.get().unwell_since == since is not None
    replica.sync()
    assert ReplicaWorker.objects.get().unwell_since is None


def test_an_order_travels_with_the_next_policies(
    prod: Any, gpt: Any, replica_of: Any, people: Any
) -> None:
    replica = replica_of(prod)
    builders.key(people.owner, environment=prod)
    known = replica.sync().json()["policy_version"]
    first = breaker_order(actor=people.admin, deployment=gpt, action="open", reason="maintenance")
    second = breaker_order(actor=people.admin, deployment=gpt, action="close", reason="done")
    assert replica.sync().json()["policy_version"] == known + 2
    feed = replica.get(f"policies?since={known}").json()
    assert not feed["full"]
    assert feed["breaker_orders"] == [
        {"id": second.pk, "deployment": str(gpt.pk), "action": "close"}
    ]
    assert second.pk > first.pk
    assert replica.get("policies?since=0").json()["breaker_orders"] == feed["breaker_orders"]


def test_orders_of_other_environments_do_not_travel(
    prod: Any, gpt: Any, replica_of: Any, people: Any
) -> None:
    breaker_order(actor=people.admin, deployment=gpt, action="open", reason="maintenance")
    dev = replica_of(builders.environment("dev"))
    assert dev.get("policies?since=0").json()["breaker_orders"] == []


def test_an_order_is_audited(gpt: Any, people: Any) -> None:
    breaker_order(actor=people.admin, deployment=gpt, action="reset", reason="  new   quota ")
    event = AuditEvent.objects.get(action="breaker.reset")
    assert (event.actor, event.target_id) == (people.admin, str(gpt.pk))
    assert event.changes == {"reason": [None, "new quota"]}


@pytest.mark.parametrize(
    ("action", "reason", "field"),
    [("explode", "x", "action"), ("open", "  ", "reason"), ("open", "x" * 301, "reason")],
)
def test_an_order_needs_action_and_reason(
    gpt: Any, people: Any, action: str, reason: str, field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        breaker_order(actor=people.admin, deployment=gpt, action=action, reason=reason)
    assert refused.value.field == field


def test_an_order_is_awaited_until_a_worker_tells_of_it(
    prod: Any, gpt: Any, replica_of: Any, people: Any
) -> None:
    assert not breaker_of(gpt).awaited
    breaker_order(actor=people.admin, deployment=gpt, action="open", reason="maintenance")
    assert breaker_of(gpt).awaited
    replica_of(prod).sync(breaker_transitions=[told(gpt, "open", reason="by hand")])
    breaker = breaker_of(gpt)
    assert (breaker.state, breaker.awaited, breaker.held_open) == ("open", False, True)
    assert breaker.tries_at is None


def test_an_environment_without_breakers_has_none(prod: Any, gpt: Any) -> None:
    prod.breaker_enabled = False
    prod.save()
    gpt.refresh_from_db()
    assert breaker_of(gpt).state == "off"


def test_old_transitions_go_but_each_present_state_stays(
    prod: Any, gpt: Any, replica_of: Any
) -> None:
    month = timedelta(days=31).total_seconds()
    gone = builders.deployment(environment=prod, model=gpt.model)
    entries = [
        told(gpt, "open", ago=month + 60),
        told(gpt, "closed", generation=2, ago=month),
        told(gone, "open", ago=month),
    ]
    replica_of(prod).sync(breaker_transitions=entries)
    gone_id = gone.pk
    gone.delete()
    assert transitions_forget(now=datetime.now(UTC)) == 2
    assert states_of([gpt.pk, gone_id]) == {gpt.pk: "closed"}
