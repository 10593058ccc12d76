"""The rules of one kind of request, compiled: found once, used until something changes.

A plan is for one key, one customer (if there are rules about it), one first target and one
list of further ones. It ends with the policies or the snapshot it was made from, with the
first of its budgets' periods or rolling buckets, and with an override. Nothing about time
zones, prices or names is worked out per request.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from proxy.admission_rules import Owner, RuleBook, RuleSet
from proxy.contract import ChargedCounter, KeyPolicy, ModelDocument
from proxy.estimate import Demand
from proxy.rates import Rate
from proxy.snapshot import Deployment, Snapshot

PLANS_MAX = 4_096
NO_LIMIT = 2**62


@dataclass(slots=True, eq=False)
class Ending:
    """To which rules of a plan an answer of one deployment belongs."""

    charged: list[bool]  # per budget
    counted: list[bool]  # per window
    document: list[ChargedCounter]
    wire: Any = None  # SettleForm, made when it is first sent


@dataclass(slots=True, eq=False)
class Plan:
    """All that a request has to keep; budgets and windows from `first_target` on are a target's."""

    rules: RuleSet
    first_target: tuple[int, int]
    first: Deployment
    model: ModelDocument | None
    groups: list[list[Rate]]  # what may be called, for each thing a budget may speak of
    group_of: list[int]  # per budget
    least: Rate | None
    facts: dict[str, Any]  # what the events of all its requests say
    begins: datetime
    ends: datetime
    most: list[int]  # tokens that each window may ever take
    told: list[tuple[Owner, list[int]]]  # whose metrics tell what is left, with their budgets
    generation: int  # of the book's plans
    wire: Any = None  # AdmitForm, made when it is first sent
    places: Any = None  # where the worker's own book counts it
    endings: dict[tuple[str, str | None], Ending] = field(default_factory=dict)

    def reserve(self, demand: Demand) -> "Reservation":
        """What to reserve. Tokens never exceed a limit, so that one can always pass."""
        groups, budgets = self.groups, self.rules.budgets
        if len(groups) == 1 and len(groups[0]) == 1:
            nano = [groups[0][0].worst_nano(demand)] * len(budgets)
        else:
            worst = [max([r.worst_nano(demand) for r in group], default=0) for group in groups]
            nano = [worst[group] for group in self.group_of]
        if not self.rules.windows:
            return Reservation(self, nano, [])
        tokens = demand.rough_tokens(self.model)
        return Reservation(self, nano, [most if most < tokens else tokens for most in self.most])

    def least_nano(self, demand: Demand) -> int:
        """What the input alone probably costs on the first target."""
        return self.least.least_nano(demand) if self.least is not None else 0

    def ending(self, model: str, served: Deployment | None) -> Ending:
        """When a deployment has answered, or nobody has."""
        key = (model, served.id if served is not None else None)
        found = self.endings.get(key)
        if found is None:
            found = self.endings[key] = self._ending(model, served)
        return found

    def _ending(self, model: str, served: Deployment | None) -> Ending:
        credential = served.credential if served is not None else None
        deployment = served.id if served is not None else None
        charged = [
            rule.model in (None, model) and rule.credential in (None, credential)
            for rule in self.rules.budgets
        ]
        counted = [
            window.model in (None, model) and window.deployment in (None, deployment)
            for window in self.rules.windows
        ]
        document: list[ChargedCounter] = [
            {"counter": rule.counter, "bucket": rule.bucket}
            for rule, belongs in zip(self.rules.budgets, charged, strict=True)
            if belongs
        ]
        return Ending(charged, counted, document)


@dataclass(slots=True, eq=False)
class Reservation:
    """What is to be reserved for each rule, in the order of the rules."""

    plan: Plan
    nano: list[int]  # per budget
    tokens: list[int]  # per window
    second: int = 0  # once admitted: in which the shared windows counted it
    own_second: int = 0  # and this worker's own

    @property
    def rules(self) -> RuleSet:
        """The plan's."""
        return self.plan.rules


@dataclass(slots=True, eq=False)
class _Kept:
    """A plan with what it was made from: held, so that no other object takes its place."""

    plan: Plan
    policy: KeyPolicy
    targets: Sequence[Deployment]


