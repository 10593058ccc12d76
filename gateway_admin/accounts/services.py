"""Writes on people, their one-time links, API tokens, the organisation and the audit trail."""

import hmac
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import available_timezones

import structlog
from celery import current_app
from django.conf import settings
from django.contrib.auth.models import Group
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.utils import timezone
from kombu.exceptions import OperationalError

from gateway_admin.accounts import origin
from gateway_admin.accounts.models import ApiToken, AuditEvent, Organisation, SetupLink, User
from gateway_admin.accounts.roles import Role, role_of
from gateway_admin.lib import crypto
from gateway_admin.lib.errors import Conflict, InvalidInput

TOKEN_PREFIX = "gwt-"  # noqa: S105 (a prefix, not a secret)
SETUP_LINK_LIFETIME = timedelta(days=7)
LAST_USED_RESOLUTION = timedelta(minutes=1)
DAYS_RECUT_TASK = "usage.maintain_partitions"

log = structlog.get_logger(__name__)


def purpose_pepper(purpose: str) -> bytes:
    return crypto.derive_key(settings.KEY_PEPPER, purpose)


def audit(
    *,
    actor: User | None,
    action: str,
    target: Any,
    changes: Mapping[str, Any] | None = None,
    environment: str = "",
    ip: str | None = None,
) -> AuditEvent:
    """Record who did what. Call it inside the transaction of the write itself."""
    return AuditEvent.objects.create(
        actor=actor,
        actor_label=actor.email if actor else "system",
        action=action,
        target_type=target._meta.model_name,
        target_id=str(target.pk),
        target_label=str(target)[:200],
        environment=environment,
        changes=dict(changes or {}),
        ip=ip or origin.address(),
    )


@transaction.atomic
def user_create(
    *, actor: User | None, email: str, role: Role, name: str = "", password: str | None = None
) -> User:
    """Add a person. Without a password they need a link of `password_link_create`."""
    email = email.strip()
    try:
        validate_email(email)
    except ValidationError as error:
        raise InvalidInput("This is no e-mail address.", field="email") from error
    if User.objects.filter(email__iexact=email).exists():
        raise InvalidInput("Somebody with this e-mail address is here already.", field="email")
    user = User.objects.create_user(email, password, name=" ".join(name.split()))
    user.groups.add(_group(role))
    audit(actor=actor, action="user.create", target=user, changes={"role": [None, role.value]})
    return user


@transaction.atomic
def user_update(*, actor: User, user: User, name: str, role: Role) -> User:
    """Rename a person or give them another role; one administrator always remains."""
    user = _locked(user)
    before = role_of(user)
    wanted = " ".join(name.split())
    changes: dict[str, list[str | None]] = {}
    if wanted != user.name:
        changes["name"] = [user.name, wanted]
        user.name = wanted
        user.save(update_fields=["name"])
    if role is not before:
        if before is Role.ADMIN:
            _refuse_last_administrator(user, field="role")
        user.groups.remove(*Group.objects.filter(name__in=list(Role)))
        user.groups.add(_group(role))
        changes["role"] = [before.value if before else None, role.value]
    if changes:
        audit(actor=actor, action="user.update", target=user, changes=changes)
    if "name" in changes:
        _announce_name(user)
    return user


@transaction.atomic
def user_deactivate(*, actor: User, user: User) -> User:
    """End a person's sessions and API tokens at once; what they made stays."""
    user = _locked(user)
    if not user.is_active:
        return user
    if role_of(user) is Role.ADMIN:
        _refuse_last_administrator(user)
    user.is_active = False
    user.save(update_fields=["is_active"])
    user.setup_links.filter(used_at=None).delete()
    audit(actor=actor, action="user.deactivate", target=user, changes={"active": [True, False]})
    return user


@transaction.atomic
def user_reactivate(*, actor: User, user: User) -> User:
    user = _locked(user)
    if not user.is_active:
        user.is_active = True
        user.save(update_fields=["is_active"])
        audit(actor=actor, action="user.reactivate", target=user, changes={"active": [False, True]})
    return user


@transaction.atomic
def setup_link_create() -> str:
    """A fresh one-time token for the first administrator; earlier unused ones stop working."""
    SetupLink.objects.filter(user=None, used_at=None).delete()
    return _link_secret(None)


@transaction.atomic
def password_link_create(*, actor: User, user: User) -> str:
    """A one-time token with which a person sets a password; earlier unused ones stop working."""
    user = _locked(user)
    if not user.is_active:
        raise Conflict(f"{user} is deactivated. Reactivate them first.")
    user.setup_links.filter(used_at=None).delete()
    audit(actor=actor, action="user.create_password_link", target=user)
    return _link_secret(user)


