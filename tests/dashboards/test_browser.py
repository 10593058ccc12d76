"""The pages in a browser: charts draw, filters stay in the address, accessibility, phones."""

from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.utils import timezone
from playwright.sync_api import expect

from tests.dashboards.conftest import Story
from tests.people import People
from tests.usage.ledger import take_in, usage_event

pytestmark = pytest.mark.browser
SHOTS = Path("test-results/dashboards")
RULES = ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]
PAGES = {"overview": "/", "cost": "/cost/", "latency": "/latency/", "requests": "/requests/"}


def accessible(page: Any) -> None:
    results = Axe().run(page, options={"runOnly": RULES})
    assert results.violations_count == 0, results.generate_report()


BUSY = """[...document.querySelectorAll('[data-chart-area][aria-busy=true]')]
    .filter(area => area.getBoundingClientRect().top < innerHeight).length"""


def settled(page: Any) -> None:
    """All charts that are in view have drawn or said that there is nothing."""
    page.wait_for_load_state("networkidle")
    for _ in range(100):  # not wait_for_function: the content security policy forbids its eval
        if not page.evaluate(BUSY):
            return
        page.wait_for_timeout(100)
    pytest.fail("a chart did not load")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_pages_are_accessible(
    name: str, theme: str, signed_in: Any, people: People, story: Story
) -> None:
    page = signed_in(people.admin)
    page.emulate_media(color_scheme=theme)
    page.goto(PAGES[name])
    settled(page)
    accessible(page)
    page.screenshot(path=SHOTS / f"{name}-{theme}.png", full_page=True)


@pytest.mark.parametrize("name", PAGES)
def test_pages_fit_a_phone(name: str, signed_in: Any, people: People, story: Story) -> None:
    page = signed_in(people.admin)
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(PAGES[name])
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.screenshot(path=SHOTS / f"{name}-phone.png", full_page=True)


def test_a_request_in_detail(signed_in: Any, people: People, story: Story) -> None:
    page = signed_in(people.admin)
    page.goto("/requests/")
    page.locator("tr[data-href]").first.locator("td").nth(5).click()
    page.wait_for_url("**/requests/*-*/")
    accessible(page)
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_filters_swap_the_table_and_stay_in_the_address(
    signed_in: Any, people: People, story: Story
) -> None:
    page = signed_in(people.admin)
    page.goto("/cost/")
    page.get_by_text("Key", exact=True).first.click()
    page.wait_for_url("**group=key**")
    page.get_by_role("link", name="search bot").wait_for()
    page.go_back()
    page.get_by_role("link", name="Search", exact=True).wait_for()


def test_the_first_run_list_hears_the_first_call(signed_in: Any, people: People) -> None:
    page = signed_in(people.admin)
    page.goto("/")
    accessible(page)
    page.get_by_role("button", name="Issue key").click()
    page.get_by_text("sk-gw-").first.wait_for()
    accessible(page)
    take_in([usage_event(cost="0.0003", latency_ms=812.0)])
    page.get_by_text("First call arrived, $0.000300, 812 ms").wait_for(timeout=10_000)
    page.get_by_role("link", name="Open the overview").click()
    page.get_by_text("Request rate").wait_for()


def test_on_a_phone_filters_fold_behind_a_button(
    signed_in: Any, people: People, story: Story
) -> None:
    page = signed_in(people.admin)
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto("/requests/?status=ok")
    button = page.get_by_role("button", name="Filters (1)")
    assert not page.get_by_label("Status", exact=True).is_visible()
    page.get_by_role("link", name="Remove filter Status: ok").wait_for()
    button.press("Enter")
    page.get_by_label("Streamed").select_option("no")
    page.wait_for_url("**streaming=no**")
    page.get_by_role("button", name="Filters (2)", expanded=True).wait_for()
    accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_own_dates_begin_with_those_that_are_shown(
    signed_in: Any, people: People, story: Story
) -> None:
    page = signed_in(people.admin)
    page.goto("/cost/?range=7d")
    since = page.get_by_label("From", exact=True)
    assert not since.is_visible()
    shown = page.locator("#results").get_attribute("data-first")
    page.get_by_text("Custom", exact=True).click()
    page.wait_for_url(f"**since={shown}**")
    assert "range=" not in page.url
    assert since.input_value() == shown
    page.get_by_text("30 days", exact=True).click()
    page.wait_for_url("**range=30d**")
    assert "since=" not in page.url


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
def test_what_is_not_well_appears_and_goes_by_itself(
    theme: str, width: int, signed_in: Any, people: People, story: Story
) -> None:
    page = signed_in(people.admin)
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme=theme)
    credential = story.deployment.credential
    credential.last_error_at, credential.last_error_class = timezone.now(), "authentication"
    credential.save()
    page.goto("/")
    told = page.get_by_role("list", name="Not well now")
    expect(told).to_contain_text(f"refuses the credential {credential.name}")
    settled(page)
    accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    credential.last_success_at = timezone.now()
    credential.save()
    expect(told).to_have_count(0, timeout=15_000)
