"""Pages of budgets, limits, blocks and customers: who sees what, forms, fragments."""

import re
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from gateway_admin.accounts.models import AuditEvent
from gateway_admin.catalog.models import Environment
from gateway_admin.keys.block_services import customer_create, subject_block
from gateway_admin.keys.models import Block, Budget, BudgetOverride, Customer, RateLimit
from gateway_admin.usage.models import CustomerDay
from proxy.contract import counters
from tests.keys.conftest import IssueKey
from tests.keys.rules import budget, limit, subject
from tests.people import People

pytestmark = pytest.mark.django_db

FORM = {
    "scope": "team",
    "team": "search",
    "limit_usd": "25.50",
    "period": "month",
    "soft_percent": "80, 95",
    "name": "",
}


@pytest.fixture
def client(people: People, prod: Environment, client_of: Any) -> Any:
    """`client("owner")` is signed in and looks at prod."""

    def of(name: str) -> Any:
        client = client_of(getattr(people, name))
        client.post("/environment/", {"environment": "prod"})
        return client

    return of


def test_a_budget_is_set_by_the_form(client: Any, people: People) -> None:
    answer = client("admin").post("/budgets/new/", FORM)
    found = Budget.objects.get()
    assert answer.url == f"/budgets/{found.pk}/"
    assert (found.team, found.limit_usd, found.soft_percent) == (
        people.search,
        Decimal("25.5"),
        [80, 95],
    )
    page = client("admin").get(answer.url).content.decode()
    assert "Search, month" in page
    assert "unknown" in page  # no counters are built: never zero


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("limit_usd", "0"),
        ("limit_usd", "9000001"),
        ("soft_percent", "80, x"),
        ("soft_percent", "0, 80"),
        ("soft_percent", "101"),
        ("period", "fortnight"),
        ("scope", "planet"),
        ("key", "sk-gw-none"),
    ],
)
def test_the_form_says_what_is_wrong(client: Any, field: str, value: str) -> None:
    changes = {"scope": "key"} if field == "key" else {}
    answer = client("admin").post("/budgets/new/", {**FORM, **changes, field: value})
    assert answer.status_code == 422
    assert not Budget.objects.exists()


def test_rolling_hours_are_asked_for(client: Any) -> None:
    form = {**FORM, "period": "rolling", "rolling_hours": ""}
    assert client("admin").post("/budgets/new/", form).status_code == 422
    client("admin").post("/budgets/new/", {**form, "rolling_hours": "36"})
    assert Budget.objects.get().rolling_hours == 36


def test_the_list_filters_and_exports(client: Any, people: People, prod: Environment) -> None:
    budget(people.admin, subject(prod, people.search))
    budget(people.admin, subject(prod, people.outsider), period="day")
    budget(people.admin, subject(prod, scope="key"), name="Keys' default")
    page = client("admin").get("/budgets/").content.decode()
    assert page.count("<tr data-href") == 3
    only = client("admin").get("/budgets/?scope=team").content.decode()
    assert only.count("<tr data-href") == 1
    assert "No budget matches" in client("admin").get("/budgets/?q=nothing").content.decode()
    assert "No budget matches" in client("admin").get("/budgets/?state=exhausted").content.decode()
    csv = client("finance").get("/budgets/export.csv?scope=user")
    text = b"".join(csv.streaming_content).decode()
    assert "outsider@example.com" in text
    assert "Search" not in text
    assert AuditEvent.objects.filter(action="export.csv").exists()


def test_who_sees_which_budget(client: Any, people: People, prod: Environment) -> None:
    rows = {
        "search": budget(people.admin, subject(prod, people.search)),
        "ads": budget(people.admin, subject(prod, people.ads)),
        "whole": budget(people.admin, subject(prod)),
        "each": budget(people.admin, subject(prod, scope="user")),
        "teammate": budget(people.admin, subject(prod, people.teammate)),
    }
    sees = {
        "admin": set(rows),
        "finance": set(rows),
        "owner": {"search", "whole", "each"},
        "teammate": {"search", "whole", "each", "teammate"},
        "outsider": {"ads", "whole", "each"},
    }
    for name, expected in sees.items():
        one = client(name)
        found = {
            key for key, row in rows.items() if one.get(f"/budgets/{row.pk}/").status_code == 200
        }
        assert found == expected, name
        page = one.get("/budgets/").content.decode()
        assert {key for key, row in rows.items() if str(row.pk) in page} == expected, name


@pytest.mark.parametrize(
    ("name", "status"), [("admin", 302), ("finance", 302), ("owner", 403), ("outsider", 404)]
)
def test_who_changes_a_teams_budget(
    client: Any, people: People, prod: Environment, name: str, status: int
) -> None:
    found = budget(people.admin, subject(prod, people.search))
    form = {"limit_usd": "11", "period": "month", "soft_percent": "", "name": "x"}
    assert client(name).post(f"/budgets/{found.pk}/edit/", form).status_code == status
    gone = client(name).post(f"/budgets/{found.pk}/delete/", {"confirm": "x"})
    assert gone.status_code == status
    assert Budget.objects.exists() == (status != 302)


