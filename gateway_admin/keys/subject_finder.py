"""From what people type to the subject of a rule; only what this person may see is found."""

from contextlib import suppress
from uuid import UUID

from django.db.models import Q

from gateway_admin.accounts.models import User
from gateway_admin.accounts.roles import is_admin, sees_all_spend
from gateway_admin.catalog.models import Credential, Environment
from gateway_admin.keys import queries, rights
from gateway_admin.keys.models import Scope, VirtualKey
from gateway_admin.keys.services import KEY_PREFIX
from gateway_admin.keys.subjects import EVERY, Subject, Target
from gateway_admin.lib.errors import InvalidInput


def find_subject(
    *, actor: User, environment: Environment, scope: str, name: str, field: str = "subject"
) -> Subject:
    """The subject, or InvalidInput at `field`.

    `name`: a team's short name, a person's e-mail, a key's id or public id, a customer's
    reference, a credential's name; "*": each of them; ignored for the environment itself.
    """
    if scope not in Scope.values:
        raise InvalidInput("No such scope.", field="scope")
    if scope == Scope.ENVIRONMENT or name == EVERY:
        return Subject(scope, environment)
    if not name:
        raise InvalidInput("Say whose rule it is, or * for each.", field=field)
    target = _find(actor, environment, scope, name)
    if target is None:
        word = Scope(scope).label.lower()
        raise InvalidInput(f"There is no {word} “{name}” in {environment}.", field=field)
    return Subject(scope, environment, target)


def name_of(subject: Subject) -> str:
    """The inverse of `find_subject`: what stands in the API and in forms."""
    target = subject.target
    if target is None:
        return "" if subject.scope == Scope.ENVIRONMENT else EVERY
    if isinstance(target, VirtualKey):
        return target.public_id
    if isinstance(target, User):
        return target.email
    return target.name if isinstance(target, Credential) else _reference(target)


def _reference(target: Target) -> str:
    return str(getattr(target, "slug", "") or getattr(target, "reference", ""))


def _find(actor: User, environment: Environment, scope: str, name: str) -> Target | None:
    if scope == Scope.TEAM:
        return queries.visible_teams(actor).filter(slug=name).first()
    if scope == Scope.USER:
        people = User.objects.all() if sees_all_spend(actor) else User.objects.filter(pk=actor.pk)
        return people.filter(email__iexact=name).first()
    if scope == Scope.KEY:
        return _key(actor, environment, name)
    if scope == Scope.CUSTOMER:
        customers = rights.visible_customers(actor)
        return customers.filter(environment=environment, reference=name).first()
    credentials = Credential.objects.filter(environment=environment, name=name)
    return credentials.first() if is_admin(actor) or sees_all_spend(actor) else None


def _key(actor: User, environment: Environment, name: str) -> VirtualKey | None:
    public_id = name.split("-")[2] if name.startswith(KEY_PREFIX) else name
    wanted = Q(public_id=public_id)
    with suppress(ValueError):  # then it can be a public id only
        wanted |= Q(pk=UUID(name))
    keys = queries.with_relations(queries.visible_keys(actor))
    return keys.filter(wanted, environment=environment).first()
