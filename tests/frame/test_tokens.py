"""Contrasts of both themes, computed from the design tokens; data hues for colour-blind eyes.

Contrast: WCAG 2.2, 1.4.3 and 1.4.11. Simulation: Machado, Oliveira, Fernandes 2009 (severity 1).
Distance: Euclidean in OKLab.
"""

import itertools
import math
import re
from pathlib import Path

import pytest
from django.conf import settings

CSS = (Path(settings.BASE_DIR) / "static/css/tokens.css").read_text()
THEMES = ("light", "dark")
DATA = [f"data-{index}" for index in range(1, 9)]

TEXT_PAIRS = {
    "text": "bg surface raised sunken hover accent-soft quiet-soft",
    "muted": "bg surface raised sunken hover quiet-soft accent-soft ok-soft warn-soft bad-soft",
    "faint": "bg surface raised sunken hover",
    "accent-text": "bg surface raised sunken hover accent-soft",
    "on-accent": "accent accent-hover",
    "ok": "bg surface ok-soft",
    "warn": "bg surface warn-soft",
    "bad": "bg surface raised hover bad-soft",
    "info": "surface info-soft",
}
SHAPE_PAIRS = {
    "border-control": "bg surface raised",
    "focus": "bg surface sunken raised",
    "accent": "bg surface",
    **dict.fromkeys([*DATA, "data-other"], "surface"),
}
EYES = {
    "usual": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protan": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deutan": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritan": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}


def tokens(theme: str) -> dict[str, str]:
    start = CSS.index(f'[data-bs-theme="{theme}"] {{\n  --gw-bg')
    block = CSS[start : CSS.index("}", start)]
    return dict(re.findall(r"--gw-([\w-]+): (#[0-9a-f]{6})", block))


def linear(colour: str) -> list[float]:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def contrast(one: str, other: str) -> float:
    light = sorted(
        sum(
            weight * part
            for weight, part in zip((0.2126, 0.7152, 0.0722), linear(colour), strict=True)
        )
        for colour in (one, other)
    )
    return (light[1] + 0.05) / (light[0] + 0.05)


def seen(colour: str, eyes: str) -> tuple[float, ...]:
    source = linear(colour)
    red, green, blue = (
        min(1.0, max(0.0, sum(a * b for a, b in zip(row, source, strict=True))))
        for row in EYES[eyes]
    )
    cones = (
        0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue,
        0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue,
        0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue,
    )
    long, middle, short = (cone ** (1 / 3) for cone in cones)
    return (
        0.2104542553 * long + 0.7936177850 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.8086757660 * short,
    )


@pytest.mark.parametrize("theme", THEMES)
def test_text_is_readable(theme: str) -> None:
    colours = tokens(theme)
    low = {
        (text, ground): round(contrast(colours[text], colours[ground]), 2)
        for text, grounds in TEXT_PAIRS.items()
        for ground in grounds.split()
        if contrast(colours[text], colours[ground]) < 4.5
    }
    assert not low


@pytest.mark.parametrize("theme", THEMES)
def test_controls_focus_and_data_stand_out(theme: str) -> None:
    colours = tokens(theme)
    low = {
        (shape, ground): round(contrast(colours[shape], colours[ground]), 2)
        for shape, grounds in SHAPE_PAIRS.items()
        for ground in grounds.split()
        if contrast(colours[shape], colours[ground]) < 3
    }
    assert not low


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("eyes", EYES)
def test_data_hues_differ_for_all_eyes(theme: str, eyes: str) -> None:
    colours = tokens(theme)
    near = min(
        (math.dist(seen(colours[one], eyes), seen(colours[other], eyes)), one, other)
        for one, other in itertools.combinations(DATA, 2)
    )
    assert near[0] > (0.11 if eyes == "usual" else 0.06), near
