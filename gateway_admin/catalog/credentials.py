"""Writes on credentials, and the only place where a provider's secret is opened.

A secret is write-only: it comes in through `credential_create` and
`credential_replace_secret`, is stored as an immutable version, and leaves through
`secret_open` for a replica or a connection test.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Max, Q
from django.utils import timezone

from gateway_admin.accounts.models import User
from gateway_admin.accounts.services import audit
from gateway_admin.catalog import kinds
from gateway_admin.catalog.drafts import assign, check_and_save, draft_changed, draft_lock
from gateway_admin.catalog.models import Credential, CredentialSecret, Environment, Provider
from gateway_admin.catalog.reliance import keeping_chains, list_of
from gateway_admin.lib import crypto
from gateway_admin.lib.errors import Conflict, InvalidInput

FINGERPRINT_DIGITS = 16
LAST_ERROR_LENGTH = 500


@transaction.atomic
def credential_create(
    *,
    actor: User | None,
    environment: Environment,
    provider: Provider,
    name: str,
    params: Mapping[str, Any] | None = None,
    secret: Mapping[str, Any] | None = None,
) -> Credential:
    """Add access to a provider in one environment."""
    environment = draft_lock(environment)
    kind = kinds.kind_of(provider)
    credential = Credential(
        environment=environment,
        provider=provider,
        name=name.strip(),
        params=kinds.clean_credential_params(kind, params or {}),
        created_by=actor,
    )
    plaintext = kinds.clean_secret(kind, secret or {})
    check_and_save(credential)
    if plaintext:
        _add_secret(credential=credential, plaintext=plaintext, actor=actor)
    audit(
        actor=actor,
        action="credential.create",
        target=credential,
        environment=environment.slug,
        changes={
            "provider": [None, provider.name],
            "params": [None, credential.params],
            "secret": [None, _fingerprint_of(credential)],
        },
    )
    draft_changed(environment=environment, actor=actor)
    return credential


@transaction.atomic
def credential_update(
    *,
    actor: User | None,
    credential: Credential,
    name: str | None = None,
    params: Mapping[str, Any] | None = None,
    enabled: bool | None = None,
) -> Credential:
    """Change what is given. The secret is not touched: its ciphertext stays as it is."""
    environment = draft_lock(credential.environment)
    credential = Credential.objects.select_related("provider").get(pk=credential.pk)
    fields: dict[str, Any] = {}
    if name is not None:
        fields["name"] = name.strip()
    if params is not None:
        fields["params"] = kinds.clean_credential_params(kinds.kind_of(credential.provider), params)
    if enabled is not None:
        fields["enabled"] = enabled
    changes = assign(credential, fields)
    if not changes:
        return credential
    with keeping_chains(environment, because=f"Disabling “{credential}”"):
        check_and_save(credential, update_fields=[*changes, "updated_at"])
    audit(
        actor=actor,
        action="credential.update",
        target=credential,
        environment=environment.slug,
        changes=changes,
    )
    draft_changed(environment=environment, actor=actor)
    return credential


@transaction.atomic
def credential_replace_secret(
    *, actor: User | None, credential: Credential, secret: Mapping[str, Any]
) -> Credential:
    """Add a new version of the secret and use it from the next publish on."""
    environment = draft_lock(credential.environment)
    credential = Credential.objects.select_related("provider", "secret").get(pk=credential.pk)
    plaintext = kinds.clean_secret(kinds.kind_of(credential.provider), secret)
    if not plaintext:
        raise InvalidInput("Enter the new secret.", field="secret")
    before = _fingerprint_of(credential)
    _add_secret(credential=credential, plaintext=plaintext, actor=actor)
    # What the provider said of the old secret says nothing about the new one.
    credential.last_error, credential.last_error_class, credential.last_error_at = "", "", None
    credential.save(update_fields=["last_error", "last_error_class", "last_error_at", "updated_at"])
    audit(
        actor=actor,
        action="credential.replace_secret",
        target=credential,
        environment=environment.slug,
        changes={"secret": [before, _fingerprint_of(credential)]},
    )
    draft_changed(environment=environment, actor=actor)
    return credential


@transaction.atomic
def credential_change(
    *,
    actor: User | None,
    credential: Credential,
    secret: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Credential:
    """`credential_update` and, if a secret is given, `credential_replace_secret`: both or none."""
    credential = credential_update(actor=actor, credential=credential, **fields)
    if secret is not None:
        credential = credential_replace_secret(actor=actor, credential=credential, secret=secret)
    return credential


@transaction.atomic
def credential_delete(*, actor: User | None, credential: Credential) -> None:
    """Delete a credential that nothing uses; its secrets go with it."""
    environment = draft_lock(credential.environment)
    used = sorted(credential.deployments.values_list("name", flat=True))
    if used:
        raise Conflict(
            f"“{credential}” is used by {list_of(used)}. "
            "Give these deployments another credential or delete them first."
        )
    _refuse_while_in_force(credential)
    audit(
        actor=actor,
        action="credential.delete",
        target=credential,
        environment=environment.slug,
        changes={"secret": [_fingerprint_of(credential), None]},
    )
    credential.delete()
    draft_changed(environment=environment, actor=actor)


def _refuse_while_in_force(credential: Credential) -> None:
    """Replicas that start anew fetch the secrets of the revision in force: keep them."""
    revision = credential.environment.revisions.order_by("-number").first()
    used = revision.document["credentials"] if revision else []
    if revision and any(row["id"] == str(credential.pk) for row in used):
        raise Conflict(
            f"Revision {revision.number}, which is in force, still uses “{credential}”. "
            "Publish the draft first, then delete it."
        )


def secret_open(secret: CredentialSecret) -> dict[str, str]:
    """The secret fields in clear. For replicas and the connection test only; never log it."""
    plaintext = settings.ENCRYPTION_KEYS.decrypt(
        secret.key_id, bytes(secret.ciphertext), secret.context()
    )
    fields: dict[str, str] = json.loads(plaintext)
    return fields


@transaction.atomic
def secrets_reencrypt() -> int:
    """Bring every stored secret under the newest encryption key; return how many were moved.

    Neither version nor fingerprint changes, so nothing has to be published.
    """
    moved = 0
    outdated = CredentialSecret.objects.exclude(key_id=settings.ENCRYPTION_KEYS.current_id)
    for secret in outdated.select_for_update():
        plaintext = settings.ENCRYPTION_KEYS.decrypt(
            secret.key_id, bytes(secret.ciphertext), secret.context()
        )
        secret.key_id, secret.ciphertext = settings.ENCRYPTION_KEYS.encrypt(
            plaintext, secret.context()
        )
        secret.save(update_fields=["key_id", "ciphertext"])
        moved += 1
    return moved


def credentials_seen(
    *,
    succeeded: Mapping[UUID, datetime] | None = None,
    failed: Iterable[tuple[UUID, datetime, str, str]] = (),
) -> None:
    """Record when providers last accepted or refused credentials.

    `succeeded` maps a credential to the time of its last success; `failed` has (credential,
    time, error class of proxy.contract, the provider's words without secrets). Older news
    than what is stored changes nothing, so late and repeated batches do no harm.
    """
    for credential_id, at in (succeeded or {}).items():
        Credential.objects.filter(
            Q(last_success_at=None) | Q(last_success_at__lt=at), pk=credential_id
        ).update(last_success_at=at)
    for credential_id, at, error_class, words in failed:
        Credential.objects.filter(
            Q(last_error_at=None) | Q(last_error_at__lt=at), pk=credential_id
        ).update(
            last_error_at=at,
            last_error_class=error_class[:20],
            last_error=words[:LAST_ERROR_LENGTH],
        )


def fingerprint(plaintext: Mapping[str, str]) -> str:
    """Keyed, so that nobody can confirm a guessed secret; equal secrets have equal ones."""
    key = crypto.derive_key(settings.KEY_PEPPER, "credential-fingerprint")
    text = json.dumps(plaintext, sort_keys=True, separators=(",", ":"))
    return crypto.keyed_digest(key, text)[:FINGERPRINT_DIGITS]


def _add_secret(
    *, credential: Credential, plaintext: Mapping[str, str], actor: User | None
) -> CredentialSecret:
    newest = credential.secrets.aggregate(newest=Max("version"))["newest"] or 0
    secret = CredentialSecret(
        credential=credential,
        version=newest + 1,
        fingerprint=fingerprint(plaintext),
        hints={name: crypto.mask(value) for name, value in plaintext.items()},
        created_by=actor,
        created_at=timezone.now(),
    )
    secret.key_id, secret.ciphertext = settings.ENCRYPTION_KEYS.encrypt(
        json.dumps(plaintext, sort_keys=True).encode(), secret.context()
    )
    secret.save(force_insert=True)
    credential.secret = secret
    credential.save(update_fields=["secret"])
    return secret


def _fingerprint_of(credential: Credential) -> str | None:
    return credential.secret.fingerprint if credential.secret else None
