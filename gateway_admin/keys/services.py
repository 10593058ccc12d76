"""Writes on virtual keys. Each ends with `policy_changed`: it takes effect at once."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from gateway_admin.accounts.models import User
from gateway_admin.accounts.roles import is_admin
from gateway_admin.accounts.services import audit
from gateway_admin.catalog.models import Environment
from gateway_admin.keys import queries
from gateway_admin.keys.cache_services import team_cache_version
from gateway_admin.keys.models import Membership, Scope, Team, VirtualKey
from gateway_admin.keys.policies import policy_changed
from gateway_admin.lib import crypto
from gateway_admin.lib.errors import Conflict, InvalidInput

KEY_PREFIX = "sk-gw-"
LAST_USED_RESOLUTION = timedelta(minutes=1)
MAX_BULK_KEYS = 1_000
MAX_TAGS = 20
_TAG_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,39}")
MAX_TAG_VALUE = 200

CHANGEABLE = [
    "name",
    "owner",
    "team",
    "allowed_models",
    "expires_at",
    "tags",
    "cache",
    "cache_ttl_s",
    "cache_version",
    "max_output_tokens",
]
MAX_CACHE_TTL_S = 30 * 86_400
MAX_OUTPUT_TOKENS = 10_000_000

State = VirtualKey.State


@dataclass(frozen=True)
class AnswerRules:
    """What holds for a key's answers. None: as the environment says."""

    cache: str = VirtualKey.Cache.OFF
    cache_ttl_s: int | None = None
    max_output_tokens: int | None = None  # of requests that state no cap


def answer_rules(key: VirtualKey) -> AnswerRules:
    return AnswerRules(key.cache, key.cache_ttl_s, key.max_output_tokens)


def environment_pepper(environment: Environment) -> bytes:
    """The key of the digests of this environment's virtual keys; 32 bytes."""
    return crypto.derive_key(settings.KEY_PEPPER, f"virtual-keys:{environment.slug}")


def key_digest(*, environment: Environment, text: str) -> str:
    """Hex HMAC-SHA256 of a whole virtual key, as it is stored."""
    return crypto.keyed_digest(environment_pepper(environment), text)


@transaction.atomic
def key_create(
    *,
    actor: User,
    environment: Environment,
    name: str,
    owner: User | None,
    team: Team | None,
    allowed_models: Sequence[str] | None = None,
    expires_at: datetime | None = None,
    tags: Mapping[str, str] | None = None,
    answers: AnswerRules | None = None,
) -> tuple[VirtualKey, str]:
    """Issue a key; its text is returned this once and stored nowhere.

    `allowed_models` None: every model of the environment.
    """
    _check_place(actor=actor, owner=owner, team=team)
    public_id = crypto.public_id()
    text = f"{KEY_PREFIX}{public_id}-{crypto.random_secret()}"
    key = VirtualKey.objects.create(
        environment=environment,
        public_id=public_id,
        digest=key_digest(environment=environment, text=text),
        name=_checked_name(name),
        owner=owner,
        team=team,
        allowed_models=_checked_models(environment, allowed_models, known=()),
        expires_at=_checked_expiry(expires_at),
        tags=checked_tags(tags or {}),
        cache_version=team_cache_version(environment=environment, team=team),
        created_by=actor,
        **asdict(_checked_answers(answers or AnswerRules())),
    )
    changes = {field: [None, value] for field, value in _facts(key).items() if value}
    _audit(actor, "key.create", key, changes)
    policy_changed(keys=[key])
    return key, text


@transaction.atomic
def key_update(
    *,
    actor: User,
    key: VirtualKey,
    name: str,
    owner: User | None,
    team: Team | None,
    allowed_models: Sequence[str] | None,
    expires_at: datetime | None,
    tags: Mapping[str, str],
    answers: AnswerRules | None = None,
) -> VirtualKey:
    """Change what a key is for and may do; the secret stays as it is.

    `answers` None: they stay.
    """
    key = _locked(key)
    if key.state == State.REVOKED:
        raise Conflict("This key is revoked for good. Issue a new one instead.")
    before = _facts(key)
    if (owner, team) != (key.owner, key.team):
        _check_place(actor=actor, owner=owner, team=team)
    if team != key.team:
        version = team_cache_version(environment=key.environment, team=team)
        key.cache_version = max(key.cache_version, version)
    if expires_at != key.expires_at:
        key.expires_at = _checked_expiry(expires_at)
    key.name = _checked_name(name)
    key.owner = owner
    key.team = team
    key.allowed_models = _checked_models(
        key.environment, allowed_models, known=key.allowed_models or ()
    )
    key.tags = checked_tags(tags)
    for field, value in asdict(_checked_answers(answers or answer_rules(key))).items():
        setattr(key, field, value)
    _save_changed(actor, key, before)
    return key


