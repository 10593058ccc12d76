"""The OpenAPI document that clients generate code from."""

from typing import Any

import pytest
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator


@pytest.fixture(scope="module")
def schema() -> Any:
    GENERATOR_STATS.reset()
    return SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]


def test_nothing_is_left_to_guess(schema: Any, capsys: pytest.CaptureFixture[str]) -> None:
    GENERATOR_STATS.emit_summary()
    assert not GENERATOR_STATS, capsys.readouterr().err


def test_each_operation_names_the_bearer_token(schema: Any) -> None:
    (name, scheme), *others = schema["components"]["securitySchemes"].items()
    assert not others
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    operations = [one for methods in schema["paths"].values() for one in methods.values()]
    assert all(one["security"] == [{name: []}] for one in operations)
