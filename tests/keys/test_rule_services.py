"""Rules: what may be set by whom, what replaces what, what is announced and audited."""

import random
import threading
import time
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied
from django.db import connections, transaction
from django.utils import timezone

from gateway_admin.accounts.models import AuditEvent
from gateway_admin.accounts.roles import Role
from gateway_admin.accounts.services import (
    organisation_update,
    password_link_create,
    password_link_use,
    user_update,
)
from gateway_admin.catalog.models import Environment
from gateway_admin.keys import block_services, budget_services, cache_services
from gateway_admin.keys.balances import balance_of
from gateway_admin.keys.limit_services import limit_delete
from gateway_admin.keys.models import Budget, BudgetOverride, Customer, RateLimit, VirtualKey
from gateway_admin.keys.policies import changed_since, current_version
from gateway_admin.keys.rules import path_of, rules_for
from gateway_admin.keys.services import AnswerRules
from gateway_admin.keys.team_services import team_delete, team_update
from gateway_admin.lib.errors import Conflict, InvalidInput
from tests.keys.conftest import IssueKey
from tests.keys.rules import budget, limit, subject
from tests.people import People, people_create

pytestmark = pytest.mark.django_db


class TestOverrides:
    @pytest.fixture
    def found(self, people: People, prod: Environment) -> Budget:
        return budget(people.admin, subject(prod, people.search))

    def grant(self, people: People, found: Budget, **fields: Any) -> BudgetOverride:
        values: dict[str, Any] = {
            "limit_usd": Decimal(50),
            "expires_at": timezone.now() + timedelta(hours=1),
            "reason": "launch",
            **fields,
        }
        return budget_services.override_grant(actor=people.admin, budget=found, **values)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("expires_at", timezone.now() - timedelta(seconds=1)),
            ("expires_at", timezone.now() + timedelta(days=400)),
            ("limit_usd", Decimal(0)),
            ("limit_usd", Decimal("NaN")),
            ("limit_usd", Decimal("0.0000001")),
            ("reason", "  "),
            ("reason", "x" * 201),
        ],
    )
    def test_what_is_refused(self, people: People, found: Budget, field: str, value: Any) -> None:
        with pytest.raises(InvalidInput) as refused:
            self.grant(people, found, **{field: value})
        assert refused.value.field == field

    def test_a_later_one_takes_the_place(self, people: People, found: Budget) -> None:
        first = self.grant(people, found)
        second = self.grant(people, found, limit_usd=Decimal(60))
        first.refresh_from_db()
        assert (first.is_in_force(), second.is_in_force()) == (False, True)
        assert first.revoked_by == people.admin
        with pytest.raises(Conflict):
            budget_services.override_revoke(actor=people.admin, override=first)
        actions = AuditEvent.objects.filter(target_id=str(found.pk)).values_list("action")
        assert [action for (action,) in actions] == [
            "budget.grant_override",
            "budget.grant_override",
            "budget.create",
        ]

    def test_a_new_one_follows_one_that_ran_out(self, people: People, found: Budget) -> None:
        self.grant(people, found)
        BudgetOverride.objects.update(expires_at=timezone.now() - timedelta(hours=1))
        assert self.grant(people, found).is_in_force()


