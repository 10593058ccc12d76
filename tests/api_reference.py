"""The table of `docs/api.md`, from the OpenAPI document that the API itself serves.

`python -m tests.api_reference` writes it anew; tests/test_docs.py compares.
"""

import os
import re
import tempfile
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "docs" / "api.md"
BEGIN, END = "<!-- routes -->\n", "<!-- end of routes -->\n"
# What a method does where a view says only what its rows are.
GENERAL = {"GET": "Show.", "POST": "Add.", "PATCH": "Change.", "DELETE": "Delete."}


def operations() -> dict[str, dict[str, Any]]:
    """ "GET /api/v1/…" -> its OpenAPI operation."""
    from drf_spectacular.generators import SchemaGenerator

    schema = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return {
        f"{method.upper()} {path}": operation
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    }


def table() -> str:
    found = operations()
    texts = {route: _first_sentence(operation) for route, operation in found.items()}
    shared = {text for text in texts.values() if list(texts.values()).count(text) > 2}
    lines = ["| route | |", "|---|---|"]
    for route, text in texts.items():
        method = route.split(" ")[0]
        own = GENERAL[method] if text in shared else text
        if text in shared and method == "GET" and not route.endswith("}/"):
            own = text
        lines.append(f"| `{route}` | {own} |")
    return "\n".join(lines) + "\n"


def _first_sentence(operation: dict[str, Any]) -> str:
    text = operation.get("summary") or operation.get("description") or ""
    sentence = re.split(r"(?<=\.)\s", " ".join(text.split()), maxsplit=1)[0]
    return sentence if sentence.endswith(".") else f"{sentence}."


def page_with(routes: str) -> str:
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    return before + BEGIN + routes + END + rest.split(END)[1]


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.environ.setdefault("GATEWAY_DATA_DIR", directory)
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway_admin.settings")
        import django

        django.setup()
        PAGE.write_text(page_with(table()))


if __name__ == "__main__":
    main()
