"""The report as one HTML page that opens from disk: everything inside it, nothing fetched."""

import base64
import io
import re
from dataclasses import dataclass

import numpy as np
from PIL import Image

from src.experiments.comparisons import ranks, reference_of
from src.experiments.result import METRIC, ExperimentResult, protocol_differences
from src.page import charts
from src.page.pictures import Chosen
from src.page.speed import (
    CPU_ONLY,
    bracketed,
    conditions,
    fps_and_memory,
    speed_facts,
    stage_table,
    time_bars,
    time_table,
    timings,
    why_absent,
)
from src.page.templates import fill_template
from src.page.tradeoffs import COSTS, pareto_charts, timed_alike
from src.page.verdict import (
    BASELINE_NAMES,
    NOT_MEASURED,
    REFERENCE,
    baseline_words,
    cautions,
    control_words,
    difference_words,
    headline,
    level_words,
    number,
    power_words,
    rank_words,
)
from src.page.viewer import ViewerScene, viewer_library, viewer_payload
from src.results.statistics import MIN_SCENES, Comparison, Interval
from src.results.tables import ALIGNMENTS, BASELINES, BINS, METHODS, Row, column, groups, select_rows, summarise
from src.run import StageTime

METHOD_NAMES = {"render": "this model's renders"} | BASELINE_NAMES
CHART_NAMES = {
    "render": "render",
    "copy_nearest": "copied photograph",
    "points_splat": "points, splatted",
    "points": "points",
}

PICTURE_SIDE = 384  # pixels; larger pictures are made smaller for the page
DIGITS = {"psnr": 2}  # three for everything else
SCORES = {
    "psnr_masked": "PSNR, masked (dB)",
    "psnr": "PSNR, whole (dB)",
    "ssim_masked": "SSIM, masked",
    "ssim": "SSIM, whole",
    "lpips_masked": "LPIPS, masked",
    "lpips": "LPIPS, whole",
    "depth_abs_rel": "relative depth error",
}
COMPATIBLE = {
    "psnr_splatt3r": "PSNR (dB)",
    "psnr_splatt3r_masked": "PSNR, masked (dB)",
    "ssim_splatt3r": "SSIM",
    "ssim_splatt3r_masked": "SSIM, masked (up to 3)",
    "lpips_splatt3r": "LPIPS",
    "lpips_splatt3r_masked": "LPIPS, masked",
}
CURVE_NAMES = {"train_loss": "Training loss", "val_psnr_masked": "Validation PSNR, masked (dB)"}


@dataclass(frozen=True)
class Other:
    """The arm shown beside this run. pictures: name of a chosen target -> its render (H, W, 3) uint8."""

    result: ExperimentResult
    pictures: dict[str, np.ndarray]


@dataclass(frozen=True)
class Findings:
    """Everything the page shows.

    results      this run first, then the others
    summary      data/eval/summary.json
    rows         data/eval/records.csv, all methods
    score        mean aligned masked PSNR of this run, None where no target has one
    floors       this run against each floor
    comparisons  runs against the baseline, by name
    controlled   runs against constant features, by name; empty where no such run is there
    bins         overlap bin -> method -> interval of the aligned masked PSNR, None without scores
    pictures     chosen targets and their panels
    provenance   heading -> (name, value) pairs
    stages       stage -> its time when it last ran here
    other        another arm's renders of the same targets, where this machine has them
    walks        scenes for the viewer
    confidence   of the intervals, eval.bootstrap.confidence
    """

    results: list[ExperimentResult]
    summary: dict
    rows: list[Row]
    score: Interval | None
    floors: dict[str, Comparison]
    comparisons: dict[str, Comparison]
    controlled: dict[str, Comparison]
    bins: dict[str, dict[str, Interval | None]]
    pictures: list[tuple[Chosen, dict[str, np.ndarray]]]
    provenance: dict[str, list[tuple[str, str]]]
    stages: dict[str, StageTime]
    other: Other | None
    walks: list[ViewerScene]
    confidence: float

    @property
    def current(self) -> ExperimentResult:
        return self.results[0]

    @property
    def level(self) -> str:
        return level_words(self.confidence)


