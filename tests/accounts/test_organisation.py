"""The page of the organisation's settings, and what a new time zone sets in motion."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway_admin.accounts.models import Organisation
from gateway_admin.celery import app
from tests.people import People

pytestmark = [
    pytest.mark.django_db,
    # Tasks queued by name are never run in place, which is what these tests look at.
    pytest.mark.filterwarnings("ignore::celery.exceptions.AlwaysEagerIgnored"),
]
RECUT = "usage.maintain_partitions"
UNREACHABLE = "redis://127.0.0.1:1/0"


SETTINGS = {"name": "ACME", "time_zone": "UTC", "week_start": "1", "fiscal_year_month": "1"}


@pytest.fixture
def save(people: People, client_of: Any, django_capture_on_commit_callbacks: Any) -> Any:
    client = client_of(people.admin)

    def post(**values: str) -> Any:
        with django_capture_on_commit_callbacks(execute=True):
            return client.post("/settings/", SETTINGS | values)

    return post


@pytest.fixture
def silent_broker() -> Iterator[None]:
    """Tasks go to an address at which nobody listens."""
    before = app.conf.broker_url
    _use_broker(UNREACHABLE)
    yield
    _use_broker(before)


def _use_broker(url: str) -> None:
    app.conf.update(broker_url=url, broker_write_url=url)
    vars(app).pop("amqp", None)  # holds connections to the earlier address


def queued(valkey: Any) -> list[str]:
    return [json.loads(text)["headers"]["task"] for text in valkey.lrange("celery", 0, -1)]


def test_a_new_time_zone_has_the_days_cut_anew_at_once(save: Any, valkey: Any) -> None:
    assert save(time_zone="Europe/Berlin").status_code == 302
    assert queued(valkey) == [RECUT]


def test_a_new_name_cuts_nothing(save: Any, valkey: Any) -> None:
    save()
    assert save(name="Another name").status_code == 302
    assert queued(valkey) == []


def test_without_a_broker_the_schedule_does_it(save: Any, silent_broker: None, caplog: Any) -> None:
    assert save(time_zone="Europe/Berlin").status_code == 302
    assert Organisation.objects.get().time_zone == "Europe/Berlin"
    assert "days_recut_not_queued" in caplog.text
