"""Publishing in a browser: read the difference, publish, watch it arrive, go back."""

from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from gateway_admin.catalog.models import ChainTarget, Deployment, FallbackChain, Price
from gateway_admin.fleet.services import revision_publish
from tests import builders

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
SHOTS = Path("test-results/fleet")
SIZES = [("light", 1440), ("dark", 1440), ("light", 390), ("dark", 390)]


def accessible(page: Any) -> None:
    results = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]})
    assert results.violations_count == 0, results.generate_report()


def shoot(page: Any, name: Any, theme: Any, width: Any) -> None:
    page.screenshot(path=SHOTS / f"{name}-{theme}-{width}.png", full_page=True)


@pytest.fixture
def supply(people: Any) -> Any:
    """A published environment, and edits of every sort on top."""
    prod = builders.environment("prod")
    gpt = _deployment("openai-gpt-4o", "gpt-4o", "openai", "0.0000025", "0.00001")
    claude = _deployment("anthropic-sonnet", "claude-sonnet", "anthropic", "0.000003", "0.000015")
    flash = _deployment("google-flash", "gemini-flash", "gemini", "0.0000003", "0.0000025")
    builders.alias("default", gpt.model)
    chain = builders.chain(gpt.model, [claude.model, flash.model])
    revision_publish(environment=prod, actor=people.admin, comment="First models for everybody")
    Deployment.objects.filter(pk=gpt.pk).update(weight=3)
    revision_publish(environment=prod, actor=people.admin, comment="More traffic to OpenAI")
    return prod, gpt, claude, flash, chain


def _deployment(name: Any, model: Any, kind: Any, price_in: Any, price_out: Any) -> Any:
    provider = builders.provider(kind)
    return builders.deployment(
        name=name,
        model=builders.model(model, context_window=200_000),
        credential=builders.credential(name=f"{provider.name} main", provider=provider),
        upstream_model=model,
        prices={"input_token": price_in, "output_token": price_out},
    )


def edit(supply: Any) -> None:
    _, gpt, claude, flash, chain = supply
    Deployment.objects.filter(pk=gpt.pk).update(rpm=500, timeout_s=90)
    units = {"input_token": "0.000002", "output_token": "0.000008"}
    Price.objects.create(deployment=gpt, source="own", units=units)
    FallbackChain.objects.filter(pk=chain.pk).delete()
    chain = builders.chain(gpt.model, [flash.model])
    ChainTarget.objects.create(chain=chain, position=2, model=claude.model)
    _deployment("azure-gpt-4o", "gpt-4o", "azure", "0.0000025", "0.00001")
    builders.alias("fast", flash.model)
    builders.alias("legacy", builders.model("gpt-3.5-turbo"))


@pytest.mark.parametrize(("theme", "width"), SIZES)
def test_it_publishes_and_shows_it_arrive(
    signed_in: Any, people: Any, supply: Any, replica_of: Any, theme: Any, width: Any
) -> None:
    prod = supply[0]
    edit(supply)
    first, second = replica_of(prod), replica_of(prod)
    for slot in range(2):
        first.sync(hostname="gw-eu-1", worker=slot, workers=2, applied_revision=2)
        second.sync(hostname="gw-eu-2", worker=slot, workers=2, applied_revision=2)
    page = signed_in(people.admin)
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme)
    page.goto("/publish/")
    expect(page.get_by_role("button", name="Publish 8 changes")).to_be_visible()
    accessible(page)
    shoot(page, "publish-draft", theme, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_label("Comment").fill("Cheaper gpt-4o, Gemini first")
    page.get_by_role("button", name="Publish 8 changes").click()
    expect(page.get_by_text("In force on 0 of 4 workers …", exact=True)).to_be_visible()
    shoot(page, "publish-moving", theme, width)
    for slot in range(2):
        first.sync(hostname="gw-eu-1", worker=slot, workers=2, applied_revision=3)
        second.sync(hostname="gw-eu-2", worker=slot, workers=2, applied_revision=2)
    expect(page.get_by_text("In force on 2 of 4 workers …", exact=True)).to_be_visible()
    for slot in range(2):
        second.sync(hostname="gw-eu-2", worker=slot, workers=2, applied_revision=3)
    expect(page.get_by_text("In force on 4 of 4 workers", exact=True)).to_be_visible()
    accessible(page)
    shoot(page, "publish-done", theme, width)


@pytest.mark.parametrize(("theme", "width"), SIZES)
def test_a_rejection_is_explained(
    signed_in: Any, people: Any, supply: Any, replica_of: Any, theme: Any, width: Any
) -> None:
    prod, gpt = supply[:2]
    replica_of(prod).sync(hostname="gw-eu-1", applied_revision=2, spool_events=1_204)
    replica_of(prod).sync(
        hostname="gw-eu-2",
        applied_revision=1,
        rejected_revision=2,
        rejected_error="deployment 'openai-gpt-4o': LLM Provider NOT provided for openai/gpt-4o",
        rejected_deployment=str(gpt.pk),
        spool_events=88_310,
        spool_bytes=61_000_000,
        dropped_events=12,
        healthy=False,
        reasons=["usage cannot be delivered: connection refused"],
    )
    page = signed_in(people.admin)
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme)
    page.goto("/publish/")
    expect(page.get_by_text("Rejected by replica gw-eu-2")).to_be_visible()
    accessible(page)
    shoot(page, "rejected", theme, width)
    page.goto("/replicas/")
    expect(page.get_by_text("usage cannot be delivered")).to_be_visible()
    accessible(page)
    shoot(page, "replicas", theme, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("button", name="Add replica").click()
    page.wait_for_timeout(200)
    shoot(page, "add-replica", theme, width)
    page.get_by_role("button", name="Show token and key").click()
    expect(page.get_by_text("GATEWAY_FLEET_TOKEN")).to_be_visible()
    accessible(page)
    shoot(page, "identity", theme, width)


@pytest.mark.parametrize(("theme", "width"), SIZES)
def test_it_goes_back(signed_in: Any, people: Any, supply: Any, theme: Any, width: Any) -> None:
    page = signed_in(people.admin)
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme)
    page.goto("/publish/")
    shoot(page, "publish-empty", theme, width)
    page.get_by_role("link", name="1", exact=True).click()
    expect(page.get_by_role("heading", name="Revision 1", exact=True)).to_be_visible()
    accessible(page)
    shoot(page, "revision", theme, width)
    page.get_by_role("link", name="Roll back to this").click()
    page.get_by_label("Type prod to confirm").fill("prod")
    accessible(page)
    shoot(page, "rollback", theme, width)
    page.get_by_role("button", name="Roll back to revision 1").click()
    expect(page.get_by_text("Revision 3 is published")).to_be_visible()
    page.goto("/publish/?environment=staging")
    shoot(page, "publish-first", theme, width)
    page.goto("/replicas/")
    accessible(page)
    shoot(page, "replicas-none", theme, width)
