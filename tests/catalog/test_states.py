"""Whether models and deployments work: from tests, breakers and what was answered lately."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway_admin.catalog.models import Deployment
from gateway_admin.catalog.presentation import deployment_state, model_state
from gateway_admin.catalog.traffic import signs_of
from gateway_admin.fleet.models import BreakerTransition
from tests.catalog import build
from tests.people import People
from tests.usage.ledger import take_in, usage_event

pytestmark = pytest.mark.django_db


@pytest.fixture
def pair() -> list[Deployment]:
    """Two deployments of one model, neither tested."""
    return [build.deployment(name) for name in ("one", "two")]


def breaker(deployment: Deployment, state: str) -> None:
    BreakerTransition.objects.create(
        environment=deployment.environment,
        deployment_id=deployment.pk,
        generation=1,
        state=state,
        at=datetime.now(UTC),
        replica="r",
        received_at=datetime.now(UTC),
    )


def answered(deployment: Deployment, *, hours_ago: float = 0, **fields: Any) -> None:
    at = datetime.now(UTC) - timedelta(hours=hours_ago)
    take_in([usage_event(deployment=str(deployment.pk), started_at=at.isoformat(), **fields)])


def word(rows: list[Deployment]) -> str:
    return model_state(rows, signs_of(rows)).word


def test_nothing_is_known_of_what_was_never_called(pair: list[Deployment]) -> None:
    assert word(pair) == "Not tested"


def test_who_answers_works(pair: list[Deployment], django_assert_num_queries: Any) -> None:
    answered(pair[0])
    with django_assert_num_queries(2):
        signs = signs_of(pair)
    assert deployment_state(pair[0], signs).word == "Working"
    assert deployment_state(pair[1], signs).word == "Not tested"
    assert word(pair) == "Available"


@pytest.mark.parametrize(
    "fields",
    [
        {"hours_ago": 26},
        {"status": "error", "error_class": "timeout"},
        {"status": "refused", "attempts": []},
        {"why": "cache", "saved_cost": "0.1", "attempts": []},
    ],
)
def test_what_says_nothing_of_the_provider_does_not_count(
    fields: dict[str, Any], pair: list[Deployment]
) -> None:
    answered(pair[0], **fields)
    assert word(pair) == "Not tested"


def test_breakers_decide(pair: list[Deployment]) -> None:
    for row in pair:
        answered(row)
    breaker(pair[0], "half_open")
    assert word(pair) == "Degraded"
    breaker(pair[1], "open")
    assert word(pair) == "Degraded"
    assert word(pair[1:]) == "Unavailable"
    pair[1].environment.breaker_enabled = False
    assert word(pair[1:]) == "Available"


def test_a_failed_test_holds_until_calls_are_answered_again(pair: list[Deployment]) -> None:
    deployment = pair[0]
    for hours_ago, state in ((0, "Test failed"), (3, "Working")):
        at = datetime.now(UTC) - timedelta(hours=hours_ago)
        deployment.last_test = {"state": "error", "at": at.isoformat(), "title": "Refused"}
        answered(deployment)
        assert deployment_state(deployment, signs_of([deployment])).word == state


def test_pages_and_api_say_the_same(
    pair: list[Deployment], people: People, client_of: Any, api_of: Any
) -> None:
    model = pair[0].model
    answered(pair[0])
    breaker(pair[1], "open")
    client = client_of(people.admin)
    for path in ("/models/", f"/models/{model.pk}/"):
        assert "Degraded" in client.get(path).content.decode()
    assert "Working" in client.get(f"/deployments/{pair[0].pk}/").content.decode()
    (row,) = api_of(people.owner).get("/api/v1/models/").json()["results"]
    assert row["availability"][0]["state"] == "Degraded"
