from collections.abc import Iterator

import pytest

from tests.supervisor.installation import Installation


@pytest.fixture(scope="module")
def installed() -> Iterator[Installation]:
    installation = Installation()
    yield installation
    installation.remove()


@pytest.fixture
def installation(installed: Installation) -> Iterator[Installation]:
    """One data directory for the tests of a module, one `up` after the other."""
    yield installed
    installed.stop()
