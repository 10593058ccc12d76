"""One-time links: the first administrator, and people who set a password."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from gateway_admin.accounts import services
from gateway_admin.accounts.models import AuditEvent, SetupLink, User
from gateway_admin.accounts.roles import Role, role_of
from gateway_admin.lib.errors import Conflict
from tests.people import PASSWORD, People

pytestmark = pytest.mark.django_db

FIRST = {"name": "Ada", "email": "Ada@Example.com", "password": PASSWORD}


def test_it_creates_the_administrator_and_signs_in(client: Any) -> None:
    secret = services.setup_link_create()
    page = client.get(f"/setup/{secret}/")
    assert page.status_code == 200
    assert "no-store" in page["Cache-Control"]
    answer = client.post(f"/setup/{secret}/", FIRST)
    assert answer.status_code == 302
    assert answer["Location"] == "/"
    user = User.objects.get()
    assert (user.email, role_of(user)) == ("ada@example.com", Role.ADMIN)
    assert client.get("/people/").status_code == 200
    assert set(AuditEvent.objects.values_list("action", flat=True)) == {
        "user.create",
        "session.sign_in",
    }


def test_it_works_once(client: Any) -> None:
    secret = services.setup_link_create()
    client.post(f"/setup/{secret}/", FIRST)
    client.logout()
    gone = client.post(f"/setup/{secret}/", {**FIRST, "email": "eve@example.com"})
    assert gone.status_code == 410
    assert "Sign in" in gone.content.decode()
    assert User.objects.count() == 1


def test_it_expires_and_says_how_to_get_another(client: Any) -> None:
    secret = services.setup_link_create()
    SetupLink.objects.update(created_at=timezone.now() - timedelta(days=8))
    gone = client.get(f"/setup/{secret}/")
    assert gone.status_code == 410
    assert "prints a new set-up link" in gone.content.decode()


def test_a_newer_link_replaces_it(client: Any) -> None:
    old = services.setup_link_create()
    new = services.setup_link_create()
    assert client.get(f"/setup/{old}/").status_code == 410
    assert client.get(f"/setup/{new}/").status_code == 200


def test_it_is_of_no_use_once_there_is_an_administrator(client: Any) -> None:
    secret = services.setup_link_create()
    services.user_create(actor=None, email="a@example.com", role=Role.ADMIN, password=PASSWORD)
    assert client.get(f"/setup/{secret}/").status_code == 410
    with pytest.raises(Conflict):
        services.setup_complete(secret=secret, **FIRST)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"email": "ada"}, "valid email"),
        ({"name": ""}, "required"),
        ({"password": "short"}, "at least 10"),
        ({"password": "password1234"}, "too common"),
        ({"password": "ada@example.com"}, "too similar"),
    ],
)
def test_wrong_input_stays_on_the_form(change: dict[str, str], message: str, client: Any) -> None:
    secret = services.setup_link_create()
    answer = client.post(f"/setup/{secret}/", {**FIRST, **change})
    assert answer.status_code == 422
    assert message in answer.content.decode()
    assert not User.objects.exists()
    assert client.get(f"/setup/{secret}/").status_code == 200


def test_the_secret_is_not_stored() -> None:
    secret = services.setup_link_create()
    with connection.cursor() as cursor:
        cursor.execute("SELECT row::text FROM accounts_setuplink row")
        assert secret not in str(cursor.fetchall())


class TestOfAPerson:
    def _link(self, people: People, client: Any) -> str:
        page = client.post(f"/people/{people.owner.pk}/link/")
        found = re.search(r"/setup/(\w+)/", page.content.decode())
        assert found
        assert "no-store" in page["Cache-Control"]
        return found[0]

    def test_it_sets_the_password_and_signs_in(
        self, people: People, client_of: Any, client: Any
    ) -> None:
        address = self._link(people, client_of(people.admin))
        values = {"name": "Olga", "password": "another long sentence"}
        assert client.post(address, values).status_code == 302
        people.owner.refresh_from_db()
        assert people.owner.check_password("another long sentence")
        assert people.owner.name == "Olga"
        assert client.get("/keys/").status_code == 200
        assert client.get(address).status_code == 410

    def test_it_ends_other_sessions(self, people: People, client_of: Any, client: Any) -> None:
        before = client_of(people.owner)
        address = self._link(people, client_of(people.admin))
        client.post(address, {"name": "Olga", "password": "another long sentence"})
        assert before.get("/keys/").status_code == 302

    def test_a_second_factor_is_still_asked_for(
        self, people: People, client_of: Any, client: Any
    ) -> None:
        from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret

        TOTP.activate(people.owner, generate_totp_secret())
        address = self._link(people, client_of(people.admin))
        answer = client.post(address, {"name": "Olga", "password": "another long sentence"})
        assert answer["Location"].startswith("/account/login/")
        assert client.get("/keys/").status_code == 302

    def test_deactivation_ends_it(self, people: People, client_of: Any, client: Any) -> None:
        address = self._link(people, client_of(people.admin))
        services.user_deactivate(actor=people.admin, user=people.owner)
        assert client.get(address).status_code == 410

    @pytest.mark.parametrize("who", ["owner", "teammate", "outsider", "finance"])
    def test_only_administrators_make_one(self, who: str, people: People, client_of: Any) -> None:
        answer = client_of(getattr(people, who)).post(f"/people/{people.owner.pk}/link/")
        assert answer.status_code == 403
        assert not SetupLink.objects.exists()


def test_totp_seeds_are_encrypted_at_rest(people: People) -> None:
    from allauth.mfa.models import Authenticator
    from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret

    seed = generate_totp_secret()
    TOTP.activate(people.owner, seed)
    stored = Authenticator.objects.get(type="totp")
    assert seed not in str(stored.data)
    assert TOTP(stored).instance.data["secret"] != seed
