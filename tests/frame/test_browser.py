"""The frame in a browser: keyboard, themes, narrow screens, accessibility rules."""

from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.people import PASSWORD

pytestmark = pytest.mark.browser
SHOTS = Path("test-results/frame")


def accessible(page: Any) -> None:
    results = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]})
    assert results.violations_count == 0, results.generate_report()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_sign_in_and_own_account(theme: str, page: Any, people: Any) -> None:
    page.emulate_media(color_scheme=theme)
    page.goto("/account/login/?next=/account/2fa/")
    assert page.locator("html").get_attribute("data-bs-theme") == theme
    accessible(page)
    page.screenshot(path=SHOTS / f"login-{theme}.png")
    page.get_by_label("E-mail").fill(people.admin.email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Two-factor sign-in").wait_for()
    accessible(page)
    page.screenshot(path=SHOTS / f"two-factor-{theme}.png")


def test_the_palette_leads_to_a_page_with_the_keyboard_alone(signed_in: Any, people: Any) -> None:
    page = signed_in(people.admin)
    page.goto("/account/2fa/")
    page.keyboard.press("Control+k")
    accessible(page)
    page.keyboard.type("dark")
    page.keyboard.press("Enter")
    assert page.locator("html").get_attribute("data-bs-theme") == "dark"
    page.keyboard.press("Escape")
    page.reload()
    assert page.locator("html").get_attribute("data-bs-theme") == "dark"


def test_the_drawer_on_a_phone(signed_in: Any, people: Any) -> None:
    page = signed_in(people.admin)
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto("/account/2fa/")
    menu = page.get_by_role("button", name="Open menu")
    menu.click()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Close menu"
    page.wait_for_timeout(300)
    accessible(page)
    page.keyboard.press("Escape")
    assert menu.get_attribute("aria-expanded") == "false"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_folded_sidebar_stays_folded(signed_in: Any, people: Any) -> None:
    page = signed_in(people.admin)
    page.goto("/account/2fa/")
    page.get_by_role("button", name="Collapse sidebar").click()
    page.reload()
    assert page.locator("html").get_attribute("data-sidebar") == "rail"
    accessible(page)


def test_a_field_is_checked_when_it_is_left(page: Any, people: Any) -> None:
    page.goto("/account/login/")
    page.get_by_label("E-mail").fill("not an address")
    page.get_by_label("Password").focus()
    assert page.get_by_label("E-mail").get_attribute("aria-invalid") == "true"
    page.get_by_label("E-mail").fill("somebody@example.com")
    assert page.get_by_label("E-mail").get_attribute("aria-invalid") is None


def test_no_page_breaks_its_own_policy(signed_in: Any, people: Any) -> None:
    page = signed_in(people.admin)
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto("/account/password/change/")
    page.wait_for_load_state("networkidle")
    assert [text for text in refused if "Content Security Policy" in text] == []
