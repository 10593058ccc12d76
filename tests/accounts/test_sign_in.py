"""Signing in and out is audited, with the address it came from."""

from typing import Any

import pytest
from django.test import RequestFactory

from gateway_admin.accounts import origin
from gateway_admin.accounts.models import AuditEvent
from tests.people import PASSWORD, People

pytestmark = pytest.mark.django_db


def _actions() -> list[str]:
    events = AuditEvent.objects.filter(action__startswith="session.").order_by("id")
    return list(events.values_list("action", flat=True))


def test_in_and_out(people: People, client: Any) -> None:
    data = {"login": "owner@example.com", "password": PASSWORD}
    answer = client.post("/account/login/?next=/keys/", data, REMOTE_ADDR="203.0.113.9")
    assert answer["Location"] == "/keys/"
    client.post("/account/logout/")
    assert _actions() == ["session.sign_in", "session.sign_out"]
    event = AuditEvent.objects.get(action="session.sign_in")
    assert (event.actor, event.ip) == (people.owner, "203.0.113.9")


def test_a_refused_attempt_names_the_person_but_not_the_password(
    people: People, client: Any
) -> None:
    client.post("/account/login/", {"login": "owner@example.com", "password": "wrong-secret"})
    event = AuditEvent.objects.get(action="session.refuse")
    assert event.target_id == str(people.owner.pk)
    assert event.actor is None
    assert "wrong-secret" not in str(event.__dict__)


def test_attempts_on_nobody_are_not_kept(people: People, client: Any) -> None:
    client.post("/account/login/", {"login": "my-password@typo.example", "password": "x"})
    assert _actions() == []


def test_nobody_signs_up(client: Any, db: None) -> None:
    answer = client.get("/account/signup/")
    assert b"password1" not in answer.content


@pytest.mark.parametrize(
    ("proxies", "forwarded", "expected"),
    [
        (0, "198.51.100.1", "10.0.0.1"),
        (1, "198.51.100.1", "198.51.100.1"),
        (1, "6.6.6.6, 198.51.100.1", "198.51.100.1"),
        (2, "198.51.100.1, 10.0.0.2", "198.51.100.1"),
        (2, "", "10.0.0.1"),
        (1, "nonsense", None),
    ],
)
def test_only_trusted_proxies_tell_the_address(
    proxies: int, forwarded: str, expected: str | None, settings: Any
) -> None:
    settings.TRUSTED_PROXIES = proxies
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    request = RequestFactory().get("/", headers=headers, REMOTE_ADDR="10.0.0.1")
    assert origin.client_address(request) == expected