def _save_changed(actor: User, key: VirtualKey, before: Mapping[str, Any]) -> None:
    """Write what differs from before, if anything does, and let replicas know."""
    after = _facts(key)
    changes = {
        field: [before[field], after[field]] for field in after if before[field] != after[field]
    }
    if not changes:
        return
    key.save(update_fields=CHANGEABLE)
    _audit(actor, "key.update", key, changes)
    # Refusals by the key's own rules say its name, too.
    named = [(key.environment, (Scope.KEY.value, str(key.pk)))] if "name" in changes else []
    policy_changed(keys=[key], subjects=named)


def key_block(*, actor: User, key: VirtualKey, reason: str) -> VirtualKey:
    """Refuse the key's calls until it is unblocked. Callers are told the reason."""
    return keys_block(actor=actor, keys=[key], reason=reason)[0]


@transaction.atomic
def keys_block(*, actor: User, keys: Iterable[VirtualKey], reason: str) -> list[VirtualKey]:
    """Block keys with one reason; those already blocked take the new reason."""
    reason = reason.strip()
    if not reason:
        raise InvalidInput("Say why: callers are shown the reason.", field="reason")
    if len(reason) > 200:
        raise InvalidInput("At most 200 characters.", field="reason")
    locked = _all_locked(keys)
    for key in locked:
        if key.state == State.REVOKED:
            raise Conflict(f"{key.name} is revoked for good and cannot be blocked.")
        before = [key.get_state_display(), key.reason]
        key.state, key.reason = State.BLOCKED, reason
        changes = {"state": [before[0], "Blocked"], "reason": [before[1], reason]}
        _audit(actor, "key.block", key, changes)
    _save_states(locked)
    return locked


@transaction.atomic
def key_unblock(*, actor: User, key: VirtualKey) -> VirtualKey:
    locked = _all_locked([key])
    if locked[0].state != State.BLOCKED:
        raise Conflict("This key is not blocked.")
    changes = {"state": ["Blocked", "Active"], "reason": [locked[0].reason, ""]}
    locked[0].state, locked[0].reason = State.ACTIVE, ""
    _audit(actor, "key.unblock", locked[0], changes)
    _save_states(locked)
    return locked[0]


def key_revoke(*, actor: User, key: VirtualKey) -> VirtualKey:
    """End the key for good."""
    return keys_revoke(actor=actor, keys=[key])[0]


@transaction.atomic
def keys_revoke(*, actor: User, keys: Iterable[VirtualKey]) -> list[VirtualKey]:
    """End keys for good; those already revoked are left as they are."""
    locked = _all_locked(keys)
    ending = [key for key in locked if key.state != State.REVOKED]
    now = timezone.now()
    for key in ending:
        _audit(actor, "key.revoke", key, {"state": [key.get_state_display(), "Revoked"]})
        key.state, key.revoked_at = State.REVOKED, now
    _save_states(ending)
    return locked


def keys_used(pairs: Iterable[tuple[UUID, datetime]]) -> None:
    """Note when keys were last used, from pairs of key id and time; never moves backwards.

    Kept to the minute, so that a busy key is not rewritten with every batch. A key whose row
    somebody else is writing is left to the next batch rather than waited for.
    """
    latest: dict[UUID, datetime] = {}
    for key_id, used_at in pairs:
        latest[key_id] = max(used_at, latest.get(key_id, used_at))
    if not latest:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH due AS (
                SELECT key.id, used.at
                FROM unnest(%s::uuid[], %s::timestamptz[]) AS used (id, at)
                JOIN keys_virtualkey key ON key.id = used.id
                WHERE key.last_used_at IS NULL
                    OR key.last_used_at <= used.at - make_interval(secs => %s)
                FOR NO KEY UPDATE OF key SKIP LOCKED
            )
            UPDATE keys_virtualkey key SET last_used_at = due.at FROM due WHERE key.id = due.id
            """,
            [list(latest), list(latest.values()), LAST_USED_RESOLUTION.total_seconds()],
        )


def checked_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags, or InvalidInput at `tags`."""
    if len(tags) > MAX_TAGS:
        raise InvalidInput(f"At most {MAX_TAGS} tags.", field="tags")
    for name, value in tags.items():
        if not _TAG_NAME.fullmatch(name):
            raise InvalidInput(
                f"“{name}” is no tag name: letters, digits and _ . : / -, at most 40 characters.",
                field="tags",
            )
        if not isinstance(value, str) or len(value) > MAX_TAG_VALUE:
            raise InvalidInput(
                f"The value of “{name}” is text of at most {MAX_TAG_VALUE} characters.",
                field="tags",
            )
    return dict(tags)