def plus_minus(entry: dict | None, metric: str) -> str:
    """22.10 ± 3.01, or the words for an absent score."""
    if entry is None:
        return NOT_MEASURED
    digits = DIGITS.get(metric.split("_")[0], 3)
    return number(entry["mean"], digits) + (f" ± {number(entry['std'], digits)}" if "std" in entry else "")


def limits(interval: Interval) -> str:
    """+0.04 [−0.09, +0.17]"""
    ends = "" if interval.low is None else f" [{number(interval.low, 2, True)}, {number(interval.high, 2, True)}]"
    return number(interval.mean, 2, True) + ends


def unbroken(words: str) -> str:
    """No line may end inside the brackets of an interval."""
    return re.sub(r"\[(.*?), (.*?)\]", "[\\1,\u00a0\\2]", words)


def leaderboard(findings: Findings) -> list[dict]:
    """A row per run: run, backbone, detail, psnr, ssim, lpips, fps, memory, difference, rank, refused."""
    refused = {each.name: protocol_differences(findings.current, each) for each in findings.results}
    ranked = ranks([each for each in findings.results if not refused[each.name]])
    rows = []
    for each in findings.results:
        scores, compared = summarise(select_rows(each.rows, alignment="aligned")), findings.comparisons.get(each.name)
        difference = limits(compared.interval) if compared else ""
        fps, memory = fps_and_memory(each, findings.current) or (NOT_MEASURED, NOT_MEASURED)
        rows.append(
            {
                "run": each.name,
                "backbone": each.label,
                "detail": each.detail,
                "refused": refused[each.name],
                "rank": rank_words(ranked.get(each.name)),
                "difference": "baseline" if each.is_baseline and not refused[each.name] else difference,
                "fps": fps,
                "memory": memory,
            }
            | {name: plus_minus(scores.get(f"{name}_masked"), name) for name in ("psnr", "ssim", "lpips")}
        )
    return rows


def floor_board(findings: Findings) -> list[dict]:
    """The same columns for what needs no training."""
    entries = {floor: findings.summary["methods"][floor]["aligned"] for floor in BASELINES}
    return [
        {"backbone": BASELINE_NAMES[floor]}
        | {name: plus_minus(scores.get(f"{name}_masked"), name) for name in ("psnr", "ssim", "lpips")}
        for floor, scores in entries.items()
    ]


def score_table(tree: dict, names: dict[str, str]) -> dict:
    """method -> alignment -> metric -> mean, std, n  as head and rows of words; metrics nobody has are left out."""
    present = [
        metric
        for metric in names
        if any(metric in tree[method][alignment] for method in METHODS for alignment in ALIGNMENTS)
    ]
    rows = []
    for method in METHODS:
        for alignment in ALIGNMENTS:
            scores = tree[method][alignment]
            if scores and not (method == "copy_nearest" and alignment == "raw"):
                shown = "any" if method == "copy_nearest" else alignment
                count = max(entry["n"] for entry in scores.values())
                rows.append(
                    [
                        METHOD_NAMES[method],
                        shown,
                        *(plus_minus(scores.get(m), m) if m in scores else "–" for m in present),
                        str(count),
                    ]
                )
    return {"head": ["", "scale", *(names[metric] for metric in present), "n"], "rows": rows}


def cloud_table(cloud: dict) -> dict:
    """alignment -> metric -> mean, std, n  as head and rows."""
    metrics = list(cloud["aligned"])
    named = {
        "chamfer": "Chamfer (m)",
        "accuracy": "accuracy (m)",
        "completeness": "completeness (m)",
        "scale": "predicted / true scale",
        "scale_error": "scale error",
    }
    head = [
        named.get(metric, metric.replace("fscore_", "F-score at ") + (" m" if "fscore" in metric else ""))
        for metric in metrics
    ]
    rows = [
        [
            alignment,
            *(plus_minus(cloud[alignment].get(metric), metric) for metric in metrics),
            str(cloud[alignment][metrics[0]]["n"]),
        ]
        for alignment in ALIGNMENTS
        if cloud[alignment]
    ]
    return {"head": ["scale", *head, "pairs"], "rows": rows}


