"""Sign-in, password and two-factor pages in our own layout."""

from typing import Any

import pytest
from django.core import mail
from django.test import Client

from tests.people import PASSWORD

pytestmark = pytest.mark.django_db


def test_it_signs_in_with_the_right_password(people: Any) -> None:
    client = Client()
    response = client.post("/account/login/", {"login": people.owner.email, "password": PASSWORD})
    assert response.status_code == 302
    assert client.session["_auth_user_id"] == str(people.owner.pk)


def test_a_wrong_password_is_told_and_the_address_kept(people: Any) -> None:
    response = Client().post(
        "/account/login/", {"login": people.owner.email, "password": "not it at all"}
    )
    text = response.content.decode()
    assert 'role="alert"' in text
    assert f'value="{people.owner.email}"' in text
    assert "not it at all" not in text


def test_a_lost_password_is_answered_the_same_for_everybody(people: Any) -> None:
    answers = {
        Client().post("/account/password/reset/", {"email": address}, follow=True).content
        for address in (people.owner.email, "nobody@example.com")
    }
    assert len(answers) == 1
    assert people.owner.email in {message.to[0] for message in mail.outbox}


@pytest.mark.parametrize(
    "address",
    ["/account/password/change/", "/account/2fa/", "/account/logout/", "/account/reauthenticate/"],
)
def test_pages_of_the_own_account_open(address: str, people: Any, client_of: Any) -> None:
    for user in people.everybody().values():
        assert client_of(user).get(address).status_code == 200


def test_nobody_signs_up() -> None:
    text = Client().get("/account/signup/").content.decode()
    assert "by invitation" in text