class TestTeamOwners:
    """May tighten what holds for keys of their team, and never loosen it."""

    def test_not_more_than_the_team(self, people: People, prod: Environment, issue: Any) -> None:
        key, _ = issue()
        budget(people.admin, subject(prod, people.search), limit_usd=Decimal(10))
        with pytest.raises(InvalidInput, match="allows"):
            budget(people.owner, subject(prod, key), limit_usd=Decimal(11))
        own = budget(people.owner, subject(prod, key), limit_usd=Decimal(10))
        assert own.by_team_owner
        with pytest.raises(InvalidInput):
            _changed(people.owner, own, limit_usd=Decimal(12))
        _changed(people.owner, own, limit_usd=Decimal(9))

    def test_not_around_the_default(self, people: People, prod: Environment, issue: Any) -> None:
        key, _ = issue()
        budget(people.admin, subject(prod, scope="key"), period="day", limit_usd=Decimal(5))
        with pytest.raises(InvalidInput, match="replace"):
            budget(people.owner, subject(prod, key), period="month", limit_usd=Decimal(1))
        with pytest.raises(InvalidInput):
            budget(people.owner, subject(prod, key), period="day", limit_usd=Decimal(6))
        budget(people.owner, subject(prod, key), period="day", limit_usd=Decimal(4))
        budget(people.owner, subject(prod, key), period="month", limit_usd=Decimal(50))

    def test_not_what_others_set(self, people: People, prod: Environment, issue: Any) -> None:
        key, _ = issue()
        found = budget(people.admin, subject(prod, key))
        with pytest.raises(PermissionDenied):
            _changed(people.owner, found, limit_usd=Decimal(1))
        with pytest.raises(PermissionDenied):
            budget_services.budget_delete(actor=people.owner, budget=found)

    def test_what_an_administrator_changes_is_the_administrators(
        self, people: People, prod: Environment, issue: Any
    ) -> None:
        key, _ = issue()
        own = budget(people.owner, subject(prod, key))
        changed = _changed(people.admin, own, limit_usd=Decimal(2))
        assert not changed.by_team_owner
        with pytest.raises(PermissionDenied):
            budget_services.budget_delete(actor=people.owner, budget=changed)

    def test_limits_likewise(self, people: People, prod: Environment, issue: Any) -> None:
        key, _ = issue()
        limit(people.admin, subject(prod, people.search), rpm=100)
        limit(people.admin, subject(prod, scope="key"), rpm=None, tpm=1_000)
        with pytest.raises(InvalidInput):  # more than the team's
            limit(people.owner, subject(prod, key), rpm=101, tpm=10)
        with pytest.raises(InvalidInput):  # would lift the default's tokens
            limit(people.owner, subject(prod, key), rpm=50)
        own = limit(people.owner, subject(prod, key), rpm=50, tpm=500)
        limit_delete(actor=people.owner, limit=own)
        limit(people.admin, subject(prod, key), rpm=5)
        with pytest.raises(PermissionDenied):
            limit(people.owner, subject(prod, key), rpm=4, tpm=4)

    @pytest.mark.parametrize("name", ["teammate", "outsider"])
    def test_nobody_else(
        self, people: People, prod: Environment, issue: IssueKey, name: str
    ) -> None:
        key, _ = issue(owner=people.teammate)
        person = getattr(people, name)
        with pytest.raises(PermissionDenied):
            budget(person, subject(prod, key))
        with pytest.raises(PermissionDenied):
            limit(person, subject(prod, key))


def _changed(actor: Any, found: Budget, **changes: Any) -> Budget:
    fields = ("name", "limit_usd", "period", "rolling_hours", "soft_percent")
    values = {field: getattr(found, field) for field in fields}
    return budget_services.budget_update(actor=actor, budget=found, **{**values, **changes})


def test_own_rules_replace_defaults_of_the_same_model(
    people: People, prod: Environment, issue: IssueKey
) -> None:
    key, _ = issue()
    each = subject(prod, scope="key")
    budget(people.admin, each, name="each")
    budget(people.admin, each, model="gpt-4o", name="each, gpt-4o")
    budget(people.admin, subject(prod, key), period="day", name="own")
    budget(people.admin, subject(prod), name="whole")
    found = rules_for(Budget.objects.all(), path_of(key))
    assert [{row.name for row in rules} for rules in found] == [
        {"own", "each, gpt-4o"},
        set(),
        set(),
        {"whole"},
    ]