def test_an_override_is_granted_and_ended(client: Any, people: People, prod: Environment) -> None:
    found = budget(people.admin, subject(prod, people.search))
    path = f"/budgets/{found.pk}/override/"
    form = {"limit_usd": "50", "until": "3", "reason": "launch week"}
    assert client("owner").post(path, form).status_code == 403
    assert client("finance").post(path, {**form, "reason": ""}).status_code == 422
    assert client("finance").post(path, form).status_code == 302
    page = client("owner").get(f"/budgets/{found.pk}/").content.decode()
    assert "launch week" in page
    assert "$50.00" in page
    override = BudgetOverride.objects.get()
    client("admin").post(f"{path}{override.pk}/end/")
    override.refresh_from_db()
    assert not override.is_in_force()


def test_what_will_happen_is_said_before(client: Any, people: People, issue: IssueKey) -> None:
    issue("one")
    issue("two")
    text = client("admin").get("/budgets/effect/", FORM).content.decode()
    assert "2 keys" in text
    assert "counts" in text
    limits = {"scope": "user", "user": "", "rpm": "5"}
    said = client("admin").get("/limits/effect/", limits).content.decode()
    assert "2 keys" in said


def test_the_key_page_shows_own_and_parents(
    client: Any, people: People, prod: Environment, issue: IssueKey
) -> None:
    key, _ = issue()
    budget(people.admin, subject(prod, key), name="of the key")
    budget(people.admin, subject(prod, people.search), limit_usd=Decimal("77"))
    budget(people.admin, subject(prod), limit_usd=Decimal("999"))
    limit(people.admin, subject(prod, scope="user"), rpm=123)
    page = client("owner").get(f"/keys/{key.pk}/").content.decode()
    for words in ("$10.00", "$77.00", "$999.00", "123", "requests per minute"):
        assert words in page
    team = client("teammate").get("/teams/search/").content.decode()
    assert "$77.00" in team
    person = client("admin").get(f"/people/{people.owner.pk}/rules/").content.decode()
    assert "123" in person
    assert client("outsider").get(f"/people/{people.owner.pk}/rules/").status_code == 404


def test_an_owner_sets_a_limit_of_a_key_of_the_team(
    client: Any, people: People, prod: Environment, issue: IssueKey
) -> None:
    key, _ = issue()
    form = {"scope": "key", "key": key.public_id, "rpm": "5"}
    assert client("teammate").post("/limits/set/", form).status_code == 403
    assert client("owner").post("/limits/set/", form).status_code == 302
    found = RateLimit.objects.get()
    assert (found.key, found.rpm, found.by_team_owner) == (key, 5, True)
    assert client("teammate").post(f"/limits/{found.pk}/delete/").status_code == 403
    assert client("owner").post("/limits/set/", {**form, "scope": "team"}).status_code == 422
    assert client("owner").post(f"/limits/{found.pk}/delete/").status_code == 302
    assert not RateLimit.objects.exists()


def test_blocks_by_the_page(client: Any, people: People, prod: Environment) -> None:
    form = {
        "scope": "user",
        "user": "owner@example.com",
        "where": "here",
        "reason": "left the company",
    }
    assert client("finance").post("/blocks/new/", form).status_code == 403
    assert client("admin").post("/blocks/new/", {**form, "reason": ""}).status_code == 422
    assert client("admin").post("/blocks/new/", {**form, "user": ""}).status_code == 422
    assert client("admin").post("/blocks/new/", {**form, "where": "everywhere"}).status_code == 302
    block = Block.objects.get()
    assert block.environment is None
    assert "left the company" in client("owner").get("/blocks/").content.decode()
    assert "left the company" not in client("outsider").get("/blocks/").content.decode()
    assert client("owner").post(f"/blocks/{block.pk}/delete/").status_code == 403
    assert client("admin").post(f"/blocks/{block.pk}/delete/").status_code == 302
    assert not Block.objects.exists()


def test_the_owner_of_a_key_sees_why_it_is_refused(
    client: Any, people: People, issue: IssueKey
) -> None:
    key, _ = issue()
    subject_block(actor=people.admin, target=people.search, reason="over budget twice")
    assert "over budget twice" in client("owner").get(f"/keys/{key.pk}/").content.decode()
    assert "over budget twice" in client("teammate").get("/teams/search/").content.decode()


def test_customers(client: Any, people: People, prod: Environment) -> None:
    assert client("owner").get("/customers/").status_code == 403
    form = {"reference": "acme/42", "name": "ACME"}
    assert client("finance").post("/customers/new/", form).status_code == 302
    assert client("finance").post("/customers/new/", form).status_code == 422
    customer = Customer.objects.get()
    budget(people.finance, subject(prod, customer))
    page = client("finance").get(f"/customers/{customer.pk}/").content.decode()
    assert "$10.00" in page
    assert client("admin").post(f"/customers/{customer.pk}/delete/").status_code == 302
    assert Customer.objects.exists()  # a budget speaks of it
    client("admin").post(f"/customers/{customer.pk}/", {"name": "ACME Ltd"})
    assert "ACME Ltd" in client("admin").get("/customers/").content.decode()
    assert "No customer matches" in client("admin").get("/customers/?q=zzz").content.decode()


