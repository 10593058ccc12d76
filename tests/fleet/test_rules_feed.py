"""GET /fleet/v1/policies: budgets, limits, blocks and the calendar as replicas learn them."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from gateway_admin.accounts.services import organisation_update
from gateway_admin.keys import block_services, budget_services, limit_services
from gateway_admin.keys.cache_services import cache_purge_environment, cache_purge_key
from gateway_admin.keys.policies import full_resync
from gateway_admin.keys.services import AnswerRules
from proxy.contract import BudgetDocument, LimitDocument, PolicyFeed, SubjectPolicy
from tests import builders
from tests.keys.rules import budget, limit, subject

pytestmark = pytest.mark.django_db


@pytest.fixture
def feed(prod: Any, replica_of: Any) -> Any:
    replica = replica_of(prod)
    return lambda since=0: replica.get(f"policies?since={since}").json()


def test_the_whole_is_what_the_contract_says(prod: Any, feed: Any, people: Any) -> None:
    of = subject(prod, people.search)
    found = budget(people.admin, of, limit_usd=Decimal("12.345678"), soft_percent=[80, 95])
    until = timezone.now() + timedelta(hours=2)
    budget_services.override_grant(
        actor=people.admin, budget=found, limit_usd=Decimal(20), expires_at=until, reason="x"
    )
    builders.model("gpt-4o")
    fast = limit(people.admin, of, rpm=60, model="gpt-4o")
    answer = feed()
    assert set(answer) == set(PolicyFeed.__annotations__)
    (policy,) = answer["subjects"]
    assert set(policy) == set(SubjectPolicy.__annotations__)
    assert policy == {
        "scope": "team",
        "subject": str(people.search.pk),
        "name": "Search",
        "blocked": None,
        "budgets": [
            {
                "id": str(found.pk),
                "name": "Search, month",
                "model": None,
                "limit_nano": 12_345_678_000,
                "period": "month",
                "rolling_hours": None,
                "soft_percent": [80, 95],
                "override_nano": 20_000_000_000,
                "override_until": until.isoformat(timespec="microseconds"),
            }
        ],
        "limits": [
            {"id": str(fast.pk), "model": "gpt-4o", "rpm": 60, "tpm": None, "parallel": None}
        ],
    }
    assert set(policy["budgets"][0]) == set(BudgetDocument.__annotations__)
    assert set(policy["limits"][0]) == set(LimitDocument.__annotations__)
    assert answer["calendar"] == {"time_zone": "UTC", "week_start": 1, "fiscal_year_month": 1}
    assert (answer["breaker_orders"], answer["removed_subjects"]) == ([], [])


def test_every_scope_has_its_subject(prod: Any, feed: Any, people: Any) -> None:
    key, _ = builders.key(people.owner, environment=prod, team=people.search)
    customer = block_services.customer_create(
        actor=people.admin, environment=prod, reference='o"neil', name="O'Neil"
    )
    credential = builders.credential(environment=prod, name="main")
    targets = (people.search, people.owner, key, customer, credential)
    for target in targets:
        budget(people.admin, subject(prod, target))
    budget(people.admin, subject(prod))
    for scope in ("team", "user", "key", "customer", "credential"):
        budget(people.admin, subject(prod, scope=scope))
    found = {(row["scope"], row["subject"]): row["name"] for row in feed()["subjects"]}
    assert found == {
        ("environment", "prod"): "Production",
        ("team", str(people.search.pk)): "Search",
        ("user", str(people.owner.pk)): "Owner",
        ("key", str(key.pk)): key.name,
        ("customer", 'o"neil'): "O'Neil",
        ("credential", str(credential.pk)): "main",
        **{(scope, "*"): f"each {scope}" for scope in ("team", "user", "key", "customer")},
        ("credential", "*"): "each credential",
    }


def test_a_change_is_a_delta_of_that_subject(prod: Any, feed: Any, people: Any) -> None:
    first = budget(people.admin, subject(prod, people.search))
    budget(people.admin, subject(prod, people.ads))
    seen = feed()["version"]
    limited = limit(people.admin, subject(prod, people.search))
    answer = feed(seen)
    assert (answer["version"], answer["full"], answer["keys"]) == (seen + 1, False, [])
    (policy,) = answer["subjects"]
    assert (len(policy["budgets"]), len(policy["limits"])) == (1, 1)
    limit_services.limit_delete(actor=people.admin, limit=limited)
    budget_services.budget_delete(actor=people.admin, budget=first)
    answer = feed(seen)
    assert answer["subjects"] == []
    assert answer["removed_subjects"] == [["team", str(people.search.pk)]]


def test_an_override_that_was_ended_is_not_sent(prod: Any, feed: Any, people: Any) -> None:
    found = budget(people.admin, subject(prod))
    until = timezone.now() + timedelta(hours=2)
    override = budget_services.override_grant(
        actor=people.admin, budget=found, limit_usd=Decimal(20), expires_at=until, reason="x"
    )
    seen = feed()["version"]
    budget_services.override_revoke(actor=people.admin, override=override)
    (policy,) = feed(seen)["subjects"]
    assert policy["budgets"][0]["override_nano"] is None
    assert policy["budgets"][0]["override_until"] is None


def test_blocks_come_and_go(prod: Any, feed: Any, people: Any, replica_of: Any) -> None:
    dev = replica_of(builders.environment("dev"))
    everywhere = block_services.subject_block(
        actor=people.admin, target=people.owner, reason="left"
    )
    here = block_services.subject_block(
        actor=people.admin, target=people.owner, reason="here too", environment=prod
    )
    assert [row["blocked"] for row in feed()["subjects"]] == ["here too"]
    other = dev.get("policies?since=0").json()
    assert [row["blocked"] for row in other["subjects"]] == ["left"]
    block_services.subject_unblock(actor=people.admin, block=here)
    seen = feed()["version"]
    assert [row["blocked"] for row in feed()["subjects"]] == ["left"]
    block_services.subject_unblock(actor=people.admin, block=everywhere)
    assert feed(seen)["removed_subjects"] == [["user", str(people.owner.pk)]]


def test_another_calendar_is_an_empty_delta_with_it(prod: Any, feed: Any, people: Any) -> None:
    builders.key(people.owner, environment=prod)
    seen = feed()["version"]
    organisation_update(
        actor=people.admin, name="ACME", time_zone="Europe/Berlin", fiscal_year_month=4
    )
    answer = feed(seen)
    assert (answer["version"], answer["full"], answer["keys"]) == (seen + 1, False, [])
    assert answer["calendar"] == {
        "time_zone": "Europe/Berlin",
        "week_start": 1,
        "fiscal_year_month": 4,
    }


def test_a_purge_is_seen(prod: Any, feed: Any, people: Any) -> None:
    answers = AnswerRules(cache="all", cache_ttl_s=60, max_output_tokens=100)
    key, _ = builders.key(people.owner, environment=prod, answers=answers)
    (before,) = feed()["keys"]
    assert (before["cache"], before["cache_ttl_s"], before["max_output_tokens"]) == ("all", 60, 100)
    seen = feed()["version"]
    cache_purge_key(actor=people.owner, key=key)
    (after,) = feed(seen)["keys"]
    assert after["cache_version"] == before["cache_version"] + 1
    cache_purge_environment(actor=people.admin, environment=prod)
    answer = feed(seen)
    assert answer["full"]
    assert answer["keys"][0]["cache_version"] == before["cache_version"] + 2


def test_who_is_too_old_forgets_all_rules(prod: Any, feed: Any, people: Any) -> None:
    budget(people.admin, subject(prod))
    full_resync(environment=prod)
    answer = feed(1)
    assert (answer["full"], len(answer["subjects"])) == (True, 1)


def test_the_number_of_queries_does_not_grow_with_rules(
    prod: Any, replica_of: Any, people: Any, django_assert_max_num_queries: Any
) -> None:
    replica = replica_of(prod)
    for period in ("day", "week", "month"):
        budget(people.admin, subject(prod), period=period)
        budget(people.admin, subject(prod, people.search), period=period)
    with django_assert_max_num_queries(7):
        replica.get("policies?since=0")
    with django_assert_max_num_queries(7):
        replica.get("policies?since=1")
