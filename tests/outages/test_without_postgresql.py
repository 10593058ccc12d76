"""The control plane while PostgreSQL is away: 503 with the reason, never a stack trace."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from gateway_admin.fleet.services import fleet_identity, open_token
from tests import builders

pytestmark = pytest.mark.django_db(transaction=True)

PAGES = ["/", "/deployments/", "/breakers/", "/replicas/", "/publish/", "/keys/", "/account/login/"]


@pytest.fixture
def visitors(people: Any, client_of: Any, api_of: Any) -> dict[str, Client]:
    """Somebody signed in, a program, a replica: all were there before the outage."""
    token = open_token(fleet_identity(builders.environment("prod")))
    visitors = {
        "person": client_of(people.admin),
        "stranger": Client(),
        "program": api_of(people.admin),
        "replica": Client(headers={"authorization": f"Bearer {token}"}),
    }
    for client in visitors.values():
        client.raise_request_exception = False
    return visitors


@pytest.fixture
def database_away(visitors: Any) -> Iterator[None]:
    """Nobody listens at the address of the database."""
    port = connection.settings_dict["PORT"]
    connection.close()
    connection.settings_dict["PORT"] = "1"
    yield
    connection.close()
    connection.settings_dict["PORT"] = port


def assert_unavailable(answer: Any, path: str) -> None:
    body = answer.content.decode()
    assert answer.status_code == 503, path
    assert answer.headers["Retry-After"], path
    assert "Traceback" not in body, path
    assert "connection to server" not in body, path


@pytest.mark.parametrize("path", PAGES)
def test_pages_say_what_is_wrong(visitors: Any, database_away: None, path: str) -> None:
    answer = visitors["person"].get(path)
    assert_unavailable(answer, path)
    assert "database" in answer.content.decode().lower()


def test_nobody_is_taken_for_a_stranger(visitors: Any, database_away: None) -> None:
    """An outage is no reason to ask for the password again, nor for 401."""
    assert_unavailable(visitors["person"].get("/keys/", headers={"HX-Request": "true"}), "htmx")
    api = visitors["program"].get("/api/v1/deployments/")
    assert_unavailable(api, "api")
    assert api.json()["errors"][0]["code"] == "unavailable"


@pytest.mark.parametrize(
    ("method", "path"),
    [("post", "sync"), ("get", "policies?since=0"), ("get", "revisions/1"), ("post", "usage")],
)
def test_replicas_are_told_to_come_back(
    visitors: Any, database_away: None, method: str, path: str
) -> None:
    call = getattr(visitors["replica"], method)
    answer = call(f"/fleet/v1/{path}", *(["{}"] if method == "post" else []),
                  content_type="application/json")  # fmt: skip
    assert_unavailable(answer, path)
    assert "json" in answer.headers["Content-Type"]


def test_probes_tell_the_two_apart(visitors: Any, database_away: None) -> None:
    assert visitors["stranger"].get("/livez").status_code == 200
    assert visitors["stranger"].get("/metrics").status_code == 200
    ready = visitors["stranger"].get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["checks"]["database"] == "PostgreSQL does not answer"