def group_table(tree: dict[str, dict], heading: str) -> dict:
    """group -> method -> alignment -> metric as rows of aligned masked PSNR, a column per method; an overlap bin that
    no pair falls into has a row with n = 0."""
    rows, empty = [], {method: {"aligned": {}} for method in METHODS}
    if tree.keys() & set(BINS):
        tree = {name: tree.get(name, empty) for name in BINS}
    for group, methods in tree.items():
        entries = [methods[method]["aligned"].get(METRIC) for method in METHODS]
        rows.append(
            [
                group.replace("_", " "),
                *(plus_minus(entry, METRIC) for entry in entries),
                str(entries[0]["n"] if entries[0] else 0),
            ]
        )
    return {"head": [heading, *(METHOD_NAMES[method] for method in METHODS), "n"], "rows": rows}


def data_uri(picture: np.ndarray) -> str:
    image = Image.fromarray(picture)
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=92, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def cards(findings: Findings) -> list[dict]:
    """A card per chosen target: pictures as data URIs and what is known of them."""
    made = []
    for chosen, pictures in findings.pictures:
        row = chosen.row
        uris = {name: data_uri(picture) for name, picture in pictures.items()}
        other = findings.other and findings.other.pictures.get(chosen.name)
        made.append(
            {
                "family": chosen.family,
                "rule": chosen.rule,
                "photograph": uris.pop("photograph"),
                "render": uris.pop("render"),
                "thumbs": list(uris.items()),
                "width": pictures["render"].shape[1],
                "height": pictures["render"].shape[0],
                "other": None if other is None else data_uri(other),
                "note": f"{row['scene']} · view {row['target']} · {row['bin'].replace('_', ' ')} overlap",
                "score": f"{number(row['psnr_masked'])} dB",
            }
        )
    return made


def curve_of(text: str) -> charts.Curve:
    """The first two columns of a curve's CSV: step and value."""
    rows = [list(map(float, line.split(",")[:2])) for line in text.splitlines()[1:]]
    return [row[0] for row in rows], [row[1] for row in rows]


def page_charts(findings: Findings) -> list[dict]:
    """Figures with a title and a caption each."""
    current, made = findings.current, []
    comparable = [each for each in findings.results if not protocol_differences(current, each)]
    for name, label in CURVE_NAMES.items():
        shown = [each for each in comparable if name in each.curves][:4]
        if shown:
            series = {each.name: curve_of(each.curves[name]) for each in shown}
            made.append(
                {
                    "title": label,
                    "svg": charts.line_chart(series, label, f"{label} over training steps"),
                    "caption": run_names(shown),
                }
            )
    overlaps = list(findings.bins)
    points = {name: [findings.bins[overlap][method] for overlap in overlaps] for method, name in CHART_NAMES.items()}
    estimates = {
        name: [interval and (interval.mean, interval.low, interval.high) for interval in intervals]
        for name, intervals in points.items()
    }
    made.append(
        {
            "title": "By overlap of the two photographs",
            "svg": charts.band_chart(
                [name.replace("_", " ") for name in overlaps],
                estimates,
                "PSNR, masked (dB)",
                "masked PSNR by overlap bin",
            ),
            "caption": f"{current.label}. Bars: {findings.level} intervals over scenes, where there are enough of "
            "them.",
        }
    )
    if means := scene_means(findings):
        made.append(
            {
                "title": "Scene by scene",
                "svg": charts.dot_chart(means, "PSNR, masked (dB)", "masked PSNR of each test scene"),
                "caption": f"{current.label}; means over the targets of a scene, aligned.",
            }
        )
        made.append(scene_scatter(findings, means))
    measured, others = timed_alike(comparable)
    machine = f"one machine{bracketed(conditions(measured[0])[1:])}" if measured else ""
    left_out = f" Left out: {', '.join(name + bracketed(words) for name, words in others.items())}." if others else ""
    if measured and measured[0] is current:
        rows = time_bars(measured)
        made.append(
            {
                "title": "Time of each piece",
                "svg": charts.bar_chart(rows, "milliseconds", "milliseconds per piece"),
                "caption": f"Median, 10 to 90 %, on {machine}. "
                + run_names(measured[: len(charts.COLOURS)])
                + left_out,
            }
        )
    for cost, svg in pareto_charts(comparable).items():
        made.append(
            {
                "title": f"Quality against {COSTS[cost]}",
                "svg": svg,
                "caption": f"Runs measured on {machine}; the line joins those that no other beats in both. "
                + run_names(measured)
                + left_out,
            }
        )
    return made


