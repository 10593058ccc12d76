"""Builders of the documents that tests publish to a replica."""

import base64
import hashlib
import hmac
import json
import os
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from proxy.contract import (
    BudgetDocument,
    CredentialDocument,
    DeploymentDocument,
    KeyPolicy,
    LimitDocument,
    RevisionDocument,
    RevisionEnvelope,
    SubjectPolicy,
    document_digest,
    secret_context,
)
from proxy.contract.counters import nano_dollars
from proxy.defaults import BREAKER
from proxy.snapshot import seal

ENVIRONMENT = "prod"
FLEET_KEY = bytes(range(32))
FLEET_TOKEN = "fleet-token-of-the-tests"
PEPPER = b"pepper-of-the-tests-0123456789ab"
PRICE = {"input_token": "0.0000025", "output_token": "0.00001"}


def sealed(secret_id: str, plain: bytes) -> str:
    """Encrypt something for the replica under test."""
    return seal(plain, FLEET_KEY, secret_context(ENVIRONMENT, secret_id), os.urandom(12))


def new_key(public_id: str) -> str:
    """A virtual key that is the same in each run."""
    secret = base64.urlsafe_b64encode(hashlib.sha256(public_id.encode()).digest())[:40].decode()
    return f"sk-gw-{public_id}-{secret}"


def policy(public_id: str, **changes: Any) -> KeyPolicy:
    """Policy of `new_key(public_id)`."""
    digest = hmac.new(PEPPER, new_key(public_id).encode(), hashlib.sha256).hexdigest()
    row: dict[str, Any] = {
        "public_id": public_id,
        "digest": digest,
        "name": f"key {public_id}",
        "state": "active",
        "reason": "",
        "expires_at": None,
        "key_id": f"key-{public_id}",
        "team_id": "team-1",
        "team": "search",
        "user_id": "user-1",
        "user": "teammate@example.com",
        "models": None,
        "tags": {"product": "web"},
        "cache": "off",
        "cache_ttl_s": None,
        "cache_version": 0,
        "max_output_tokens": None,
    }
    return row | changes  # type: ignore[return-value]


def subject(
    scope: str,
    subject: str,
    *,
    budgets: Sequence[BudgetDocument] = (),
    limits: Sequence[LimitDocument] = (),
    blocked: str | None = None,
    name: str = "",
) -> SubjectPolicy:
    """The rules of one subject, or with "*" of each without its own."""
    return {
        "scope": scope,  # type: ignore[typeddict-item]
        "subject": subject,
        "name": name or subject,
        "blocked": blocked,
        "budgets": list(budgets),
        "limits": list(limits),
    }


def budget(id: str, usd: str, **changes: Any) -> BudgetDocument:
    """A monthly budget."""
    row: dict[str, Any] = {
        "id": id,
        "name": f"budget {id}",
        "model": None,
        "limit_nano": nano_dollars(Decimal(usd)),
        "period": "month",
        "rolling_hours": None,
        "soft_percent": [],
        "override_nano": None,
        "override_until": None,
    }
    return row | changes  # type: ignore[return-value]


def limit(id: str, **changes: Any) -> LimitDocument:
    """A limit: `rpm`, `tpm`, `parallel`, `model`."""
    row: dict[str, Any] = {"id": id, "model": None, "rpm": None, "tpm": None, "parallel": None}
    return row | changes  # type: ignore[return-value]


def credential(id: str, secret: dict[str, str] | None, **params: Any) -> CredentialDocument:
    """A credential; its secret travels as `secret-<id>`."""
    fingerprint = hashlib.sha256(json.dumps(secret).encode()).hexdigest()[:16] if secret else None
    return {
        "id": id,
        "name": id,
        "provider": id,
        "secret_id": f"secret-{id}" if secret is not None else None,
        "fingerprint": fingerprint,
        "params": params,
    }


# What the deployments of all documents say; see the fixture `both_lanes`.
every_deployment = {"lane": "auto"}


def deployment(
    id: str, model: str, litellm_model: str, credential_id: str | None, **changes: Any
) -> DeploymentDocument:
    """A deployment at a price of 2.50 and 10.00 USD per million tokens."""
    kind = litellm_model.partition("/")[0]
    row: dict[str, Any] = {
        "id": id,
        "name": id,
        "model": model,
        "provider": kind,
        "provider_kind": kind,
        "upstream_model": litellm_model.partition("/")[2],
        "litellm_model": litellm_model,
        "credential": credential_id,
        "params": {},
        "rpm": None,
        "tpm": None,
        "weight": 1,
        "timeout_s": None,
        "stream_timeout_s": None,
        "region": "",
        "price": {"version": "price-1", "source": "own", "units": dict(PRICE)},
    }
    if every_deployment["lane"] != "auto":
        row["lane"] = every_deployment["lane"]
    return row | changes  # type: ignore[return-value]


def document(
    deployments: list[DeploymentDocument],
    credentials: list[CredentialDocument],
    *,
    aliases: dict[str, str] | None = None,
    chains: list[dict[str, Any]] | None = None,
    modes: dict[str, str] | None = None,
    extra_models: tuple[str, ...] = (),
    **environment: Any,
) -> RevisionDocument:
    """A revision document with the models that its deployments serve."""
    names = sorted({row["model"] for row in deployments} | set(extra_models))
    return {
        "schema": 1,
        "environment": {
            "slug": ENVIRONMENT,
            "name": "Production",
            "default_model": None,
            "fallback_enabled": True,
            "timeout_s": 20.0,
            "stream_timeout_s": 10.0,
            "num_retries": 0,
            "total_timeout_s": 60.0,
            "retry_backoff_s": 0.05,
            # The faults of one test must not keep deployments from the next.
            "breaker": {**BREAKER, "enabled": False},
            "default_output_tokens": None,
            "on_counter_outage": "share",
            **environment,  # type: ignore[typeddict-item]
        },
        "models": [
            {
                "name": name,
                "mode": (modes or {}).get(name, "chat"),
                "context_window": 128_000,
                "max_output_tokens": 16_384,
                "cache": True,
            }
            for name in names
        ],
        "aliases": aliases or {},
        "credentials": sorted(credentials, key=lambda row: row["id"]),
        "deployments": sorted(deployments, key=lambda row: row["id"]),
        "chains": chains or [],  # type: ignore[typeddict-item]
    }


def envelope(
    number: int, content: RevisionDocument, secrets: dict[str, dict[str, str]]
) -> RevisionEnvelope:
    """A published revision; `secrets` by credential id."""
    return {
        "revision": number,
        "digest": document_digest(content),
        "document": content,
        "secrets": {
            f"secret-{id}": sealed(f"secret-{id}", json.dumps(secret).encode())
            for id, secret in secrets.items()
        },
    }
