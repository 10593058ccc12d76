"""Pages of circuit breakers over HTTP."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from gateway_admin.fleet.breakers import breaker_order
from gateway_admin.fleet.models import BreakerOrder, BreakerTransition
from tests import builders

pytestmark = pytest.mark.django_db


def tell(
    deployment: Any, state: str, *, ago: float = 60, generation: int = 1, reason: str = ""
) -> None:
    BreakerTransition.objects.create(
        environment=deployment.environment,
        deployment_id=deployment.pk,
        generation=generation,
        state=state,
        at=timezone.now() - timedelta(seconds=ago),
        reason=reason,
        replica="gw-1, worker 0",
    )


@pytest.fixture
def admin(client_of: Any, people: Any) -> Any:
    return client_of(people.admin)


def text(response: Any) -> str:
    return " ".join(response.content.decode().split())


def order(client: Any, deployment: Any, action: str, reason: str = "because") -> Any:
    url = f"/breakers/{deployment.pk}/order/"
    return client.post(url, {"action": action, "reason": reason}, follow=True)


@pytest.mark.parametrize("name", ["owner", "teammate", "outsider", "finance"])
def test_only_administrators_see_and_order(
    gpt: Any, people: Any, client_of: Any, name: Any
) -> None:
    client = client_of(people.everybody()[name])
    assert client.get("/breakers/").status_code == 403
    assert client.get(f"/breakers/{gpt.pk}/").status_code == 403
    assert order(client, gpt, "open").status_code == 403
    assert not BreakerOrder.objects.exists()


def test_what_is_kept_out_comes_first(prod: Any, gpt: Any, admin: Any) -> None:
    broken = builders.deployment(environment=prod, name="z-broken", model=gpt.model)
    trying = builders.deployment(environment=prod, name="m-trying", model=gpt.model)
    tell(broken, "open", reason="5 failures in a row: timeout")
    tell(trying, "open", ago=120)
    tell(trying, "half_open", generation=2)
    page = text(admin.get("/breakers/"))
    places = [page.index(name) for name in ("z-broken", "m-trying", gpt.name)]
    assert places == sorted(places)
    assert "5 failures in a row: timeout" in page
    only = text(admin.get("/breakers/?state=half_open"))
    assert "m-trying" in only
    assert "z-broken" not in only
    assert "No breaker matches" in text(admin.get("/breakers/?q=nothing"))


def test_the_list_takes_the_same_queries_for_many_rows(
    prod: Any, gpt: Any, admin: Any, django_assert_max_num_queries: Any
) -> None:
    for number in range(12):
        row = builders.deployment(environment=prod, name=f"d{number}", model=gpt.model)
        tell(row, "open")
    with django_assert_max_num_queries(14):
        admin.get("/breakers/")


def test_the_deployments_page_tells_state_reason_and_the_day(gpt: Any, admin: Any) -> None:
    tell(gpt, "open", ago=7_200, reason="60% of 25 calls failed")
    tell(gpt, "half_open", ago=7_170, generation=2)
    tell(gpt, "closed", ago=7_160, generation=3, reason="3 trial calls succeeded")
    tell(gpt, "open", ago=60, generation=4, reason="5 failures in a row: timeout")
    page = text(admin.get(f"/deployments/{gpt.pk}/"))
    assert "5 failures in a row: timeout" in page
    assert "2 times in 24 hours" in page
    assert 'aria-label="It opened 2 times in the last 24 hours; open now."' in page
    assert page.count('class="fleet-band-open"') == 2
    assert "60% of 25 calls failed" in page  # the same as a table
    spare = builders.deployment(environment=gpt.environment, name="spare", model=gpt.model)
    assert "Breaker open" in text(admin.get("/deployments/"))
    only = text(admin.get("/deployments/?state=kept_out"))
    assert gpt.name in only
    assert spare.name not in only


def test_orders_by_hand(gpt: Any, admin: Any, people: Any) -> None:
    page = order(admin, gpt, "open", "provider announced maintenance")
    assert "No call goes to openai-gpt-4o any more" in text(page)
    assert "provider announced maintenance" in text(page)
    assert "No worker reports at the moment" in text(page)
    given = BreakerOrder.objects.get()
    assert (given.action, given.actor) == ("open", people.admin)
    tell(gpt, "open", ago=0, reason="by hand")
    live = text(admin.get(f"/breakers/{gpt.pk}/?was=closed"))
    assert 'data-announce="The breaker is open"' in live
    assert "Kept out by hand" in live
    assert "Close breaker" in live
    assert "Open breaker" not in live
    assert "data-announce" not in text(admin.get(f"/breakers/{gpt.pk}/?was=open"))


@pytest.mark.parametrize(("action", "reason"), [("open", ""), ("explode", "x"), ("", "x")])
def test_an_incomplete_order_is_not_given(gpt: Any, admin: Any, action: str, reason: str) -> None:
    assert "Nothing was ordered" in text(order(admin, gpt, action, reason))
    assert not BreakerOrder.objects.exists()


def test_without_breakers_there_is_nothing_to_order(prod: Any, gpt: Any, admin: Any) -> None:
    prod.breaker_enabled = False
    prod.save()
    tell(gpt, "open")
    page = text(admin.get(f"/deployments/{gpt.pk}/"))
    assert "uses no circuit breakers" in page
    assert 'id="order-' not in page
    assert "Breaker open" not in text(admin.get("/deployments/"))


def test_the_api_tells_and_orders(gpt: Any, api_of: Any, people: Any) -> None:
    tell(gpt, "open", reason="5 failures in a row: timeout")
    api = api_of(people.admin)
    [row] = api.get("/api/v1/breakers/?environment=prod").json()["results"]
    assert (row["deployment"], row["state"]) == (str(gpt.pk), "open")
    assert (row["reason"], row["opened_24h"]) == ("5 failures in a row: timeout", 1)
    assert api.get(f"/api/v1/breakers/{gpt.pk}/").json()["state"] == "open"
    [told] = api.get(f"/api/v1/breaker-transitions/?deployment={gpt.pk}").json()["results"]
    assert (told["state"], told["generation"], told["environment"]) == ("open", 1, "prod")
    given = api.post(
        f"/api/v1/breakers/{gpt.pk}/order/", {"action": "close", "reason": "fixed"}, format="json"
    )
    assert given.status_code == 201
    assert (given.json()["action"], given.json()["actor"]) == ("close", people.admin.email)
    [listed] = api.get("/api/v1/breaker-orders/").json()["results"]
    assert listed == given.json()
    wrong = api.post(f"/api/v1/breakers/{gpt.pk}/order/", {"action": "close"}, format="json")
    assert (wrong.status_code, wrong.json()["errors"][0]["attr"]) == (422, "reason")


@pytest.mark.parametrize("name", ["owner", "teammate", "outsider", "finance"])
def test_the_api_is_for_administrators(gpt: Any, api_of: Any, people: Any, name: str) -> None:
    api = api_of(people.everybody()[name])
    for path in ("breakers/", f"breakers/{gpt.pk}/", "breaker-transitions/", "breaker-orders/"):
        assert api.get(f"/api/v1/{path}").status_code == 403, path
    body = {"action": "open", "reason": "x"}
    assert api.post(f"/api/v1/breakers/{gpt.pk}/order/", body, format="json").status_code == 403
    assert not BreakerOrder.objects.exists()


def test_orders_by_several_people_follow_each_other(gpt: Any, people: Any, admin: Any) -> None:
    breaker_order(actor=people.admin, deployment=gpt, action="open", reason="one")
    breaker_order(actor=people.admin, deployment=gpt, action="reset", reason="two")
    assert "two" in text(admin.get(f"/deployments/{gpt.pk}/"))
