"""Issuing a virtual key: the secret is shown once and stored only as a digest."""

import hmac
import logging
import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from gateway_admin.accounts.models import AuditEvent, Organisation
from gateway_admin.catalog.models import Environment
from gateway_admin.keys.models import VirtualKey
from gateway_admin.keys.policies import changed_since
from gateway_admin.keys.services import environment_pepper, key_create, key_digest
from gateway_admin.lib.errors import InvalidInput
from tests.people import People

pytestmark = pytest.mark.django_db

SECRET = re.compile(r"sk-gw-[a-z0-9]{10}-[A-Za-z0-9]{40,}")


def _form(**fields: Any) -> dict[str, Any]:
    return {
        "name": "checkout",
        "in_environment": "prod",
        "team": "search",
        "owner": "owner@example.com",
        "models_mode": "all",
        "expires": "",
        "tags": "",
        **fields,
    }


def test_the_page_shows_the_whole_key_once(
    people: People, prod: Environment, client_of: Any
) -> None:
    client = client_of(people.owner)
    answer = client.post("/keys/new/", _form())
    (text,) = set(SECRET.findall(answer.content.decode()))
    assert "no-store" in answer["Cache-Control"]
    key = VirtualKey.objects.get()
    assert text.split("-")[2] == key.public_id
    for address in ("/keys/", f"/keys/{key.pk}/", f"/keys/{key.pk}/edit/", "/keys/export.csv"):
        shown = client.get(address)
        content = shown.getvalue() if shown.streaming else shown.content
        assert text.split("-")[3].encode() not in content


def test_snippets_hold_the_key_a_model_and_the_proxy(
    people: People, prod: Environment, client_of: Any, settings: Any
) -> None:
    settings.PROXY_PUBLIC_URL = "https://llm.example.com"
    form = _form(models_mode="chosen", allowed_models=["claude-haiku"])
    page = client_of(people.owner).post("/keys/new/", form).content.decode()
    text = SECRET.findall(page)[0]
    assert "https://llm.example.com/v1/chat/completions" in page
    assert f"Authorization: Bearer {text}" in page.replace("&quot;", '"')
    assert "claude-haiku" in page


def test_only_the_digest_is_stored(prod: Environment, people: People, caplog: Any) -> None:
    with caplog.at_level(logging.DEBUG):
        key, text = key_create(
            actor=people.admin, environment=prod, name="ci", owner=people.owner, team=people.search
        )
    assert hmac.compare_digest(key.digest, key_digest(environment=prod, text=text))
    assert key.digest != key_digest(environment=prod, text=text[:-1] + "!")
    secret = text.split("-")[3]
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(
                f'SELECT count(*) FROM "{table}" row WHERE row::text LIKE %s',  # noqa: S608
                [f"%{secret}%"],
            )
            assert cursor.fetchone() == (0,), table
    assert secret not in caplog.text


def test_environments_have_their_own_pepper(prod: Environment) -> None:
    dev = Environment.objects.get(slug="dev")
    assert environment_pepper(prod) != environment_pepper(dev)
    assert len(environment_pepper(prod)) == 32


def test_it_is_audited_and_announced(prod: Environment, people: People) -> None:
    key, text = key_create(
        actor=people.owner,
        environment=prod,
        name="ci",
        owner=people.owner,
        team=people.search,
        allowed_models=["gpt-4o"],
        tags={"cost-centre": "4711"},
    )
    event = AuditEvent.objects.get(action="key.create")
    assert event.actor == people.owner
    assert event.environment == "prod"
    assert event.changes["models"] == [None, ["gpt-4o"]]
    assert event.changes["tags"] == [None, {"cost-centre": "4711"}]
    assert text.split("-")[3] not in str(event.changes)
    assert changed_since(environment=prod, since=0).keys == {key.pk}


