import re
import xml.etree.ElementTree as xml
from dataclasses import replace

import pytest

from src.page.charts import band_chart, bar_chart, dot_chart, forest_chart, line_chart, scatter_chart
from src.results.statistics import POOLED, Interval

LINES = {"a": ([0, 10, 20], [3.0, 2.0, 1.0]), "b": ([0, 20], [3.0, 2.5])}


def over_both(mean: float, low: float | None, high: float | None) -> Interval:
    return Interval(mean, low, high, 24, 8, (3, 3), POOLED)


INTERVALS = {"x": [over_both(20, 19, 21), None], "y": [over_both(10, None, None), over_both(12, 11, 13)]}
FOREST = {"one": over_both(0.1, -0.1, 0.3), "two": over_both(0.4, None, None)}
DRAWN = {
    "curves": lambda: line_chart(LINES, "loss <dB>", 'a "b" & c'),
    "bands": lambda: band_chart(["close", "wide"], INTERVALS, "dB", "d"),
    "dots": lambda: dot_chart({"room 1": {"x": 20.0, "y": 3.0}, "room 2": {"x": 21.0}}, "dB", "d"),
    "scatter": lambda: scatter_chart({"room 1": (20.0, 21.0), "room 2": (19.0, 18.0)}, "baseline", "dB", "d"),
    "bars": lambda: bar_chart(
        {"encoder": {"x": (20.0, 19.0, 21.0)}, "all": {"x": (50.0, 45.0, 61.0), "y": (70.0, 70.0, 72.0)}}, "ms", "d"
    ),
    "forest": lambda: forest_chart(FOREST, "dB", "d"),
}


@pytest.mark.parametrize("name", DRAWN)
def test_charts_are_inline_svg_without_fixed_colours_styles_or_addresses(name):
    svg = DRAWN[name]()
    root = xml.fromstring(svg.replace("<svg ", '<svg xmlns:xlink="http://www.w3.org/1999/xlink" ', 1))
    assert root.tag == "svg" and root.get("viewBox") and root.get("role") == "img" and "width" not in root.attrib
    assert not re.search(r"#0[1-6]0[1-6]0[1-6]|<style|<metadata|font-family|https?:", svg)
    assert "var(--accent)" in svg and "var(--muted)" in svg


@pytest.mark.parametrize("name", DRAWN)
def test_charts_repeat_byte_for_byte(name):
    assert DRAWN[name]() == DRAWN[name]()


def test_words_and_numbers_are_text():
    assert all(word in DRAWN["dots"]() for word in (">room 1<", ">room 2<", ">dB<"))
    assert 'aria-label="a &quot;b&quot; &amp; c"' in DRAWN["curves"]()


def test_intervals_are_drawn_only_where_they_exist():
    """The accent strokes of a forest: one line per interval."""
    lines = lambda svg: len(re.findall(r"stroke: var\(--accent\); stroke-width: 2", svg))
    assert lines(DRAWN["forest"]()) == 1
    assert lines(forest_chart(FOREST | {"two": over_both(0.4, 0.2, 0.6)}, "dB", "d")) == 2


def test_what_is_over_scenes_only_is_hollow_and_dashed():
    one = over_both(0.1, -0.1, 0.3)
    known, hollow = (forest_chart({"one": each}, "dB", "d") for each in (one, replace(one, source=None)))
    assert "stroke-dasharray" in hollow and "stroke-dasharray" not in known
    assert "fill-opacity: 0; stroke: var(--accent)" in hollow and "fill-opacity" not in known
