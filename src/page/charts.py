"""Charts of the report as inline SVG. Colours and fonts are left to the page, so that it can be light or dark."""

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.transforms import Bbox  # noqa: E402

from src.page.numbers import number  # noqa: E402
from src.results.statistics import Interval  # noqa: E402

# stand-ins that matplotlib accepts -> what the page's style sheet decides
INK, MUTED, RULE, ACCENT = "#010101", "#020202", "#030303", "#040404"
SECOND, THIRD, FOURTH, FIFTH, SIXTH = "#050505", "#060606", "#070707", "#080808", "#090909"
LIGHT_THEME = {  # as in the style sheets of report.html and compare.html
    "--ink": "#1c2126",
    "--muted": "#5c6670",
    "--rule": "#e1e4e6",
    "--accent": "#0b6b81",
    "--second": "#b5652b",
    "--third": "#7b5ea7",
    "--fourth": "#4c8a3f",
    "--fifth": "#b03a63",
    "--sixth": "#8a7a1f",
}
VARIABLES = dict(zip((INK, MUTED, RULE, ACCENT, SECOND, THIRD, FOURTH, FIFTH, SIXTH), LIGHT_THEME))
SERIES_COLOURS = (ACCENT, SECOND, THIRD, FOURTH, FIFTH, SIXTH)

Colours = dict[str, str]  # name of a series -> one of SERIES_COLOURS, or MUTED
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "backsplat",
    "font.size": 9,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "text.color": INK,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "axes.grid": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "axes.unicode_minus": True,
    "figure.constrained_layout.use": True,
    "path.simplify": False,
}
MARKERS = "osD^v"
LABEL_PLACES = tuple(  # of a point's name, in points around it, the nearest first
    (across, up)
    for distance in (9, 17, 25)
    for up in (distance - 2, 2 - distance, 0)
    for across in (6, -6, 0)
    if up or across
)

Curve = tuple[list[float], list[float]]  # steps, values
Spread = tuple[float, float, float]  # median, low, high


@dataclass(frozen=True)
class Difference:
    """A row of a forest. by_seed: the difference of each of its seeds; ceiling: whether it is told the truth."""

    interval: Interval
    colour: str = ACCENT
    by_seed: tuple[float, ...] = ()
    ceiling: bool = False

    @property
    def ends(self) -> tuple[float, ...]:
        """All that must be in view."""
        limits = () if self.interval.low is None else (self.interval.low, self.interval.high)
        return (float(self.interval.mean), *limits, *self.by_seed)


def colours_of(names: Iterable[str]) -> Colours:
    """One colour per name, the same in every chart that is given the same names; the seventh and later ones are grey."""
    found = dict.fromkeys(names, MUTED)
    return found | dict(zip(found, SERIES_COLOURS))


def to_svg(figure: Figure, description: str) -> str:
    """The figure as an <svg> element that scales with its container and repeats byte for byte."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    plt.close(figure)
    svg = text.getvalue()
    view = re.search(r'viewBox="[^"]*"', svg).group()
    svg = f'<svg {view} role="img" aria-label="{escape(description)}">' + svg[svg.index(">", svg.index("<svg")) + 1 :]
    # the page has one style sheet, and names on it must be unique
    svg = re.sub(r"<(metadata|style).*?</\1>| font-family: [^;]*;|(?<=<g) id=\"[^\"]*\"", "", svg, flags=re.DOTALL)
    for stand_in, variable in VARIABLES.items():
        svg = svg.replace(stand_in, f"var({variable})")
    return svg.strip()


def standalone(svg: str) -> str:
    """An inline chart as a file of its own, in the colours of the light page."""
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    svg = svg.replace("<svg ", f'<svg {names} font-family="sans-serif" ', 1)
    for variable, colour in LIGHT_THEME.items():
        svg = svg.replace(f"var({variable})", colour)
    return svg + "\n"


def line_chart(series: dict[str, Curve], colours: Colours, label: str, description: str) -> str:
    """Lines over training steps."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(4.6, 2.9))
        for name, (steps, values) in series.items():
            axes.plot(steps, values, color=colours[name], label=name, zorder=3 if colours[name] == ACCENT else 2)
        axes.set(xlabel="step", ylabel=label)
        axes.margins(x=0.02)
        if len(series) > 1:
            figure.legend(loc="outside lower center", ncols=2, labelcolor=MUTED)
        return to_svg(figure, description)


