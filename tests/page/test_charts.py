import re
import xml.etree.ElementTree as xml
from dataclasses import replace

import pytest

from src.page.charts import (
    ACCENT,
    MUTED,
    SECOND,
    SERIES_COLOURS,
    Difference,
    band_chart,
    bar_chart,
    colours_of,
    dot_chart,
    forest_chart,
    line_chart,
    pareto_chart,
    scatter_chart,
)
from src.results.statistics import POOLED, Interval

LINES = {"a": ([0, 10, 20], [3.0, 2.0, 1.0]), "b": ([0, 20], [3.0, 2.5])}


def over_both(mean: float, low: float | None, high: float | None) -> Interval:
    return Interval(mean, low, high, 24, 8, (3, 3), POOLED)


INTERVALS = {"x": [over_both(20, 19, 21), None], "y": [over_both(10, None, None), over_both(12, 11, 13)]}
FOREST = {"one": Difference(over_both(0.1, -0.1, 0.3)), "two": Difference(over_both(0.4, None, None))}
COLOURS = {"x": ACCENT, "y": MUTED, "a": ACCENT, "b": SECOND}
DRAWN = {
    "curves": lambda: line_chart(LINES, COLOURS, "loss <dB>", 'a "b" & c'),
    "bands": lambda: band_chart(["close", "wide"], INTERVALS, COLOURS, "dB", "d"),
    "dots": lambda: dot_chart({"room 1": {"x": 20.0, "y": 3.0}, "room 2": {"x": 21.0}}, COLOURS, "dB", "d"),
    "scatter": lambda: scatter_chart({"room 1": (20.0, 21.0), "room 2": (19.0, 18.0)}, "baseline", "dB", "d"),
    "bars": lambda: bar_chart(
        {"encoder": {"x": (20.0, 19.0, 21.0)}, "all": {"x": (50.0, 45.0, 61.0), "y": (70.0, 70.0, 72.0)}},
        COLOURS,
        "ms",
        "d",
    ),
    "forest": lambda: forest_chart(FOREST, "dB", "d"),
    "pareto": lambda: pareto_chart({"a": (1.0, 20.0), "b": (1.01, 20.01)}, ["a", "b"], COLOURS, "ms", "dB", "d"),
}


@pytest.mark.parametrize("name", DRAWN)
def test_charts_are_inline_svg_without_fixed_colours_styles_or_addresses(name):
    svg = DRAWN[name]()
    root = xml.fromstring(svg.replace("<svg ", '<svg xmlns:xlink="http://www.w3.org/1999/xlink" ', 1))
    assert root.tag == "svg" and root.get("viewBox") and root.get("role") == "img" and "width" not in root.attrib
    assert not re.search(r"#(0[1-9])\\1\\1|<style|<metadata|font-family|https?:", svg)
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
    assert lines(forest_chart(FOREST | {"two": Difference(over_both(0.4, 0.2, 0.6))}, "dB", "d")) == 2


def test_what_is_over_scenes_only_is_hollow_and_dashed():
    one = over_both(0.1, -0.1, 0.3)
    known, hollow = (forest_chart({"one": Difference(each)}, "dB", "d") for each in (one, replace(one, source=None)))
    assert "stroke-dasharray" in hollow and "stroke-dasharray" not in known
    assert "fill-opacity: 0; stroke: var(--accent)" in hollow and "fill-opacity" not in known


def test_colours_are_of_names_and_the_seventh_is_grey():
    found = colours_of("abcdefgh")
    assert list(found.values()) == [*SERIES_COLOURS, MUTED, MUTED] and len(set(SERIES_COLOURS)) == 6
    svg = line_chart({"b": LINES["b"]}, colours_of("ab"), "dB", "d")
    assert "var(--second)" in svg and "var(--accent)" not in svg  # alone in a chart it keeps its colour


def test_a_ceiling_far_from_all_others_does_not_press_them_together():
    ceiling = Difference(over_both(7.0, 6.5, 7.5), SECOND, (6.9, 7.1), True)
    svg = forest_chart(FOREST | {"oracle": ceiling}, "dB", "d")
    assert ">+7.00 →<" in svg and ">oracle<" in svg
    assert not re.search(r">[67]<|>[67]\.0<", svg)  # no tick of the axis is out there
    near = Difference(over_both(0.5, 0.4, 0.6), SECOND, (), True)
    assert "→" not in forest_chart(FOREST | {"oracle": near}, "dB", "d")
    assert "→" not in forest_chart(FOREST | {"far": replace(ceiling, ceiling=False)}, "dB", "d")
    assert "→" not in forest_chart({"oracle": ceiling}, "dB", "d")  # nothing else is there


def test_each_of_several_seeds_has_a_dot():
    marks = lambda *seeds: forest_chart({"one": Difference(over_both(0.1, -0.1, 0.3), ACCENT, seeds)}, "dB", "d").count(
        "<use"
    )
    assert marks(0.0, 0.1, 0.2) == marks() + 3 and marks(0.1) == marks()  # a single seed is the mean itself


def spans(svg: str) -> dict[str, tuple[float, float, float]]:
    """Word -> left, right and height of where it stands, letters taken as narrower than they are."""
    found = {}
    for about, word in re.findall(r"<text([^>]*)>([^<]+)<", svg):
        x, y = (float(re.search(rf'\b{axis}="([-\d.]+)"', about)[1]) for axis in "xy")
        width = 3.6 * len(word)
        left = (
            x - {"start": 0, "middle": width / 2, "end": width}[re.search(r"text-anchor: (\w+)|$", about)[1] or "start"]
        )
        found[word] = left, left + width, y
    return found


def test_names_of_points_that_lie_together_do_not():
    points = {f"experiment {number}": (10 + 0.01 * number, 20 + 0.001 * number) for number in range(4)}
    points["far"] = (30.0, 22.0)
    places = spans(pareto_chart(points, ["experiment 0", "far"], colours_of(points), "ms", "dB", "d"))
    named = [places[name] for name in points]
    for i, (left, right, y) in enumerate(named):
        for other_left, other_right, other_y in named[:i]:
            assert abs(y - other_y) >= 7 or right <= other_left or other_right <= left, (i, named)
