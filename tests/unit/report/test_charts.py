from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib import rcParams
from matplotlib.axes import Axes

from camoxpert_cli.report import charts


def draw(axes: Axes) -> None:
    for position in range(4):
        charts.line(axes, position, [0, 1], [0, position / 4], f"line {position}")
    axes.axvline(0.5, color=charts.FAINT)
    charts.from_0_to_1(axes, "x & y", "share")


@pytest.fixture(scope="module")
def chart() -> str:
    return charts.svg(draw, "name", "words")


def test_colours_follow_the_page(chart: str) -> None:
    """A chart has no colour of its own, ground included: the page gives them in light and in dark mode."""
    assert re.findall(r"#[0-9a-fA-F]{3,8}\b", re.sub(r'"#[^"]*"|url\(#[^)]*\)', "", chart)) == []
    assert {f"--line-{n}" for n in range(4)} | {"--ink", "--faint"} == set(re.findall(r"var\((.*?)\)", chart))


def test_text_is_text_and_escaped() -> None:
    """Labels can be selected and searched, and signs of markup in them are harmless."""
    root = ElementTree.fromstring(charts.svg(draw, "name", 'a "b" <c>'))

    assert root.get("aria-label") == 'a "b" <c>'
    assert {"x & y", "share", "line 3"} <= {element.text for element in root.iter("text")}


def test_settings_of_others_are_left_alone(chart: str) -> None:
    """matplotlib's settings are after a chart what they were before, and a chart does not depend on them."""
    names: Any = ("font.size", "axes.grid", "svg.hashsalt")
    before: Any = {name: rcParams[name] for name in names}
    try:
        rcParams["font.size"] = 30
        rcParams["axes.grid"] = True
        changed = charts.svg(draw, "name", "words")
        after = [rcParams[name] for name in names]
    finally:
        rcParams.update(before)

    assert changed == chart
    assert after == [30, True, None]
