"""An address where nothing is: in the shape of whoever asked."""

from typing import Any

from django.test import Client

from tests.people import People


def test_machines_get_the_api_s_error_shape(client: Client) -> None:
    for path in ("/api/v1/nothing/", "/fleet/v1/nothing"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.json()["errors"][0]["code"] == "not_found"


def test_people_get_a_page(people: People, client_of: Any) -> None:
    answer = client_of(people.owner).get("/nothing/")
    assert answer.status_code == 404
    assert b"Nothing here" in answer.content
