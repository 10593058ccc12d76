"""Which rules hold for a subject: its own, else the defaults of its scope."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TypeVar

from django.db.models import Q, QuerySet

from gateway_admin.accounts.models import User
from gateway_admin.catalog.models import Environment
from gateway_admin.keys.models import Block, Budget, RateLimit, Team, VirtualKey
from gateway_admin.keys.policies import SubjectRef, policy_changed
from gateway_admin.keys.subjects import EVERY, Subject, scope_of, target_id

AnyRule = TypeVar("AnyRule", Budget, RateLimit)
RELATED = ("environment", "team", "user", "key", "customer", "credential")


def own_or_default(rules: Iterable[AnyRule]) -> list[AnyRule]:
    """Of rules of one subject and of its scope's defaults: those that hold.

    Own rules replace the defaults of the same model, whatever their period.
    """
    found = list(rules)
    own = {rule.model for rule in found if not rule.is_default}
    return [rule for rule in found if not rule.is_default or rule.model not in own]


def rules_for(rules: QuerySet[AnyRule], subjects: Sequence[Subject]) -> list[list[AnyRule]]:
    """For each of these subjects (of one environment) the rules that hold, in one query."""
    if not subjects:
        return []
    refs: dict[str, set[str]] = defaultdict(set)
    for scope, ref in (subject.ref for subject in subjects):
        refs[scope] |= {ref, EVERY}
    wanted = Q(pk=None)
    for scope, names in refs.items():
        wanted |= Q(scope=scope, subject__in=names)
    rows = rules.filter(wanted, environment=subjects[0].environment).select_related(*RELATED)
    found = list(rows.order_by("model", "created_at"))
    by_ref: dict[SubjectRef, list[AnyRule]] = defaultdict(list)
    for rule in found:
        by_ref[rule.scope, rule.subject].append(rule)
    return [
        own_or_default(by_ref[scope, ref] + by_ref[scope, EVERY])
        for scope, ref in (subject.ref for subject in subjects)
    ]


def path_of(key: VirtualKey) -> list[Subject]:
    """Whose rules hold for calls of a key, the key first. Customers come with the request."""
    above = [row for row in (key.owner, key.team) if row is not None]
    subjects = [Subject(scope_of(row), key.environment, row) for row in [key, *above]]
    return [*subjects, Subject("environment", key.environment)]


def subjects_with_rules(target: Team | User) -> list[tuple[Environment, SubjectRef]]:
    """Environments in which replicas know a team or a person by its rules."""
    scope = scope_of(target)
    ref = (scope.value, target_id(target))
    found: dict[Environment, SubjectRef] = {}
    for rules in (Budget.objects, RateLimit.objects):
        for rule in rules.filter(**{scope.value: target}).select_related("environment"):
            found[rule.environment] = ref
    if Block.objects.filter(**{scope.value: target}).exists():
        found.update(dict.fromkeys(Environment.objects.all(), ref))
    return list(found.items())


def subject_renamed(target: Team | User) -> None:
    """Refusals by its rules say the new name. Call it last in the transaction of the write."""
    policy_changed(subjects=subjects_with_rules(target))
