"""Names for the ids that the ledger holds; what was deleted is named as such."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Model as DjangoModel

from gateway_admin.accounts.models import User
from gateway_admin.catalog.models import Deployment, Environment, Provider
from gateway_admin.keys.models import Team, VirtualKey

_MODELS: Mapping[str, type[DjangoModel]] = {
    "team": Team,
    "key": VirtualKey,
    "user": User,
    "deployment": Deployment,
    "provider": Provider,
    "environment": Environment,
}
NONE_WORDS = {
    "team": "No team",
    "key": "No key",
    "user": "No person",
    "deployment": "Not routed",
    "provider": "Not routed",
    "model": "Unknown model",
    "requested_model": "Unknown model",
    "status": "None",
    "error_class": "No error",
}


@dataclass(frozen=True)
class Labels:
    """Names by id for one kind of thing."""

    kind: str
    names: Mapping[Any, str]

    def name(self, value: Any) -> str:
        if value is None or value == "":
            return NONE_WORDS.get(self.kind, "None")
        if self.kind not in _MODELS:
            return str(value)
        return self.names.get(value) or f"Deleted {self.kind} {str(value)[:8]}"


def labels_of(kind: str, values: Iterable[Any]) -> Labels:
    """Look names up, in one query; models and states are their own names."""
    wanted = {value for value in values if value is not None}
    if kind not in _MODELS or not wanted:
        return Labels(kind, {})
    rows = _MODELS[kind]._default_manager.filter(pk__in=wanted)
    return Labels(kind, dict(rows.values_list("pk", _name_field(kind))))


def all_labels(kind: str) -> Labels:
    """Names of every row of a kind, for exports: tables of hundreds."""
    return Labels(kind, dict(_MODELS[kind]._default_manager.values_list("pk", _name_field(kind))))


def _name_field(kind: str) -> str:
    return "email" if kind == "user" else "name"
