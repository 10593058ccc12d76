"""The Cache page in a browser: accessible in both themes, fits a phone, asks before it purges."""

from typing import Any

import pytest

from tests.dashboards.conftest import Story
from tests.dashboards.test_browser import SHOTS, accessible, settled
from tests.dashboards.test_cache import hit, keeps
from tests.people import People
from tests.usage.ledger import take_in

pytestmark = pytest.mark.browser


@pytest.fixture
def used(story: Story) -> Story:
    """Some of the story's requests were answered from the cache."""
    take_in([hit(story.search_key, "0.5") for _ in range(3)] + [hit(story.ads_key, "1.25")])
    keeps(story.search_key, "deterministic")
    keeps(story.own_key, "all", cache_ttl_s=300)
    return story


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_accessible(theme: str, signed_in: Any, people: People, used: Story) -> None:
    page = signed_in(people.admin)
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto("/cache/")
    settled(page)
    accessible(page)
    page.screenshot(path=SHOTS / f"cache-{theme}.png", full_page=True)


def test_the_page_fits_a_phone(signed_in: Any, people: People, used: Story) -> None:
    page = signed_in(people.admin)
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto("/cache/")
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.screenshot(path=SHOTS / "cache-phone.png", full_page=True)


def test_the_empty_page_is_accessible(signed_in: Any, people: People) -> None:
    page = signed_in(people.owner)
    page.goto("/cache/")
    settled(page)
    accessible(page)
    page.screenshot(path=SHOTS / "cache-empty.png", full_page=True)


def test_purging_asks_first(signed_in: Any, people: People, used: Story) -> None:
    page = signed_in(people.owner)
    before = used.search_key.cache_version
    page.goto("/cache/")
    page.get_by_role("button", name="Purge", exact=True).click()
    dialog = page.get_by_role("dialog")
    assert "search bot" in dialog.inner_text()
    dialog.get_by_role("button", name="Purge", exact=True).click()
    page.get_by_text("No kept answer is given to search bot any more").first.wait_for()
    used.search_key.refresh_from_db()
    assert used.search_key.cache_version == before + 1


def test_filters_stay_in_the_address(signed_in: Any, people: People, used: Story) -> None:
    page = signed_in(people.admin)
    page.goto("/cache/")
    page.get_by_text("Key", exact=True).first.click()
    page.wait_for_url("**group=key**")
    page.locator("#results").get_by_role("link", name="search bot").wait_for()
    page.go_back()
    page.locator("#results").get_by_role("link", name="Search", exact=True).wait_for()
