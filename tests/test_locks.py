"""The lock files fit their `.in` files and one another. Needs no network."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
PARTS = ["dev", "base", "proxy", "prod", "bootstrap"]


def wanted(name: str) -> list[Requirement]:
    found = []
    for line in (REQUIREMENTS / f"{name}.in").read_text().splitlines():
        text = line.split("#", 1)[0].strip()
        if text.startswith("-r "):
            found += wanted(Path(text[3:].strip()).stem)
        elif text and not text.startswith("-"):
            found.append(Requirement(text))
    return found


def locked(name: str) -> dict[str, str]:
    text = (REQUIREMENTS / f"{name}.txt").read_text()
    pins = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", text, re.M)
    return {canonicalize_name(package): version for package, version in pins}


@pytest.mark.parametrize("part", PARTS)
def test_every_requirement_is_locked_at_a_version_that_it_allows(part: str) -> None:
    pins = locked(part)
    stale = [
        str(requirement)
        for requirement in wanted(part)
        if not requirement.specifier.contains(
            pins.get(canonicalize_name(requirement.name), "0"), prereleases=True
        )
    ]
    assert not stale, f"run `make lock`: {stale}"


@pytest.mark.parametrize("part", PARTS)
def test_every_pin_has_hashes_and_names_no_index(part: str) -> None:
    text = (REQUIREMENTS / f"{part}.txt").read_text()
    blocks = re.split(r"\n(?=[A-Za-z0-9])", text[text.index("\n", text.rindex("make lock")) :])
    assert [block for block in blocks if "==" in block and "--hash=sha256:" not in block] == []
    assert "index-url" not in text
    assert "://" not in text


@pytest.mark.parametrize("part", PARTS[1:])
def test_parts_have_the_versions_of_the_whole(part: str) -> None:
    whole = locked("dev")
    different = {name for name, version in locked(part).items() if whole.get(name) != version}
    assert not different, "run `make lock`"


@pytest.mark.parametrize("part", PARTS)
def test_every_requirement_has_its_reason(part: str) -> None:
    lines = ["", *(REQUIREMENTS / f"{part}.in").read_text().splitlines()]
    without = [
        line
        for above, line in pairwise(lines)
        if line and line[0] not in "#-" and "# " not in line and not above.startswith("#")
    ]
    assert not without
