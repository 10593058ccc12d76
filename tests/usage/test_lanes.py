"""What the ledger says of the lanes that served a deployment's requests."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway_admin.usage.lanes import LOOKED_AT, reason_words, recent_lanes
from tests import builders
from tests.people import People
from tests.usage.ledger import take_in, usage_event

pytestmark = pytest.mark.django_db


@pytest.fixture
def deployment() -> Any:
    return builders.deployment(model=builders.model("gpt-4o"), name="gpt-4o in Europe")


def served(deployment: Any, times: int = 1, **fields: Any) -> None:
    take_in(usage_event(deployment=str(deployment.pk), **fields) for _ in range(times))


def test_nothing_was_asked(deployment: Any) -> None:
    shares = recent_lanes(deployment)
    assert (shares.requests, shares.direct_share, shares.main_reason) == (0, 0.0, "")


def test_shares_and_the_most_common_reason(deployment: Any, django_assert_num_queries: Any) -> None:
    served(deployment, 6, lane="direct")
    served(deployment, 3, lane_reason="parameter:logit_bias")
    served(deployment, 1, lane_reason="retry")
    with django_assert_num_queries(1):
        shares = recent_lanes(deployment)
    assert (shares.requests, shares.direct_share) == (10, 0.6)
    assert shares.main_reason == "the parameter logit_bias is translated"


def test_only_what_called_this_provider_lately_counts(deployment: Any) -> None:
    twin = builders.deployment(model=deployment.model, credential=deployment.credential)
    long_ago = datetime.now(UTC) - timedelta(hours=25)
    served(twin, lane="direct")
    served(deployment, lane="direct", started_at=long_ago.isoformat())
    served(deployment, status="refused", attempts=[])
    served(deployment, why="cache", attempts=[])
    served(deployment, lane="")
    assert recent_lanes(deployment).requests == 0
    assert recent_lanes(twin).direct == 1


def test_it_looks_at_a_bounded_number(deployment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert LOOKED_AT <= 5_000
    monkeypatch.setattr("gateway_admin.usage.lanes.LOOKED_AT", 5)
    served(deployment, 9, lane="direct")
    assert recent_lanes(deployment).requests == 5


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("", ""),
        ("provider", "the provider's format has to be translated"),
        ("params:seed", "the deployment's parameter seed needs LiteLLM"),
        ("environment:OPENAI_PROXY", "the replica's variable OPENAI_PROXY needs LiteLLM"),
        ("parameter:a{b}", "the parameter a{b} is translated"),
        ("not_known_yet", "not known yet"),
    ],
)
def test_reasons_in_words(reason: str, words: str) -> None:
    assert reason_words(reason) == words


def test_the_page_of_a_deployment_tells_it(deployment: Any, people: People, client_of: Any) -> None:
    def page() -> str:
        response = client_of(people.admin).get(f"/deployments/{deployment.pk}/")
        return " ".join(response.content.decode().split())

    assert "Direct when possible" in page()
    assert "No request in the last 24 hours" in page()
    served(deployment, 3, lane="direct")
    assert "Last 24 h: all of 3 requests were direct" in page()
    served(deployment, 1, lane_reason="retry")
    assert "75" in page()
    assert "LiteLLM served the others, mostly because an earlier attempt failed" in page()
    deployment.model.lane = "litellm"
    deployment.model.save()
    assert "Always through LiteLLM, set at the model" in page()