def _check_place(*, actor: User, owner: User | None, team: Team | None) -> None:
    """Whose key it may be: one's own, or of anybody in a team that one leads."""
    if owner is None and team is None:
        raise InvalidInput("A key belongs to a person, to a team, or to both.", field="owner")
    if owner is not None and not owner.is_active:
        raise InvalidInput("This person is deactivated.", field="owner")
    if owner is not None and team is not None and not _is_member(owner, team):
        raise InvalidInput(
            f"{owner} is not a member of {team}. Add them to the team first.", field="owner"
        )
    if is_admin(actor):
        return
    if team is not None and not queries.joined_teams(actor).filter(pk=team.pk).exists():
        raise InvalidInput("You are not a member of this team.", field="team")
    leads = team is not None and queries.managed_teams(actor).filter(pk=team.pk).exists()
    if owner != actor and not leads:
        raise InvalidInput(
            "Only an owner of the team issues keys for others or for the team itself.",
            field="owner",
        )


def _is_member(user: User, team: Team) -> bool:
    return Membership.objects.filter(user=user, team=team).exists()


def _checked_name(name: str) -> str:
    name = " ".join(name.split())
    if not name:
        raise InvalidInput("Give the key a name.", field="name")
    if len(name) > 100:
        raise InvalidInput("At most 100 characters.", field="name")
    return name


def _checked_expiry(expires_at: datetime | None) -> datetime | None:
    if expires_at is not None and expires_at <= timezone.now():
        raise InvalidInput("This moment has passed. Choose a later one.", field="expires_at")
    return expires_at


def _checked_models(
    environment: Environment, names: Sequence[str] | None, *, known: Sequence[str]
) -> list[str] | None:
    """Sorted names; those in `known` may stay although nothing serves them any more."""
    if names is None:
        return None
    if not names:
        raise InvalidInput("Choose at least one model, or allow all.", field="allowed_models")
    servable = {
        *queries.servable_models(environment),
        *queries.servable_aliases(environment),
        *known,
    }
    if missing := sorted(set(names) - servable):
        raise InvalidInput(
            f"{environment} has no model or alias {', '.join(missing)}.", field="allowed_models"
        )
    return sorted(set(names))


def _checked_answers(answers: AnswerRules) -> AnswerRules:
    if answers.cache not in VirtualKey.Cache.values:
        raise InvalidInput("Off, deterministic requests, or all.", field="cache")
    ttl = answers.cache_ttl_s
    if ttl is not None and not 1 <= ttl <= MAX_CACHE_TTL_S:
        raise InvalidInput(f"1 to {MAX_CACHE_TTL_S:,} seconds.", field="cache_ttl_s")
    cap = answers.max_output_tokens
    if cap is not None and not 1 <= cap <= MAX_OUTPUT_TOKENS:
        raise InvalidInput(f"1 to {MAX_OUTPUT_TOKENS:,} tokens.", field="max_output_tokens")
    return answers


def _facts(key: VirtualKey) -> dict[str, Any]:
    """What the audit trail tells of a key."""
    return {
        "name": key.name,
        "owner": key.owner.email if key.owner else None,
        "team": key.team.name if key.team else None,
        "models": "all" if key.allowed_models is None else list(key.allowed_models),
        "expires": key.expires_at.isoformat() if key.expires_at else None,
        "tags": dict(key.tags),
        "cache": None if key.cache == VirtualKey.Cache.OFF else key.cache,
        "cache time, s": key.cache_ttl_s,
        "output cap": key.max_output_tokens,
    }


def _audit(actor: User, action: str, key: VirtualKey, changes: Mapping[str, Any]) -> None:
    audit(
        actor=actor,
        action=action,
        target=key,
        changes=changes,
        environment=key.environment.slug,
    )


def _locked(key: VirtualKey) -> VirtualKey:
    return _all_locked([key])[0]


def _all_locked(keys: Iterable[VirtualKey]) -> list[VirtualKey]:
    """The rows as they are now, locked in one order for all writers."""
    wanted = [key.pk for key in keys]
    if len(wanted) > MAX_BULK_KEYS:
        raise InvalidInput(f"At most {MAX_BULK_KEYS:,} keys at a time.")
    rows = VirtualKey.objects.select_for_update(of=("self",), no_key=True).filter(pk__in=wanted)
    return list(rows.select_related("environment", "owner", "team").order_by("pk"))


def _save_states(keys: Sequence[VirtualKey]) -> None:
    VirtualKey.objects.bulk_update(keys, ["state", "reason", "revoked_at"])
    policy_changed(keys=keys)