def band_chart(
    groups: list[str], series: dict[str, list[Interval | None]], colours: Colours, label: str, description: str
) -> str:
    """Means with intervals per group, one marker per series; None where a group has no scores."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(4.6, 3.3))
        for number, (name, intervals) in enumerate(series.items()):
            colour = colours[name]
            shift = 0.14 * (number - (len(series) - 1) / 2)
            present = [(place + shift, interval) for place, interval in enumerate(intervals) if interval is not None]
            axes.plot(
                [x for x, _ in present],
                [interval.mean for _, interval in present],
                MARKERS[number],
                color=colour,
                ms=5,
                label=name,
                zorder=3,
            )
            for x, interval in present:
                if interval.low is not None:
                    axes.plot([x, x], [interval.low, interval.high], color=colour, lw=1.4)
        axes.set_xticks(range(len(groups)), groups)
        axes.set_xlim(-0.6, len(groups) - 0.4)
        axes.grid(axis="x", visible=False)
        axes.set_ylabel(label)
        figure.legend(loc="outside lower center", ncols=2, labelcolor=MUTED)
        return to_svg(figure, description)


def dot_chart(rows: dict[str, dict[str, float]], colours: Colours, label: str, description: str) -> str:
    """One line per row name with a marker per series, best row on top."""
    names = sorted(rows, key=lambda name: next(iter(rows[name].values())))
    series = list(dict.fromkeys(key for values in rows.values() for key in values))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(4.6, 1.2 + 0.21 * len(names)))
        for number, key in enumerate(series):
            present = [(rows[name][key], place) for place, name in enumerate(names) if key in rows[name]]
            axes.plot(
                [x for x, _ in present],
                [y for _, y in present],
                MARKERS[number],
                color=colours[key],
                ms=5,
                label=key,
                zorder=4 - number,
            )
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_xlabel(label)
        figure.legend(loc="outside lower center", ncols=2, labelcolor=MUTED)
        return to_svg(figure, description)


def scatter_chart(points: dict[str, tuple[float, float]], across: str, label: str, description: str) -> str:
    """A point per name, above the dashed diagonal where `label` is higher than `across`."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(4.6, 3.9))
        values = [value for point in points.values() for value in point]
        margin = 0.05 * (max(values) - min(values)) + 0.1
        limits = min(values) - margin, max(values) + margin
        axes.plot(limits, limits, color=MUTED, lw=1, dashes=(4, 3))
        for x, y in points.values():
            axes.plot([x], [y], "o", color=ACCENT, ms=5.5, alpha=0.85)
        axes.set(xlim=limits, ylim=limits, xlabel=across, ylabel=label, aspect="equal")
        return to_svg(figure, description)


def bar_chart(rows: dict[str, dict[str, Spread]], colours: Colours, label: str, description: str) -> str:
    """A group of bars per row name with one bar per series, the first on top; a line from low to high on each."""
    series = list(dict.fromkeys(key for values in rows.values() for key in values))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(4.6, 1.1 + 0.2 * len(rows) * (len(series) + 0.6)))
        height = 0.8 / len(series)
        for number, key in enumerate(series):
            shift = height * (number - (len(series) - 1) / 2)
            found = [(place + shift, rows[name][key]) for place, name in enumerate(rows) if key in rows[name]]
            axes.barh(
                [y for y, _ in found],
                [value for _, (value, _, _) in found],
                0.86 * height,
                color=colours[key],
                label=key,
            )
            for y, (_, low, high) in found:
                axes.plot([low, high], [y, y], color=INK, lw=1.1)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(label)
        if len(series) > 1:
            figure.legend(loc="outside lower center", ncols=2, labelcolor=MUTED)
        return to_svg(figure, description)


def off_the_axis(rows: dict[str, Difference]) -> set[str]:
    """Names of ceilings that would press all others together: beyond three times the width that these take."""
    ends = [0.0, *(end for row in rows.values() if not row.ceiling for end in row.ends)]
    reach = 3 * (max(ends) - min(ends))
    return {name for name, row in rows.items() if row.ceiling and len(rows) > 1 and abs(row.interval.mean) > reach > 0}


