"""Charts of the page, each with its title and its caption."""

import numpy as np

from src.experiments.comparisons import reference_of
from src.experiments.result import METRIC, ExperimentResult
from src.page import charts
from src.page.findings import Experiments, Scores
from src.page.forest import forest_rows
from src.page.speed import bracketed, conditions, time_bars
from src.page.tradeoffs import COSTS, pareto_charts, timed_alike
from src.page.verdict import REFERENCE
from src.results.statistics import Comparison, Interval
from src.results.tables import METRIC_TITLES, Row, column, groups, select_rows

CHART_NAMES = {  # short, for legends
    "render": "render",
    "copy_nearest": "copied image",
    "points_splat": "points, splatted",
    "points": "points",
}
CURVE_TITLES = {"train_loss": "Training loss", "val_psnr_masked": f"Validation {METRIC_TITLES[METRIC]}"}
BASELINE_COLOURS = dict.fromkeys(CHART_NAMES.values(), charts.MUTED)  # told apart by their markers
METHOD_COLOURS = BASELINE_COLOURS | {CHART_NAMES["render"]: charts.ACCENT}  # that of this run in every chart
MOST_CURVES = len(charts.SERIES_COLOURS)


def page_charts(scores: Scores, experiments: Experiments) -> list[dict]:
    """Figures of the section of charts: title, svg and caption each."""
    current = experiments.current
    figures = [*training_curves(experiments), overlap_chart(scores.by_bin, current, experiments.level)]
    if means := scene_means(scores.rows, experiments):
        figures += [scene_dots(means, experiments), scene_scatter(means, experiments)]
    return figures + cost_charts(experiments)


def experiment_colours(experiments: Experiments) -> charts.Colours:
    """Of every experiment on the page, this run's first."""
    return charts.colours_of(each.name for each in experiments.results)


def run_names(results: list[ExperimentResult]) -> str:
    """Whose the names in a chart are; labels say which are untrained."""
    return "; ".join(f"{each.name}: {each.label}" for each in results) + "."


def curve_of(text: str) -> charts.Curve:
    """The first two columns of a curve's CSV: step and value."""
    rows = [list(map(float, line.split(",")[:2])) for line in text.splitlines()[1:]]
    return [row[0] for row in rows], [row[1] for row in rows]


def training_curves(experiments: Experiments) -> list[dict]:
    """A figure per curve that some comparable experiment has."""
    figures, colours = [], experiment_colours(experiments)
    for name, title in CURVE_TITLES.items():
        having = [each for each in experiments.comparable if name in each.curves]
        shown = having[:MOST_CURVES]
        if shown:
            series = {each.name: curve_of(each.curves[name]) for each in shown}
            svg = charts.line_chart(series, colours, title, f"{title} over training steps")
            others = (
                f" Not drawn: {', '.join(each.name for each in having[MOST_CURVES:])}." if having[MOST_CURVES:] else ""
            )
            figures.append({"title": title, "svg": svg, "caption": run_names(shown) + others})
    return figures


def overlap_chart(by_bin: dict[str, dict[str, Interval | None]], current: ExperimentResult, level: str) -> dict:
    """Every method by overlap of the context views."""
    series = {name: [by_bin[overlap][method] for overlap in by_bin] for method, name in CHART_NAMES.items()}
    scenes = {
        overlap: max((each.scenes for each in found.values() if each), default=0) for overlap, found in by_bin.items()
    }
    names = [f"{overlap.replace('_', ' ')}\n{scenes[overlap]} scenes" for overlap in by_bin]
    return {
        "title": "By overlap of the two context views",
        "svg": charts.band_chart(names, series, METHOD_COLOURS, METRIC_TITLES[METRIC], "masked PSNR by overlap bin"),
        "caption": f"{current.label}. Bars: {level} intervals over scenes, where there are enough of them.",
    }


