"""Circuit breakers in a browser: order by hand, watch it happen, read the day."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from gateway_admin.fleet.models import BreakerOrder, BreakerTransition
from tests import builders
from tests.fleet.test_browser import SIZES, accessible

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def tell(deployment: Any, state: str, *, minutes: float, reason: str = "") -> None:
    at = timezone.now() - timedelta(minutes=minutes)
    BreakerTransition.objects.create(
        environment=deployment.environment,
        deployment_id=deployment.pk,
        generation=int(at.timestamp() * 1000),
        state=state,
        at=at,
        reason=reason,
        replica="gw-1, worker 0",
    )


@pytest.fixture
def deployment(people: Any) -> Any:
    return builders.deployment(name="openai-gpt-4o", model=builders.model("gpt-4o"))


def test_orders_by_hand(signed_in: Any, people: Any, deployment: Any, replica_of: Any) -> None:
    replica_of(deployment.environment).sync()
    page = signed_in(people.admin)
    page.goto("/breakers/")
    page.get_by_role("link", name="openai-gpt-4o").click()
    page.get_by_role("button", name="Open breaker").click()
    dialog = page.get_by_role("dialog", name="Keep this deployment out?")
    dialog.get_by_label("Why").fill("maintenance")
    dialog.get_by_role("button", name="Open breaker").click()
    card = page.get_by_role("region", name="Circuit breaker")
    expect(card).to_contain_text("The order is on its way to the replicas.")
    tell(deployment, "open", minutes=0, reason="opened by hand")
    expect(card).to_contain_text("Kept out by hand")  # by itself
    expect(card.get_by_role("button", name="Open breaker")).to_have_count(0)
    card.get_by_role("button", name="Close breaker").click()
    page.get_by_label("Why").and_(page.locator("dialog[open] input")).fill("done")
    page.locator("dialog[open]").get_by_role("button", name="Close breaker").click()
    expect(card).to_contain_text("Close by Admin")
    assert [order.action for order in BreakerOrder.objects.all()] == ["close", "open"]


def test_typing_survives_the_refresh(signed_in: Any, people: Any, deployment: Any) -> None:
    tell(deployment, "open", minutes=1)
    page = signed_in(people.admin)
    page.goto(f"/deployments/{deployment.pk}/")
    page.get_by_role("button", name="Close breaker").click()
    page.locator("dialog[open] input[name=reason]").fill("half a sen")
    tell(deployment, "half_open", minutes=0)
    expect(page.locator("#breaker-live")).to_contain_text("Half-open")
    expect(page.locator("dialog[open] input[name=reason]")).to_have_value("half a sen")


@pytest.mark.parametrize(("theme", "width"), SIZES)
def test_pages_are_accessible(
    signed_in: Any, people: Any, deployment: Any, theme: str, width: int
) -> None:
    tell(deployment, "open", minutes=300, reason="14 of 25 calls in 60 s failed: server_error")
    tell(deployment, "half_open", minutes=200)
    tell(deployment, "closed", minutes=190)
    tell(deployment, "open", minutes=1, reason="5 failures in a row: timeout")
    page = signed_in(people.admin)
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    for url in ("/breakers/", f"/deployments/{deployment.pk}/"):
        page.goto(url)
        if "deployments" in url:
            page.get_by_text("Last 24 hours as a table").click()
            expect(page.get_by_role("cell", name="14 of 25 calls")).to_be_visible()
        accessible(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
