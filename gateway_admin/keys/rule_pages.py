"""Budgets, limits and blocks that hold for a key, a team or a person, for their pages.

The own ones first, then those above: whoever reads it sees what remains before a refusal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from gateway_admin.accounts.models import User
from gateway_admin.keys import rights
from gateway_admin.keys.balances import Balance, balances_of
from gateway_admin.keys.headroom import Headroom, headroom_of
from gateway_admin.keys.models import Block, Budget, RateLimit
from gateway_admin.keys.rule_serializers import StandingSerializer
from gateway_admin.keys.rules import AnyRule, rules_for
from gateway_admin.keys.subject_finder import name_of
from gateway_admin.keys.subjects import Subject


@dataclass(frozen=True)
class BudgetLine:
    """A budget that holds for a subject. `own`: of the page's subject itself."""

    balance: Balance
    own: bool


@dataclass(frozen=True)
class LimitLine:
    headroom: Headroom
    own: bool
    may_change: bool


def standing(person: User, subjects: Sequence[Subject]) -> Any:
    """The same for the REST API."""
    cards = rule_cards(person, subjects)
    return StandingSerializer(
        {
            "balances": [line.balance for line in cards["budget_lines"]],
            "limits": [line.headroom for line in cards["limit_lines"]],
            "blocked": [block.reason for block in cards["blocks"]],
        }
    ).data


def rule_cards(person: User, subjects: Sequence[Subject]) -> dict[str, Any]:
    """What the cards of budgets and limits show; the first subject is the page's own."""
    own = subjects[0]
    budgets = rules_for(Budget.objects.all(), subjects)
    limits = rules_for(RateLimit.objects.all(), subjects)
    balances = balances_of(
        [
            (rule, subject)
            for subject, rules in zip(subjects, budgets, strict=True)
            for rule in rules
        ]
    )
    headroom = headroom_of(
        [(rule, subject) for subject, rules in zip(subjects, limits, strict=True) for rule in rules]
    )
    return {
        "subject": own,
        "subject_name": name_of(own),
        "budget_lines": [BudgetLine(balance, balance.subject == own) for balance in balances],
        "limit_lines": [
            LimitLine(
                found,
                found.subject == own,
                found.subject == own
                and not found.limit.is_default
                and rights.may_change_limit(person, found.limit),
            )
            for found in headroom
        ],
        "blocks": blocks_of(subjects),
        "may_set_budget": rights.may_set_budget(person, own),
        "may_set_limit": rights.may_set_limit(person, own),
        "stored_at": next((b.as_of for b in balances if b.as_of is not None), None),
        "unknown": any(not balance.known for balance in balances),
    }


def tightest(subjects: Sequence[Subject]) -> list[Balance | None]:
    """For each of these (of one environment) its budget that will refuse first, for lists."""
    pairs = _pairs(subjects, rules_for(Budget.objects.all(), subjects))
    found: dict[Subject, Balance] = {}
    for balance in balances_of(pairs):
        present = found.get(balance.subject)
        if present is None or _share_left(balance) < _share_left(present):
            found[balance.subject] = balance
    return [found.get(subject) for subject in subjects]


def _share_left(balance: Balance) -> Decimal:
    """Of unknown ones nothing can be said: they come last."""
    return Decimal(2) if balance.remaining is None else balance.remaining / balance.limit


def _pairs(
    subjects: Sequence[Subject], rules: Sequence[Sequence[AnyRule]]
) -> list[tuple[AnyRule, Subject]]:
    return [(rule, subject) for subject, own in zip(subjects, rules, strict=True) for rule in own]


def blocks_of(subjects: Sequence[Subject]) -> list[Block]:
    """Blocks that refuse calls of these subjects in their environment."""
    refs = {subject.ref for subject in subjects}
    found = Block.objects.filter(
        scope__in={scope for scope, _ in refs}, subject__in={ref for _, ref in refs}
    ).select_related("environment", "team", "user", "customer", "created_by")
    environment = subjects[0].environment
    return [
        block
        for block in found
        if (block.scope, block.subject) in refs and block.environment_id in {None, environment.pk}
    ]
