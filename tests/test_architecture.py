"""Who may import whom, and what no file may become. The table is the decision."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 500

# An app imports only what stands before it; `frame` is the pages' frame around all of them.
ORDER = [
    "lib",
    "accounts",
    "catalog",
    "keys",
    "fleet",
    "usage",
    "dashboards",
    "supervisor",
    "demo",
]
# Importer -> what it may import besides. Each line has its reason.
EXCEPTIONS = {
    "accounts": {
        "frame",  # format helpers and page parts
        "keys",  # late: a new calendar or a person's new name is a new version of the policies
    },
    "catalog": {
        "frame",
        "fleet",  # late: publishing by itself after an edit; breakers on deployments' pages
        "usage",  # late: what deployments' and models' pages say of recent traffic
    },
    "keys": {
        "frame",
        "fleet",  # a key's write hands out a policy version in the same transaction
        "usage",  # late: a new budget starts at what the ledger says was spent
    },
    "fleet": {"frame"},
    "usage": {"frame"},
    "dashboards": {"frame"},
    "demo": {"frame"},
    "supervisor": {
        "celery",  # asks the worker whether it answers
        "demo",  # `up --demo` runs its processes too: one late import
    },
    # Badges in the navigation: queries of the apps, imported late.
    "frame": {"lib", "accounts", "catalog", "keys", "fleet", "usage"},
    # The project's own modules hold everything together.
    "settings": {"lib"},
    "urls": set(ORDER),
    "api_urls": set(ORDER),
    "celery": set(),
    "wsgi": set(),
}
# Only what the table above calls "late" or for queries may reach upwards.
LATE_ONLY = {
    ("accounts", "keys"),
    ("catalog", "fleet"),
    ("catalog", "usage"),
    ("keys", "fleet"),
    ("keys", "usage"),
    ("supervisor", "demo"),
}
FROM_PROXY = {"proxy.contract"}
PROXY_REFUSES = {"django", "gateway_admin", "celery", "psycopg", "rest_framework"}


def sources(folder: str) -> Iterator[Path]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        if "migrations" not in path.parts:
            yield path


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(module, whether it is imported late: inside a function or for types only)."""
    tree = ast.parse(path.read_text())
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _is_for_types(node)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name, id(node) in late
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            origin = ".".join([*package, *filter(None, [node.module])])
            for name in node.names:
                yield f"{origin}.{name.name}", id(node) in late


def _is_for_types(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def app_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "gateway_admin").parts
    return parts[0].removesuffix(".py")


def may_import(importer: str) -> set[str]:
    before = set(ORDER[: ORDER.index(importer)]) if importer in ORDER else set()
    return before | EXCEPTIONS.get(importer, set()) | {importer}


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_apps_import_only_towards_lib() -> None:
    wrong = []
    for path in sources("gateway_admin"):
        importer = app_of(path)
        for module, late in imports(path):
            parts = module.split(".")
            if parts[0] != "gateway_admin" or len(parts) < 2:
                continue
            target = parts[1]
            if target not in may_import(importer):
                wrong.append(f"{short(path)} imports {module}")
            elif (importer, target) in LATE_ONLY and not late:
                wrong.append(f"{short(path)} imports {module} at its top; only late is allowed")
    assert not wrong, "\n".join(wrong)


def test_the_control_plane_knows_the_contract_alone() -> None:
    wrong = [
        f"{short(path)} imports {module}"
        for path in sources("gateway_admin")
        for module, _ in imports(path)
        if module.split(".")[0] == "proxy" and ".".join(module.split(".")[:2]) not in FROM_PROXY
    ]
    assert not wrong, "\n".join(wrong)


def test_the_data_plane_knows_nothing_of_the_control_plane() -> None:
    wrong = [
        f"{short(path)} imports {module}"
        for path in sources("proxy")
        for module, _ in imports(path)
        if module.split(".")[0] in PROXY_REFUSES
    ]
    assert not wrong, "\n".join(wrong)


def test_the_contract_needs_the_standard_library_alone() -> None:
    import sys

    modules = {
        module
        for path in (ROOT / "proxy" / "contract").glob("*.py")
        for module, _ in imports(path)
        if not module.startswith("proxy.contract")
    }
    assert modules
    assert {module.split(".")[0] for module in modules} <= sys.stdlib_module_names


@pytest.mark.parametrize("folder", ["gateway_admin", "proxy", "tests"])
def test_no_file_is_long(folder: str) -> None:
    long = {
        short(path): lines
        for path in sources(folder)
        if (lines := len(path.read_text().splitlines())) > MAX_LINES
    }
    assert not long


def test_no_module_is_a_drawer() -> None:
    drawers = {"utils.py", "helpers.py", "misc.py"}
    found = [
        short(path)
        for folder in ("gateway_admin", "proxy", "tests")
        for path in sources(folder)
        if path.name in drawers
    ]
    assert not found


def test_no_signals() -> None:
    """Whatever happens on a write stands in the service that writes."""
    wrong = [
        f"{short(path)} imports {module}"
        for path in sources("gateway_admin")
        for module, _ in imports(path)
        if module.startswith(("django.db.models.signals", "django.dispatch"))
    ]
    assert not wrong, "\n".join(wrong)
