"""Writes on people, tokens and the audit trail."""

import hmac
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import Group
from django.db import transaction
from django.utils import timezone

from gateway_admin.accounts.models import ApiToken, AuditEvent, SetupLink, User
from gateway_admin.accounts.roles import Role
from gateway_admin.lib import crypto
from gateway_admin.lib.errors import Conflict, InvalidInput

TOKEN_PREFIX = "gwt-"  # noqa: S105 (a prefix, not a secret)
SETUP_LINK_LIFETIME = timedelta(days=7)
LAST_USED_RESOLUTION = timedelta(minutes=1)


def _pepper(purpose: str) -> bytes:
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
        ip=ip,
    )


@transaction.atomic
def user_create(
    *, actor: User | None, email: str, role: Role, name: str = "", password: str | None = None
) -> User:
    """Add a person; without a password they sign in with a reset link."""
    if User.objects.filter(email__iexact=email).exists():
        raise InvalidInput("Somebody with this e-mail address is here already.", field="email")
    user = User.objects.create_user(email, password, name=name)
    user.groups.add(Group.objects.get_or_create(name=role.value)[0])
    audit(actor=actor, action="user.create", target=user, changes={"role": [None, role.value]})
    return user


@transaction.atomic
def setup_link_create() -> str:
    """A fresh one-time token; earlier unused links stop working."""
    SetupLink.objects.filter(used_at=None).delete()
    secret = crypto.random_secret()
    SetupLink.objects.create(digest=crypto.keyed_digest(_pepper("setup-link"), secret))
    return secret


def setup_link_find(*, secret: str) -> SetupLink | None:
    """The unused link of this secret, unless it is too old or an administrator exists."""
    digest = crypto.keyed_digest(_pepper("setup-link"), secret)
    if has_administrator():
        return None
    return SetupLink.objects.filter(
        digest=digest, used_at=None, created_at__gt=timezone.now() - SETUP_LINK_LIFETIME
    ).first()


@transaction.atomic
def setup_complete(*, secret: str, email: str, name: str, password: str) -> User:
    """Use the link up and create the first administrator."""
    link = setup_link_find(secret=secret)
    claimed = link and SetupLink.objects.filter(pk=link.pk, used_at=None).update(
        used_at=timezone.now()
    )
    if not claimed:
        raise Conflict("This set-up link was used or has expired. Restart to print a new one.")
    return user_create(actor=None, email=email, role=Role.ADMIN, name=name, password=password)


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
    text = f"{TOKEN_PREFIX}{crypto.public_id()}-{crypto.random_secret()}"
    token = api_token_store(user=user, name=name, text=text, scope=scope, expires_at=expires_at)
    audit(actor=actor, action="api_token.create", target=token)
    return token, text


def api_token_store(
    *, user: User, name: str, text: str, scope: str, expires_at: datetime | None = None
) -> ApiToken:
    """Store a token whose text is given, for example by GATEWAY_ADMIN_TOKEN."""
    public_id = _token_public_id(text)
    if public_id is None:
        raise InvalidInput(
            "An API token is written gwt-<public id>-<secret>, the secret at least 24 signs long."
        )
    return ApiToken.objects.create(
        user=user,
        name=name,
        public_id=public_id,
        digest=crypto.keyed_digest(_pepper("api-token"), text),
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
    digest = crypto.keyed_digest(_pepper("api-token"), presented)
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
