"""The control plane while Redis is away: pages, sign-in, publishing and ingest go on."""

import re
import time
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
import redis
from django.core.cache import cache
from django.test import Client

from gateway_admin.fleet.models import Replica, Revision
from gateway_admin.fleet.services import fleet_identity, open_token
from gateway_admin.keys.models import VirtualKey
from gateway_admin.usage.models import UsageEvent
from tests import builders
from tests.outages.conftest import PrivateValkey
from tests.people import PASSWORD, People
from tests.usage.ledger import usage_event

pytestmark = pytest.mark.django_db(transaction=True)

PAGES = [
    "/",
    "/requests/",
    "/latency/",
    "/breakers/",
    "/cost/",
    "/models/",
    "/deployments/",
    "/credentials/",
    "/teams/",
    "/keys/",
    "/publish/",
    "/publish/pending/",
    "/replicas/",
    "/settings/",
    "/audit/",
]


@pytest.fixture
def deployment(people: People) -> Any:
    return builders.deployment(model=builders.model("gpt-4o"), name="gpt-4o in Europe")


@pytest.fixture
def admin(client_of: Any, people: People) -> Client:
    client: Client = client_of(people.admin)
    return client


def sign_in(email: str, password: str = PASSWORD) -> Any:
    client = Client()
    page = client.get("/account/login/")
    field = re.search(r'name="(login|email)"', page.content.decode())
    assert field
    return client.post("/account/login/", {field.group(1): email, "password": password})


def test_every_page_opens(redis_server: PrivateValkey, admin: Client, deployment: Any) -> None:
    redis_server.stop()
    assert {path: admin.get(path).status_code for path in PAGES} == dict.fromkeys(PAGES, 200)
    detail = admin.get(f"/deployments/{deployment.pk}/")
    assert detail.status_code == 200


def test_people_sign_in(redis_server: PrivateValkey, people: People) -> None:
    redis_server.stop()
    assert sign_in(people.owner.email).status_code == 302
    assert sign_in(people.owner.email, "not the password").status_code == 200


def test_guessing_passwords_is_still_limited(redis_server: PrivateValkey, people: People) -> None:
    redis_server.stop()
    cache.clear()
    answers = [sign_in(people.owner.email, f"guess {number}") for number in range(12)]
    assert "Too many" in answers[-1].content.decode()
    cache.clear()  # this process' own part outlives the test


def test_publishing_and_keys_go_on(
    redis_server: PrivateValkey, admin: Client, people: People, deployment: Any, api_of: Any
) -> None:
    redis_server.stop()
    api = api_of(people.admin)
    assert api.post("/api/v1/environments/prod/publish/").status_code == 201
    assert Revision.objects.filter(environment__slug="prod").count() == 1
    made = api.post(
        "/api/v1/keys/", {"environment": "prod", "name": "made meanwhile"}, format="json"
    )
    assert made.status_code == 201, made.content
    key = VirtualKey.objects.get(name="made meanwhile")
    assert api.post(f"/api/v1/keys/{key.pk}/revoke/").status_code in {200, 204}


def test_ingest_goes_on_and_replicas_learn_by_polling(
    redis_server: PrivateValkey, people: People, deployment: Any, api_of: Any
) -> None:
    token = open_token(fleet_identity(builders.environment("prod")))
    replica = Client(headers={"authorization": f"Bearer {token}"})
    key, _ = builders.key(people.owner, environment=builders.environment("prod"))
    redis_server.stop()
    event = usage_event(
        started_at=datetime.now(UTC).isoformat(),
        key_id=str(key.pk),
        public_id=key.public_id,
        deployment=str(deployment.pk),
        cost="0.01",
    )
    replica_id = str(uuid4())
    Replica.objects.create(pk=replica_id, environment=key.environment, hostname="gw", version="0")
    batch = {"replica_id": replica_id, "batch_id": str(uuid4()), "events": [event]}
    answer = replica.post("/fleet/v1/usage", batch, content_type="application/json")
    assert (answer.status_code, answer.json().get("accepted")) == (200, 1), answer.content
    assert UsageEvent.objects.count() == 1
    api_of(people.admin).post("/api/v1/environments/prod/publish/")
    assert replica.get("/fleet/v1/revisions/1").status_code == 200
    feed = replica.get("/fleet/v1/policies?since=0")
    assert [row["key_id"] for row in feed.json()["keys"]] == [str(key.pk)]


def test_a_test_of_a_deployment_says_that_it_cannot_be_queued(
    redis_server: PrivateValkey, admin: Client, deployment: Any, settings: Any
) -> None:
    from gateway_admin.celery import app

    settings.CELERY_TASK_ALWAYS_EAGER = False
    app._after_fork()  # connections to another broker that earlier tests opened
    eager, app.conf.task_always_eager = app.conf.task_always_eager, False
    broker, app.conf.broker_url = app.conf.broker_url, redis_server.url
    redis_server.stop()
    try:
        page = admin.post(f"/deployments/{deployment.pk}/test/", follow=True)
    finally:
        app.conf.task_always_eager, app.conf.broker_url = eager, broker
        app._after_fork()
    assert page.status_code == 200
    assert "Redis does not answer" in page.content.decode()


def test_it_comes_back_without_a_hand(redis_server: PrivateValkey, admin: Client) -> None:
    redis_server.stop()
    assert admin.get("/publish/pending/").status_code == 200
    redis_server.start()
    deadline = time.monotonic() + 30
    with redis.Redis.from_url(redis_server.url) as client:
        while not client.keys("gateway:cache:*:pending:*"):
            assert time.monotonic() < deadline, "the count is not shared again"
            builders.alias(f"a{time.monotonic_ns()}", builders.model("gpt-4o"))
            assert admin.get("/publish/pending/").status_code == 200
            time.sleep(0.2)
