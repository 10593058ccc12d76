"""The product's main job, walked in a browser on a running installation.

Set-up link, provider, credential, models, fallback chain, publish, key, a call with the
stock client, the chart. Then every page once more in both themes and at both widths, with
axe. Screenshots go to `test-results/story/`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect

from gateway_admin.demo.simulator.process import Simulator, running_simulator
from tests.supervisor.installation import ROOT, SETUP_LINK, Installation

pytestmark = [pytest.mark.browser, pytest.mark.fleet]

SHOTS = ROOT / "test-results" / "story"
WIDE: ViewportSize = {"width": 1440, "height": 900}
NARROW: ViewportSize = {"width": 390, "height": 844}
PAGES = [
    "/",
    "/requests/",
    "/latency/",
    "/cost/",
    "/models/",
    "/deployments/",
    "/deployments/new/",
    "/credentials/",
    "/providers/",
    "/chains/",
    "/aliases/",
    "/environments/",
    "/teams/",
    "/keys/",
    "/keys/new/",
    "/people/",
    "/publish/",
    "/replicas/",
    "/settings/",
    "/settings/tokens/",
    "/audit/",
]


@dataclass
class Story:
    """A browser that is signed in as the first administrator, and what it works on."""

    installation: Installation
    simulator: Simulator
    context: BrowserContext
    page: Page
    errors: list[str]


@pytest.fixture(scope="module")
def story(browser: Browser) -> Iterator[Story]:
    installation = Installation()
    try:
        with running_simulator() as simulator:
            up = installation.up()
            up.wait_until(lambda: bool(SETUP_LINK.search(up.output)), "the set-up link")
            up.wait_for("all processes are ready")
            context = browser.new_context(base_url=installation.web, viewport=WIDE)
            context.set_default_timeout(30_000)
            page = context.new_page()
            errors: list[str] = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            link = SETUP_LINK.search(up.output)
            assert link
            page.goto(link.group(0))
            yield Story(installation, simulator, context, page, errors)
            context.close()
    finally:
        installation.remove()


def _shot(page: Page, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


def _set_up(page: Page) -> None:
    page.get_by_label("Name").fill("Ada Admin")
    page.get_by_label("E-mail").fill("ada@example.com")
    page.locator("[name=password]").fill("correct horse battery staple")
    _shot(page, "1-set-up")
    page.locator("main button[type=submit]").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    _shot(page, "2-first-run")


def _add_provider(page: Page, kind: str, name: str, api_base: str) -> None:
    """A provider leads on to its first credential."""
    page.goto(f"/providers/new/{kind}/")
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Add provider").click()
    page.locator("[name=api_key]").fill(f"sk-story-{kind}-canary-51")
    page.locator("[name=api_base]").fill(api_base)
    page.locator("[name=name]").fill(f"{name} main")
    page.get_by_role("button", name="Add credential").click()
    expect(page.get_by_role("heading", name=f"{name} main")).to_be_visible()
    assert f"sk-story-{kind}-canary" not in page.content()


def _deploy(page: Page, credential: str, upstream: str, model: str) -> None:
    page.goto("/deployments/new/")
    choice = page.locator("[name=credential] option", has_text=credential).get_attribute("value")
    page.locator("[name=credential]").select_option(choice)
    page.locator("[name=upstream_model]").fill(upstream)
    page.locator("[name=upstream_model]").blur()
    book_price = re.compile(r"\$[0-9.]+ / 1M")  # filled in from the price book
    expect(page.locator("main form")).to_contain_text(book_price)
    page.locator("[name=model_name]").fill(model)
    _shot(page, f"4-deploy-{model}")
    page.get_by_role("button", name="Create deployment").click()
    expect(page.get_by_role("button", name="Test deployment")).to_be_visible()


def _test_deployment(page: Page) -> None:
    page.get_by_role("button", name="Test deployment").click()
    expect(page.get_by_text("Testing", exact=False).first).to_be_visible()
    expect(page.get_by_role("button", name="Test again")).to_be_visible(timeout=120_000)
    expect(page.locator("main")).to_contain_text("Working")
    _shot(page, "5-tested")


def _add_chain(page: Page, model: str, target: str) -> None:
    page.goto("/chains/new/")
    page.locator("[name=model]").select_option(label=model)
    page.locator("[name=add]").select_option(label=target)
    page.get_by_role("button", name="Add step").click()
    expect(page.locator("main li", has_text=target).first).to_be_visible()
    page.get_by_role("button", name="Add chain").click()
    expect(page.get_by_role("heading", name="Fallback chains")).to_be_visible()
    _shot(page, "6-chains")


def _publish(page: Page) -> None:
    page.goto("/publish/")
    page.get_by_label("Comment").fill("First models")
    _shot(page, "7-draft")
    page.get_by_role("button", name=re.compile("Publish [0-9]+ changes")).click()
    expect(page.get_by_text(re.compile("In force on 1 of 1 worker")).first).to_be_visible()
    _shot(page, "8-published")


def _issue_key(page: Page) -> str:
    page.goto("/keys/new/")
    page.locator("[name=name]").fill("checkout-service")
    page.get_by_role("button", name="Issue key").click()
    expect(page.get_by_text("it cannot be shown again")).to_be_visible()
    _shot(page, "9-key")
    found = re.search(r"sk-gw-[a-z0-9]+-[A-Za-z0-9]+", page.content())
    assert found
    return found.group(0)


def _call(story: Story, key: str) -> None:
    """Each model once, plain and streamed, and a fallback while OpenAI is overloaded."""
    client = openai.OpenAI(base_url=f"{story.installation.proxy}/v1", api_key=key)
    messages: list[Any] = [{"role": "user", "content": "Say hello."}]
    for model in ("gpt-4o-mini", "claude-sonnet-4-5"):
        client.chat.completions.create(model=model, messages=messages)
        list(client.chat.completions.create(model=model, messages=messages, stream=True))
    story.simulator.control(kind="openai", faults=[{"type": "overload"}])
    client.chat.completions.create(model="gpt-4o-mini", messages=messages)
    story.simulator.reset()


def _see_it(page: Page) -> None:
    expect(page.get_by_text("First call arrived")).to_be_visible(timeout=60_000)
    page.goto("/requests/")
    for _ in range(30):  # the page shows the ledger as it was when it was asked for
        if page.locator("main tbody tr").count() == 5:
            break
        page.wait_for_timeout(1_000)
        page.reload()
    expect(page.locator("main tbody tr")).to_have_count(5)
    page.locator("main tbody tr", has_text="gpt-4o-mini").first.click()
    expect(page.get_by_role("heading", name="Attempts")).to_be_visible()
    _shot(page, "10-request")
    page.goto("/cost/?group=model")
    expect(page.locator(".js-plotly-plot .bars").first).to_be_visible()
    expect(page.locator("main table").last).to_contain_text("claude-sonnet-4-5")
    _shot(page, "11-cost")


def test_the_whole_story(story: Story) -> None:
    page, base = story.page, story.simulator.base_url
    _set_up(page)
    _add_provider(page, "openai", "OpenAI", f"{base}/openai/v1")
    _add_provider(page, "anthropic", "Anthropic", f"{base}/anthropic")
    _deploy(page, "OpenAI main", "gpt-4o-mini", "gpt-4o-mini")
    _test_deployment(page)
    _deploy(page, "Anthropic main", "claude-sonnet-4-5-20250929", "claude-sonnet-4-5")
    _add_chain(page, "gpt-4o-mini", "claude-sonnet-4-5")
    _publish(page)
    key = _issue_key(page)
    _call(story, key)
    _see_it(page)
    assert not story.errors


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", ["wide", "narrow"])
def test_every_page_is_accessible(story: Story, theme: str, width: str) -> None:
    """No violation that axe can find, nothing wider than the screen, no error in a script."""
    context = story.context.browser.new_context(  # type: ignore[union-attr]
        base_url=story.installation.web,
        viewport=WIDE if width == "wide" else NARROW,
        color_scheme=theme,  # type: ignore[arg-type]
        storage_state=story.context.storage_state(),
    )
    page = context.new_page()
    page.on("pageerror", lambda error: story.errors.append(str(error)))
    found = {}
    for path in PAGES:
        page.goto(path)
        page.wait_for_load_state("networkidle")
        _shot(page, f"{theme}-{width}{path.replace('/', '-')}".rstrip("-"))
        violations = Axe().run(page).response["violations"]
        if violations:
            found[path] = [
                (violation["id"], violation["nodes"][0]["html"][:160]) for violation in violations
            ]
        scrolls = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert scrolls <= 0, f"{path} is {scrolls} px wider than the screen"
    context.close()
    assert not found
    assert not story.errors
