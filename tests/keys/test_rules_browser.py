"""Budgets, limits and blocks in a browser: forms say what happens, dialogs open by themselves."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from gateway_admin.catalog.models import Environment
from gateway_admin.keys.block_services import customer_create, subject_block
from gateway_admin.keys.models import Block, Budget, RateLimit
from proxy.contract import counters
from tests.keys.conftest import IssueKey
from tests.keys.rules import budget, limit, subject
from tests.keys.test_browser import accessible
from tests.people import People

pytestmark = pytest.mark.browser

SignIn = Callable[[Any], Page]


def test_a_budget_is_set_overridden_and_lifted(
    signed_in: SignIn, people: People, prod: Environment, issue: IssueKey
) -> None:
    issue()
    page = signed_in(people.admin)
    page.goto("/budgets/")
    page.get_by_role("link", name="Set the first budget").click()
    page.get_by_label("Team", exact=False).last.select_option("search")
    page.get_by_label("Limit, USD").fill("12.50")
    expect(page.get_by_text("Holds for calls with 1 key")).to_be_visible()
    page.get_by_role("button", name="Set budget").click()
    expect(page.get_by_role("heading", name="Search, month")).to_be_visible()
    page.get_by_role("button", name="Grant override…").click()
    page.get_by_label("Limit meanwhile, USD").fill("50")
    page.get_by_label("How long").select_option("date")
    page.get_by_label("Reason").fill("launch week")
    page.locator("dialog[open]").get_by_role("button", name="Grant override").click()
    expect(
        page.get_by_text("Choose the last day.").last
    ).to_be_visible()  # the dialog is open again
    page.get_by_label("How long").select_option("3")
    page.locator("dialog[open]").get_by_role("button", name="Grant override").click()
    expect(page.get_by_text("In place of $12.50: launch week")).to_be_visible()
    page.get_by_role("button", name="Lift budget").first.click()
    page.get_by_label("Type Search, month to confirm").fill("Search, month")
    page.locator("dialog[open]").get_by_role("button", name="Lift budget").click()
    expect(page.get_by_text("Nothing is capped yet")).to_be_visible()
    assert not Budget.objects.exists()


def test_a_developer_limits_a_key_of_the_team(
    signed_in: SignIn, people: People, issue: IssueKey
) -> None:
    key, _ = issue()
    page = signed_in(people.owner)
    page.goto(f"/keys/{key.pk}/")
    page.get_by_role("link", name="Set limit").click()
    page.get_by_label("Requests per minute").fill("5")
    page.get_by_role("button", name="Set limit").click()
    page.wait_for_url(f"**/keys/{key.pk}/")
    expect(page.get_by_text("requests per minute")).to_be_visible()
    assert RateLimit.objects.get().rpm == 5


def test_a_team_is_blocked_from_its_page(signed_in: SignIn, people: People, issue: Any) -> None:
    issue()
    page = signed_in(people.admin)
    page.goto("/teams/search/")
    page.get_by_role("link", name="Block team").click()
    dialog = page.locator("dialog[open]")
    dialog.get_by_label("Reason").fill("over budget")
    dialog.get_by_role("button", name="Block").click()
    expect(page.get_by_role("cell", name="over budget")).to_be_visible()
    page.get_by_role("button", name="Unblock").first.click()
    page.locator("dialog[open]").get_by_role("button", name="Unblock").click()
    expect(page.get_by_text("Nobody is blocked")).to_be_visible()
    assert not Block.objects.exists()


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
def test_pages_obey_the_rules(
    theme: str,
    width: int,
    signed_in: SignIn,
    people: People,
    prod: Environment,
    issue: IssueKey,
    valkey: Any,
) -> None:
    key, _ = issue()
    valkey.set(counters.epoch_key("prod"), "e1")
    customer = customer_create(actor=people.admin, environment=prod, reference="acme" * 20)
    own = budget(people.admin, subject(prod, people.search), soft_percent=[50, 80])
    each = budget(people.admin, subject(prod, scope="user"), period="rolling", rolling_hours=720)
    budget(people.admin, subject(prod, customer), limit_usd=Decimal("123456.789"))
    limit(people.admin, subject(prod, people.search), tpm=1_000_000, parallel=5)
    subject_block(actor=people.admin, target=people.search, reason="long " * 30)
    page = signed_in(people.admin)
    page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 900})
    for address in (
        "/budgets/",
        "/budgets/?q=nothing",
        "/budgets/new/",
        f"/budgets/{own.pk}/",
        f"/budgets/{each.pk}/",
        f"/budgets/{own.pk}/edit/",
        "/limits/",
        "/limits/set/",
        "/blocks/",
        "/customers/",
        "/customers/new/",
        f"/customers/{customer.pk}/",
        f"/keys/{key.pk}/",
        "/teams/search/",
        f"/people/{people.owner.pk}/",
    ):
        page.goto(address)
        page.wait_for_load_state("networkidle")
        accessible(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, address
