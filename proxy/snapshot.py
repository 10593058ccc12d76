"""The revision of the control plane -> immutable tables the request path reads. Pure.

    RevisionEnvelope + fleet key -> Snapshot       what the environment serves

Nothing here does I/O; a document that cannot be built raises SnapshotError, which
names the deployment at fault when one is.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from proxy.contract import (
    CHAIN_KINDS,
    ChainKind,
    ContractError,
    CredentialDocument,
    DeploymentDocument,
    EnvironmentDocument,
    Lane,
    ModelDocument,
    RevisionEnvelope,
    check_document,
    document_digest,
    secret_context,
)
from proxy.defaults import with_defaults

NONCE_BYTES = 12


class SnapshotError(Exception):
    """A document cannot be served. `deployment` is the id at fault, when known."""

    def __init__(self, message: str, *, deployment: str | None = None) -> None:
        super().__init__(message)
        self.deployment = deployment


@dataclass(frozen=True, slots=True)
class Price:
    """Published unit prices of a deployment, in USD per unit."""

    version: str
    source: str  # book or own
    units: Mapping[str, Decimal]
    texts: dict[str, str] = field(init=False, compare=False)  # the same, as events tell it

    def __post_init__(self) -> None:
        texts = {unit: format(amount, "f") for unit, amount in self.units.items()}
        object.__setattr__(self, "texts", texts)


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment with all it takes to call it. `params` hold secrets: never printed."""

    id: str
    name: str
    model: str
    provider: str
    provider_kind: str
    credential: str | None
    weight: int
    rpm: int | None
    tpm: int | None
    timeout_s: float  # until the whole answer
    stream_timeout_s: float  # until the first event of a stream
    price: Price | None
    params: Mapping[str, Any] = field(repr=False)  # LiteLLM's litellm_params
    secrets: tuple[str, ...] = field(repr=False)  # the values to scrub from texts
    lane: Lane = "auto"  # litellm: the deployment or its model is told to stay there


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One revision, ready to serve."""

    revision: int
    digest: str
    environment: EnvironmentDocument
    models: Mapping[str, ModelDocument]
    aliases: Mapping[str, str]
    deployments: Mapping[str, Deployment]  # by id
    by_model: Mapping[str, tuple[Deployment, ...]]
    chains: Mapping[tuple[str, ChainKind], tuple[str, ...]]

    def resolve(self, name: str) -> str | None:
        """Model behind a public name or alias; None if there is none."""
        name = self.aliases.get(name, name)
        return name if name in self.models else None


def build_snapshot(envelope: RevisionEnvelope, *, environment: str, fleet_key: bytes) -> Snapshot:
    """Verify, decrypt and index a revision; raise SnapshotError if any part does not hold."""
    try:
        document = check_document(envelope["document"])
        digest = document_digest(document)
    except (ContractError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise SnapshotError(f"document refused: {_describe(error)}") from error
    if digest != envelope["digest"]:
        raise SnapshotError(
            f"digest {digest[:12]}… is not the published {envelope['digest'][:12]}…"
        )
    slug = document["environment"]["slug"]
    if slug != environment:
        raise SnapshotError(
            f"document is for environment {slug!r}, this replica is {environment!r}"
        )
    credentials = {credential["id"]: credential for credential in document["credentials"]}
    lanes = {model["name"]: model.get("lane", "auto") for model in document["models"]}
    deployments: dict[str, Deployment] = {}
    for row in document["deployments"]:
        credential = credentials[row["credential"]] if row["credential"] is not None else None
        deployments[row["id"]] = _build_deployment(
            row, credential, envelope, fleet_key, document["environment"], lanes[row["model"]]
        )
    by_model: dict[str, list[Deployment]] = {model["name"]: [] for model in document["models"]}
    for deployment in deployments.values():
        by_model[deployment.model].append(deployment)
    return Snapshot(
        revision=envelope["revision"],
        digest=digest,
        environment=with_defaults(document["environment"]),
        models={model["name"]: model for model in document["models"]},
        aliases=dict(document["aliases"]),
        deployments=deployments,
        by_model={name: tuple(rows) for name, rows in by_model.items()},
        chains={
            (chain["model"], chain["kind"]): tuple(chain["targets"])
            for chain in document["chains"]
            if chain["kind"] in CHAIN_KINDS
        },
    )


def _describe(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing"
    return str(error)


def _build_deployment(
    row: DeploymentDocument,
    credential: CredentialDocument | None,
    envelope: RevisionEnvelope,
    fleet_key: bytes,
    environment: EnvironmentDocument,
    model_lane: Lane,
) -> Deployment:
    try:
        secret = _open_secret(credential, envelope, fleet_key, environment["slug"])
        price = row["price"]
        return Deployment(
            id=row["id"],
            name=row["name"],
            model=row["model"],
            provider=row["provider"],
            provider_kind=row["provider_kind"],
            credential=row["credential"],
            weight=row["weight"],
            rpm=row["rpm"],
            tpm=row["tpm"],
            timeout_s=row["timeout_s"] or environment["timeout_s"],
            stream_timeout_s=row["stream_timeout_s"] or environment["stream_timeout_s"],
            price=None if price is None else _build_price(price),
            params=_litellm_params(row, credential, secret, environment),
            secrets=tuple(v for v in secret.values() if isinstance(v, str) and len(v) >= 6),
            lane="litellm" if "litellm" in (model_lane, row.get("lane")) else "auto",
        )
    except SnapshotError as error:
        text = f"deployment {row['name']!r}: {error}"
        raise SnapshotError(text, deployment=row["id"]) from error
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        text = f"deployment {row.get('name')!r}: {_describe(error)}"
        raise SnapshotError(text, deployment=row.get("id")) from error


def _build_price(price: Any) -> Price:
    units = {unit: Decimal(amount) for unit, amount in price["units"].items()}
    return Price(version=str(price["version"]), source=price["source"], units=units)


def _open_secret(
    credential: CredentialDocument | None,
    envelope: RevisionEnvelope,
    fleet_key: bytes,
    environment: str,
) -> dict[str, Any]:
    if credential is None or credential["secret_id"] is None:
        return {}
    sealed = envelope["secrets"].get(credential["secret_id"])
    if sealed is None:
        raise SnapshotError(f"the secret of credential {credential['name']!r} did not travel along")
    context = secret_context(environment, credential["secret_id"])
    try:
        plain = json.loads(open_sealed(sealed, fleet_key, context))
    except ValueError as error:
        raise SnapshotError(
            f"the secret of credential {credential['name']!r} cannot be read: {error}"
        ) from None
    if not isinstance(plain, dict):
        raise SnapshotError(f"the secret of credential {credential['name']!r} is not an object")
    return plain


def open_sealed(sealed: str, key: bytes, context: bytes) -> bytes:
    """Decrypt base64(nonce + ciphertext + tag); raise ValueError if it was not made for us."""
    try:
        raw = base64.b64decode(sealed, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("it is not base64") from error
    try:
        return AESGCM(key).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], context)
    except (InvalidTag, ValueError) as error:
        raise ValueError("it was not encrypted with this environment's fleet key") from error


def seal(plain: bytes, key: bytes, context: bytes, nonce: bytes) -> str:
    """The inverse of `open_sealed`; `nonce` is 12 random bytes, used once."""
    return base64.b64encode(nonce + AESGCM(key).encrypt(nonce, plain, context)).decode()


def _litellm_params(
    row: DeploymentDocument,
    credential: CredentialDocument | None,
    secret: Mapping[str, Any],
    environment: EnvironmentDocument,
) -> dict[str, Any]:
    """Later sources win: environment's defaults, credential, its secret, the deployment."""
    params: dict[str, Any] = {
        "timeout": row["timeout_s"] or environment["timeout_s"],
        "stream_timeout": row["stream_timeout_s"] or environment["stream_timeout_s"],
        # Retries are the relay's, where each one is recorded as an attempt.
        "max_retries": 0,
    }
    params.update(credential["params"] if credential else {})
    params.update(secret)
    params.update(row["params"])
    params["model"] = row["litellm_model"]
    return params