@pytest.mark.parametrize(
    ("field", "value", "at"),
    [
        ("name", " ", "name"),
        ("allowed_models", ["gpt-5"], "allowed_models"),
        ("allowed_models", [], "allowed_models"),
        ("expires_at", timezone.now() - timedelta(hours=1), "expires_at"),
        ("tags", {"a b": "c"}, "tags"),
        ("tags", {"a": "c" * 201}, "tags"),
        ("tags", {f"tag{number}": "" for number in range(21)}, "tags"),
    ],
)
def test_wrong_input_names_its_field(
    field: str, value: Any, at: str, prod: Environment, people: People
) -> None:
    fields = {"name": "ci", "owner": people.owner, "team": people.search, field: value}
    with pytest.raises(InvalidInput) as caught:
        key_create(actor=people.owner, environment=prod, **fields)
    assert caught.value.field == at
    assert not VirtualKey.objects.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "This field is required."),
        ({"models_mode": "chosen"}, "Choose at least one model"),
        ({"models_mode": "chosen", "allowed_models": ["gpt-5"]}, "gpt-5"),
        ({"expires": "date"}, "Choose the last day."),
        ({"expires": "date", "expires_on": "2020-01-01"}, "This moment has passed."),
        ({"tags": "no separator"}, "Write name=value"),
        ({"owner": "nobody@example.com"}, "Nobody of this e-mail"),
        ({"owner": "", "team": ""}, "belongs to a person, to a team, or to both"),
        ({"team": "ads"}, "Select a valid choice"),
    ],
)
def test_the_form_comes_back_with_the_message_and_what_was_typed(
    change: dict[str, Any], message: str, people: People, prod: Environment, client_of: Any
) -> None:
    form = _form(**{"tags": "cost-centre=4711", **change})
    answer = client_of(people.owner).post("/keys/new/", form)
    assert answer.status_code == 422
    page = answer.content.decode()
    assert message in page.replace("&#x27;", "'")
    assert form["tags"] in page
    assert not VirtualKey.objects.exists()


def test_the_last_day_ends_in_the_organisations_zone(
    people: People, prod: Environment, client_of: Any
) -> None:
    Organisation.objects.update(time_zone="Asia/Tokyo")
    client_of(people.owner).post("/keys/new/", _form(expires="date", expires_on="2031-03-04"))
    expires_at = VirtualKey.objects.get().expires_at
    assert expires_at is not None
    assert expires_at.isoformat() == "2031-03-04T15:00:00+00:00"


class TestWhoMayIssue:
    def test_a_member_for_themself_in_their_team(self, people: People, prod: Environment) -> None:
        key, _ = key_create(
            actor=people.teammate,
            environment=prod,
            name="x",
            owner=people.teammate,
            team=people.search,
        )
        assert key.created_by == people.teammate

    def test_a_member_not_for_others(self, people: People, prod: Environment) -> None:
        with pytest.raises(InvalidInput, match="owner of the team"):
            key_create(
                actor=people.teammate,
                environment=prod,
                name="x",
                owner=people.owner,
                team=people.search,
            )

    def test_a_member_not_for_the_team_itself(self, people: People, prod: Environment) -> None:
        with pytest.raises(InvalidInput, match="owner of the team"):
            key_create(
                actor=people.teammate, environment=prod, name="x", owner=None, team=people.search
            )

    def test_the_teams_owner_for_members_and_the_team(
        self, people: People, prod: Environment
    ) -> None:
        for owner in (people.teammate, None):
            key_create(
                actor=people.owner, environment=prod, name="x", owner=owner, team=people.search
            )

    def test_nobody_in_a_team_they_are_not_in(self, people: People, prod: Environment) -> None:
        with pytest.raises(InvalidInput) as caught:
            key_create(
                actor=people.outsider,
                environment=prod,
                name="x",
                owner=people.outsider,
                team=people.search,
            )
        assert caught.value.field == "owner"

    def test_an_owner_is_a_member_of_the_keys_team(self, people: People, prod: Environment) -> None:
        with pytest.raises(InvalidInput, match="not a member"):
            key_create(
                actor=people.admin,
                environment=prod,
                name="x",
                owner=people.outsider,
                team=people.search,
            )

    def test_finance_is_led_away(self, people: People, prod: Environment, client_of: Any) -> None:
        answer = client_of(people.finance).post("/keys/new/", _form())
        assert answer.status_code == 302
        assert not VirtualKey.objects.exists()