def scene_means(rows: list[Row], experiments: Experiments) -> dict[str, dict[str, float]]:
    """scene -> method's name -> mean aligned masked PSNR; beside two baselines, the reference where there is one.

    rows  of all methods of this run; with several seeds, its own renders are means over them
    """
    current, reference = experiments.current, reference_of(experiments.results)
    tables = {CHART_NAMES["render"]: select_rows(current.rows, alignment="aligned")} | {
        CHART_NAMES[method]: select_rows(rows, method=method, alignment="aligned")
        for method in ("copy_nearest", "points_splat")
    }
    if reference and not current.is_mast3r_only:
        tables[reference.label] = select_rows(reference.rows, alignment="aligned")
    means = {}
    for scene in groups(rows, "scene"):
        found = {name: column(select_rows(table, scene=scene), METRIC)[0] for name, table in tables.items()}
        means[scene] = {name: float(np.mean(values)) for name, values in found.items() if values}
    return {scene: values for scene, values in means.items() if CHART_NAMES["render"] in values}


def scene_dots(means: dict[str, dict[str, float]], experiments: Experiments) -> dict:
    """Every method, a line per scene."""
    reference, colours = reference_of(experiments.results), METHOD_COLOURS
    if reference and reference is not experiments.current:
        colours = colours | {reference.label: experiment_colours(experiments)[reference.name]}
    return {
        "title": "Scene by scene",
        "svg": charts.dot_chart(means, colours, METRIC_TITLES[METRIC], "masked PSNR of each test scene"),
        "caption": f"{experiments.current.label}; means over the targets of a scene, aligned.",
    }


def scene_scatter(means: dict[str, dict[str, float]], experiments: Experiments) -> dict:
    """This run over the reference, or over the splatted points where it is the reference or has none; a point a scene."""
    current, reference, run = experiments.current, reference_of(experiments.results), CHART_NAMES["render"]
    other = reference.label if reference and reference is not current else CHART_NAMES["points_splat"]
    points = {scene: (values[other], values[run]) for scene, values in means.items() if other in values}
    above = sum(y > x for x, y in points.values())
    title = METRIC_TITLES[METRIC]
    description = f"masked PSNR of each test scene against that of {other}"
    return {
        "title": f"Scene by scene against {other}",
        "svg": charts.scatter_chart(points, f"{other}: {title}", f"this run: {title}", description),
        "caption": f"{current.label}: above the diagonal, better than {other}, in {above} of {len(points)} scenes. "
        "One scene is one point; only the interval says whether that is more than chance.",
    }


def cost_charts(experiments: Experiments) -> list[dict]:
    """Time of each piece, and quality against each cost, of the experiments that were timed alike."""
    figures, colours = [], experiment_colours(experiments)
    timed, others = timed_alike(experiments.comparable)
    machine = f"one machine{bracketed(conditions(timed[0])[1:])}" if timed else ""
    left_out = f" Left out: {', '.join(name + bracketed(words) for name, words in others.items())}." if others else ""
    if timed and timed[0] is experiments.current:
        drawn = timed[: len(charts.SERIES_COLOURS)]
        whose = run_names(drawn)
        figures.append(
            {
                "title": "Time of each piece",
                "svg": charts.bar_chart(time_bars(drawn), colours, "milliseconds", "milliseconds per piece"),
                "caption": f"Median, 10 to 90 %, on {machine}. {whose}{left_out}",
            }
        )
    for cost, svg in pareto_charts(experiments.comparable, colours).items():
        caption = f"Runs measured on {machine}; the line joins those that no other beats in both."
        figures.append(
            {
                "title": f"Quality against {COSTS[cost]}",
                "svg": svg,
                "caption": f"{caption} {run_names(timed)}{left_out}",
            }
        )
    return figures


def differences_chart(experiments: Experiments, over_baselines: dict[str, Comparison]) -> dict | None:
    """Differences from the reference, or without one from the baselines; None when there is nothing to differ from."""
    current, found, reference = experiments.current, experiments.against_reference, reference_of(experiments.results)
    if found and reference:
        rows, against = forest_rows(experiments.results, reference, found, experiment_colours(experiments)), REFERENCE
    else:
        rows = {CHART_NAMES[name]: charts.Difference(each.interval) for name, each in over_baselines.items()}
        against = "each baseline"
    if not rows:
        return None
    shown = [each for each in experiments.results if each.name in rows] or [current]
    title = f"masked PSNR minus that of {against} (dB)"
    return {
        "svg": charts.forest_chart(rows, title, f"{current.label}: {title}"),
        "caption": f"Paired differences; {experiments.level} intervals over scenes, where there are enough, and over "
        f"seeds; hollow: over scenes only; small dots: each seed. {run_names(shown)}",
    }
