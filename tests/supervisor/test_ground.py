"""The ground that all other tests stand on."""

import pytest

from gateway_admin.catalog.models import Environment
from tests.people import People


def test_everybody_has_their_role(people: People) -> None:
    assert set(people.everybody()) == {"admin", "owner", "teammate", "outsider", "finance"}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("turn", [1, 2])
def test_the_rows_of_migrations_survive_tests_that_commit(turn: int) -> None:
    assert Environment.objects.count() == 3