def test_the_same_budget_twice_is_refused_and_changes_tell_before_and_after(
    people: People, prod: Environment
) -> None:
    first = budget(people.admin, subject(prod, people.search))
    with pytest.raises(InvalidInput):
        budget(people.admin, subject(prod, people.search))
    second = budget(people.admin, subject(prod, people.search), period="day")
    with pytest.raises(InvalidInput):
        _changed(people.admin, second, period="month")
    version = current_version(prod)
    _changed(people.admin, first)
    assert current_version(prod) == version  # nothing changed, nothing is announced
    _changed(people.admin, first, limit_usd=Decimal("12.5"), soft_percent=[90, 50, 90])
    event = AuditEvent.objects.filter(action="budget.update").get()
    assert event.changes == {"limit": ["10", "12.5"], "thresholds": [[], [50, 90]]}
    assert current_version(prod) == version + 1


def test_no_rule_for_a_revoked_key(people: People, prod: Environment, issue: IssueKey) -> None:
    key, _ = issue()
    VirtualKey.objects.update(state="revoked")
    key.refresh_from_db()
    with pytest.raises(Conflict):
        budget(people.admin, subject(prod, key))
    with pytest.raises(Conflict):
        limit(people.admin, subject(prod, key))


@pytest.mark.parametrize("fields", [{"rpm": 0}, {"rpm": None}, {"parallel": 100_001}])
def test_limits_are_numbers(people: People, prod: Environment, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        limit(people.admin, subject(prod), **fields)


class TestBlocks:
    def test_only_administrators(self, people: People, prod: Environment) -> None:
        for person in (people.owner, people.finance):
            with pytest.raises(PermissionDenied):
                block_services.subject_block(actor=person, target=people.search, reason="x")

    def test_a_second_one_takes_the_new_reason(self, people: People, prod: Environment) -> None:
        versions = current_version(prod)
        for reason in ("one", "two", "two"):
            block = block_services.subject_block(
                actor=people.admin, target=people.search, reason=reason
            )
        assert block.reason == "two"
        assert current_version(prod) == versions + 2
        block_services.subject_unblock(actor=people.admin, block=block)
        with pytest.raises(Conflict):
            block_services.subject_unblock(actor=people.admin, block=block)

    def test_everywhere_is_announced_everywhere(self, people: People, prod: Environment) -> None:
        block_services.subject_block(actor=people.admin, target=people.owner, reason="left")
        for environment in Environment.objects.all():
            delta = changed_since(environment=environment, since=0)
            assert delta.subjects == {("user", str(people.owner.pk))}


def test_a_renamed_team_is_announced_where_it_has_rules(people: People, prod: Environment) -> None:
    budget(people.admin, subject(prod, people.search))
    since = current_version(prod)
    team_update(actor=people.admin, team=people.search, name="Find", description="")
    delta = changed_since(environment=prod, since=since)
    assert delta.subjects == {("team", str(people.search.pk))}
    team_delete(actor=people.admin, team=people.search)
    assert not Budget.objects.exists()
    assert current_version(prod) == since + 2


def test_a_renamed_person_is_announced_where_they_have_rules(
    people: People, prod: Environment
) -> None:
    budget(people.admin, subject(prod, people.owner))
    since = current_version(prod)
    user_update(actor=people.admin, user=people.owner, name="Ada", role=Role.DEVELOPER)
    delta = changed_since(environment=prod, since=since)
    assert delta.subjects == {("user", str(people.owner.pk))}
    user_update(actor=people.admin, user=people.owner, name="Ada", role=Role.FINANCE)
    user_update(actor=people.admin, user=people.teammate, name="Bob", role=Role.DEVELOPER)
    assert current_version(prod) == since + 1
    secret = password_link_create(actor=people.admin, user=people.owner)
    password_link_use(secret=secret, name="Ada L.", password="a long one, 7 words of it")
    assert current_version(prod) == since + 2


class TestPurge:
    def test_a_number_that_was_never_used(self, people: People, issue: IssueKey) -> None:
        one, _ = issue("one")
        issue("two")
        cache_services.cache_purge_key(actor=people.owner, key=one)
        cache_services.cache_purge_team(actor=people.owner, team=people.search)
        versions = set(VirtualKey.objects.values_list("cache_version", flat=True))
        assert versions == {3}  # both again share, and neither finds what 1 or 2 kept
        late, _ = issue("late")
        assert late.cache_version == 3

    def test_who_purges(self, people: People, prod: Environment, issue: IssueKey) -> None:
        key, _ = issue()
        for act in (
            lambda: cache_services.cache_purge_key(actor=people.teammate, key=key),
            lambda: cache_services.cache_purge_team(actor=people.teammate, team=people.search),
            lambda: cache_services.cache_purge_environment(actor=people.owner, environment=prod),
        ):
            with pytest.raises(PermissionDenied):
                act()

    def test_answers_are_checked(self, people: People, issue: IssueKey) -> None:
        for wrong in (
            AnswerRules(cache="some"),
            AnswerRules(cache_ttl_s=0),
            AnswerRules(cache_ttl_s=31 * 86_400),
            AnswerRules(max_output_tokens=0),
        ):
            with pytest.raises(InvalidInput):
                issue("x", answers=wrong)


def test_another_calendar_is_a_version_everywhere(people: People, prod: Environment) -> None:
    organisation_update(
        actor=people.admin, name="ACME", time_zone="UTC", week_start=7, fiscal_year_month=4
    )
    assert {current_version(environment) for environment in Environment.objects.all()} == {1}
    organisation_update(actor=people.admin, name="Other", time_zone="UTC")
    assert current_version(prod) == 1
    with pytest.raises(InvalidInput):
        organisation_update(actor=people.admin, name="Other", time_zone="UTC", week_start=8)


def test_a_new_budgets_balance_is_known_at_once(
    people: People, prod: Environment, django_capture_on_commit_callbacks: Any
) -> None:
    of = subject(prod)
    with django_capture_on_commit_callbacks(execute=True):
        found = budget(people.admin, of)
    balance = balance_of(found, of)
    assert (balance.spent, balance.as_of, balance.state) == (Decimal(0), None, "ok")


@pytest.mark.django_db(transaction=True)
def test_two_at_once_make_one_budget() -> None:
    people, prod = people_create(), Environment.objects.get(slug="prod")
    outcomes: list[str] = []
    start = threading.Barrier(4)

    def write() -> None:
        start.wait(20)
        try:
            budget(people.admin, subject(prod, people.search))
            limit(people.admin, subject(prod, people.search))
            outcomes.append("made")
        except InvalidInput:
            outcomes.append("refused")
        finally:
            connections.close_all()

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes) == ["made", "refused", "refused", "refused"]
    assert (Budget.objects.count(), RateLimit.objects.count()) == (1, 1)


