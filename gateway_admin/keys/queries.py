"""Who sees and who manages which teams and keys, and what the pages list.

|            | sees                                  | manages                             |
|------------|---------------------------------------|-------------------------------------|
| admin      | all teams and keys                    | all                                 |
| finance    | all teams and keys                    | nothing                             |
| developer  | own keys; own teams and their keys    | own keys; as a team's owner the     |
|            |                                       | team, its members and all its keys  |
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.db.models import Count, Exists, OuterRef, Prefetch, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import Http404
from django.utils import timezone

from gateway_admin.accounts.models import User
from gateway_admin.accounts.roles import Role, is_admin, role_of, sees_all_spend
from gateway_admin.catalog.models import Environment, Model, ModelAlias
from gateway_admin.keys.models import Membership, Team, VirtualKey

State = VirtualKey.State


def visible_teams(user: User) -> QuerySet[Team]:
    if sees_all_spend(user):
        return Team.objects.all()
    return Team.objects.filter(pk__in=_teams_of(user))


def managed_teams(user: User) -> QuerySet[Team]:
    """Teams whose members and keys this person may change."""
    if is_admin(user):
        return Team.objects.all()
    if role_of(user) is not Role.DEVELOPER:
        return Team.objects.none()
    return Team.objects.filter(pk__in=_teams_of(user, role=Membership.Role.OWNER))


def joined_teams(user: User) -> QuerySet[Team]:
    """Teams for which this person may issue keys."""
    return Team.objects.all() if is_admin(user) else visible_teams(user)


def visible_keys(user: User) -> QuerySet[VirtualKey]:
    if sees_all_spend(user):
        return VirtualKey.objects.all()
    return VirtualKey.objects.filter(Q(owner=user) | Q(team__in=_teams_of(user)))


def manageable_keys(user: User) -> QuerySet[VirtualKey]:
    if is_admin(user):
        return VirtualKey.objects.all()
    if role_of(user) is not Role.DEVELOPER:
        return VirtualKey.objects.none()
    owned = _teams_of(user, role=Membership.Role.OWNER)
    return VirtualKey.objects.filter(Q(owner=user) | Q(team__in=owned))


def issues_keys(user: User) -> bool:
    return role_of(user) in {Role.ADMIN, Role.DEVELOPER}


def team_to_see(user: User, slug: str) -> Team:
    """The team, or 404 for whoever may not know of it."""
    team = visible_teams(user).filter(slug=slug).first()
    if team is None:
        raise Http404("No such team.")
    return team


def team_to_manage(user: User, slug: str) -> Team:
    """As `team_to_see`; 403 for whoever sees it but may not change it."""
    team = team_to_see(user, slug)
    if not managed_teams(user).filter(pk=team.pk).exists():
        raise PermissionDenied("Only owners of the team and administrators change it.")
    return team


def key_to_see(user: User, key_id: UUID) -> VirtualKey:
    """The key with its owner, team and environment, or 404."""
    key = with_relations(visible_keys(user)).filter(pk=key_id).first()
    if key is None:
        raise Http404("No such key.")
    return key


def key_to_manage(user: User, key_id: UUID) -> VirtualKey:
    """As `key_to_see`; 403 for whoever sees it but may not change it."""
    key = key_to_see(user, key_id)
    if not may_manage(user, key):
        raise PermissionDenied("Only the key's owner, owners of its team and administrators.")
    return key


def may_manage(user: User, key: VirtualKey) -> bool:
    return manageable_keys(user).filter(pk=key.pk).exists()


def with_relations(keys: QuerySet[VirtualKey]) -> QuerySet[VirtualKey]:
    return keys.select_related("owner", "team", "environment", "created_by")


def keys_in_state(keys: QuerySet[VirtualKey], state: str) -> QuerySet[VirtualKey]:
    """Filter by what the state means now; "" leaves out revoked keys, "all" nothing."""
    expired = Q(expires_at__lte=timezone.now())
    if state == "all":
        return keys
    if state == "":
        return keys.exclude(state=State.REVOKED)
    if state == "expired":
        return keys.filter(expired, state=State.ACTIVE)
    if state == State.ACTIVE:
        return keys.filter(state=State.ACTIVE).exclude(expired)
    return keys.filter(state=state)


def keys_matching(keys: QuerySet[VirtualKey], text: str) -> QuerySet[VirtualKey]:
    """Search by part of the name, by public id (or a pasted key), by owner."""
    text = text.strip()
    if text.startswith("sk-gw-"):
        return keys.filter(public_id=text.split("-")[2])
    people = User.objects.filter(Q(email__icontains=text) | Q(name__icontains=text))
    owners = list(people.values_list("pk", flat=True)[:200])
    return keys.filter(Q(name__icontains=text) | Q(public_id=text) | Q(owner__in=owners))


def keys_allowing(keys: QuerySet[VirtualKey], model: str) -> QuerySet[VirtualKey]:
    """Keys that may call this name: it is listed, or everything is allowed."""
    return keys.filter(Q(allowed_models__isnull=True) | Q(allowed_models__contains=[model]))


def keys_unused_since(keys: QuerySet[VirtualKey], since: datetime | None) -> QuerySet[VirtualKey]:
    """Keys that were not used after `since`; None: never used at all."""
    never = Q(last_used_at=None)
    return keys.filter(never if since is None else never | Q(last_used_at__lt=since))


def servable_models(environment: Environment) -> list[str]:
    """Public names that deployments of this environment serve."""
    served = Model.objects.filter(deployments__environment=environment).distinct()
    return list(served.order_by("name").values_list("name", flat=True))


def servable_aliases(environment: Environment) -> list[str]:
    aliases = ModelAlias.objects.filter(environment=environment)
    return list(aliases.order_by("name").values_list("name", flat=True))


def example_model(key: VirtualKey) -> str:
    """A name that this key may call, for snippets; the environment's default if it may."""
    if key.allowed_models:
        return key.allowed_models[0]
    default = key.environment.default_model
    names = servable_models(key.environment)
    if default and (default in names or default in servable_aliases(key.environment)):
        return default
    chat = Model.objects.filter(name__in=names, mode=Model.Mode.CHAT).order_by("name").first()
    return chat.name if chat else (names[0] if names else "your-model")


