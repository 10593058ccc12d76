"""Writes on teams and who belongs to them."""

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils.text import slugify

from gateway_admin.accounts.models import User
from gateway_admin.accounts.services import audit
from gateway_admin.keys.models import Membership, Team, VirtualKey
from gateway_admin.keys.policies import policy_changed
from gateway_admin.keys.rules import subject_renamed, subjects_with_rules
from gateway_admin.lib.errors import Conflict, InvalidInput

RESERVED_SLUGS = {"new"}  # an address of the pages


@transaction.atomic
def team_create(
    *, actor: User, name: str, slug: str = "", description: str = "", owner: User | None = None
) -> Team:
    """Add a team. `slug` follows from the name and stays; tags, usage and the API use it."""
    name = _checked_name(name)
    slug = slug or _free_slug(name)
    team = Team(name=name, slug=slug, description=description.strip())
    if slug in RESERVED_SLUGS or Team.objects.filter(slug=slug).exists():
        raise InvalidInput("Another team has this short name.", field="slug")
    try:
        team.clean_fields(exclude=["id", "name"])
    except ValidationError as error:
        field = next(iter(error.message_dict))
        raise InvalidInput(" ".join(error.message_dict[field]), field=field) from error
    try:
        with transaction.atomic():
            team.save(force_insert=True)
    except IntegrityError as error:
        raise InvalidInput("Another team was given this name just now.", field="name") from error
    audit(actor=actor, action="team.create", target=team, changes={"name": [None, name]})
    if owner is not None:
        member_add(actor=actor, team=team, user=owner, role=Membership.Role.OWNER)
    return team


@transaction.atomic
def team_update(*, actor: User, team: Team, name: str, description: str) -> Team:
    team = Team.objects.select_for_update(no_key=True).get(pk=team.pk)
    wanted = {"name": _checked_name(name, but=team), "description": description.strip()}
    changes = {
        field: [getattr(team, field), value]
        for field, value in wanted.items()
        if getattr(team, field) != value
    }
    if changes:
        team.name, team.description = wanted["name"], wanted["description"]
        team.save(update_fields=["name", "description"])
        audit(actor=actor, action="team.update", target=team, changes=changes)
        if "name" in changes:
            subject_renamed(team)
    return team


@transaction.atomic
def team_delete(*, actor: User, team: Team) -> None:
    """Remove a team that never had keys; usage stays attributed to teams that had."""
    team = Team.objects.select_for_update().get(pk=team.pk)  # a key issued just now waits
    keys = VirtualKey.objects.filter(team=team).count()
    if keys:
        raise Conflict(
            f"{team} has {keys:,} key{'' if keys == 1 else 's'}, revoked ones included. "
            "Move them to another team first; the usage of revoked keys belongs to their team."
        )
    audit(actor=actor, action="team.delete", target=team, changes={"name": [team.name, None]})
    ruled = subjects_with_rules(team)
    team.delete()
    policy_changed(subjects=ruled)


@transaction.atomic
def member_add(
    *, actor: User, team: Team, user: User, role: str = Membership.Role.MEMBER
) -> Membership:
    if not user.is_active:
        raise InvalidInput("This person is deactivated.", field="user")
    membership, created = Membership.objects.get_or_create(
        team=team, user=user, defaults={"role": role}
    )
    if not created:
        raise InvalidInput(f"{user} is a member already.", field="user")
    audit(actor=actor, action="team.add_member", target=team, changes={user.email: [None, role]})
    return membership


@transaction.atomic
def member_change(*, actor: User, membership: Membership, role: str) -> Membership:
    membership = Membership.objects.select_for_update(no_key=True).get(pk=membership.pk)
    if membership.role != role:
        changes = {membership.user.email: [membership.role, role]}
        membership.role = role
        membership.save(update_fields=["role"])
        audit(actor=actor, action="team.change_member", target=membership.team, changes=changes)
    return membership


@transaction.atomic
def member_remove(*, actor: User, membership: Membership) -> int:
    """Take a person out of a team; their keys there stay with the team, without an owner.

    Returns how many keys that were. They keep working; the team's owners manage them.
    """
    team, user = membership.team, membership.user
    keys = list(
        VirtualKey.objects.select_for_update(no_key=True)
        .filter(team=team, owner=user)
        .exclude(state=VirtualKey.State.REVOKED)
        .order_by("pk")
    )
    VirtualKey.objects.filter(pk__in=[key.pk for key in keys]).update(owner=None)
    changes: dict[str, list[object]] = {user.email: [membership.role, None]}
    if keys:
        changes["keys without an owner"] = [None, [str(key) for key in keys]]
    membership.delete()
    audit(actor=actor, action="team.remove_member", target=team, changes=changes)
    policy_changed(keys=keys)
    return len(keys)


def _checked_name(name: str, *, but: Team | None = None) -> str:
    name = " ".join(name.split())
    if not name:
        raise InvalidInput("Give the team a name.", field="name")
    if len(name) > 80:
        raise InvalidInput("At most 80 characters.", field="name")
    taken = Team.objects.filter(name__iexact=name)
    if but is not None:
        taken = taken.exclude(pk=but.pk)
    if taken.exists():
        raise InvalidInput("Another team has this name.", field="name")
    return name


def _free_slug(name: str) -> str:
    base = slugify(name)[:36].strip("-")
    if not base or not base[0].isalpha():
        base = f"team-{base}".strip("-")[:36]
    taken = set(Team.objects.filter(slug__startswith=base).values_list("slug", flat=True))
    taken |= RESERVED_SLUGS
    numbered = (f"{base}-{number}" for number in range(2, len(taken) + 3))
    return base if base not in taken else next(slug for slug in numbered if slug not in taken)
