"""The fixed cast of all access tests."""

from dataclasses import dataclass, fields

from gateway_admin.accounts.models import User
from gateway_admin.accounts.roles import Role
from gateway_admin.accounts.services import user_create
from gateway_admin.keys.models import Membership, Team

PASSWORD = "correct horse battery staple"


@dataclass(frozen=True)
class People:
    """owner and teammate share the team "search"; outsider is in "ads"; finance in none."""

    admin: User
    owner: User
    teammate: User
    outsider: User
    finance: User
    search: Team
    ads: Team

    def everybody(self) -> dict[str, User]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: user for name, user in values.items() if isinstance(user, User)}


def people_create() -> People:
    search = Team.objects.create(slug="search", name="Search")
    ads = Team.objects.create(slug="ads", name="Ads")
    owner, teammate, outsider = (
        _person(name, Role.DEVELOPER) for name in ("owner", "teammate", "outsider")
    )
    Membership.objects.create(user=owner, team=search, role=Membership.Role.OWNER)
    Membership.objects.create(user=teammate, team=search)
    Membership.objects.create(user=outsider, team=ads, role=Membership.Role.OWNER)
    return People(
        admin=_person("admin", Role.ADMIN),
        owner=owner,
        teammate=teammate,
        outsider=outsider,
        finance=_person("finance", Role.FINANCE),
        search=search,
        ads=ads,
    )


def _person(name: str, role: Role) -> User:
    return user_create(
        actor=None, email=f"{name}@example.com", name=name.title(), role=role, password=PASSWORD
    )