def team_list(user: User) -> QuerySet[Team]:
    """Visible teams with `member_count`, `key_count` (usable keys) and `owner_memberships`."""
    owners = Membership.objects.filter(role=Membership.Role.OWNER).select_related("user")
    members = Membership.objects.filter(team=OuterRef("pk"))
    usable = keys_in_state(VirtualKey.objects.filter(team=OuterRef("pk")), State.ACTIVE)
    return (
        visible_teams(user)
        .annotate(member_count=_counted(members), key_count=_counted(usable))
        .prefetch_related(Prefetch("memberships", owners, to_attr="owner_memberships"))
    )


def team_members(team: Team) -> QuerySet[Membership]:
    """Owners first, each with `key_count`: live keys of that person in the team."""
    live = Q(user__virtual_keys__team=team) & ~Q(user__virtual_keys__state=State.REVOKED)
    return (
        Membership.objects.filter(team=team)
        .select_related("user")
        .annotate(key_count=Count("user__virtual_keys", filter=live))
        .order_by("-role", "user__name", "user__email")
    )


def possible_owners(user: User) -> QuerySet[User]:
    """People in whose name this person may issue keys."""
    people = User.objects.filter(is_active=True).order_by("name", "email")
    if is_admin(user):
        return people
    led = Membership.objects.filter(user=OuterRef("pk"), team__in=managed_teams(user))
    return people.filter(Q(pk=user.pk) | Exists(led))


def _teams_of(user: User, role: str | None = None) -> QuerySet[Membership, UUID]:
    memberships = Membership.objects.filter(user=user)
    if role:
        memberships = memberships.filter(role=role)
    return memberships.values_list("team_id", flat=True)


def _counted(rows: QuerySet[Any]) -> Coalesce:
    """A count as a subquery: joins of several relations would multiply their rows."""
    counts = rows.order_by().values("team").annotate(number=Count("pk")).values("number")
    return Coalesce(Subquery(counts), 0)
