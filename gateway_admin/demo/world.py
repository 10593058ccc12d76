"""What the demonstration's events refer to: keys, and what was published when."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast
from uuid import UUID

from gateway_admin.accounts.models import Organisation
from gateway_admin.catalog.models import Deployment
from gateway_admin.demo import organisation as tables
from gateway_admin.fleet.models import Revision
from gateway_admin.keys.models import VirtualKey
from proxy.contract import DeploymentDocument, RevisionDocument


@dataclass(frozen=True)
class Key:
    """A virtual key as events name it."""

    row: tables.KeyRow
    key_id: str
    public_id: str
    user_id: str | None
    team_id: str | None
    tags: dict[str, str]


class Published:
    """One revision, looked up by names."""

    def __init__(self, number: int, document: RevisionDocument) -> None:
        self.number = number
        self.aliases = document["aliases"]
        self.windows = {model["name"]: model["context_window"] for model in document["models"]}
        self.chains: dict[tuple[str, str], list[str]] = {
            (row["model"], row["kind"]): row["targets"] for row in document["chains"]
        }
        self.deployments: dict[str, list[DeploymentDocument]] = defaultdict(list)
        for deployment in document["deployments"]:
            self.deployments[deployment["model"]].append(deployment)
        self.weights = {
            model: [row["weight"] for row in rows] for model, rows in self.deployments.items()
        }

    def serves(self, name: str) -> bool:
        return self.aliases.get(name, name) in self.deployments


@dataclass(frozen=True)
class World:
    keys: list[Key]
    history: Mapping[str, list[tuple[datetime, Published]]]  # by environment, oldest first
    credential_of: Mapping[str, UUID]  # deployment -> credential

    @classmethod
    def load(cls) -> "World":
        """The demonstration as it is seeded."""
        credentials = _credentials()
        made_at = Organisation.objects.values_list("demo_since", flat=True).get()
        history: dict[str, list[tuple[datetime, Published]]] = defaultdict(list)
        for revision in Revision.objects.select_related("environment").order_by("number"):
            document = cast(RevisionDocument, revision.document)
            served = {deployment["id"] for deployment in document["deployments"]}
            if not served or not served <= credentials.keys():
                continue  # of a demonstration that was removed before this one was made
            slug = revision.environment.slug
            at = _meant_for(slug, len(history[slug]), made_at) or revision.published_at
            history[slug].append((at, Published(revision.number, document)))
        return cls(keys=_keys(), history=history, credential_of=credentials)

    def published(self, environment: str, at: datetime) -> Published | None:
        """What an environment served then; None before its first revision."""
        versions = self.history.get(environment, [])
        place = bisect_right(versions, at, key=lambda version: version[0])
        return versions[place - 1][1] if place else None


def _meant_for(slug: str, place: int, made_at: datetime | None) -> datetime | None:
    """The invented day of an environment's revision; None: it was published since."""
    steps = tables.HISTORY if slug == tables.MAIN else tables.HISTORY[tables.TRIALS_STEP :][:1]
    if made_at is None or place >= len(steps):
        return None
    return made_at - timedelta(days=steps[place].days_ago)


def _keys() -> list[Key]:
    found = {
        (key.environment.slug, key.name): key
        for key in VirtualKey.objects.filter(team__is_demo=True).select_related("environment")
    }
    keys = []
    for row in tables.KEYS:
        key = found.get((row.environment, row.name))
        if key is not None:
            keys.append(
                Key(
                    row=row,
                    key_id=str(key.pk),
                    public_id=key.public_id,
                    user_id=str(key.owner_id) if key.owner_id else None,
                    team_id=str(key.team_id) if key.team_id else None,
                    tags=dict(key.tags),
                )
            )
    return keys


def _credentials() -> dict[str, UUID]:
    rows = Deployment.objects.filter(provider__is_demo=True).values_list("pk", "credential_id")
    return {str(deployment): credential for deployment, credential in rows}
