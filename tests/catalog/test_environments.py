"""Environments: the defaults that apply where nothing more particular is said."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from gateway_admin.catalog.models import Environment
from tests.people import People

pytestmark = pytest.mark.django_db

FORM = {
    "name": "Quality",
    "slug": "qa",
    "colour": "teal",
    "default_output_tokens": "",
    "timeout_s": "30",
    "stream_timeout_s": "5",
    "total_timeout_s": "90",
    "num_retries": "2",
    "retry_backoff_s": "0.25",
    "breaker_enabled": "on",
    "breaker_consecutive_failures": "5",
    "breaker_failure_percent": "50",
    "breaker_minimum_calls": "20",
    "breaker_window_s": "60",
    "breaker_slow_call_s": "",
    "breaker_open_s": "30",
    "breaker_half_open_permits": "3",
    "breaker_close_after_successes": "3",
    "breaker_all_open": "refuse",
    "cache_ttl_s": "3600",
    "cache_max_entry_kib": "64",
    "on_counter_outage": "share",
}


@pytest.fixture
def admin(client_of: Any, people: People) -> Client:
    client: Client = client_of(people.admin)
    return client


def test_an_environment_is_made_and_edited(admin: Client) -> None:
    admin.post(reverse("catalog:environment-create"), FORM)
    environment = Environment.objects.get(slug="qa")
    assert (environment.timeout_s, environment.fallback_enabled) == (30, False)
    assert (environment.cache_enabled, environment.cache_max_entry_bytes) == (False, 65_536)
    again = admin.post(reverse("catalog:environment-create"), FORM)
    assert again.status_code == 422
    assert "“qa” is taken" in again.content.decode()
    url = reverse("catalog:environment-edit", args=["qa"])
    admin.post(url, {**FORM, "name": "QA", "fallback_enabled": "on", "breaker_slow_call_s": "8"})
    environment.refresh_from_db()
    assert (environment.name, environment.fallback_enabled) == ("QA", True)
    assert environment.breaker_slow_call_s == 8


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("breaker_failure_percent", "101"),
        ("breaker_half_open_permits", "0"),
        ("retry_backoff_s", "-1"),
        ("on_counter_outage", "hope"),
        ("cache_ttl_s", "0"),
        ("default_output_tokens", "0"),
    ],
)
def test_what_cannot_be_is_said_at_its_field(admin: Client, field: str, value: str) -> None:
    page = admin.post(reverse("catalog:environment-create"), {**FORM, field: value})
    assert page.status_code == 422
    assert list(page.context["form"].errors) == [field]


def test_the_api_takes_and_checks_them(api_of: Any, people: People) -> None:
    api = api_of(people.admin)
    url = "/api/v1/environments/prod/"
    assert api.get(url).json()["breaker_open_s"] == 30
    changes = {"breaker_open_s": 5, "on_counter_outage": "refuse", "default_output_tokens": 500}
    assert api.patch(url, changes, format="json").status_code == 200
    assert changes.items() <= api.get(url).json().items()
    for wrong in ({"breaker_failure_percent": 0}, {"breaker_all_open": "hope"}):
        answer = api.patch(url, wrong, format="json")
        assert answer.status_code == 422, wrong


def test_a_new_environment_starts_with_the_defaults(api_of: Any, people: People) -> None:
    made = api_of(people.admin).post(
        "/api/v1/environments/", {"slug": "qa", "name": "QA"}, format="json"
    )
    row = made.json()
    assert (row["total_timeout_s"], row["retry_backoff_s"]) == (600, 0.5)
    assert (row["breaker_consecutive_failures"], row["breaker_failure_percent"]) == (5, 50)
    assert (row["breaker_minimum_calls"], row["breaker_window_s"]) == (20, 60)
    assert (row["cache_enabled"], row["cache_ttl_s"], row["cache_max_entry_bytes"]) == (
        True,
        3_600,
        1_048_576,
    )
