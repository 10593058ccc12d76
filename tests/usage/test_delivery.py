"""`POST /fleet/v1/usage`: who may deliver, and what is refused."""

import gzip
import json
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client

from gateway_admin.fleet.models import Replica
from gateway_admin.fleet.services import fleet_identity, open_token
from gateway_admin.usage.models import UsageEvent
from tests import builders
from tests.usage.ledger import usage_event

pytestmark = pytest.mark.django_db


@pytest.fixture
def replica() -> Replica:
    return Replica.objects.create(
        environment=builders.environment(), hostname="replica-1", version="1"
    )


def deliver(body: Any, *, token: str | None = None, packed: bool = False) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token or token_of('prod')}"}
    if packed:
        content, headers["Content-Encoding"] = gzip.compress(content), "gzip"
    return Client().post(
        "/fleet/v1/usage", content, content_type="application/json", headers=headers
    )


def token_of(slug: str) -> str:
    return open_token(fleet_identity(builders.environment(slug)))


def batch(replica: Replica, *events: Any) -> dict[str, Any]:
    return {"replica_id": str(replica.pk), "batch_id": str(uuid4()), "events": list(events)}


@pytest.mark.parametrize("packed", [False, True])
def test_it_takes_a_batch_and_knows_it_again(replica: Replica, packed: bool) -> None:
    body = batch(replica, usage_event(), usage_event(status="odd"))
    first, again = deliver(body, packed=packed), deliver(body, packed=packed)
    assert first.status_code == again.status_code == 200
    assert (first.json()["accepted"], first.json()["duplicates"]) == (1, 0)
    assert first.json()["refused"][0]["reason"] == "unknown status 'odd'"
    assert (again.json()["accepted"], again.json()["duplicates"]) == (0, 1)
    assert UsageEvent.objects.get().replica_id == replica.pk


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"events": 7}', b'{"events": []}'])
def test_it_refuses_what_is_no_batch(replica: Replica, body: bytes) -> None:
    assert deliver(body).status_code == 400


def test_it_refuses_a_stranger(replica: Replica) -> None:
    assert deliver(batch(replica, usage_event()), token="wrong").status_code == 401


def test_it_refuses_a_replica_of_another_environment(replica: Replica) -> None:
    answer = deliver(batch(replica, usage_event()), token=token_of("dev"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "unknown_replica")
    assert not UsageEvent.objects.exists()


def test_it_refuses_too_many_events(replica: Replica) -> None:
    assert deliver(batch(replica, *([{}] * 5_001))).status_code == 413


def test_it_refuses_too_many_bytes(replica: Replica) -> None:
    assert deliver(b" " * (16 * 1024 * 1024 + 1)).status_code == 413
    assert deliver(b" " * (16 * 1024 * 1024 + 1), packed=True).status_code == 413