def setup_link_find(*, secret: str) -> SetupLink | None:
    """The usable link of this secret.

    A link for the first administrator is of no use once there is one.
    """
    link = (
        SetupLink.objects.select_related("user")
        .filter(
            digest=crypto.keyed_digest(purpose_pepper("setup-link"), secret),
            used_at=None,
            created_at__gt=timezone.now() - SETUP_LINK_LIFETIME,
        )
        .first()
    )
    if link is None or (link.user is None and has_administrator()):
        return None
    return link if link.user is None or link.user.is_active else None


@transaction.atomic
def setup_complete(*, secret: str, email: str, name: str, password: str) -> User:
    """Use the link up and create the first administrator."""
    # Two links used at once make one administrator.
    Organisation.objects.select_for_update(no_key=True).get()
    _use_up(secret)
    _check_password(password, User(email=email, name=name))
    return user_create(actor=None, email=email, role=Role.ADMIN, name=name, password=password)


@transaction.atomic
def password_link_use(*, secret: str, name: str, password: str) -> User:
    """Use the link up and set the password of its person; their other sessions end."""
    user = _use_up(secret).user
    if user is None:
        raise Conflict("This link is for the first administrator.")
    _check_password(password, user)
    before, user.name = user.name, " ".join(name.split())
    user.set_password(password)
    user.save(update_fields=["name", "password"])
    audit(actor=user, action="user.set_password", target=user)
    if user.name != before:
        _announce_name(user)
    return user


def has_administrator() -> bool:
    return User.objects.filter(groups__name=Role.ADMIN.value, is_active=True).exists()


@transaction.atomic
def api_token_create(
    *,
    actor: User,
    user: User,
    name: str,
    scope: str = ApiToken.Scope.WRITE,
    expires_at: datetime | None = None,
) -> tuple[ApiToken, str]:
    """Return the token's row and its text, which is shown once."""
    if not name.strip():
        raise InvalidInput("Give the token a name.", field="name")
    if expires_at is not None and expires_at <= timezone.now():
        raise InvalidInput("This moment has passed. Choose a later one.", field="expires_at")
    text = f"{TOKEN_PREFIX}{crypto.public_id()}-{crypto.random_secret()}"
    token = api_token_store(user=user, name=name, text=text, scope=scope, expires_at=expires_at)
    changes = {"scope": [None, scope], "person": [None, user.email]}
    audit(actor=actor, action="api_token.create", target=token, changes=changes)
    return token, text


def api_token_store(
    *, user: User, name: str, text: str, scope: str, expires_at: datetime | None = None
) -> ApiToken:
    """Store a token whose text is given, for example by GATEWAY_ADMIN_TOKEN."""
    public_id = _token_public_id(text)
    if public_id is None:
        raise InvalidInput(
            "An API token is written gwt-<public id>-<secret>; "
            "the secret is at least 24 characters long."
        )
    return ApiToken.objects.create(
        user=user,
        name=name,
        public_id=public_id,
        digest=crypto.keyed_digest(purpose_pepper("api-token"), text),
        scope=scope,
        expires_at=expires_at,
    )


def _token_public_id(text: str) -> str | None:
    parts = text.split("-", 2)
    if len(parts) != 3 or parts[0] != "gwt" or not 4 <= len(parts[1]) <= 16 or len(parts[2]) < 24:
        return None
    return parts[1]


def api_token_resolve(*, presented: str) -> ApiToken | None:
    """The usable token of this text, in constant time; notes the use once a minute."""
    public_id = _token_public_id(presented)
    token = (
        ApiToken.objects.select_related("user").filter(public_id=public_id).first()
        if public_id
        else None
    )
    digest = crypto.keyed_digest(purpose_pepper("api-token"), presented)
    if token is None or not hmac.compare_digest(token.digest, digest) or not token.is_usable():
        return None
    now = timezone.now()
    if token.last_used_at is None or now - token.last_used_at > LAST_USED_RESOLUTION:
        ApiToken.objects.filter(pk=token.pk).update(last_used_at=now)
    return token


@transaction.atomic
def api_token_revoke(*, actor: User, token: ApiToken) -> None:
    if token.revoked_at is None:
        token.revoked_at = timezone.now()
        token.save(update_fields=["revoked_at"])
        audit(actor=actor, action="api_token.revoke", target=token)


