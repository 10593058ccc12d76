"""Counters as machines and operators meet them: the endpoint, the command, the metrics."""

from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from gateway_admin.fleet.services import fleet_identity, open_token
from gateway_admin.usage.counter_health import counters_health
from gateway_admin.usage.counters import counters_ensure
from gateway_admin.usage.models import CounterState, CounterUpdate
from proxy.contract import counters
from tests import builders
from tests.people import People
from tests.usage.counting import Fleet, budget, redis_away
from tests.usage.ledger import take_in, usage_event

pytestmark = pytest.mark.django_db(transaction=True)


def ask(token: str | None = None) -> Any:
    token = token or open_token(fleet_identity(builders.environment()))
    return Client().post("/fleet/v1/counters", headers={"Authorization": f"Bearer {token}"})


def metric(name: str, environment: str = "prod") -> float | None:
    text = Client().get("/metrics").content.decode()
    for line in text.splitlines():
        if line.startswith(f'{name}{{environment="{environment}"}}'):
            return float(line.rpartition(" ")[2])
    return None


def test_a_worker_has_the_counters_built_once() -> None:
    row, fleet = budget(), Fleet()
    take_in([usage_event(cost="2")])
    first = ask()
    assert first.status_code == 200
    epoch = first.json()["epoch"]
    assert fleet.redis.get(counters.epoch_key("prod")) == epoch
    assert fleet.read(row).spent == 2 * 10**9
    assert ask().json() == {"epoch": epoch}


def test_only_the_fleet_may_ask_and_without_redis_it_is_told_so(settings: Any) -> None:
    assert ask("gwf-wrong").status_code == 401
    assert Client().get("/fleet/v1/counters").status_code in (401, 405)
    with redis_away(settings):
        answer = ask()
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "counters_away"


@pytest.mark.parametrize("role", ["admin", "finance", "owner", "teammate", "outsider"])
def test_no_person_may_ask(people: People, client_of: Any, role: str) -> None:
    assert client_of(getattr(people, role)).post("/fleet/v1/counters").status_code == 401
    assert CounterState.objects.count() == 0


def test_the_command_compares_corrects_and_builds() -> None:
    def run(*options: str) -> str:
        out = StringIO()
        call_command("rebuild_counters", "--environment", "prod", *options, stdout=out)
        return out.getvalue().strip()

    row, fleet = budget(), Fleet()
    assert run() == "prod: built 0 counters from the ledger"
    take_in([usage_event(cost="1.5")])
    assert run() == "prod: corrected 1 of 1 counters, $1.500000000 in all"
    assert run() == "prod: 1 counters, all as the ledger says"
    assert run("--anew") == "prod: built 1 counters from the ledger"
    assert fleet.read(row).spent == 15 * 10**8


def test_the_command_says_what_is_wrong(settings: Any) -> None:
    with pytest.raises(CommandError, match="no environment 'nowhere'"):
        call_command("rebuild_counters", "--environment", "nowhere")
    with redis_away(settings), pytest.raises(CommandError, match="Nothing is lost"):
        call_command("rebuild_counters")


def test_metrics_tell_age_drift_and_what_waits() -> None:
    assert metric("gateway_counters_epoch_age_seconds") is None
    fleet = Fleet()
    counters_ensure(environment=fleet.environment)
    built = timezone.now() - timedelta(hours=1)
    CounterState.objects.update(built_at=built, drift_nano=1_500_000_000, abandoned=3)
    CounterUpdate.objects.create(environment_id=fleet.environment.pk, created_at=built, deltas="[]")
    assert (metric("gateway_counters_epoch_age_seconds") or 0) >= 3_600
    assert metric("gateway_counters_drift_dollars") == 1.5
    assert metric("gateway_counters_abandoned_holds") == 3
    assert metric("gateway_counters_waiting_updates") == 1
    assert (metric("gateway_counters_waiting_age_seconds") or 0) >= 3_600


def test_health_is_stale_when_spend_waits_or_nobody_checked() -> None:
    fleet = Fleet()
    counters_ensure(environment=fleet.environment)

    def stale() -> bool:
        return next(one for one in counters_health() if one.environment.slug == "prod").is_stale()

    assert not stale()
    long_ago = timezone.now() - timedelta(hours=1)
    waiting = CounterUpdate.objects.create(
        environment_id=fleet.environment.pk, created_at=long_ago, deltas="[]"
    )
    assert stale()
    waiting.delete()
    assert not stale()
    CounterState.objects.update(checked_at=long_ago)
    assert stale()
