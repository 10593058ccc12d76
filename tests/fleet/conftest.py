"""A small environment that can be published, and a replica that calls the machine endpoints."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client

from gateway_admin.catalog.models import Deployment, Environment
from gateway_admin.fleet.services import fleet_identity, open_token
from tests import builders


@dataclass
class Replica:
    """One worker of a replica, as the machine endpoints see it."""

    client: Client
    id: str

    def report(self, **fields: Any) -> dict[str, Any]:
        values: dict[str, Any] = {
            "replica_id": self.id,
            "hostname": "gw-1",
            "version": "0.1.0",
            "worker": 0,
            "workers": 1,
            "pid": 4711,
            "started_at": datetime(2026, 11, 20, 12, tzinfo=UTC).isoformat(),
            "applied_revision": None,
            "applied_digest": None,
            "rejected_revision": None,
            "rejected_error": None,
            "rejected_deployment": None,
            "policy_version": 0,
            "spool_events": 0,
            "spool_bytes": 0,
            "dropped_events": 0,
            "healthy": True,
            "reasons": [],
        }
        return {**values, **fields}

    def sync(self, **fields: Any) -> Any:
        body = json.dumps(self.report(**fields))
        return self.client.post("/fleet/v1/sync", body, content_type="application/json")

    def get(self, path: str) -> Any:
        return self.client.get(f"/fleet/v1/{path}")


@pytest.fixture
def replica_of(db: None) -> Callable[[Environment], Replica]:
    def make(environment: Environment) -> Replica:
        token = open_token(fleet_identity(environment))
        client = Client(enforce_csrf_checks=True, headers={"authorization": f"Bearer {token}"})
        return Replica(client, str(uuid4()))

    return make


@pytest.fixture
def prod(db: None) -> Environment:
    return builders.environment("prod")


@pytest.fixture
def gpt(prod: Environment) -> Deployment:
    """One deployment of the model gpt-4o in prod."""
    return builders.deployment(
        environment=prod,
        name="openai-gpt-4o",
        model=builders.model("gpt-4o", context_window=128_000),
        upstream_model="gpt-4o",
        prices={"input_token": "0.0000025", "output_token": "0.00001"},
    )
