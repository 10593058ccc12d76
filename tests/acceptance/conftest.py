from collections.abc import Iterator

import pytest

from tests.acceptance.stack import Stack, running_stack


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A configured installation with all six providers; shared by the tests of a module."""
    with running_stack() as running:
        yield running