def scene_scatter(findings: Findings, means: dict[str, dict[str, float]]) -> dict:
    """This run over the baseline, or over the splatted points where it is the baseline or has none; a point a scene."""
    baseline, run = reference_of(findings.results), CHART_NAMES["render"]
    other = baseline.label if baseline and baseline is not findings.current else CHART_NAMES["points_splat"]
    points = {scene: (values[other], values[run]) for scene, values in means.items() if other in values}
    above = sum(y > x for x, y in points.values())
    return {
        "title": f"Scene by scene against {other}",
        "svg": charts.scatter_chart(
            points,
            f"{other}: PSNR, masked (dB)",
            "this run: PSNR, masked (dB)",
            f"masked PSNR of each test scene against that of {other}",
        ),
        "caption": f"{findings.current.label}: above the diagonal, better than {other}, in {above} of "
        f"{len(points)} scenes. One scene is one point; only the interval says whether that is more than chance.",
    }


def run_names(results: list[ExperimentResult]) -> str:
    """Whose the names in a chart are; labels say which are untrained."""
    return "; ".join(f"{each.name}: {each.label}" for each in results) + "."


def scene_means(findings: Findings) -> dict[str, dict[str, float]]:
    """scene -> method's name -> mean aligned masked PSNR; beside the floors, the baseline where there is one."""
    baseline = reference_of(findings.results)
    tables = {
        CHART_NAMES[method]: select_rows(findings.rows, method=method, alignment="aligned")
        for method in ("copy_nearest", "points_splat")
    }
    tables = {CHART_NAMES["render"]: select_rows(findings.current.rows, alignment="aligned")} | tables
    if baseline and not findings.current.is_baseline:
        tables[baseline.label] = select_rows(baseline.rows, alignment="aligned")
    means = {}
    for scene in groups(findings.rows, "scene"):
        scores = {name: column(select_rows(rows, scene=scene), METRIC)[0] for name, rows in tables.items()}
        means[scene] = {name: float(np.mean(values)) for name, values in scores.items() if values}
    return {scene: values for scene, values in means.items() if CHART_NAMES["render"] in values}


def differences_chart(findings: Findings) -> dict | None:
    """Differences from the baseline, or without one from the floors; None when there is nothing to differ from."""
    current, found, against = findings.current, findings.comparisons, REFERENCE
    if not found:
        found, against = {CHART_NAMES[name]: each for name, each in findings.floors.items()}, "each floor"
    if not found:
        return None
    arms = [each for each in findings.results if each.name in findings.comparisons] or [current]
    estimates = {name: (each.interval.mean, each.interval.low, each.interval.high) for name, each in found.items()}
    title = f"masked PSNR minus that of {against} (dB)"
    return {
        "svg": charts.forest_chart(estimates, title, f"{current.label}: {title}"),
        "caption": f"Paired differences; {findings.level} intervals over scenes, where there are enough, and over "
        "seeds, where there are several. " + run_names(arms),
    }


