"""Pages that are written for people: what is read has contrast, in the light, in the dark and on paper."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("workers/evaluation/report/report.html", "producer/html_page.py")
SURFACES = ("paper", "line", "plate", "plot-pale")  # nothing is written in these
LEAST = 4.5  # WCAG 2.2, for text of usual size


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    values = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("page", PAGES)
def test_every_colour_that_is_read_has_contrast_in_each_view(page: str) -> None:
    views = re.findall(r":root \{(.*?)\}", (ROOT / page).read_text("utf-8"), re.DOTALL)
    assert len(views) == 3, "light, dark and printed"
    names = set()
    for view in views:
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", view))
        names.add(frozenset(colours))
        for name in colours.keys() - {*SURFACES}:
            assert contrast(colours[name], colours["paper"]) >= LEAST, (name, colours[name], colours["paper"])
    assert len(names) == 1, "each view names every colour"