def forest_chart(rows: dict[str, Difference], label: str, description: str) -> str:
    """Differences with intervals around a line at zero, and a small dot for each seed; hollow and dashed where an interval
    is over scenes only. A ceiling far from all others stands as a number at the edge it lies beyond."""
    beyond = off_the_axis(rows)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(4.6, 0.95 + 0.34 * len(rows)))
        axes.axvline(0, color=MUTED, lw=1)
        for place, (name, row) in enumerate(rows.items()):
            interval, hollow = row.interval, row.interval.source is None
            if name in beyond:
                continue
            if interval.low is not None:
                line = {"lw": 1.2, "dashes": (4, 2)} if hollow else {"lw": 2, "solid_capstyle": "round"}
                axes.plot([interval.low, interval.high], [-place, -place], color=row.colour, **line)
            axes.plot([interval.mean], [-place], "o", color=row.colour, ms=6, fillstyle="none" if hollow else "full")
            seeds = row.by_seed if len(row.by_seed) > 1 else ()
            axes.plot(seeds, [-place - 0.22] * len(seeds), ".", color=row.colour, ms=3.5)
        for place, (name, row) in enumerate(rows.items()):
            if name in beyond:
                right = row.interval.mean > 0
                words = number(row.interval.mean, sign=True)
                axes.annotate(
                    f"{words} →" if right else f"← {words}",
                    (1 if right else 0, -place),
                    xycoords=("axes fraction", "data"),
                    ha="right" if right else "left",
                    va="center",
                    fontsize=8,
                    color=row.colour,
                )
        axes.set_yticks([-place for place in range(len(rows))], list(rows))
        axes.set_ylim(0.6 - len(rows), 0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(label)
        return to_svg(figure, description)


def name_points(figure: Figure, axes: Axes, points: dict[str, tuple[float, float]], colours: Colours) -> None:
    """Write each point's name beside it, at the first place around it where no earlier name and no point stands."""
    figure.draw_without_rendering()  # settles where the axes stand
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in axes.transData.transform(list(points.values()))]
    for name, point in points.items():
        for across, up in LABEL_PLACES:
            side = "left" if across > 0 else "right" if across < 0 else "center"
            text = axes.annotate(
                name,
                point,
                (across, up),
                textcoords="offset points",
                fontsize=8,
                color=colours[name],
                ha=side,
                va="center",
            )
            box = text.get_window_extent()
            inside = figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
            if inside and not any(box.overlaps(other) for other in taken):
                break
            text.remove()
        else:  # no free place: named all the same
            text = axes.annotate(
                name, point, LABEL_PLACES[0], textcoords="offset points", fontsize=8, color=colours[name]
            )
        taken.append(text.get_window_extent())


def draw_named(
    figure: Figure, axes: Axes, points: dict[str, tuple[float, float]], colours: Colours, across: str, label: str
) -> None:
    """A dot per name, with the name beside it; and what the axes are."""
    for name, (x, y) in points.items():
        axes.plot([x], [y], "o", color=colours[name], ms=6, zorder=3)
    axes.margins(x=0.25, y=0.25)
    axes.set(xlabel=across, ylabel=label)
    name_points(figure, axes, points, colours)


def relation_chart(
    points: dict[str, tuple[float, float]], colours: Colours, across: str, label: str, description: str
) -> str:
    """A named point each, around lines at zero."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(4.6, 2.9))
        axes.axhline(0, color=MUTED, lw=0.8)
        axes.axvline(0, color=MUTED, lw=0.8)
        draw_named(figure, axes, points, colours, across, label)
        return to_svg(figure, description)


def pareto_chart(
    points: dict[str, tuple[float, float]], front: list[str], colours: Colours, cost: str, label: str, description: str
) -> str:
    """Quality over cost, each point named; a line joins those of the front, in the order given."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(4.6, 2.9))
        axes.plot(*zip(*(points[name] for name in front)), color=MUTED, lw=1.2, zorder=2)
        draw_named(figure, axes, points, colours, cost, label)
        return to_svg(figure, description)
