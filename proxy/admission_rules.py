"""The rules that one request has to keep, with the counters they are kept in. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from proxy.contract import BudgetDocument, CalendarDocument, KeyPolicy
from proxy.contract.counters import (
    budget_key,
    counter_name,
    limit_key,
    moment_ms,
    parallel_key,
    subject_ref,
)
from proxy.contract.periods import Period, period_of
from proxy.policies import PolicyTable, SubjectRules
from proxy.snapshot import Deployment

KEPT_AFTER_S = 8 * 86_400  # a counter outlives its period: late events, pages, disputes
ROLLING_KEPT_AFTER_S = 3_600
ALWAYS = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))

Span = tuple[datetime, datetime]  # from the first moment to before the second


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose rule it is, in the words of refusals and metrics."""

    scope: str  # Scope of the contract, or "deployment"
    subject: str
    name: str


@dataclass(frozen=True, slots=True)
class BudgetRule:
    """One budget in its present period."""

    owner: Owner
    name: str
    model: str | None
    counter: str
    key: str
    limit_nano: int  # in force: the override while there is one
    period: Period
    bucket: int | None
    kept_s: int  # the counter is kept so long after its period's end; 0: for ever
    valid: Span  # when the rule is just this one
    credential: str | None = None

    def reduced(self, nano: int) -> "BudgetRule":
        """The same with a lower limit."""
        return replace(self, limit_nano=self.limit_nano - nano)


@dataclass(frozen=True, slots=True)
class WindowRule:
    """Requests and tokens in any 60 s."""

    owner: Owner
    model: str | None
    key: str
    rpm: int | None
    tpm: int | None
    deployment: str | None = None


@dataclass(frozen=True, slots=True)
class ParallelRule:
    """Requests at once."""

    owner: Owner
    model: str | None
    key: str
    limit: int


@dataclass(slots=True)
class RuleSet:
    """All that is asked of a request at once."""

    budgets: list[BudgetRule] = field(default_factory=list)
    windows: list[WindowRule] = field(default_factory=list)
    parallel: list[ParallelRule] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.budgets or self.windows or self.parallel)

    @property
    def valid(self) -> Span:
        """The moments at which these very rules hold, as long as nobody changes them."""
        begin, end = ALWAYS
        for rule in self.budgets:
            begin, end = max(begin, rule.valid[0]), min(end, rule.valid[1])
        return begin, end


@dataclass(frozen=True, slots=True)
class RuleBook:
    """Finds the rules of requests in one environment."""

    policies: PolicyTable
    environment: str

    def of_request(
        self, policy: KeyPolicy, customer: str, models: Iterable[str], at: datetime
    ) -> RuleSet:
        """Rules of everybody on the path: those for all models, and for these models."""
        found = RuleSet()
        wanted = {None, *models}
        for rules in self.policies.path_of(policy, customer, self.environment):
            owner = Owner(rules.scope, rules.subject, name_of(rules, policy))
            self._collect(found, rules, owner, wanted, at)
        return found

    def of_model(self, policy: KeyPolicy, customer: str, model: str, at: datetime) -> RuleSet:
        """Rules for one model alone: of a fallback's."""
        found = RuleSet()
        for rules in self.policies.path_of(policy, customer, self.environment):
            owner = Owner(rules.scope, rules.subject, name_of(rules, policy))
            self._collect(found, rules, owner, {model}, at)
        return found

    def of_target(self, deployment: Deployment, at: datetime) -> RuleSet:
        """A deployment's own limits and its credential's budgets."""
        found = RuleSet()
        if deployment.rpm or deployment.tpm:
            owner = Owner("deployment", deployment.id, deployment.name)
            key = limit_key(self.environment, "deployment", deployment.id, None)
            found.windows.append(
                WindowRule(owner, None, key, deployment.rpm, deployment.tpm, deployment.id)
            )
        if deployment.credential is not None:
            rules = self.policies.rules_of("credential", deployment.credential)
            owner = Owner("credential", deployment.credential, rules.name)
            for row in rules.budgets:
                if row["model"] in (None, deployment.model):
                    found.budgets.append(self._budget(row, owner, at, deployment.credential))
        return found

    def _collect(
        self,
        found: RuleSet,
        rules: SubjectRules,
        owner: Owner,
        models: set[str | None] | set[str],
        at: datetime,
    ) -> None:
        for row in rules.budgets:
            if row["model"] in models:
                found.budgets.append(self._budget(row, owner, at, None))
        ref = subject_ref(owner.scope, owner.subject)
        for limit in rules.limits:
            model = limit["model"]
            if model not in models:
                continue
            if limit["rpm"] or limit["tpm"]:
                key = limit_key(self.environment, owner.scope, ref, model)
                found.windows.append(WindowRule(owner, model, key, limit["rpm"], limit["tpm"]))
            if limit["parallel"]:
                key = parallel_key(self.environment, owner.scope, ref, model)
                found.parallel.append(ParallelRule(owner, model, key, limit["parallel"]))

    def _budget(
        self, row: BudgetDocument, owner: Owner, at: datetime, credential: str | None
    ) -> BudgetRule:
        calendar: CalendarDocument = self.policies.calendar
        period = period_of(
            row["period"], at=at, calendar=calendar, rolling_hours=row["rolling_hours"]
        )
        counter = counter_name(row["id"], subject_ref(owner.scope, owner.subject), period.id)
        return BudgetRule(
            owner=owner,
            name=row["name"],
            model=row["model"],
            counter=counter,
            key=budget_key(self.environment, counter),
            limit_nano=limit_in_force(row, at),
            period=period,
            bucket=period.bucket(at),
            kept_s=_kept_s(row, period),
            valid=_valid(row, period, at),
            credential=credential,
        )


def name_of(rules: SubjectRules, policy: KeyPolicy) -> str:
    """What people call the subject, also when only default rules speak of it."""
    if rules.name != rules.subject:
        return rules.name
    names = {"team": policy["team"], "user": policy["user"], "key": policy["name"]}
    return names.get(rules.scope) or rules.name


def limit_in_force(row: BudgetDocument, at: datetime) -> int:
    """Nano-dollars: the override until its end, else the budget's own limit."""
    override, until = row["override_nano"], row["override_until"]
    if override is not None and until is not None and datetime.fromisoformat(until) > at:
        return override
    return row["limit_nano"]


def _kept_s(row: BudgetDocument, period: Period) -> int:
    if period.bucket_s:
        hours = timedelta(hours=row["rolling_hours"] or 24)
        return int(hours.total_seconds()) + 2 * period.bucket_s + ROLLING_KEPT_AFTER_S
    return 0 if period.end is None else KEPT_AFTER_S


def _valid(row: BudgetDocument, period: Period, at: datetime) -> Span:
    """How long period, bucket and limit around a moment stay what they are."""
    begin, end = ALWAYS
    if period.bucket_s:
        bucket = period.bucket(at) or 0
        begin = datetime.fromtimestamp(bucket * period.bucket_s, UTC)
        end = begin + timedelta(seconds=period.bucket_s)
    elif period.start is not None and period.end is not None:
        begin, end = period.start, period.end
    if row["override_nano"] is not None and row["override_until"] is not None:
        until = datetime.fromisoformat(row["override_until"])
        if until > at:
            return begin, min(end, until)
        return max(begin, until), end
    return begin, end


def bounds_ms(period: Period) -> tuple[int, int]:
    """Begin and end of a calendar period; zeros where it has none."""
    if period.end is None or period.start is None:
        return 0, 0
    return moment_ms(period.start), moment_ms(period.end)
