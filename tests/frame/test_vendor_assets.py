"""Vendored files are what their manifest says, and fit the Python side."""

import hashlib
import json
import re
from pathlib import Path

import plotly
from django.conf import settings

from gateway_admin.frame import states
from gateway_admin.frame.navigation import GROUPS

ROOT = Path(settings.BASE_DIR)
VENDOR = ROOT / "static" / "vendor"
MANIFEST = json.loads((VENDOR / "manifest.json").read_text())
UNLISTED = {"README.md", "manifest.json"}


def test_every_file_has_the_hash_in_the_manifest() -> None:
    listed = {name: digest for entry in MANIFEST for name, digest in entry["files"].items()}
    found = {
        str(path.relative_to(VENDOR)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.rglob("*")
        if path.is_file() and path.name not in UNLISTED
    }
    assert found == listed


def test_every_package_names_its_version_and_licence() -> None:
    for entry in MANIFEST:
        assert re.fullmatch(r"\d+\.\d+\.\d+", entry["version"])
        assert entry["licence"] in {"MIT", "OFL-1.1", "0BSD"}


def test_plotly_in_the_page_has_the_major_version_of_plotly_in_python() -> None:
    bundled = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    theirs = re.search(r"plotly\.js v(\d+)\.", bundled.read_text(errors="ignore")[:400])
    ours = (VENDOR / "plotly" / "plotly-basic.min.js").read_text()[:400]
    found = re.search(r"plotly\.js \(basic[^)]*\) v(\d+)\.", ours)
    assert theirs
    assert found
    assert found.group(1) == theirs.group(1)


def test_every_icon_that_a_page_names_is_in_the_sprite() -> None:
    sprite = set(re.findall(r'<symbol id="([\w-]+)"', (VENDOR / "icons/sprite.svg").read_text()))
    named = {entry.icon for group in GROUPS for entry in group.entries}
    named |= {states.tone_of(tone)[1] for tone in ("ok", "warn", "bad", "info", "quiet")}
    for template in (ROOT / "templates").rglob("*.html"):
        named |= set(re.findall(r'{%\s*icon "([\w-]+)"', template.read_text()))
        named |= set(re.findall(r'\bicon="([\w-]+)"', template.read_text()))
    assert named <= sprite, named - sprite
