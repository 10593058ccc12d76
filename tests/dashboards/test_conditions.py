"""The overview says in plain words what is not well, and stops when it is."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from django.utils import timezone

from gateway_admin.catalog.models import Credential, Deployment, Environment
from gateway_admin.fleet.models import (
    BackgroundSign,
    BreakerTransition,
    ReplicaWorker,
    Revision,
)
from gateway_admin.fleet.services import fleet_identity, open_token, revision_publish
from gateway_admin.fleet.tasks import forget_silent_replicas
from gateway_admin.lib import redis_sight
from tests import builders
from tests.dashboards.conftest import Story
from tests.fleet.conftest import Replica
from tests.people import People

pytestmark = pytest.mark.django_db


@pytest.fixture
def prod(story: Story) -> Environment:
    return builders.environment("prod")


@pytest.fixture
def replica(prod: Environment, people: People) -> Replica:
    """A worker that runs what is published."""
    revision_publish(environment=prod, actor=people.admin)
    BackgroundSign.objects.create(pk=BackgroundSign.WORKER)
    token = open_token(fleet_identity(prod))
    replica = Replica(Client(headers={"authorization": f"Bearer {token}"}), str(uuid4()))
    tell(replica)
    return replica


@pytest.fixture
def overview(client_of: Any, people: People) -> Any:
    client = client_of(people.admin)

    def read(**headers: str) -> str:
        return " ".join(client.get("/", headers=headers).content.decode().split())

    return read


def tell(replica: Replica, **fields: Any) -> None:
    counted = fields.get("counters", "shared") == "shared"
    reasons = [] if counted else ["budgets and limits are counted by shares since x: no answer"]
    values = {"applied_revision": 1, "counters": "shared", "healthy": counted, "reasons": reasons}
    values |= fields
    assert replica.sync(**values).status_code == 200


def trip(deployment: Deployment, state: str = "open", reason: str = "") -> None:
    BreakerTransition.objects.create(
        environment=deployment.environment,
        deployment_id=deployment.pk,
        generation=1,
        state=state,
        at=timezone.now(),
        reason=reason,
    )


def test_nothing_is_said_while_all_is_well(replica: Replica, overview: Any) -> None:
    assert "gw-conditions" not in overview()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"counters": "local"}, "Each worker counts budgets and limits alone"),
        ({"counters": "unbuilt"}, "counters are being built anew"),
        (
            {"healthy": False, "reasons": ["usage spool cannot be written: No space left"]},
            "Replica gw-1 cannot write usage to its disk",
        ),
        (
            {"healthy": False, "reasons": ["last good state cannot be written: No space left"]},
            "Replica gw-1 cannot save what it serves",
        ),
        (
            {"healthy": False, "reasons": ["512 usage events wait since 2026-11-20T12:00:00Z"]},
            "Replica gw-1 has usage waiting",
        ),
        ({"dropped_events": 7}, "7 usage events were lost"),
        ({"healthy": False, "reasons": ["the moon is full"]}, "Replica gw-1 is not well"),
        (
            {
                "rejected_revision": 1,
                "rejected_error": "no such provider",
                "healthy": False,
                "reasons": ["revision 1 rejected: no such provider"],
            },
            "Replica gw-1 rejects what was published",
        ),
    ],
)  # fmt: skip
def test_what_a_worker_tells(replica: Replica, overview: Any, fields: Any, words: str) -> None:
    tell(replica, **fields)
    page = overview()
    assert words in page
    assert page.count('class="gw-alert') == 1
    tell(replica)
    assert "gw-conditions" not in overview()


def test_refusing_instead_of_sharing_is_said_as_such(
    prod: Environment, replica: Replica, overview: Any
) -> None:
    Environment.objects.filter(pk=prod.pk).update(on_counter_outage="refuse")
    tell(replica, counters="local")
    page = overview()
    assert "Requests with a budget or limit are refused" in page
    assert "1 of 1 workers cannot reach the shared counters" in page


def test_each_cause_is_told_once(replica: Replica, overview: Any) -> None:
    """Redis is behind all of the worker's words."""
    reasons = [
        "redis down since 2026-11-20T12:00:00Z: changes by polling",
        "budgets and limits are counted by shares since 2026-11-20T12:00:00Z: no answer",
    ]
    tell(replica, counters="local", healthy=False, reasons=reasons)
    assert overview().count("gw-alert-warning") == 1


def test_a_replica_without_redis_is_well(replica: Replica, overview: Any) -> None:
    tell(replica, counters="local", healthy=True, reasons=[])
    assert "gw-conditions" not in overview()


