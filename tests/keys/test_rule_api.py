"""Budgets, limits, blocks, customers and purges through the REST API."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from gateway_admin.accounts.models import Organisation
from gateway_admin.catalog.models import Environment
from gateway_admin.keys.models import Block, Budget, Customer, RateLimit, VirtualKey
from tests.keys.conftest import IssueKey
from tests.keys.rules import budget, subject
from tests.people import People

pytestmark = pytest.mark.django_db

BUDGET = {
    "environment": "prod",
    "scope": "team",
    "subject": "search",
    "limit_usd": "25",
    "period": "month",
    "soft_percent": [80],
}


@pytest.fixture
def api(people: People, prod: Environment, api_of: Any) -> Any:
    return lambda name: api_of(getattr(people, name))


def test_a_budgets_life(api: Any, people: People) -> None:
    admin = api("admin")
    made = admin.post("/api/v1/budgets/", BUDGET, format="json")
    assert made.status_code == 201
    document = made.json()
    assert (document["subject"], document["limit_usd"], document["name"]) == (
        "search",
        "25.000000",
        "Search, month",
    )
    assert document["balance"]["state"] == "unknown"  # no counters are built
    assert document["balance"]["spent_usd"] is None
    path = f"/api/v1/budgets/{document['id']}/"
    changed = admin.patch(path, {"limit_usd": "30"}, format="json").json()
    assert (changed["limit_usd"], changed["soft_percent"]) == ("30.000000", [80])
    override = {
        "limit_usd": "99",
        "expires_at": (timezone.now() + timedelta(days=1)).isoformat(),
        "reason": "launch",
    }
    assert admin.post(f"{path}overrides/", override, format="json").status_code == 201
    assert admin.get(path).json()["balance"]["limit_usd"] == "99.000000000"
    assert len(admin.get(f"{path}overrides/").json()) == 1
    assert admin.post(f"{path}overrides/end/").status_code == 200
    assert admin.post(f"{path}overrides/end/").status_code == 409
    assert admin.delete(path).status_code == 204
    assert admin.get(path).status_code == 404


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"limit_usd": "0"}, "limit_usd"),
        ({"limit_usd": "9000001"}, "limit_usd"),
        ({"soft_percent": [0]}, "soft_percent"),
        ({"soft_percent": [101]}, "soft_percent"),
        ({"period": "rolling"}, "rolling_hours"),
        ({"period": "rolling", "rolling_hours": 8761}, "rolling_hours"),
        ({"subject": "nobody"}, "subject"),
        ({"subject": ""}, "subject"),
        ({"scope": "key", "subject": "00000000-0000-0000-0000-000000000000"}, "subject"),
        ({"environment": "mars"}, "environment"),
        ({"model": "no-such-model"}, "model"),
        ({"scope": "credential", "subject": "main", "model": "gpt-4o"}, "model"),
    ],
)
def test_what_is_wrong_is_said(api: Any, changes: dict[str, Any], field: str) -> None:
    answer = api("admin").post("/api/v1/budgets/", {**BUDGET, **changes}, format="json")
    assert answer.status_code == 422
    assert [error["attr"].split(".")[0] for error in answer.json()["errors"]] == [field]


def test_one_budget_per_subject_model_and_period(api: Any) -> None:
    admin = api("admin")
    each = {**BUDGET, "subject": "*"}
    for document in (BUDGET, each):
        assert admin.post("/api/v1/budgets/", document, format="json").status_code == 201
        assert admin.post("/api/v1/budgets/", document, format="json").status_code == 422
        other = {**document, "period": "day"}
        assert admin.post("/api/v1/budgets/", other, format="json").status_code == 201
        of_model = {**document, "model": "gpt-4o"}
        assert admin.post("/api/v1/budgets/", of_model, format="json").status_code == 201
    assert Budget.objects.count() == 6


@pytest.mark.parametrize(
    ("name", "status"),
    [("admin", 201), ("finance", 201), ("owner", 403), ("teammate", 403), ("outsider", 422)],
)
def test_who_sets_a_teams_budget(api: Any, name: str, status: int) -> None:
    assert api(name).post("/api/v1/budgets/", BUDGET, format="json").status_code == status


@pytest.mark.parametrize(
    ("name", "status"), [("admin", 201), ("finance", 403), ("owner", 201), ("teammate", 403)]
)
def test_who_limits_a_teams_key(api: Any, issue: IssueKey, name: str, status: int) -> None:
    key, _ = issue()
    document = {"environment": "prod", "scope": "key", "subject": str(key.pk), "rpm": 5}
    answer = api(name).post("/api/v1/limits/", document, format="json")
    assert answer.status_code == status
    assert RateLimit.objects.exists() == (status == 201)


def test_a_limit_is_replaced_and_lifted(api: Any) -> None:
    admin = api("admin")
    document = {"environment": "prod", "scope": "user", "subject": "*", "rpm": 100, "tpm": 10_000}
    first = admin.post("/api/v1/limits/", document, format="json").json()
    again = admin.post("/api/v1/limits/", {**document, "rpm": 50, "tpm": None}, format="json")
    assert again.json()["id"] == first["id"]
    assert (again.json()["rpm"], again.json()["tpm"]) == (50, None)
    nothing = {"environment": "prod", "scope": "user", "subject": "*"}
    assert admin.post("/api/v1/limits/", nothing, format="json").status_code == 422
    assert admin.get("/api/v1/limits/?scope=user").json()["results"][0]["rpm"] == 50
    assert admin.delete(f"/api/v1/limits/{first['id']}/").status_code == 204


def test_what_remains_for_a_key(api: Any, people: People, prod: Environment, issue: Any) -> None:
    key, _ = issue()
    budget(people.admin, subject(prod, key), limit_usd=Decimal(1))
    budget(people.admin, subject(prod, people.search), limit_usd=Decimal(2))
    budget(people.admin, subject(prod), limit_usd=Decimal(3))
    found = api("owner").get(f"/api/v1/keys/{key.pk}/standing/").json()
    limits = [balance["limit_usd"].rstrip("0").rstrip(".") for balance in found["balances"]]
    assert limits == ["1", "2", "3"]
    team = api("teammate").get("/api/v1/teams/search/standing/?environment=prod").json()
    assert [balance["scope"] for balance in team["balances"]] == ["team", "environment"]
    assert api("outsider").get(f"/api/v1/keys/{key.pk}/standing/").status_code == 404


def test_blocks(api: Any) -> None:
    admin = api("admin")
    document = {"scope": "user", "subject": "owner@example.com", "reason": "left"}
    assert api("owner").post("/api/v1/blocks/", document, format="json").status_code == 403
    made = admin.post("/api/v1/blocks/", document, format="json").json()
    assert made["environment"] is None
    assert [row["reason"] for row in api("owner").get("/api/v1/blocks/").json()["results"]] == [
        "left"
    ]
    assert api("outsider").get("/api/v1/blocks/").json()["results"] == []
    customer = {**document, "scope": "customer", "subject": "acme"}
    assert admin.post("/api/v1/blocks/", customer, format="json").status_code == 422
    assert admin.delete(f"/api/v1/blocks/{made['id']}/").status_code == 204
    assert not Block.objects.exists()


def test_customers(api: Any) -> None:
    document = {"environment": "prod", "reference": "acme 42", "name": "ACME"}
    assert api("owner").get("/api/v1/customers/").status_code == 403
    finance = api("finance")
    made = finance.post("/api/v1/customers/", document, format="json").json()
    assert finance.post("/api/v1/customers/", document, format="json").status_code == 422
    path = f"/api/v1/customers/{made['id']}/"
    assert finance.patch(path, {"name": "Acme"}, format="json").json()["name"] == "Acme"
    own = {**BUDGET, "scope": "customer", "subject": "acme 42"}
    assert finance.post("/api/v1/budgets/", own, format="json").status_code == 201
    assert finance.delete(path).status_code == 409
    Budget.objects.all().delete()
    assert finance.delete(path).status_code == 204
    assert not Customer.objects.exists()


def test_answers_of_a_key(api: Any, issue: IssueKey) -> None:
    key, _ = issue()
    owner = api("owner")
    path = f"/api/v1/keys/{key.pk}/"
    changed = owner.patch(path, {"cache": "all", "cache_ttl_s": 60}, format="json").json()
    assert (changed["cache"], changed["cache_ttl_s"], changed["max_output_tokens"]) == (
        "all",
        60,
        None,
    )
    kept = owner.patch(path, {"max_output_tokens": 100}, format="json").json()
    assert (kept["cache"], kept["max_output_tokens"]) == ("all", 100)
    assert owner.patch(path, {"cache_ttl_s": 0}, format="json").status_code == 422
    assert owner.post(f"{path}purge-cache/").status_code == 204
    assert owner.post("/api/v1/teams/search/purge-cache/").status_code == 204
    asked = {"environment": "prod"}
    assert owner.post("/api/v1/cache/purge/", asked, format="json").status_code == 403
    assert api("admin").post("/api/v1/cache/purge/", asked, format="json").status_code == 204
    assert VirtualKey.objects.get().cache_version == 4


def test_the_organisations_calendar(api: Any) -> None:
    path = "/api/v1/organisation/"
    assert api("owner").get(path).json()["week_start"] == 1
    assert api("finance").patch(path, {"week_start": 7}, format="json").status_code == 403
    changed = api("admin").patch(path, {"week_start": 7}, format="json").json()
    assert changed["week_start"] == 7
    assert api("admin").patch(path, {"fiscal_year_month": 13}, format="json").status_code == 422
    assert Organisation.objects.get().week_start == 7
