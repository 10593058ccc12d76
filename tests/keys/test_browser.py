"""Keys and teams in a browser: issue, block, revoke; every page obeys the accessibility rules."""

import re
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from gateway_admin.keys.models import VirtualKey
from gateway_admin.keys.services import key_block, key_digest, keys_used
from tests.keys.conftest import IssueKey
from tests.people import People

pytestmark = pytest.mark.browser
RULES = ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]


def accessible(page: Any) -> None:
    results = Axe().run(page, options={"runOnly": RULES})
    assert results.violations_count == 0, results.generate_report()


def test_a_key_is_issued_copied_and_heard_of(signed_in: Any, people: People, prod: Any) -> None:
    page = signed_in(people.owner)
    page.goto("/teams/search/")
    page.get_by_role("link", name="Issue key").click()
    assert page.get_by_label("Team").input_value() == "search"
    page.get_by_label("Name").fill("checkout-service")
    assert not page.get_by_label("gpt-4o").is_visible()
    page.get_by_label("Only these").check()
    page.get_by_label("gpt-4o").check()
    page.get_by_label("Expires").select_option("date")
    page.get_by_label("Last day").fill("2031-01-31")
    page.get_by_label("Tags").fill("cost-centre=4711")
    page.get_by_role("button", name="Issue key").click()
    text = page.locator("[data-secret-value]").inner_text()
    assert re.fullmatch(r"sk-gw-\w{10}-\w{43,}", text)
    accessible(page)
    key = VirtualKey.objects.get()
    assert key.digest == key_digest(environment=prod, text=text)
    assert key.allowed_models == ["gpt-4o"]
    page.get_by_role("tab", name="Python").click()
    assert text in page.get_by_role("tabpanel").inner_text()
    keys_used([(key.pk, key.created_at)])
    page.get_by_text("First call arrived").wait_for()
    page.get_by_role("link", name="Done, I have copied it").click()
    assert text not in page.content()
    assert page.get_by_text("cost-centre=4711").is_visible()


def test_models_follow_the_environment(signed_in: Any, people: People, prod: Any) -> None:
    page = signed_in(people.owner)
    page.goto("/keys/new/")
    page.get_by_label("Name").fill("kept")
    page.get_by_label("Only these").check()
    assert page.get_by_label("gpt-4o").is_visible()
    page.get_by_label("Environment", exact=True).select_option("dev")
    page.get_by_text("Development serves no model yet").wait_for()
    assert page.get_by_label("Name").input_value() == "kept"


def test_a_wrong_field_is_told_and_nothing_is_lost(
    signed_in: Any, people: People, prod: Any
) -> None:
    page = signed_in(people.owner)
    page.goto("/keys/new/")
    page.get_by_label("Name").fill("kept")
    page.get_by_label("Only these").check()
    page.get_by_label("Tags").fill("no separator")
    page.get_by_role("button", name="Issue key").click()
    page.get_by_role("alert").wait_for()
    assert page.get_by_label("Name").input_value() == "kept"
    assert page.get_by_label("Tags").get_attribute("aria-invalid") == "true"
    accessible(page)


def test_block_and_revoke_ask_first(signed_in: Any, people: People, issue: IssueKey) -> None:
    key, _ = issue("indexer")
    page = signed_in(people.owner)
    page.goto(f"/keys/{key.pk}/")
    page.get_by_role("button", name="Block key").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill("leaked")
    accessible(page)
    dialog.get_by_role("button", name="Block key").click()
    page.get_by_text("Calls are refused with").wait_for()
    page.get_by_role("button", name="Revoke key").click()
    button = page.get_by_role("dialog").get_by_role("button", name="Revoke key")
    assert button.is_disabled()
    page.get_by_role("dialog").get_by_label("Type indexer to confirm").fill("indexer")
    button.click()
    page.get_by_text("Revoked for good").wait_for()
    assert VirtualKey.objects.get().state == "revoked"


def test_many_are_revoked_from_the_list(signed_in: Any, people: People, issue: IssueKey) -> None:
    for number in range(3):
        issue(f"key-{number}")
    page = signed_in(people.admin)
    page.goto("/keys/")
    page.get_by_label("Search", exact=True).fill("key-")
    page.wait_for_url("**/keys/?q=key-*")
    page.get_by_label("Select all keys of this page").check()
    assert page.get_by_text("3 selected").is_visible()
    page.get_by_role("button", name="Revoke keys").click()
    page.get_by_label("Type revoke 3 keys to confirm").fill("revoke 3 keys")
    page.get_by_role("button", name="Revoke 3 keys").click()
    page.wait_for_url("**/keys/")
    assert VirtualKey.objects.filter(state="revoked").count() == 3


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
def test_pages_obey_the_rules(
    theme: str, width: int, signed_in: Any, people: People, issue: IssueKey
) -> None:
    key, _ = issue(tags={"a": "1"}, allowed_models=["gpt-4o", "default"])
    other, _ = issue("other")
    key_block(actor=people.admin, key=other, reason="leaked")
    page = signed_in(people.admin)
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 900})
    for address in (
        "/keys/",
        "/keys/?q=nothing",
        "/keys/new/",
        f"/keys/{key.pk}/",
        f"/keys/{other.pk}/",
        f"/keys/{key.pk}/edit/",
        "/teams/",
        "/teams/new/",
        "/teams/search/",
        "/people/",
        "/people/new/",
        f"/people/{people.owner.pk}/",
        "/settings/",
        "/settings/tokens/",
        "/settings/tokens/new/",
        "/audit/",
    ):
        page.goto(address)
        accessible(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, address
