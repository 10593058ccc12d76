"""API tokens: created, shown once, limited, revoked."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from rest_framework.test import APIClient

from gateway_admin.accounts import services
from gateway_admin.accounts.models import ApiToken
from gateway_admin.lib.errors import InvalidInput
from tests.people import People

pytestmark = pytest.mark.django_db

TEXT = re.compile(r"gwt-[a-z0-9]{10}-[A-Za-z0-9]{40,}")


def _api(text: str) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {text}")
    return client


def test_it_is_shown_once_and_works(people: People, client_of: Any) -> None:
    client = client_of(people.owner)
    data = {"name": "Terraform", "scope": "write", "expires": "30"}
    page = client.post("/settings/tokens/new/", data)
    assert "no-store" in page["Cache-Control"]
    (text,) = set(TEXT.findall(page.content.decode()))
    assert "curl http" in page.content.decode()
    assert _api(text).get("/api/v1/keys/").status_code == 200
    assert text.split("-")[2] not in client.get("/settings/tokens/").content.decode()
    token = ApiToken.objects.get()
    assert token.expires_at is not None
    assert token.expires_at > timezone.now() + timedelta(days=29)
    with connection.cursor() as cursor:
        cursor.execute("SELECT row::text FROM accounts_apitoken row")
        assert text.split("-")[2] not in str(cursor.fetchall())
    assert token.last_used_at is not None


def test_wrong_input_stays_on_the_form(people: People, client_of: Any) -> None:
    client = client_of(people.owner)
    for data in ({"name": "", "scope": "read"}, {"name": "x", "scope": "all"}):
        assert client.post("/settings/tokens/new/", data).status_code == 422
    assert not ApiToken.objects.exists()
    with pytest.raises(InvalidInput):
        services.api_token_create(
            actor=people.owner, user=people.owner, name="x", expires_at=timezone.now()
        )


def test_it_stops_when_expired_or_revoked(people: People, client_of: Any) -> None:
    token, text = services.api_token_create(actor=people.owner, user=people.owner, name="x")
    api = _api(text)
    ApiToken.objects.update(expires_at=timezone.now())
    assert api.get("/api/v1/keys/").status_code == 401
    ApiToken.objects.update(expires_at=None)
    assert api.get("/api/v1/keys/").status_code == 200
    client_of(people.owner).post(f"/settings/tokens/{token.pk}/revoke/")
    assert api.get("/api/v1/keys/").status_code == 401


@pytest.mark.parametrize(
    ("who", "status"),
    {"owner": 302, "admin": 302, "teammate": 404, "outsider": 404, "finance": 404}.items(),
)
def test_who_revokes(who: str, status: int, people: People, client_of: Any) -> None:
    token, _ = services.api_token_create(actor=people.owner, user=people.owner, name="x")
    answer = client_of(getattr(people, who)).post(f"/settings/tokens/{token.pk}/revoke/")
    assert answer.status_code == status
    token.refresh_from_db()
    assert (token.revoked_at is not None) == (status == 302)


def test_everybody_sees_only_their_own(people: People, client_of: Any) -> None:
    services.api_token_create(actor=people.owner, user=people.owner, name="of-owner")
    for who, person in people.everybody().items():
        page = client_of(person).get("/settings/tokens/").content.decode()
        assert ("of-owner" in page) == (who == "owner")


@pytest.mark.parametrize("text", ["", "gwt", "gwt-a-b", "gwt-aaaaaaaaaa-" + "b" * 43, "Bearer"])
def test_other_text_resolves_to_nothing(text: str) -> None:
    assert services.api_token_resolve(presented=text) is None
