"""Purging of cached answers: keys get a number under which nothing was ever stored."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from uuid import UUID

from django.db import transaction
from django.db.models import Max

from gateway_admin.accounts.models import User
from gateway_admin.accounts.roles import is_admin
from gateway_admin.accounts.services import audit
from gateway_admin.catalog.models import Environment
from gateway_admin.keys import queries, rights
from gateway_admin.keys.models import Team, VirtualKey
from gateway_admin.keys.policies import full_resync, policy_changed


@transaction.atomic
def cache_purge_key(*, actor: User, key: VirtualKey) -> None:
    """Cached answers are not given to this key any more."""
    rights.require(queries.may_manage(actor, key), "Who manages the key purges its answers.")
    _raise_versions([key])
    audit(
        actor=actor,
        action="key.purge_cache",
        target=key,
        environment=key.environment.slug,
    )
    policy_changed(keys=[key])


@transaction.atomic
def cache_purge_team(*, actor: User, team: Team) -> int:
    """Cached answers are not given to the team's keys any more; returns how many keys."""
    manages = queries.managed_teams(actor).filter(pk=team.pk).exists()
    rights.require(manages, "Owners of the team and administrators purge its answers.")
    keys = list(
        VirtualKey.objects.select_for_update(no_key=True, of=("self",))
        .filter(team=team)
        .exclude(state=VirtualKey.State.REVOKED)
        .order_by("pk")
    )
    _raise_versions(keys)
    audit(actor=actor, action="team.purge_cache", target=team, changes={"keys": [None, len(keys)]})
    policy_changed(keys=keys)
    return len(keys)


@transaction.atomic
def cache_purge_environment(*, actor: User, environment: Environment) -> None:
    """Cached answers of a whole environment are never given again."""
    rights.require(is_admin(actor), "Administrators purge the answers of an environment.")
    version = _unused_versions([environment.pk])[environment.pk]
    VirtualKey.objects.filter(environment=environment).update(cache_version=version)
    audit(
        actor=actor,
        action="environment.purge_cache",
        target=environment,
        environment=environment.slug,
    )
    full_resync(environment=environment)


def team_cache_version(*, environment: Environment, team: Team | None) -> int:
    """Where a new key of the team begins, so that it finds no purged answers."""
    if team is None:
        return 1
    keys = VirtualKey.objects.filter(environment=environment, team=team)
    return keys.aggregate(newest=Max("cache_version"))["newest"] or 1


def _raise_versions(keys: Sequence[VirtualKey]) -> None:
    """Give keys of one environment one number, so that those of a team go on sharing."""
    by_environment: dict[UUID, list[UUID]] = defaultdict(list)
    for key in keys:
        by_environment[key.environment_id].append(key.pk)
    for environment_id, version in _unused_versions(by_environment).items():
        VirtualKey.objects.filter(pk__in=by_environment[environment_id]).update(
            cache_version=version
        )


def _unused_versions(environments: Iterable[UUID]) -> dict[UUID, int]:
    """A number per environment that none of its keys ever had."""
    found = VirtualKey.objects.filter(environment__in=list(environments)).values("environment")
    return {
        row["environment"]: row["newest"] + 1
        for row in found.annotate(newest=Max("cache_version")).order_by()
    }