def test_silent_replicas(replica: Replica, overview: Any) -> None:
    other = Replica(replica.client, str(uuid4()))
    tell(other, hostname="gw-2")
    long_ago = timezone.now() - timedelta(minutes=10)
    ReplicaWorker.objects.filter(replica_id=other.id).update(last_seen_at=long_ago)
    assert "Replica gw-2 does not report" in overview()
    ReplicaWorker.objects.update(last_seen_at=long_ago)
    page = overview()
    assert "No replica reports" in page
    assert "does not report" not in page
    tell(replica)
    tell(other, hostname="gw-2")
    assert "gw-conditions" not in overview()


def test_a_worker_of_several_that_is_gone(replica: Replica, overview: Any) -> None:
    tell(replica, worker=0, workers=2)
    tell(replica, worker=1, workers=2, pid=4712)
    ReplicaWorker.objects.filter(slot=1).update(last_seen_at=timezone.now() - timedelta(minutes=1))
    assert "1 of 2 workers of gw-1 do not report" in overview()


def test_open_breakers(prod: Environment, replica: Replica, story: Story, overview: Any) -> None:
    spare = builders.deployment(
        environment=prod, name="gpt-4o in Asia", model=story.deployment.model
    )
    trip(story.deployment, reason="5 failures in a row: timeout")
    page = overview()
    assert "The breaker of gpt-4o in Europe is open" in page
    assert "5 failures in a row: timeout" in page
    trip(spare)
    page = overview()
    assert "No deployment of gpt-4o takes calls" in page
    assert "The breaker of" not in page
    trip(story.deployment, "half_open")
    trip(spare, "closed")
    assert "gw-conditions" not in overview()


def test_a_refused_credential_links_to_its_page(
    replica: Replica, story: Story, overview: Any
) -> None:
    credential = Credential.objects.get(pk=story.deployment.credential_id)
    now = timezone.now()
    credential.last_error_at, credential.last_error_class = now, "authentication"
    credential.save()
    page = overview()
    assert f"refuses the credential {credential.name}" in page
    assert f'href="/credentials/{credential.pk}/"' in page
    credential.last_success_at = now + timedelta(seconds=1)
    credential.save()
    assert "gw-conditions" not in overview()


def test_background_work_that_stands_still(replica: Replica, overview: Any) -> None:
    BackgroundSign.objects.update(at=timezone.now() - timedelta(minutes=4))
    assert "Background work stands still" in overview()
    forget_silent_replicas()
    assert "gw-conditions" not in overview()


def test_background_work_that_never_began(
    prod: Environment, replica: Replica, overview: Any
) -> None:
    BackgroundSign.objects.all().delete()
    assert "gw-conditions" not in overview()  # it may still begin
    active = Revision.objects.get()
    Revision.objects.create(
        environment=builders.environment("dev"),
        number=1,
        digest="",
        document=active.document,
        change_count=0,
        published_at=timezone.now() - timedelta(minutes=10),
    )
    assert "Background work stands still" in overview()


def test_redis_as_this_site_sees_it(replica: Replica, overview: Any, settings: Any) -> None:
    there = settings.REDIS_URL
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    redis_sight.look_again()
    assert "Redis does not answer this site" in overview()
    settings.REDIS_URL = there
    redis_sight.look_again()
    assert "gw-conditions" not in overview()


def test_only_news_is_read_aloud(
    replica: Replica, overview: Any, client_of: Any, people: Any
) -> None:
    client = client_of(people.admin)

    def refresh(was: str) -> str:
        answer = client.get(f"/?was={was}", headers={"HX-Request": "true"})
        return " ".join(answer.content.decode().split())

    assert "data-announce" not in refresh("none")
    tell(replica, counters="local")
    page = refresh("none")
    assert 'data-announce="Not well: Each worker counts budgets and limits alone"' in page
    shown = page.split("/?was=")[1].split('"')[0]
    assert "data-announce" not in refresh(shown)
    tell(replica)
    assert 'data-announce="Everything is well again"' in refresh(shown)


@pytest.mark.parametrize("name", ["owner", "teammate", "outsider", "finance"])
def test_conditions_are_for_administrators(
    replica: Replica, client_of: Any, people: People, name: str
) -> None:
    tell(replica, counters="local", hostname="secret-host")
    page = client_of(people.everybody()[name]).get("/").content.decode()
    assert "gw-conditions" not in page
    assert "secret-host" not in page
