"""Nothing that a role cannot open stands in its sidebar or palette."""

from typing import Any

import pytest
from django.urls import reverse

from gateway_admin.accounts.roles import Role
from gateway_admin.frame.navigation import GROUPS, links_for


def titles(role: Role | None) -> set[str]:
    return {link.title for _, links in links_for(role, path="/") for link in links}


def test_supply_and_fleet_are_for_admins() -> None:
    hidden = {"Deployments", "Credentials", "Providers", "Chains", "Publish", "Replicas", "Audit"}
    assert not titles(Role.FINANCE) & hidden
    assert not titles(Role.DEVELOPER) & hidden


def test_strangers_see_nothing() -> None:
    assert titles(None) == set()


def test_only_the_closest_entry_is_the_current_page(db: None) -> None:
    path = reverse("accounts:token-list")
    active = [
        link.title for _, links in links_for(Role.ADMIN, path=path) for link in links if link.active
    ]
    assert active == ["API tokens"]


@pytest.mark.django_db
@pytest.mark.parametrize("person", ["admin", "owner", "outsider", "finance"])
def test_everything_shown_opens(person: str, people: Any, client_of: Any) -> None:
    user = getattr(people, person)
    client = client_of(user)
    role = Role.ADMIN if person == "admin" else None
    role = role or (Role.FINANCE if person == "finance" else Role.DEVELOPER)
    answers = {
        link.url: client.get(link.url).status_code
        for _, links in links_for(role, path="/")
        for link in links
    }
    assert {url: status for url, status in answers.items() if status != 200} == {}


def test_titles_are_unique() -> None:
    names = [entry.title for group in GROUPS for entry in group.entries]
    assert len(names) == len(set(names))
