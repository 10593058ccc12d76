"""The publish and replica pages over HTTP."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from gateway_admin.accounts.models import AuditEvent
from gateway_admin.catalog.models import Deployment
from gateway_admin.fleet.models import ReplicaWorker, Revision
from gateway_admin.fleet.queries import draft_state
from gateway_admin.fleet.services import fleet_identity, open_key, open_token, revision_publish
from tests import builders

pytestmark = pytest.mark.django_db

PAGES = [
    "/publish/",
    "/publish/pending/",
    "/publish/prod/1/",
    "/publish/prod/1/rollout/",
    "/publish/prod/1/rollback/",
    "/replicas/",
]
POSTS = ["/publish/", "/publish/prod/1/rollback/", "/replicas/identity/", "/replicas/token/rotate/"]


@pytest.fixture
def published(prod: Any, gpt: Any, people: Any) -> Any:
    return revision_publish(environment=prod, actor=people.admin, comment="Launch")


@pytest.fixture
def admin(client_of: Any, people: Any) -> Any:
    return client_of(people.admin)


def submit(client: Any, environment: Any, **fields: Any) -> Any:
    digest = draft_state(environment).digest
    return client.post("/publish/", {"comment": "", "digest": digest, **fields}, follow=True)


@pytest.mark.parametrize("name", ["owner", "teammate", "outsider", "finance"])
def test_only_administrators_see_and_publish(
    published: Any, people: Any, client_of: Any, name: Any
) -> None:
    client = client_of(people.everybody()[name])
    assert {client.get(path).status_code for path in PAGES} == {403}
    assert {client.post(path).status_code for path in POSTS} == {403}
    assert Revision.objects.count() == 1


def test_administrators_see_every_page(published: Any, admin: Any) -> None:
    assert {admin.get(path).status_code for path in PAGES} == {200}


def test_strangers_are_sent_to_the_login(published: Any, client: Any) -> None:
    assert {client.get(path).status_code for path in PAGES} == {302}


def test_the_draft_is_shown_before_it_is_published(prod: Any, gpt: Any, admin: Any) -> None:
    page = admin.get("/publish/").content.decode()
    assert "Publish 3 changes" in page
    assert "serves gpt-4o with openai/gpt-4o, $2.50 in / $10.00 out per 1M tokens" in page


def test_it_publishes_with_a_comment(prod: Any, gpt: Any, admin: Any, people: Any) -> None:
    page = submit(admin, prod, comment="Launch").content.decode()
    assert Revision.objects.get().comment == "Launch"
    assert "Nothing to publish" in page
    assert "No replica reports at the moment" in page


def test_a_draft_that_changed_meanwhile_is_shown_again(prod: Any, gpt: Any, admin: Any) -> None:
    before = draft_state(prod).digest
    builders.deployment(environment=prod)
    answer = submit(admin, prod, digest=before)
    assert answer.status_code == 409
    assert "The draft changed while you read it" in answer.content.decode()
    assert not Revision.objects.exists()


def test_a_comment_that_is_too_long_comes_back_at_the_field(
    prod: Any, gpt: Any, admin: Any
) -> None:
    answer = submit(admin, prod, comment="x" * 301)
    assert answer.status_code == 422
    assert "at most 300" in answer.content.decode()


def test_what_is_left_out_is_said(prod: Any, gpt: Any, admin: Any) -> None:
    builders.alias("default", builders.model("unserved"), environment=prod)
    page = admin.get("/publish/").content.decode()
    assert "Alias default is left out: no deployment serves unserved." in page


def test_the_rollout_counts_workers(published: Any, prod: Any, admin: Any, replica_of: Any) -> None:
    replica = replica_of(prod)
    replica.sync(worker=0, workers=2, applied_revision=1)
    replica.sync(worker=1, workers=2)
    page = admin.get("/publish/prod/1/rollout/").content.decode()
    assert "In force on 1 of 2 workers" in page
    assert "every 1s" in page
    replica.sync(worker=1, workers=2, applied_revision=1)
    page = admin.get("/publish/prod/1/rollout/").content.decode()
    assert "In force on 2 of 2 workers" in page
    assert "every 5s" in page


def test_a_rejection_names_the_deployment_with_a_link(
    published: Any, prod: Any, gpt: Any, admin: Any, replica_of: Any
) -> None:
    replica_of(prod).sync(
        rejected_revision=1,
        rejected_error="deployment 'openai-gpt-4o': no such provider",
        rejected_deployment=str(gpt.pk),
    )
    page = admin.get("/publish/").content.decode()
    assert "Rejected by 1 of 1 worker" in page
    assert "Rejected by replica gw-1" in page
    assert f'href="/deployments/{gpt.pk}/"' in page


def test_news_alone_is_announced(published: Any, prod: Any, admin: Any, replica_of: Any) -> None:
    replica_of(prod).sync(applied_revision=1)
    first = admin.get("/publish/prod/1/rollout/?was=publishing").content.decode()
    again = admin.get("/publish/prod/1/rollout/?was=in_force").content.decode()
    assert "data-announce" in first
    assert "data-announce" not in again


def test_the_history_says_who_and_why(
    published: Any, prod: Any, gpt: Any, admin: Any, people: Any
) -> None:
    page = admin.get("/publish/").content.decode()
    assert "Launch" in page
    assert "Admin" in page


def test_a_revision_shows_what_it_changed(
    published: Any, prod: Any, gpt: Any, admin: Any, people: Any
) -> None:
    Deployment.objects.filter(pk=gpt.pk).update(rpm=100)
    revision_publish(environment=prod, actor=people.admin)
    page = admin.get("/publish/prod/2/").content.decode()
    assert "requests per minute" in page
    assert admin.get("/publish/prod/3/").status_code == 404


def test_a_revision_of_another_environment_switches_the_frame(published: Any, admin: Any) -> None:
    admin.get("/publish/?environment=dev")
    answer = admin.get("/publish/prod/1/", follow=True)
    assert answer.wsgi_request.environment.slug == "prod"


def test_rolling_back_says_what_changes_and_asks_for_the_name(
    published: Any, prod: Any, gpt: Any, admin: Any, people: Any
) -> None:
    Deployment.objects.filter(pk=gpt.pk).update(rpm=100)
    revision_publish(environment=prod, actor=people.admin)
    page = admin.get("/publish/prod/1/rollback/").content.decode()
    assert "<del>100</del>" in page
    assert admin.post("/publish/prod/1/rollback/", {"confirm": "dev"}).status_code == 422
    answer = admin.post("/publish/prod/1/rollback/", {"confirm": "prod"}, follow=True)
    assert "Revision 3 is published with the content of 1." in answer.content.decode()


def test_a_refused_roll_back_says_why(published: Any, admin: Any) -> None:
    answer = admin.post("/publish/prod/1/rollback/", {"confirm": "prod"})
    assert answer.status_code == 422
    assert "is active" in answer.content.decode()


def test_the_pending_count_of_the_sidebar(prod: Any, gpt: Any, admin: Any, people: Any) -> None:
    assert ">3<" in admin.get("/publish/pending/").content.decode()
    revision_publish(environment=prod, actor=people.admin)
    assert admin.get("/publish/pending/").content.decode().strip() == ""


def test_replicas_are_listed_with_their_state(
    published: Any, prod: Any, admin: Any, replica_of: Any
) -> None:
    replica_of(prod).sync(applied_revision=1, spool_events=12_345, hostname="gw-good")
    replica_of(prod).sync(healthy=False, reasons=["spool is full"], hostname="gw-ill")
    page = admin.get("/replicas/").content.decode()
    for words in ("gw-good", "Healthy", "12,345", "gw-ill", "Behind", "spool is full"):
        assert words in page


@pytest.mark.parametrize(("silence_s", "state"), [(5, "Healthy"), (60, "Late"), (400, "Silent")])
def test_silence_shows(
    published: Any, prod: Any, admin: Any, replica_of: Any, silence_s: Any, state: Any
) -> None:
    replica_of(prod).sync(applied_revision=1)
    ReplicaWorker.objects.update(last_seen_at=timezone.now() - timedelta(seconds=silence_s))
    assert state in admin.get("/replicas/").content.decode()


def test_another_environments_replicas_are_not_listed(
    prod: Any, admin: Any, replica_of: Any
) -> None:
    replica_of(builders.environment("dev")).sync(hostname="gw-of-dev")
    assert "gw-of-dev" not in admin.get("/replicas/").content.decode()


def test_the_token_is_shown_on_demand_only_and_audited(prod: Any, admin: Any, people: Any) -> None:
    identity = fleet_identity(prod)
    assert open_token(identity) not in admin.get("/replicas/").content.decode()
    answer = admin.post("/replicas/identity/")
    assert open_token(identity) in answer.content.decode()
    assert "no-store" in answer.headers["Cache-Control"]
    event = AuditEvent.objects.get(action="fleet_token.reveal")
    assert (event.actor, event.environment) == (people.admin, "prod")
    assert admin.get("/replicas/identity/").status_code == 405


def test_rotating_the_token_keeps_the_fleet_key(prod: Any, admin: Any) -> None:
    before = fleet_identity(prod)
    token, key = open_token(before), open_key(before)
    admin.post("/replicas/token/rotate/", {"previous": "refuse"})
    after = fleet_identity(prod)
    assert open_token(after) != token
    assert open_key(after) == key


@pytest.mark.parametrize("path", ["/publish/", "/replicas/"])
def test_the_number_of_queries_does_not_grow(
    published: Any,
    prod: Any,
    admin: Any,
    people: Any,
    replica_of: Any,
    path: Any,
    django_assert_max_num_queries: Any,
) -> None:
    for number in range(4):
        gpt = builders.deployment(environment=prod)
        builders.chain(gpt.model, [gpt.model], environment=prod)
        revision_publish(environment=prod, actor=people.admin)
        replica_of(prod).sync(hostname=f"gw-{number}", applied_revision=1)
    with django_assert_max_num_queries(20):
        admin.get(path)


def test_replicas_tell_how_each_worker_counts(prod: Any, admin: Any, replica_of: Any) -> None:
    replica = replica_of(prod)
    for slot, mode in enumerate(["shared", "local", "local"]):
        well = mode == "shared"
        replica.sync(worker=slot, workers=3, pid=slot + 1, counters=mode, healthy=well)
    page = " ".join(admin.get("/replicas/").content.decode().split())
    assert "Alone" in page
    assert "workers 1 and 2 since" in page
    assert "Together" in page
    assert "worker 0" in page
    replica.sync(worker=1, workers=3, pid=2)
    assert "Not told" in admin.get("/replicas/").content.decode()
    replica.sync(worker=0, workers=1, counters="local")
    ReplicaWorker.objects.exclude(slot=0).delete()
    assert "This replica was given no Redis" in admin.get("/replicas/").content.decode()