@transaction.atomic
def organisation_update(
    *,
    actor: User,
    name: str,
    time_zone: str,
    week_start: int | None = None,
    fiscal_year_month: int | None = None,
) -> Organisation:
    """Name the organisation; say in which zone (an IANA name) and how it cuts its periods.

    `week_start`: 1 Monday to 7 Sunday; `fiscal_year_month`: 1 to 12. None: it stays.
    """
    organisation = Organisation.objects.select_for_update(no_key=True).get()
    wanted = {
        "name": " ".join(name.split()),
        "time_zone": time_zone,
        "week_start": organisation.week_start if week_start is None else week_start,
        "fiscal_year_month": (
            organisation.fiscal_year_month if fiscal_year_month is None else fiscal_year_month
        ),
    }
    _check_organisation(wanted)
    changes = {
        field: [getattr(organisation, field), value]
        for field, value in wanted.items()
        if getattr(organisation, field) != value
    }
    if changes:
        for field, value in wanted.items():
            setattr(organisation, field, value)
        organisation.save(update_fields=list(wanted))
        audit(actor=actor, action="organisation.update", target=organisation, changes=changes)
    if "time_zone" in changes:
        transaction.on_commit(_queue_days_recut)
    if changes.keys() - {"name"}:
        _announce_calendar()
    return organisation


def _check_organisation(wanted: Mapping[str, Any]) -> None:
    if not wanted["name"]:
        raise InvalidInput("Give the organisation a name.", field="name")
    if wanted["time_zone"] not in available_timezones():
        raise InvalidInput("No such time zone. Europe/Berlin is one.", field="time_zone")
    if not 1 <= wanted["week_start"] <= 7:
        raise InvalidInput("1 for Monday to 7 for Sunday.", field="week_start")
    if not 1 <= wanted["fiscal_year_month"] <= 12:
        raise InvalidInput("A month, 1 to 12.", field="fiscal_year_month")


def _announce_calendar() -> None:
    """Budgets are counted by the new calendar from now on, on every replica."""
    from gateway_admin.keys.calendar import calendar_changed

    calendar_changed()


def _announce_name(user: User) -> None:
    """Refusals by a person's own rules say their name."""
    from gateway_admin.keys.rules import subject_renamed

    subject_renamed(user)


def _queue_days_recut() -> None:
    """Daily sums follow the new zone now. Without a broker the hourly schedule does it."""
    try:
        # By name: the ledger stands above this app.
        current_app.send_task(DAYS_RECUT_TASK, retry=False)
    except OperationalError as error:
        log.warning("days_recut_not_queued", task=DAYS_RECUT_TASK, error=str(error))


def audit_export(*, actor: User, what: str, filters: Mapping[str, Any]) -> None:
    """Record that rows left the house as a file, and which."""
    organisation = Organisation.objects.get()
    changes = {"rows": [None, what], **{name: [None, value] for name, value in filters.items()}}
    audit(actor=actor, action="export.csv", target=organisation, changes=changes)


def _use_up(secret: str) -> SetupLink:
    link = setup_link_find(secret=secret)
    now = timezone.now()
    claimed = link and SetupLink.objects.filter(pk=link.pk, used_at=None).update(used_at=now)
    if link is None or not claimed:
        raise Conflict("This link was used or has expired. Ask for a new one.")
    return link


def _check_password(password: str, user: User) -> None:
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise InvalidInput(" ".join(error.messages), field="password") from error


def _link_secret(user: User | None) -> str:
    secret = crypto.random_secret()
    digest = crypto.keyed_digest(purpose_pepper("setup-link"), secret)
    SetupLink.objects.create(user=user, digest=digest)
    return secret


def _group(role: Role) -> Group:
    return Group.objects.get_or_create(name=role.value)[0]


def _locked(user: User) -> User:
    """The row as it is now. Audit rows that refer to it do not wait for this lock."""
    return User.objects.select_for_update(no_key=True).get(pk=user.pk)


def _refuse_last_administrator(user: User, field: str | None = None) -> None:
    """Raise Conflict unless another active administrator remains.

    The organisation's row serves as the lock: two administrators who demote each other at
    the same moment would otherwise both succeed.
    """
    Organisation.objects.select_for_update(no_key=True).get()
    others = User.objects.filter(groups__name=Role.ADMIN.value, is_active=True).exclude(pk=user.pk)
    if not others.exists():
        raise Conflict(
            f"{user} is the last administrator. Make somebody else administrator first.",
            field=field,
        )
