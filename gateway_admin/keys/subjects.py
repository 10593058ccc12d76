"""Who a rule speaks of, as one value: for services, pages and the API alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway_admin.accounts.models import User
from gateway_admin.catalog.models import Credential, Environment
from gateway_admin.keys.models import Block, Customer, Rule, Scope, Team, VirtualKey
from gateway_admin.keys.policies import SubjectRef
from proxy.contract import counters

Target = Team | User | VirtualKey | Customer | Credential
EVERY = "*"
EACH = {
    Scope.TEAM: "Each team",
    Scope.USER: "Each person",
    Scope.KEY: "Each key",
    Scope.CUSTOMER: "Each customer",
    Scope.CREDENTIAL: "Each credential",
}


@dataclass(frozen=True)
class Subject:
    """A target in an environment; without one its scope says "each of them", or the whole."""

    scope: str
    environment: Environment
    target: Target | None = None

    @property
    def is_default(self) -> bool:
        return self.target is None and self.scope != Scope.ENVIRONMENT

    @property
    def id(self) -> str:
        """As SubjectPolicy.subject."""
        if self.scope == Scope.ENVIRONMENT:
            return self.environment.slug
        return EVERY if self.target is None else target_id(self.target)

    @property
    def ref(self) -> SubjectRef:
        return str(self.scope), self.id

    @property
    def counter_ref(self) -> str:
        """As it stands in the names of counters."""
        return counters.subject_ref(self.scope, self.id)

    @property
    def label(self) -> str:
        """What pages and refusals call it."""
        if self.scope == Scope.ENVIRONMENT:
            return self.environment.name
        return EACH[Scope(self.scope)] if self.target is None else target_name(self.target)

    def columns(self) -> dict[str, Any]:
        """The columns of a Rule that say whose it is."""
        own = {self.scope: self.target} if self.target is not None else {}
        return {
            "environment": self.environment,
            "scope": self.scope,
            "subject": self.id,
            "is_default": self.is_default,
            **own,
        }


def subject_of(rule: Rule) -> Subject:
    return Subject(rule.scope, rule.environment, rule.target)  # type: ignore[arg-type]


def subject_for(target: Target | Environment, environment: Environment) -> Subject:
    """The subject that a row is, in an environment."""
    if isinstance(target, Environment):
        return Subject(Scope.ENVIRONMENT, target)
    return Subject(scope_of(target), environment, target)


def scope_of(target: Target) -> Scope:
    scopes: dict[type, Scope] = {
        Team: Scope.TEAM,
        User: Scope.USER,
        VirtualKey: Scope.KEY,
        Customer: Scope.CUSTOMER,
        Credential: Scope.CREDENTIAL,
    }
    return scopes[type(target)]


def target_id(target: Target) -> str:
    return target.reference if isinstance(target, Customer) else str(target.pk)


def target_name(target: Target) -> str:
    return target.name if isinstance(target, VirtualKey) else str(target)


def block_ref(block: Block) -> SubjectRef:
    return block.scope, block.subject
