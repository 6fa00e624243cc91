"""What quality costs: milliseconds, parameters and memory of results beside their scores."""

from src.experiments.result import METRIC, ExperimentResult
from src.page import charts
from src.page.speed import at_resolution, timings, unlike
from src.results.tables import METRIC_TITLES, scene_weighted, select_rows

COSTS = {
    "milliseconds": "milliseconds per pair, median",
    "parameters": "parameters (millions)",
    "memory": "peak memory (MB)",
}


def costs(result: ExperimentResult) -> dict[str, float] | None:
    """milliseconds from two images to Gaussians, parameters in millions, peak memory in MB; None if unmeasured."""
    found = at_resolution(result)
    if found is None:
        return None
    pieces = {name: count for name, count in timings(result).parameters.items() if name != "trainable"}
    return {
        "milliseconds": found[1].encode.median_ms,
        "parameters": sum(pieces.values()) / 1e6,
        "memory": found[1].inference_memory.peak_bytes / 2**20,
    }


def timed_alike(results: list[ExperimentResult]) -> tuple[list[ExperimentResult], dict[str, list[str]]]:
    """Those whose costs were measured like those of the first that has any, and name -> in what the others were not."""
    measured = [each for each in results if timings(each)]
    others = {each.name: words for each in measured if (words := unlike(each, measured[0]))}
    return [each for each in measured if each.name not in others], others


def pareto_front(points: dict[str, tuple[float, float]]) -> list[str]:
    """Names of (cost, quality) points that no other beats in one without losing in the other, cheapest first."""
    front, best = [], float("-inf")
    for name, (_, quality) in sorted(points.items(), key=lambda item: (item[1][0], -item[1][1])):
        if quality > best:
            front, best = [*front, name], quality
    return front


def pareto_charts(results: list[ExperimentResult], colours: charts.Colours) -> dict[str, str]:
    """cost -> SVG of quality against it, for two or more results measured alike."""
    prices, quality = {}, {}
    for each in timed_alike(results)[0]:
        if (mean := scene_weighted(select_rows(each.rows, alignment="aligned"), METRIC)) is not None:
            prices[each.name], quality[each.name] = costs(each), mean
    if len(quality) < 2:
        return {}
    drawn = {}
    for cost, words in COSTS.items():
        points = {name: (prices[name][cost], quality[name]) for name in quality}
        drawn[cost] = charts.pareto_chart(
            points, pareto_front(points), colours, words, METRIC_TITLES[METRIC], f"masked PSNR over {words}"
        )
    return drawn