class PlanBook:
    """Compiles plans and keeps those that were used last."""

    def __init__(self, rules: RuleBook, told: Callable[[str], bool]) -> None:
        self._rules = rules
        self._is_told = told  # whether metrics tell what is left to a scope's subjects
        self._kept: OrderedDict[tuple[object, ...], _Kept] = OrderedDict()
        self._rates: dict[tuple[object, str], Rate] = {}
        self._generation = 0  # of plans: how often all were forgotten
        self._changes = -1  # of the policies, when the plans were made
        self._snapshot: Snapshot | None = None

    def __len__(self) -> int:
        return len(self._kept)

    def find(
        self,
        policy: KeyPolicy,
        customer: str,
        snapshot: Snapshot | None,
        targets: Sequence[Deployment],
        first: Deployment,
        at: datetime,
    ) -> Plan:
        """The plan of a request that began at a moment."""
        policies = self._rules.policies
        if policies.changes != self._changes or snapshot is not self._snapshot:
            self._forget(snapshot)
        if customer and not policies.speaks_of("customer", customer):
            customer = ""  # as many as callers can think of
        key = (id(policy), customer, id(first), *map(id, targets))
        kept = self._kept.get(key)
        if kept is not None and kept.plan.begins <= at < kept.plan.ends:
            self._kept.move_to_end(key)
            return kept.plan
        rules = self._rules.of_request(policy, customer, {first.model}, at)
        of_target = self._rules.of_target(first, at)
        plan = self.compile(policy, snapshot, rules, of_target, targets, first)
        self._kept[key] = _Kept(plan, policy, targets)
        if len(self._kept) > PLANS_MAX:
            self._kept.popitem(last=False)
        return plan

    def holds(self, plan: Plan, snapshot: Snapshot | None, at: datetime) -> bool:
        """Whether a plan that was found before would be found again."""
        current = self._rules.policies.changes == self._changes and snapshot is self._snapshot
        made_since = plan.generation == self._generation  # the book was emptied for the last time
        return current and made_since and plan.begins <= at < plan.ends

    def _forget(self, snapshot: Snapshot | None) -> None:
        self._kept.clear()
        self._rates.clear()
        self._generation += 1
        self._changes, self._snapshot = self._rules.policies.changes, snapshot

    def compile(
        self,
        policy: KeyPolicy,
        snapshot: Snapshot | None,
        rules: RuleSet,
        of_target: RuleSet,
        targets: Sequence[Deployment],
        first: Deployment,
    ) -> Plan:
        """A plan of the request's rules and of those of its first target; it is not kept."""
        if snapshot is not self._snapshot:
            self._forget(snapshot)
        budgets, windows = rules.budgets + of_target.budgets, rules.windows + of_target.windows
        together = RuleSet(budgets, windows, rules.parallel)
        groups: dict[tuple[str | None, str | None], int] = {}
        group_of = [groups.setdefault((b.model, b.credential), len(groups)) for b in budgets]
        rates = [
            self._rates_of((first,) if credential is not None else targets, model)
            for model, credential in groups
        ]
        told: dict[Owner, list[int]] = {}
        for index, rule in enumerate(budgets):
            if self._is_told(rule.owner.scope):
                told.setdefault(rule.owner, []).append(index)
        begins, ends = together.valid
        return Plan(
            rules=together,
            first_target=(len(rules.budgets), len(rules.windows)),
            first=first,
            model=self._model(first.model),
            groups=rates,
            group_of=group_of,
            least=self._rate(first),
            facts=self._facts(policy, first),
            begins=begins,
            ends=ends,
            most=[window.tpm or NO_LIMIT for window in windows],
            told=list(told.items()),
            generation=self._generation,
        )

    def _facts(self, policy: KeyPolicy, first: Deployment) -> dict[str, Any]:
        return {
            "key_id": policy["key_id"],
            "public_id": policy["public_id"],
            "user_id": policy["user_id"],
            "team_id": policy["team_id"],
            "tags": policy["tags"],
            "model": first.model,
            "deployment": first.id,
            "revision": self._snapshot.revision if self._snapshot is not None else None,
        }

    def _model(self, name: str) -> ModelDocument | None:
        return self._snapshot.models.get(name) if self._snapshot is not None else None

    def _rates_of(self, rows: Sequence[Deployment], model: str | None) -> list[Rate]:
        found = (self._rate(row) for row in rows if model in (None, row.model))
        return list(dict.fromkeys(rate for rate in found if rate is not None))

    def _rate(self, row: Deployment) -> Rate | None:
        """Deployments of one model at the same prices share it."""
        if row.price is None:
            return None
        key = (frozenset(row.price.units.items()), row.model)
        found = self._rates.get(key)
        if found is None:
            found = self._rates[key] = Rate(row.price, self._model(row.model))
        return found