def test_customers_show_what_they_cost(client: Any, people: People, prod: Environment) -> None:
    customer_create(actor=people.admin, environment=prod, reference="c1", name="Named")
    today = timezone.localdate()
    for reference, model, days, cost in (
        ("c1", "gpt-4o", 0, 5),
        ("c1", "claude-haiku", 1, 2),
        ("c1", "gpt-4o", 31, 100),
        ("c2", "gpt-4o", 0, 11),
        ("", "gpt-4o", 0, 50),
    ):
        CustomerDay.objects.create(
            environment_id=prod.pk,
            customer=reference,
            day=today - timedelta(days=days),
            model=model,
            requests=3,
            cost=cost,
            cost_nano=cost * 10**9,
        )
    page = client("finance").get("/customers/").content.decode()
    assert "$7.00" in page
    assert "$11.00" in page
    assert "reference=c2" in page
    assert "$50.00" not in page
    assert 'value="c2"' in client("finance").get("/customers/new/?reference=c2").content.decode()


def test_lists_show_the_budget_that_refuses_first(
    client: Any, people: People, prod: Environment, issue: IssueKey, valkey: Any
) -> None:
    key, _ = issue()
    valkey.set(counters.epoch_key("prod"), "e1")
    budget(people.admin, subject(prod, key), limit_usd=Decimal(40))
    budget(people.admin, subject(prod, key), limit_usd=Decimal(7), period="day")
    budget(people.admin, subject(prod, scope="team"), limit_usd=Decimal(500))
    tight = Budget.objects.get(limit_usd=7)
    day = f"d{timezone.localdate():%Y-%m-%d}"
    name = counters.counter_name(str(tight.pk), str(key.pk), day)
    valkey.hset(counters.budget_key("prod", name), mapping={"s": 6 * 10**9})
    assert "$1.00 of $7.00 left, day" in _words(client("owner").get("/keys/"))
    assert "$500.00 of $500.00 left, month" in _words(client("teammate").get("/teams/"))


def _words(answer: Any) -> str:
    """A page's text without its markup."""
    return " ".join(re.sub(r"<[^>]+>", " ", answer.content.decode()).split())


def test_answers_of_a_key_are_set_and_purged(client: Any, people: People, issue: IssueKey) -> None:
    key, _ = issue()
    form = {
        "name": key.name,
        "team": "search",
        "owner": "owner@example.com",
        "models_mode": "all",
        "cache": "deterministic",
        "cache_ttl_s": "600",
        "max_output_tokens": "2048",
    }
    assert client("owner").post(f"/keys/{key.pk}/edit/", form).status_code == 302
    key.refresh_from_db()
    assert (key.cache, key.cache_ttl_s, key.max_output_tokens) == ("deterministic", 600, 2048)
    assert client("teammate").post(f"/keys/{key.pk}/purge/").status_code == 403
    client("owner").post(f"/keys/{key.pk}/purge/")
    key.refresh_from_db()
    assert key.cache_version == 2
    client("owner").post("/teams/search/purge/")
    for path in (f"/keys/{key.pk}/", "/teams/search/"):
        back = client("owner").post(f"{path}purge/", {"next": "/cache/?environment=prod"})
        assert back.headers["Location"] == "/cache/?environment=prod"
        away = client("owner").post(f"{path}purge/", {"next": "https://example.com/"})
        assert away.headers["Location"] == path
    client("admin").post("/cache/purge/", {"confirm": "Production", "next": "/keys/"})
    key.refresh_from_db()
    assert key.cache_version >= 3


def test_lists_say_what_is_searched(client: Any) -> None:
    assert 'placeholder="Subject or model"' in client("admin").get("/limits/").content.decode()
    assert 'placeholder="Subject or reason"' in client("admin").get("/blocks/").content.decode()


def test_empty_pages_say_how_to_start(client: Any) -> None:
    for path in ("/budgets/", "/limits/", "/blocks/", "/customers/"):
        assert client("admin").get(path).status_code == 200
        assert client("admin").get(path, headers={"HX-Request": "true"}).status_code == 200
    for path in ("/budgets/new/", "/limits/set/", "/customers/new/"):
        assert client("admin").get(path).status_code == 200
    assert "No budget applies to you" in client("owner").get("/budgets/").content.decode()


def test_a_default_shows_where_each_stands(client: Any, people: People, prod: Environment) -> None:
    customer_create(actor=people.admin, environment=prod, reference="c1")
    for scope in ("team", "key", "customer", "user", "credential"):
        found = budget(people.admin, subject(prod, scope=scope))
        found.balances.create(
            subject="customer-nine",
            period_id=f"m{timezone.localdate():%Y-%m}-01",
            spent=3,
            held=0,
            as_of=timezone.now(),
        )
        page = client("admin").get(f"/budgets/{found.pk}/").content.decode()
        assert "Where each stands" in page
        assert ("customer-nine" in page) == (scope == "customer")
        if scope == "customer":
            assert "$3.00" in page
