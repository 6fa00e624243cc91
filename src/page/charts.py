"""Charts of the report as inline SVG. Colours and fonts are left to the page, so that it can be light or dark."""

import io
import re
from html import escape

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from src.results.statistics import Interval  # noqa: E402

# stand-ins that matplotlib accepts -> what the page's style sheet decides
INK, MUTED, RULE, ACCENT, SECOND, THIRD = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule", ACCENT: "--accent", SECOND: "--second", THIRD: "--third"}
LIGHT_THEME = {
    "--ink": "#1c2126",
    "--muted": "#5c6670",
    "--rule": "#e1e4e6",
    "--accent": "#0b6b81",
    "--second": "#b5652b",
    "--third": "#7a8896",
}
SERIES_COLOURS = (ACCENT, SECOND, THIRD, MUTED)
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

Curve = tuple[list[float], list[float]]  # steps, values
Spread = tuple[float, float, float]  # median, low, high


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


def line_chart(series: dict[str, Curve], label: str, description: str) -> str:
    """Lines over training steps, the first in the accent colour; at most four are told apart."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(4.6, 2.9))
        for (name, (steps, values)), colour in zip(series.items(), SERIES_COLOURS):
            axes.plot(steps, values, color=colour, label=name, zorder=3 if colour == ACCENT else 2)
        axes.set(xlabel="step", ylabel=label)
        axes.margins(x=0.02)
        if len(series) > 1:
            figure.legend(loc="outside lower center", ncols=1, labelcolor=MUTED)
        return to_svg(figure, description)


def band_chart(groups: list[str], series: dict[str, list[Interval | None]], label: str, description: str) -> str:
    """Means with intervals per group, one marker per series; None where a group has no scores."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(4.6, 3.3))
        for number, ((name, intervals), colour) in enumerate(zip(series.items(), SERIES_COLOURS)):
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


def dot_chart(rows: dict[str, dict[str, float]], label: str, description: str) -> str:
    """One line per row name with a marker per series, best row on top."""
    names = sorted(rows, key=lambda name: next(iter(rows[name].values())))
    series = list(dict.fromkeys(key for values in rows.values() for key in values))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(4.6, 1.2 + 0.21 * len(names)))
        for number, (key, colour) in enumerate(zip(series, SERIES_COLOURS)):
            present = [(rows[name][key], place) for place, name in enumerate(names) if key in rows[name]]
            axes.plot(
                [x for x, _ in present],
                [y for _, y in present],
                MARKERS[number],
                color=colour,
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


def bar_chart(rows: dict[str, dict[str, Spread]], label: str, description: str) -> str:
    """A group of bars per row name with one bar per series, the first on top; a line from low to high on each."""
    series = list(dict.fromkeys(key for values in rows.values() for key in values))[: len(SERIES_COLOURS)]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(4.6, 1.1 + 0.2 * len(rows) * (len(series) + 0.6)))
        height = 0.8 / len(series)
        for number, (key, colour) in enumerate(zip(series, SERIES_COLOURS)):
            shift = height * (number - (len(series) - 1) / 2)
            found = [(place + shift, rows[name][key]) for place, name in enumerate(rows) if key in rows[name]]
            axes.barh(
                [y for y, _ in found], [value for _, (value, _, _) in found], 0.86 * height, color=colour, label=key
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


def forest_chart(intervals: dict[str, Interval], label: str, description: str) -> str:
    """Differences with intervals around a line at zero; hollow and dashed where an interval is over scenes only."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(4.6, 0.95 + 0.34 * len(intervals)))
        axes.axvline(0, color=MUTED, lw=1)
        for place, interval in enumerate(intervals.values()):
            hollow = interval.source is None
            if interval.low is not None:
                line = {"lw": 1.2, "dashes": (4, 2)} if hollow else {"lw": 2, "solid_capstyle": "round"}
                axes.plot([interval.low, interval.high], [-place, -place], color=ACCENT, **line)
            axes.plot([interval.mean], [-place], "o", color=ACCENT, ms=6, fillstyle="none" if hollow else "full")
        axes.set_yticks([-place for place in range(len(intervals))], list(intervals))
        axes.set_ylim(0.6 - len(intervals), 0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(label)
        return to_svg(figure, description)


def pareto_chart(
    points: dict[str, tuple[float, float]], front: list[str], cost: str, label: str, description: str
) -> str:
    """Quality over cost, each point named; a line joins those of the front, in the order given."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(4.6, 2.9))
        axes.plot(*zip(*(points[name] for name in front)), color=ACCENT, lw=1.2, zorder=2)
        for name, (x, y) in points.items():
            axes.plot([x], [y], "o", color=ACCENT if name in front else MUTED, ms=6, zorder=3)
            axes.annotate(name, (x, y), xytext=(5, 5), textcoords="offset points", fontsize=8, color=INK)
        axes.margins(x=0.25, y=0.2)
        axes.set(xlabel=cost, ylabel=label)
        return to_svg(figure, description)
