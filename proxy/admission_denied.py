"""Which rule refused a request, and what its caller is told. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from proxy.admission_local import Balance, LocalRefusal
from proxy.admission_plan import Reservation
from proxy.admission_refusals import Spending, over_budget, over_rate, too_many_at_once
from proxy.admission_scripts import Reply
from proxy.refusals import Refusal


@dataclass(frozen=True, slots=True)
class Denied:
    """A rule refused; `refusal` says it to the caller."""

    refusal: Refusal
    kind: str  # budget, rpm, tpm, parallel
    scope: str
    of_target: bool
    missing_nano: int = 0  # how much smaller the estimate would have to be
    spent_all: bool = False  # no estimate fits


def used_up(wanted: Reservation, index: int, known: Balance, own_nano: int) -> Denied:
    """By a budget whose balance was seen a moment ago. `own_nano`: what only this worker knows."""
    rule, nano = wanted.rules.budgets[index], wanted.nano[index]
    refusal = over_budget(rule, Spending(known.spent, known.held + own_nano, nano))
    missing = known.spent + nano - rule.limit_nano
    spent_all = known.spent >= rule.limit_nano
    return Denied(refusal, "budget", rule.owner.scope, False, missing, spent_all)


def by_reply(wanted: Reservation, reply: Reply, own_nano: int) -> Denied:
    """By the rule that the shared counters name."""
    rules, index = wanted.rules, reply.index
    if reply.kind == "budget":
        rule, nano = rules.budgets[index], wanted.nano[index]
        spent, held = reply.balance(index)
        held += own_nano
        missing = spent + held + nano - rule.limit_nano
        refusal = over_budget(rule, Spending(spent, held, nano))
        return Denied(
            refusal, "budget", rule.owner.scope, reply.of_target, missing, missing >= nano
        )
    if reply.kind == "parallel":
        parallel = rules.parallel[index]
        refusal = too_many_at_once(parallel, running=reply.running(index), wait_ms=reply.wait_ms)
        return Denied(refusal, "parallel", parallel.owner.scope, of_target=False)
    window, used = rules.windows[index], reply.window(index)
    refusal = over_rate(
        window,
        reply.kind,
        used=used[0 if reply.kind == "rpm" else 1],
        wanted=wanted.tokens[index],
        wait_ms=reply.wait_ms,
    )
    return Denied(refusal, reply.kind, window.owner.scope, reply.of_target)


def by_share(wanted: Reservation, found: LocalRefusal, balances: Mapping[str, Balance]) -> Denied:
    """By a rule that this worker counts alone."""
    rules, index = wanted.rules, found.index
    if found.kind == "budget":
        rule, nano = rules.budgets[index], wanted.nano[index]
        balance = balances[rule.counter]
        spending = Spending(
            balance.spent + balance.local_spent,
            balance.held + balance.local_held,
            nano,
            share=found.share,
        )
        of_target = index >= wanted.plan.first_target[0]
        missing = nano - max(found.share, 0)
        return Denied(over_budget(rule, spending), "budget", rule.owner.scope, of_target, missing)
    if found.kind == "parallel":
        parallel = rules.parallel[index]
        refusal = too_many_at_once(parallel, running=found.used, wait_ms=found.wait_ms)
        return Denied(refusal, "parallel", parallel.owner.scope, of_target=False)
    window = rules.windows[index]
    refusal = over_rate(
        window, found.kind, used=found.used, wanted=wanted.tokens[index], wait_ms=found.wait_ms
    )
    of_target = index >= wanted.plan.first_target[1]
    return Denied(refusal, found.kind, window.owner.scope, of_target)
