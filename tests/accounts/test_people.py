"""People: adding, roles, deactivation; the last administrator stays."""

import threading
from typing import Any

import pytest
from django.db import connections

from gateway_admin.accounts import services
from gateway_admin.accounts.models import AuditEvent, User
from gateway_admin.accounts.roles import Role, role_of
from gateway_admin.lib.errors import Conflict, InvalidInput
from tests.people import PASSWORD, People, people_create

pytestmark = pytest.mark.django_db

OTHERS = ["owner", "teammate", "outsider", "finance"]


def test_add_gives_a_link_to_hand_over(people: People, client_of: Any) -> None:
    data = {"name": "New", "email": "New@Example.com", "role": "finance"}
    page = client_of(people.admin).post("/people/new/", data).content.decode()
    assert "http://127.0.0.1:8000/setup/" in page
    user = User.objects.get(email="new@example.com")
    assert role_of(user) is Role.FINANCE
    assert not user.has_usable_password()


def test_an_address_is_added_once(people: People, client_of: Any) -> None:
    data = {"name": "New", "email": "OWNER@example.com", "role": "finance"}
    answer = client_of(people.admin).post("/people/new/", data)
    assert answer.status_code == 422
    assert "here already" in answer.content.decode()
    with pytest.raises(InvalidInput):
        services.user_create(actor=None, email="no address", role=Role.ADMIN)


@pytest.mark.parametrize("who", OTHERS)
def test_people_are_for_administrators(who: str, people: People, client_of: Any) -> None:
    client = client_of(getattr(people, who))
    person = people.teammate.pk
    for address in ("/people/", "/people/new/", f"/people/{person}/", "/settings/", "/audit/"):
        assert client.get(address).status_code == 403, address
    for action in ("deactivate", "reactivate", "link"):
        assert client.post(f"/people/{person}/{action}/").status_code == 403
    data = {"name": "Boss", "role": "admin"}
    assert client.post(f"/people/{person}/", data).status_code == 403
    assert role_of(User.objects.get(pk=person)) is Role.DEVELOPER


def test_role_and_name_change(people: People, client_of: Any) -> None:
    data = {"name": "Olga", "role": "admin"}
    client = client_of(people.admin)
    assert client.post(f"/people/{people.owner.pk}/", data).status_code == 302
    owner = User.objects.get(pk=people.owner.pk)
    assert (owner.name, role_of(owner)) == ("Olga", Role.ADMIN)
    assert AuditEvent.objects.get(action="user.update").changes == {
        "name": ["Owner", "Olga"],
        "role": ["developer", "admin"],
    }


def test_the_last_administrator_stays(people: People, client_of: Any) -> None:
    client = client_of(people.admin)
    answer = client.post(f"/people/{people.admin.pk}/", {"name": "Admin", "role": "developer"})
    assert answer.status_code == 422
    assert "last administrator" in answer.content.decode()
    page = client.post(f"/people/{people.admin.pk}/deactivate/", follow=True)
    assert "last administrator" in page.content.decode()
    admin = User.objects.get(pk=people.admin.pk)
    assert admin.is_active
    assert role_of(admin) is Role.ADMIN


@pytest.mark.django_db(transaction=True)
def test_two_administrators_cannot_demote_each_other_at_once() -> None:
    people = people_create()
    services.user_update(actor=people.admin, user=people.owner, name="O", role=Role.ADMIN)
    start = threading.Barrier(2)
    refused: list[Conflict] = []

    def demote(actor: User, user: User) -> None:
        start.wait(10)
        try:
            services.user_update(actor=actor, user=user, name="x", role=Role.DEVELOPER)
        except Conflict as error:
            refused.append(error)
        finally:
            connections.close_all()

    pairs = [(people.admin, people.owner), (people.owner, people.admin)]
    threads = [threading.Thread(target=demote, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(refused) == 1
    assert User.objects.filter(groups__name="admin", is_active=True).count() == 1


def test_deactivation_ends_sessions_tokens_and_sign_in(
    people: People, client_of: Any, api_of: Any, client: Any
) -> None:
    session, api = client_of(people.owner), api_of(people.owner)
    client_of(people.admin).post(f"/people/{people.owner.pk}/deactivate/")
    assert session.get("/keys/").status_code == 302
    assert api.get("/api/v1/keys/").status_code == 401
    client.post("/account/login/", {"login": "owner@example.com", "password": PASSWORD})
    assert client.get("/keys/").status_code == 302
    client_of(people.admin).post(f"/people/{people.owner.pk}/reactivate/")
    assert api.get("/api/v1/keys/").status_code == 200


def test_list_filters_and_costs_the_same_with_more_people(
    people: People, client_of: Any, django_assert_max_num_queries: Any
) -> None:
    for number in range(30):
        services.user_create(
            actor=None, email=f"p{number}@example.com", role=Role.FINANCE, name=f"P{number}"
        )
    client = client_of(people.admin)
    with django_assert_max_num_queries(12):
        page = client.get("/people/")
    assert "Has no password yet" in page.content.decode()
    rows = client.get("/people/?q=outsider").context["page"].rows
    assert [user.email for user in rows] == ["outsider@example.com"]
    assert len(client.get("/people/?role=finance").context["page"].rows) == 31
    assert not client.get("/people/?state=inactive").context["page"].rows
