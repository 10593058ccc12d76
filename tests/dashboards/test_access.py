"""Everybody sees the usage that is theirs to see, on every page and endpoint, and no more."""

from typing import Any

import pytest
from django.test import Client

from tests.dashboards.conftest import Story
from tests.people import People

pytestmark = pytest.mark.django_db

PAGES = (
    "/",
    "/overview/requests.json",
    "/cost/",
    "/cost/daily.json",
    "/cost/export.csv",
    "/cache/",
    "/cache/daily.json",
    "/cache/export.csv",
    "/latency/",
    "/latency/latency.json",
    "/latency/first-token.json",
    "/latency/overhead.json",
    "/latency/errors.json",
    "/latency/export.csv",
    "/requests/",
    "/requests/export.csv",
    "/first-call/",
)
# Who -> spend and requests they may know of.
SEES = {
    "admin": ("8.25", 6),
    "finance": ("8.25", 6),
    "owner": ("3", 1),
    "teammate": ("3", 1),
    "outsider": ("5.25", 5),
}


def text_of(response: Any) -> str:
    parts = response.streaming_content if response.streaming else [response.content]
    return b"".join(parts).decode()


@pytest.mark.parametrize("path", PAGES)
def test_strangers_are_sent_to_the_login_page(path: str, story: Story) -> None:
    assert Client().get(path).status_code == 302


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("who", SEES)
def test_nobody_meets_names_of_others(
    path: str, who: str, people: People, story: Story, client_of: Any
) -> None:
    response = client_of(people.everybody()[who]).get(path)
    assert response.status_code == 200
    text = text_of(response)
    if who in {"owner", "teammate"}:
        assert "ads writer" not in text
        assert "tinkering" not in text
        assert "timeout" not in text.replace("Any error", "").split("<tbody>")[-1]
    if who == "outsider":
        assert "search bot" not in text


@pytest.mark.parametrize("who", SEES)
def test_the_log_holds_what_they_may_see(
    who: str, people: People, story: Story, client_of: Any, api_of: Any
) -> None:
    person = people.everybody()[who]
    assert len(client_of(person).get("/requests/").context["rows"]) == SEES[who][1]
    assert len(api_of(person).get("/api/v1/usage/events/").data["results"]) == SEES[who][1]
    exported = text_of(client_of(person).get("/requests/export.csv"))
    assert exported.count("\r\n") == SEES[who][1] + 1


@pytest.mark.parametrize("who", SEES)
def test_sums_hold_what_they_may_see(
    who: str, people: People, story: Story, client_of: Any, api_of: Any
) -> None:
    person = people.everybody()[who]
    for group in ("team", "model", "provider", "key"):
        report = client_of(person).get(f"/cost/?group={group}").context["report"]
        assert f"{report.total.cost.normalize():f}" == SEES[who][0]
    summary = api_of(person).get("/api/v1/usage/summary/", {"group_by": "key"}).data
    assert float(summary["total"]["cost"]) == float(SEES[who][0])
    assert summary["total"]["requests"] == SEES[who][1]


@pytest.mark.parametrize("who", SEES)
def test_a_single_request_of_others_is_not_there(
    who: str, people: People, story: Story, client_of: Any, api_of: Any
) -> None:
    event_id = story.event_id("of-search")
    expected = 404 if who == "outsider" else 200
    person = people.everybody()[who]
    assert client_of(person).get(f"/requests/{event_id}/").status_code == expected
    assert api_of(person).get(f"/api/v1/usage/events/{event_id}/").status_code == expected


def test_asking_for_another_team_gives_nothing(people: People, story: Story, api_of: Any) -> None:
    api = api_of(people.owner)
    asked = {"team": str(people.ads.pk)}
    assert api.get("/api/v1/usage/events/", asked).data["results"] == []
    assert api.get("/api/v1/usage/summary/", asked).data["total"]["requests"] == 0


def test_finance_issues_no_key(people: People, client_of: Any) -> None:
    assert client_of(people.finance).post("/first-key/").status_code == 403


def test_the_api_wants_a_token(story: Story) -> None:
    assert Client().get("/api/v1/usage/events/").status_code == 401
    assert Client().get("/api/v1/usage/summary/").status_code == 401


def test_own_keys_count_after_one_left_their_team(
    people: People, story: Story, client_of: Any, api_of: Any
) -> None:
    people.ads.memberships.filter(user=people.outsider).delete()
    report = client_of(people.outsider).get("/cost/").context["report"]
    assert f"{report.total.cost.normalize():f}" == "5.25"  # all of it by keys of their own
    people.search.memberships.filter(user=people.teammate).delete()
    assert api_of(people.teammate).get("/api/v1/usage/summary/").data["total"]["requests"] == 0
