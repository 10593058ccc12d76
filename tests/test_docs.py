"""Nothing that a person may set, call or watch is undocumented, and nothing documented is gone."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests import api_reference

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SETTING = re.compile(r"(?:GATEWAY_[A-Z0-9_]+|DATABASE_URL|REDIS_URL|EMAIL_URL)")
# Written by the product for its own tests and parts, not for people.
INTERNAL_SETTINGS = {"GATEWAY_ADMIN_"}
METRIC_CLASSES = {"Counter", "Gauge", "Histogram", "Summary"}


def nodes(*folders: str) -> Iterator[ast.AST]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield from ast.walk(ast.parse(path.read_text()))


def documentation() -> str:
    return "\n".join(path.read_text() for path in sorted(DOCS.rglob("*.md")))


def settings_in_code() -> set[str]:
    return {
        node.value
        for node in nodes("gateway_admin", "proxy")
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and SETTING.fullmatch(node.value)
    } - INTERNAL_SETTINGS


def test_every_setting_is_described_and_every_description_has_a_setting() -> None:
    described = set(re.findall(r"`([A-Z_0-9]+)`", (DOCS / "configuration.md").read_text()))
    described = {name for name in described if SETTING.fullmatch(name)}
    assert settings_in_code() - described == set(), "describe these in docs/configuration.md"
    assert described - settings_in_code() == set(), "these are read nowhere"


def test_every_metric_is_described() -> None:
    metrics = {
        str(node.args[0].value)
        for node in nodes("gateway_admin", "proxy")
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in METRIC_CLASSES
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }
    text = documentation()
    assert metrics
    missing = {name for name in metrics if f"`{name}" not in text}
    assert missing == set(), "describe these in docs/metrics.md"


def test_every_command_is_described() -> None:
    commands = {
        path.stem
        for path in (ROOT / "gateway_admin").glob("*/management/commands/*.py")
        if path.stem != "__init__"
    }
    text = (DOCS / "commands.md").read_text()
    assert {name for name in commands if f"`{name}`" not in text} == set()


def test_every_make_target_is_described_in_its_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.M)
    assert phony
    for target in phony.group(1).split():
        assert re.search(rf"^{target}:.*## \S", makefile, re.M), target


def test_every_api_route_is_described() -> None:
    expected = api_reference.page_with(api_reference.table())
    assert api_reference.PAGE.read_text() == expected, "run `make docs`"


def test_every_link_of_the_documents_leads_somewhere() -> None:
    broken = []
    for page in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)} -> {target}")
    assert not broken, "\n".join(broken)