def brackets(findings: Findings) -> str:
    """What the intervals at the top of the page are: 95 % intervals over scenes. Those over seeds name how many."""
    shown = [*findings.comparisons.values(), findings.controlled.get(findings.current.name)]
    seeds = any(each and each.interval.low is not None and each.interval.seeds > 1 for each in shown)
    return f"{findings.level} intervals over scenes" + (", and over seeds where these are named" if seeds else "")


def unmeasured(findings: Findings) -> dict[str, str]:
    """What this page could show and does not, and why, beside the absent scores."""
    current, absent = findings.current, {}
    if (benchmark := timings(current)) is None:
        absent["Speed and memory of this run"] = why_absent(current)
    elif benchmark["device"] != "cuda":
        absent["Speed on a GPU"] = CPU_ONLY
    if not current.is_baseline and not findings.comparisons:
        absent["Difference from MASt3R only"] = "no run without a backbone was measured in the same way"
    if not findings.walks:
        absent["Scenes to walk around"] = "no Gaussians were exported (eval.num_plys is 0)"
    if findings.score and findings.score.low is None:
        absent["Intervals over scenes"] = (
            f"there are {findings.score.scenes} test scenes; fewer than {MIN_SCENES}, or "
            "scenes without any spread, have none"
        )
    return absent


def context(findings: Findings) -> dict:
    """What the template shows."""
    current, summary = findings.current, findings.summary
    comparison = findings.comparisons.get(current.name)
    others = [
        f"{each.name}: " + difference_words(each.label, REFERENCE, findings.comparisons[each.name])
        for each in findings.results[1:]
        if each.name in findings.comparisons
    ]
    methods = summary["methods"]["render"]["aligned"]
    key_figures = [
        (SCORES[metric], plus_minus(methods.get(metric), metric))
        for metric in ("psnr_masked", "ssim_masked", "lpips_masked")
        if metric in methods
    ]
    cloud, benchmark = summary["cloud"]["aligned"], timings(current)
    absent = summary["absent"] | unmeasured(findings)
    if "chamfer" in cloud:
        key_figures.append(
            (f"Chamfer distance (m), by pair, n = {cloud['chamfer']['n']}", plus_minus(cloud["chamfer"], "chamfer"))
        )
    return {
        "label": current.label,
        "detail": current.detail,
        "counts": summary["counts"],
        "brackets": brackets(findings),
        "resolution": summary["resolution"],
        "others": others,
        "headline": unbroken(headline(current, findings.score, comparison)),
        "cautions": cautions(current, comparison is not None),
        "control": control_words(current.label, findings.controlled.get(current.name)),
        "power": power_words(comparison) if comparison else None,
        "floors": baseline_words(findings.floors) if findings.floors else None,
        "untrained": current.about["backbone"]["weights"] == "random",
        "key_figures": key_figures,
        "several": any(each.repeats for each in findings.results),
        "leaderboard": leaderboard(findings),
        "floor_board": floor_board(findings),
        "forest": differences_chart(findings),
        "cards": cards(findings),
        "other": findings.other and findings.other.result,
        "walks": findings.walks,
        "library": viewer_library() if findings.walks else "",
        "walks_payload": viewer_payload(findings.walks),
        "charts": page_charts(findings),
        "scores": score_table(summary["methods"], SCORES),
        "compatible": score_table(summary["methods"], COMPATIBLE),
        "bins": group_table(summary["bins"], "overlap"),
        "categories": group_table(summary["categories"], "scenes"),
        "clouds": cloud_table(summary["cloud"]) if cloud else None,
        "absent": absent,
        "times": time_table(benchmark) if benchmark else None,
        "speed_facts": speed_facts(benchmark) if benchmark else None,
        "stages": stage_table(findings.stages) if findings.stages else None,
        "provenance": findings.provenance,
    }


def page(findings: Findings) -> str:
    """The whole page."""
    return fill_template("report.html", **context(findings))
