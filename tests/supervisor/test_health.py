"""`/livez`, `/readyz` and `/metrics` of the web process."""

import pytest
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client

from gateway_admin.supervisor import health


@pytest.fixture(autouse=True)
def unknown_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health._tables, "complete", False)


def test_livez_needs_nothing(client: Client) -> None:
    answer = client.get("/livez", headers={"host": "10.0.0.7"})
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok"}


def test_readyz_names_each_part(client: Client, db: None) -> None:
    answer = client.get("/readyz", headers={"host": "10.0.0.7"})
    assert answer.status_code == 200
    assert answer.json()["checks"] == {"database": "ok", "redis": "ok", "migrations": "ok"}


def test_readyz_names_a_pending_migration(client: Client, db: None) -> None:
    [(app, newest)] = MigrationLoader(connection).graph.leaf_nodes("keys")
    MigrationRecorder(connection).record_unapplied(app, newest)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert f"keys.{newest}" in answer.json()["checks"]["migrations"]


def test_readyz_names_an_unreachable_redis_and_stays_in_service(
    client: Client, db: None, settings: object
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"  # type: ignore[attr-defined]
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert answer.json()["checks"]["redis"] == "Redis does not answer"
    assert answer.json()["checks"]["database"] == "ok"


def test_metrics_are_for_this_machine(client: Client, db: None) -> None:
    assert "django_http_requests_total_by_method" in client.get("/metrics").content.decode()
    assert client.get("/metrics", REMOTE_ADDR="192.0.2.1").status_code == 403
    through_a_proxy = {"x-forwarded-for": "192.0.2.1"}
    assert client.get("/metrics", headers=through_a_proxy).status_code == 403


def test_metrics_with_a_token(client: Client, db: None, settings: object) -> None:
    settings.METRICS_TOKEN = "sesame"  # type: ignore[attr-defined]
    assert client.get("/metrics").status_code == 403
    wrong = {"authorization": "Bearer sesam"}
    assert client.get("/metrics", headers=wrong).status_code == 403
    right = {"authorization": "Bearer sesame"}
    assert client.get("/metrics", headers=right, REMOTE_ADDR="192.0.2.1").status_code == 200
