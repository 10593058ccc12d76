"""The way from a provider to a fallback chain, in a browser, by the simulator."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.utils import timezone
from playwright.sync_api import Page, Route, expect

from gateway_admin.catalog.models import Credential, Deployment, FallbackChain, Model
from gateway_admin.catalog.prices import price_book_load
from gateway_admin.catalog.queries import current_price
from gateway_admin.demo.simulator.process import Simulator, running_simulator
from tests.catalog import build, seed
from tests.people import People

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with running_simulator() as running:
        yield running


def deploy(page: Page, upstream: str) -> None:
    page.goto("/deployments/new/")
    page.get_by_label("Credential").select_option(label="openai-main")
    expect(page.get_by_label("Provider's model")).to_have_attribute("placeholder", "gpt-4o")
    page.get_by_label("Provider's model").fill(upstream)
    page.get_by_label("Serves the model").fill(upstream)
    page.get_by_label("Serves the model").blur()
    expect(page.locator(".gw-book-price")).to_contain_text("/ 1M")
    page.get_by_role("button", name="Create deployment").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(upstream)


def test_from_provider_to_chain(signed_in: Any, people: People, simulator: Simulator) -> None:
    price_book_load()
    page: Page = signed_in(people.admin)
    page.goto("/providers/")
    page.get_by_role("link", name="Add the first provider").click()
    page.get_by_role("link", name="OpenAI", exact=True).click()
    page.get_by_role("button", name="Add provider").click()

    page.get_by_label("Name").fill("openai-main")
    page.get_by_label("API key").fill(build.SECRET)
    page.get_by_label("Base URL").fill("nonsense")
    page.get_by_role("button", name="Add credential").click()
    expect(page.get_by_text("begins with http://").first).to_be_visible()
    expect(page.get_by_label("Name")).to_have_value("openai-main")
    expect(page.get_by_label("API key")).to_have_value("")
    page.get_by_label("API key").fill(build.SECRET)
    page.get_by_label("Base URL").fill(f"{simulator.base_url}/openai/v1")
    page.get_by_role("button", name="Add credential").click()
    expect(page.get_by_text(f"••••{build.SECRET[-4:]}")).to_be_visible()
    assert build.SECRET not in page.content()

    deploy(page, "gpt-4o-mini")
    deploy(page, "gpt-4o")
    page.get_by_role("button", name="Test deployment").click()
    expect(page.locator("#deployment-test")).to_contain_text("Latency", timeout=60_000)
    expect(page.locator("#deployment-test")).to_contain_text("$0.00")

    page.goto("/chains/new/")
    page.get_by_label("Model", exact=True).select_option("gpt-4o")
    page.get_by_label("Add a step").select_option("gpt-4o-mini")
    page.get_by_role("button", name="Add step").press("Enter")
    expect(page.locator("#chain-steps li")).to_have_count(1)
    page.get_by_role("button", name="Add chain").click()
    expect(page.locator(".gw-chain-box")).to_have_text(["gpt-4o", "gpt-4o-mini"])
    assert FallbackChain.objects.get().steps.count() == 1


def test_own_prices_start_from_the_book(signed_in: Any, people: People) -> None:
    price_book_load()
    build.credential()
    page: Page = signed_in(people.admin)
    page.goto("/deployments/new/")
    page.get_by_label("Credential").select_option(label="openai-main")
    page.get_by_label("Provider's model").fill("gpt-4o")
    page.get_by_label("Serves the model").fill("gpt-4o")
    expect(page.locator(".gw-book-price")).to_contain_text("$2.50 / 1M")
    page.get_by_label("Own price").check()
    expect(page.get_by_label("Input, $ per 1M tokens", exact=False).first).to_have_value("2.5")
    page.get_by_label("Input, $ per 1M tokens", exact=False).first.fill("1.999")
    page.get_by_role("button", name="Create deployment").click()
    expect(page.get_by_text("$1.999 / 1M")).to_be_visible()
    price = current_price(Deployment.objects.get())
    assert price is not None
    assert price.units["input_token"] == "0.000001999"


def test_what_is_typed_while_the_form_is_drawn_anew_stays(signed_in: Any, people: People) -> None:
    price_book_load()
    build.credential()
    page: Page = signed_in(people.admin)
    page.goto("/deployments/new/")
    waiting: list[Route] = []
    page.route(re.compile("part=fields"), lambda route: waiting.append(route))
    page.get_by_label("Credential").select_option(label="openai-main")
    upstream = page.get_by_label("Provider's model")
    upstream.fill("gpt-4o")
    page.wait_for_timeout(300)
    waiting[0].continue_()
    expect(page.locator(".gw-book-price")).to_contain_text("$2.50 / 1M")
    expect(upstream).to_have_value("gpt-4o")


def test_steps_move_by_keyboard(signed_in: Any, people: People) -> None:
    for name in ("a", "b", "c"):
        build.deployment(model_name=name)
    page: Page = signed_in(people.admin)
    page.goto("/chains/new/?model=a")
    for name in ("b", "c"):
        page.get_by_label("Add a step").select_option(name)
        page.get_by_role("button", name="Add step").press("Enter")
        expect(page.locator("#chain-steps li").last).to_contain_text(name)
    page.get_by_role("button", name="Move c up").press("Enter")
    expect(page.locator("#chain-steps li strong")).to_have_text(["c", "b"])
    page.get_by_role("button", name="Remove b").press("Enter")
    expect(page.locator("#chain-steps li strong")).to_have_text(["c"])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages_are_accessible(signed_in: Any, people: People, theme: Any) -> None:
    seed.supply(environment=build.prod(), actor=people.admin)
    page: Page = signed_in(people.admin)
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    model = Model.objects.get(name="gpt-4o")
    credential = Credential.objects.get(name="bedrock-prod")
    failing, working = Deployment.objects.filter(model=model).order_by("name")
    urls = [f"/{name}/" for name in ("models", "deployments", "credentials", "providers")]
    urls += [f"/{name}/" for name in ("chains", "aliases", "environments")]
    urls += [
        f"/models/{model.pk}/",
        f"/deployments/{failing.pk}/",
        f"/deployments/{working.pk}/edit/",
        f"/credentials/{credential.pk}/",
        f"/credentials/{credential.pk}/secret/",
        f"/chains/{FallbackChain.objects.first().pk}/",  # type: ignore[union-attr]
        "/chains/new/",
        "/providers/new/",
        "/environments/prod/",
    ]
    for url in urls:
        page.goto(url)
        found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa"]})
        assert found.violations_count == 0, f"{url}\n{found.generate_report()}"


def test_a_running_test_shows_its_result_by_itself(signed_in: Any, people: People) -> None:
    deployment = build.deployment()
    at = timezone.now().isoformat()
    Deployment.objects.update(last_test={"state": "running", "at": at})
    page: Page = signed_in(people.admin)
    page.goto(f"/deployments/{deployment.pk}/")
    expect(page.get_by_role("button", name="Testing…")).to_be_disabled()
    expect(page.locator("#deployment-test .gw-skeleton")).to_have_count(2)
    Deployment.objects.update(
        last_test={"state": "ok", "at": at, "latency_ms": 812.0, "input_tokens": 9}
    )
    expect(page.locator("#deployment-test")).to_contain_text("812 ms")
    expect(page.get_by_role("button", name="Test again")).to_be_enabled()
