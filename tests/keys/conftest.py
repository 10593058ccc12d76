"""An environment with models to allow, and keys to work on."""

from typing import Any, Protocol

import pytest

from gateway_admin.accounts.models import User
from gateway_admin.catalog.models import (
    Credential,
    Deployment,
    Environment,
    Model,
    ModelAlias,
    Provider,
)
from gateway_admin.keys.models import Team, VirtualKey
from gateway_admin.keys.services import key_create
from tests.people import People


class IssueKey(Protocol):
    def __call__(self, name: str = ..., **fields: Any) -> tuple[VirtualKey, str]: ...


@pytest.fixture
def prod(db: None) -> Environment:
    """prod serves gpt-4o and claude-haiku; `default` is an alias."""
    environment = Environment.objects.get(slug="prod")
    provider = Provider.objects.create(slug="openai", name="OpenAI", kind=Provider.Kind.OPENAI)
    credential = Credential.objects.create(environment=environment, provider=provider, name="main")
    for name in ("gpt-4o", "claude-haiku"):
        model = Model.objects.create(name=name)
        Deployment.objects.create(
            environment=environment,
            name=name,
            model=model,
            provider=provider,
            credential=credential,
            upstream_model=name,
        )
    ModelAlias.objects.create(
        environment=environment, name="default", model=Model.objects.get(name="gpt-4o")
    )
    return environment


@pytest.fixture
def issue(prod: Environment, people: People) -> IssueKey:
    """`issue("ci")` is a key of the owner in the team Search."""

    def issue_key(name: str = "indexer", **fields: Any) -> tuple[VirtualKey, str]:
        owner: User | None = fields.pop("owner", people.owner)
        team: Team | None = fields.pop("team", people.search)
        environment: Environment = fields.pop("environment", prod)
        return key_create(
            actor=people.admin, environment=environment, name=name, owner=owner, team=team, **fields
        )

    return issue_key
