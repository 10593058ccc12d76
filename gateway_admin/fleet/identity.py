"""What an environment's replicas hold: a fleet token to prove themselves, a key for secrets.

The token is looked up by its HMAC, so no comparison depends on how much of it is right. The
fleet key never leaves the control plane but in the identity file of a replica.
"""

import base64
import json
import os
from datetime import timedelta
from typing import TypedDict

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from gateway_admin.accounts.models import User
from gateway_admin.accounts.services import audit
from gateway_admin.catalog.credentials import secret_open
from gateway_admin.catalog.models import CredentialSecret, Environment
from gateway_admin.fleet.models import FleetIdentity
from gateway_admin.lib import crypto
from proxy.contract import secret_context

TOKEN_PREFIX = "gwf-"  # noqa: S105 (a prefix, not a secret)
PREVIOUS_TOKEN_LIFETIME = timedelta(hours=24)
PEPPER_ID = "pepper"


class IdentityFile(TypedDict):
    """Content of GATEWAY_FLEET_FILE; all of it is needed to run a replica."""

    control_plane_url: str
    environment: str
    fleet_token: str
    fleet_key: str  # base64 of 32 bytes
    redis_url: str


def fleet_identity(environment: Environment) -> FleetIdentity:
    """The environment's identity; made on first use, also by two at once."""
    found = FleetIdentity.objects.filter(environment=environment).first()
    if found is not None:
        return found
    identity = FleetIdentity(environment=environment)
    _set_token(identity)
    identity.key_id, identity.fleet_key_ciphertext = _encrypt(
        identity, "fleet_key_ciphertext", os.urandom(crypto.KEY_BYTES)
    )
    FleetIdentity.objects.bulk_create([identity], ignore_conflicts=True)
    return FleetIdentity.objects.get(environment=environment)


def open_token(identity: FleetIdentity) -> str:
    """The fleet token in clear."""
    return _decrypt(identity, "token_ciphertext").decode()


def open_key(identity: FleetIdentity) -> bytes:
    """The 32 bytes that secrets travel under."""
    return _decrypt(identity, "fleet_key_ciphertext")


def identity_file(environment: Environment) -> IdentityFile:
    """What the embedded proxy of this environment is started with. Secret: write it 0600."""
    identity = fleet_identity(environment)
    return IdentityFile(
        control_plane_url=settings.PUBLIC_URL,
        environment=environment.slug,
        fleet_token=open_token(identity),
        fleet_key=base64.b64encode(open_key(identity)).decode(),
        redis_url=settings.REDIS_URL,
    )


@transaction.atomic
def identity_reveal(
    *, environment: Environment, actor: User, ip: str | None = None
) -> IdentityFile:
    """Show an administrator what a new replica needs; who looked is on record."""
    revealed = identity_file(environment)
    audit(
        actor=actor,
        action="fleet_token.reveal",
        target=fleet_identity(environment),
        environment=environment.slug,
    )
    return revealed


@transaction.atomic
def token_rotate(
    *, environment: Environment, actor: User, keep_previous: bool = True
) -> FleetIdentity:
    """Issue a new fleet token; the one before is accepted for another 24 h, or not at all."""
    fleet_identity(environment)
    identity = FleetIdentity.objects.select_for_update().get(environment=environment)
    now = timezone.now()
    identity.previous_token_digest = identity.token_digest if keep_previous else ""
    identity.previous_token_until = now + PREVIOUS_TOKEN_LIFETIME if keep_previous else None
    identity.rotated_at = now
    fleet_key = open_key(identity)
    _set_token(identity)
    identity.key_id, identity.fleet_key_ciphertext = _encrypt(
        identity, "fleet_key_ciphertext", fleet_key
    )
    identity.save()
    audit(
        actor=actor,
        action="fleet_token.rotate",
        target=identity,
        changes={
            "previous token": ["accepted", "accepted for 24 h" if keep_previous else "refused"]
        },
        environment=environment.slug,
    )
    return identity


@transaction.atomic
def identities_reencrypt() -> int:
    """Bring every identity under the newest encryption key; return how many were moved."""
    moved = 0
    outdated = FleetIdentity.objects.exclude(key_id=settings.ENCRYPTION_KEYS.current_id)
    for identity in outdated.select_for_update():
        token, fleet_key = open_token(identity), open_key(identity)
        _, identity.token_ciphertext = _encrypt(identity, "token_ciphertext", token.encode())
        identity.key_id, identity.fleet_key_ciphertext = _encrypt(
            identity, "fleet_key_ciphertext", fleet_key
        )
        identity.save(update_fields=["key_id", "token_ciphertext", "fleet_key_ciphertext"])
        moved += 1
    return moved


def token_holders(presented: str) -> Q:
    """Which identity a presented token belongs to; the previous one counts while it lasts."""
    digest = _token_digest(presented)
    previous = Q(previous_token_digest=digest, previous_token_until__gt=timezone.now())
    return Q(token_digest=digest) | previous


def seal_for_fleet(identity: FleetIdentity, plaintext: bytes, *, place: str) -> str:
    """Encrypt for this environment's replicas, bound to `place`; base64."""
    context = secret_context(identity.environment.slug, place)
    return base64.b64encode(crypto.seal(open_key(identity), plaintext, context)).decode()


def seal_secrets(identity: FleetIdentity, secret_ids: set[str]) -> dict[str, str]:
    """Provider secrets as they travel. One that was deleted is absent; replicas then refuse."""
    fleet_key, slug = open_key(identity), identity.environment.slug
    sealed = {}
    for secret in CredentialSecret.objects.filter(pk__in=secret_ids):
        plaintext = json.dumps(secret_open(secret)).encode()
        context = secret_context(slug, str(secret.pk))
        sealed[str(secret.pk)] = base64.b64encode(
            crypto.seal(fleet_key, plaintext, context)
        ).decode()
    return sealed


def _set_token(identity: FleetIdentity) -> None:
    token = TOKEN_PREFIX + crypto.random_secret()
    identity.token_digest = _token_digest(token)
    _, identity.token_ciphertext = _encrypt(identity, "token_ciphertext", token.encode())


def _token_digest(token: str) -> str:
    pepper = crypto.derive_key(settings.KEY_PEPPER, "fleet-token")
    return crypto.keyed_digest(pepper, token)


def _encrypt(identity: FleetIdentity, column: str, plaintext: bytes) -> tuple[str, bytes]:
    key_id, sealed = settings.ENCRYPTION_KEYS.encrypt(plaintext, identity.context(column))
    return key_id, sealed


def _decrypt(identity: FleetIdentity, column: str) -> bytes:
    plaintext: bytes = settings.ENCRYPTION_KEYS.decrypt(
        identity.key_id, bytes(getattr(identity, column)), identity.context(column)
    )
    return plaintext
