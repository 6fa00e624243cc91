"""Tables of the page: head and rows of words."""

from src.experiments.result import METRIC, protocol_differences
from src.page.findings import Experiments
from src.page.numbers import NOT_MEASURED, plus_minus, rank_words, with_limits
from src.page.speed import fps_and_memory
from src.page.verdict import BASELINE_NAMES
from src.results.tables import ALIGNMENTS, BASELINES, BINS, METHODS, select_rows, summarise_scenes

METHOD_NAMES = {"render": "this model's renders"} | BASELINE_NAMES
BOARD_METRICS = ("psnr", "ssim", "lpips")  # masked, of the leaderboard
SPLATT3R_TITLES = {
    "psnr_splatt3r": "PSNR (dB)",
    "psnr_splatt3r_masked": "PSNR, masked (dB)",
    "ssim_splatt3r": "SSIM",
    "ssim_splatt3r_masked": "SSIM, masked (up to 3)",
    "lpips_splatt3r": "LPIPS",
    "lpips_splatt3r_masked": "LPIPS, masked",
}
CLOUD_NAMES = {"render": "the Gaussians", "points_splat": "the geometry's points, frozen"}
CLOUD_TITLES = {
    "chamfer": "Chamfer (m)",
    "accuracy": "accuracy (m)",
    "completeness": "completeness (m)",
    "scale": "predicted / true scale",
    "scale_error": "scale error",
}


def board_scores(scores: dict) -> dict[str, str]:
    """Masked scores of one row of the leaderboard."""
    return {name: plus_minus(scores.get(f"{name}_masked"), name) for name in BOARD_METRICS}


def leaderboard(experiments: Experiments) -> list[dict]:
    """A row per result: run, backbone, detail, psnr, ssim, lpips, fps, memory, difference, rank, refused."""
    current = experiments.current
    ranked, rows = experiments.verdicts.ranks, []
    for each in experiments.results:
        refused = protocol_differences(current, each)
        compared = experiments.against_reference.get(each.name)
        interval = compared and compared.interval
        difference = with_limits(interval.mean, interval.low, interval.high, sign=True) if compared else ""
        fps, memory = fps_and_memory(each, current) or (NOT_MEASURED, NOT_MEASURED)
        rows.append(
            {
                "run": each.name,
                "backbone": each.label,
                "detail": each.detail,
                "refused": refused,
                "rank": rank_words(ranked.get(each.name)),
                "difference": "reference" if each.is_mast3r_only and not refused else difference,
                "fps": fps,
                "memory": memory,
            }
            | board_scores(summarise_scenes(select_rows(each.rows, alignment="aligned")))
        )
    return rows


def baseline_board(summary: dict) -> list[dict]:
    """The same columns for what needs no training."""
    return [
        {"backbone": BASELINE_NAMES[name]} | board_scores(summary["methods"][name]["aligned"]) for name in BASELINES
    ]


def score_table(tree: dict, titles: dict[str, str]) -> dict:
    """method -> alignment -> metric -> mean, std, n  as head and rows of words; metrics nobody has are left out."""
    cells = [tree[method][alignment] for method in METHODS for alignment in ALIGNMENTS]
    present = [metric for metric in titles if any(metric in scores for scores in cells)]
    rows = []
    for method in METHODS:
        for alignment in ALIGNMENTS:
            scores = tree[method][alignment]
            if scores and not (method == "copy_nearest" and alignment == "raw"):
                shown = "any" if method == "copy_nearest" else alignment
                count = max(entry["n"] for entry in scores.values())
                values = [plus_minus(scores[metric], metric) if metric in scores else "–" for metric in present]
                rows.append([METHOD_NAMES[method], shown, *values, str(count)])
    return {"head": ["", "scale", *(titles[metric] for metric in present), "n"], "rows": rows}


def cloud_table(cloud: dict) -> dict:
    """method -> alignment -> metric -> mean, std, n  as head and rows."""
    metrics = list(cloud["render"]["aligned"])
    head = [CLOUD_TITLES.get(metric) or f"F-score at {metric.removeprefix('fscore_')} m" for metric in metrics]
    rows = [
        [
            CLOUD_NAMES[method],
            alignment,
            *(plus_minus(scores.get(metric), metric) for metric in metrics),
            str(scores[metrics[0]]["n"]),
        ]
        for method, alignments in cloud.items()
        for alignment, scores in alignments.items()
        if scores
    ]
    return {"head": ["", "scale", *head, "pairs"], "rows": rows}


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