@pytest.mark.django_db(transaction=True)
def test_a_poller_misses_no_rule_of_writers_that_commit_late() -> None:
    people, prod = people_create(), Environment.objects.get(slug="prod")
    customers = Customer.objects.bulk_create(
        Customer(environment=prod, reference=f"c{number}") for number in range(24)
    )
    finished = threading.Event()
    seen: set[str] = set()
    failures: list[BaseException] = []

    def write(mine: list[Customer]) -> None:
        try:
            for customer in mine:
                with transaction.atomic():
                    limit(people.admin, subject(prod, customer))
                    time.sleep(random.random() / 100)  # commits long after it took its version
        except BaseException as error:  # noqa: BLE001 (reported by the test's own thread)
            failures.append(error)
        finally:
            connections.close_all()

    def poll() -> None:
        since = 0
        while True:
            last_round = finished.is_set()
            delta = changed_since(environment=prod, since=since)
            seen.update(name for _, name in delta.subjects)
            since = delta.version
            if last_round:
                break
        connections.close_all()

    writers = [threading.Thread(target=write, args=(customers[start::4],)) for start in range(4)]
    poller = threading.Thread(target=poll)
    for thread in [poller, *writers]:
        thread.start()
    for thread in writers:
        thread.join(60)
    finished.set()
    poller.join(60)
    assert failures == []
    assert seen == {customer.reference for customer in customers}
