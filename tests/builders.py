"""Plain builders of rows, with defaults that are enough for a working route.

Each returns a saved row. A test names only what it is about.
"""

import json
from collections.abc import Iterable
from decimal import Decimal
from itertools import count
from typing import Any

from django.conf import settings
from django.db import connection

from gateway_admin.accounts.models import User
from gateway_admin.catalog.models import (
    ChainTarget,
    Credential,
    CredentialSecret,
    Deployment,
    Environment,
    FallbackChain,
    Model,
    ModelAlias,
    Price,
    Provider,
)
from gateway_admin.keys.models import Team, VirtualKey
from gateway_admin.lib import crypto

_number = count(1)
CANARY_SECRET = "sk-provider-secret-of-the-tests"


def environment(slug: str = "prod", **fields: Any) -> Environment:
    """One of the three that migrations create, or a new one."""
    row, _ = Environment.objects.get_or_create(slug=slug, defaults={"name": slug.title()})
    if fields:
        Environment.objects.filter(pk=row.pk).update(**fields)
        row.refresh_from_db()
    return row


def provider(kind: str = Provider.Kind.OPENAI, **fields: Any) -> Provider:
    slug = fields.pop("slug", str(kind))
    defaults = {"name": slug.title(), "kind": kind, "litellm_provider": str(kind), **fields}
    return Provider.objects.get_or_create(slug=slug, defaults=defaults)[0]


def credential(
    *, secret: dict[str, str] | None = None, without_secret: bool = False, **fields: Any
) -> Credential:
    values: dict[str, Any] = {"name": f"credential-{next(_number)}", **fields}
    values.setdefault("environment", environment())
    values.setdefault("provider", provider())
    row = Credential.objects.create(**values)
    if not without_secret:
        _add_secret(row, secret or {"api_key": CANARY_SECRET})
    return row


def _add_secret(row: Credential, secret: dict[str, str]) -> None:
    version = CredentialSecret(credential=row, version=1)
    plaintext = json.dumps(secret).encode()
    version.key_id, version.ciphertext = settings.ENCRYPTION_KEYS.encrypt(
        plaintext, version.context()
    )
    version.fingerprint = crypto.keyed_digest(settings.KEY_PEPPER, plaintext.decode())[:16]
    version.hints = {name: crypto.mask(value) for name, value in secret.items()}
    version.save()
    row.secret = version
    row.save(update_fields=["secret"])


def model(name: str = "", **fields: Any) -> Model:
    name = name or f"model-{next(_number)}"
    return Model.objects.get_or_create(name=name, defaults=fields)[0]


def alias(name: str, target: Model, **fields: Any) -> ModelAlias:
    fields.setdefault("environment", environment())
    return ModelAlias.objects.create(name=name, model=target, **fields)


def deployment(*, prices: dict[str, Decimal | str] | None = None, **fields: Any) -> Deployment:
    """`prices`: US dollars per unit of `proxy.contract.PRICE_UNITS`; none: unpriced."""
    values: dict[str, Any] = {"upstream_model": "gpt-4o-mini", **fields}
    if "credential" not in values:
        given = {key: values[key] for key in ("environment", "provider") if key in values}
        values["credential"] = credential(**given)
    values.setdefault("environment", values["credential"].environment)
    values.setdefault("provider", values["credential"].provider)
    values.setdefault("model", model())
    values.setdefault("name", f"deployment-{next(_number)}")
    row = Deployment.objects.create(**values)
    if prices is not None:
        units = {unit: str(price) for unit, price in prices.items()}
        Price.objects.create(deployment=row, source=Price.Source.OWN, units=units)
    return row


def chain(source: Model, targets: Iterable[Model], **fields: Any) -> FallbackChain:
    fields.setdefault("environment", environment())
    row = FallbackChain.objects.create(model=source, **fields)
    for position, target in enumerate(targets, start=1):
        ChainTarget.objects.create(chain=row, position=position, model=target)
    return row


def key(owner: User, *, team: Team | None = None, **fields: Any) -> tuple[VirtualKey, str]:
    """A virtual key and its secret, by the service that pages use too."""
    from gateway_admin.keys.services import key_create

    values: dict[str, Any] = {
        "name": f"key-{next(_number)}",
        "environment": environment(),
        "allowed_models": None,
        "expires_at": None,
        "tags": {},
        **fields,
    }
    row, secret = key_create(actor=owner, owner=owner, team=team, **values)
    return row, secret


def copies_of(original: VirtualKey, number: int) -> None:
    """That many more rows like this key, in one statement."""
    columns = [str(field.column) for field in original._meta.local_concrete_fields]
    copied = ", ".join(column for column in columns if column not in {"id", "public_id", "name"})
    with connection.cursor() as cursor:
        cursor.execute(  # the columns are the model's own
            f"INSERT INTO keys_virtualkey (id, public_id, name, {copied}) "  # noqa: S608
            f"SELECT gen_random_uuid(), 'n' || serial, 'key ' || serial, {copied} "
            "FROM keys_virtualkey, generate_series(1, %s) AS serial WHERE id = %s",
            [number, original.pk],
        )
