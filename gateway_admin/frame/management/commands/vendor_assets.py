"""Refresh `static/vendor/` from the npm registry: the one place that names front-end versions.

Run by a developer who raises a version; nothing at run time needs Node or the network.
Every file's SHA-256 is written to `static/vendor/manifest.json`, which a test compares.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

ICONS_PACKAGE = "@tabler/icons"

# Outline icons of the sprite, by Tabler's own names.
# fmt: off
ICONS = (
    "activity", "adjustments-horizontal", "alert-circle", "alert-triangle", "api", "archive",
    "arrow-back-up", "arrow-down", "arrow-down-right", "arrow-left", "arrow-narrow-right",
    "arrow-right", "arrow-up", "arrow-up-right", "at", "ban", "bell", "bolt", "box",
    "building", "calendar", "calendar-time", "chart-bar", "chart-line", "check",
    "chevron-down", "chevron-left", "chevron-right", "chevron-up", "circle-check",
    "circle-dashed", "circle-minus", "circle-plus", "circle-x", "clipboard-list", "clock",
    "cloud", "cloud-off", "code", "coins", "command", "copy", "copy-plus", "cpu", "database",
    "database-off", "device-desktop", "device-mobile", "dots", "download", "edit",
    "external-link", "eye", "eye-off", "file-diff", "file-text", "filter", "fingerprint",
    "flask", "gauge", "git-branch", "git-compare", "git-merge", "grip-vertical", "help",
    "history", "home", "hourglass", "info-circle", "key", "key-off", "keyboard",
    "layout-dashboard", "layout-sidebar", "layout-sidebar-left-collapse", "link", "list",
    "list-check", "list-search", "lock", "lock-open", "login", "logout", "mail", "menu-2",
    "message", "minus", "moon", "pencil", "percentage", "photo-down", "player-pause",
    "player-play", "plug", "plug-connected", "plus", "power", "receipt", "refresh", "replace",
    "robot", "rocket", "route", "search", "selector", "send", "server", "server-2", "settings",
    "shield", "shield-check", "shield-lock", "sparkles", "stack-2", "sun", "table", "tag",
    "terminal-2", "test-pipe", "tool", "trash", "trending-up", "upload", "user", "user-check",
    "user-off", "user-plus", "users", "users-group", "versions", "wallet", "wand", "world",
    "x",
)
# fmt: on


@dataclass(frozen=True)
class Package:
    """An npm package, the files taken from it and where they go under `static/vendor/`."""

    name: str
    version: str
    licence: str
    folder: str
    files: tuple[str, ...]


PACKAGES = (
    Package(
        "@tabler/core",
        "1.6.1",
        "MIT",
        "tabler",
        ("dist/css/tabler.min.css", "dist/js/tabler.min.js"),  # notice at the head of each
    ),
    Package(
        "@fontsource-variable/inter",
        "5.3.0",
        "OFL-1.1",
        "inter",
        (
            "files/inter-latin-opsz-normal.woff2",
            "files/inter-latin-ext-opsz-normal.woff2",
            "LICENSE",
        ),
    ),
    Package("htmx.org", "2.0.11", "0BSD", "htmx", ("dist/htmx.min.js", "LICENSE")),
    # The same major version as plotly.js inside plotly.py: figures are validated against it.
    Package(
        "plotly.js-basic-dist-min",
        "4.1.1",
        "MIT",
        "plotly",
        ("plotly-basic.min.js", "LICENSE"),
    ),
    Package(ICONS_PACKAGE, "3.51.0", "MIT", "icons", ("LICENSE",)),
)


def fetch(package: Package, *, workdir: Path) -> Path:
    """Download and unpack one package; return its root directory."""
    target = workdir / package.folder
    target.mkdir()
    done = subprocess.run(
        ["npm", "pack", "--silent", f"{package.name}@{package.version}"],  # noqa: S607
        cwd=target,
        check=True,
        capture_output=True,
        text=True,
    )
    with tarfile.open(target / done.stdout.strip().splitlines()[-1]) as archive:
        archive.extractall(target, filter="data")
    return target / "package"


def content_of(root: Path, name: str) -> bytes:
    """A file without its pointer to a source map, which is not vendored."""
    content = (root / name).read_bytes()
    if name.endswith((".js", ".css")):
        content = re.sub(rb"\n?(//|/\*)# sourceMappingURL=[^\n]*?(\*/)?\s*$", b"\n", content)
    return content


def sprite_of(root: Path) -> bytes:
    """One SVG with a `<symbol>` per icon; colour and stroke come from the page."""
    symbols = []
    for name in ICONS:
        svg = (root / "icons" / "outline" / f"{name}.svg").read_text()
        body = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
        body = re.sub(r'<path stroke="none"[^>]*/>', "", body)
        symbols.append(f'<symbol id="{name}" viewBox="0 0 24 24">{" ".join(body.split())}</symbol>')
    return (
        '<svg xmlns="http://www.w3.org/2000/svg">\n' + "\n".join(symbols) + "\n</svg>\n"
    ).encode()


class Command(BaseCommand):
    """`manage.py vendor_assets`: fetch, copy, build the sprite, write the manifest."""

    help = "Refresh the vendored CSS, scripts, font and icons from the npm registry (developers)."

    def handle(self, *args: object, **options: object) -> None:
        """Rewrite `static/vendor/` from the pinned packages."""
        if shutil.which("npm") is None:
            raise CommandError("Fetching the packages needs npm: install it (Debian: npm).")
        vendor = Path(settings.BASE_DIR) / "static" / "vendor"
        manifest = []
        with tempfile.TemporaryDirectory() as temporary:
            for package in PACKAGES:
                root = fetch(package, workdir=Path(temporary))
                contents = {Path(name).name: content_of(root, name) for name in package.files}
                if package.name == ICONS_PACKAGE:
                    contents["sprite.svg"] = sprite_of(root)
                manifest.append(self._write(package, contents, vendor=vendor))
        text = json.dumps(manifest, indent=2) + "\n"
        (vendor / "manifest.json").write_text(text, encoding="utf-8")

    def _write(
        self, package: Package, contents: dict[str, bytes], *, vendor: Path
    ) -> dict[str, object]:
        folder = vendor / package.folder
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        self.stdout.write(f"{package.name} {package.version}: {', '.join(contents)}")
        return {
            "package": package.name,
            "version": package.version,
            "licence": package.licence,
            "files": {
                f"{package.folder}/{name}": hashlib.sha256(content).hexdigest()
                for name, content in contents.items()
            },
        }
