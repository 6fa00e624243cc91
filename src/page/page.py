"""The report as one HTML page that opens from disk: everything inside it, nothing fetched."""

from src.page.cards import picture_cards, real_pair_card
from src.page.figures import differences_chart, page_charts
from src.page.findings import Experiments, Findings
from src.page.numbers import plus_minus, unbroken
from src.page.probe_tables import MATCHED, added_table, match_table, probe_words, readout_table
from src.page.score_tables import (
    SPLATT3R_TITLES,
    baseline_board,
    cloud_table,
    group_table,
    leaderboard,
    score_table,
)
from src.page.speed import CPU_ONLY, speed_facts, stage_table, time_table, timings, why_absent
from src.page.templates import fill_template
from src.page.verdict import (
    REFERENCE,
    baseline_words,
    cautions,
    control_words,
    difference_words,
    geometry_words,
    headline,
    power_words,
)
from src.page.viewer import viewer_library, viewer_payload, viewer_stills
from src.results.errors import MIN_SCENES
from src.results.tables import HEADLINE, METRIC_TITLES


def brackets(experiments: Experiments) -> str:
    """What the intervals at the top of the page are."""
    shown = [*experiments.against_reference.values(), experiments.against_control.get(experiments.current.name)]
    seeds = any(each and each.interval.low is not None and each.interval.source for each in shown)
    return f"{experiments.level} intervals over scenes" + (", those of differences over seeds too" if seeds else "")


def unmeasured(findings: Findings) -> dict[str, str]:
    """What this page could show and does not, and why, beside the absent scores."""
    current, mean, absent = findings.experiments.current, findings.scores.mean, {}
    if (benchmark := timings(current)) is None:
        absent["Speed and memory of this run"] = why_absent(current)
    elif benchmark.device != "cuda":
        absent["Speed on a GPU"] = CPU_ONLY
    if not current.is_mast3r_only and not findings.experiments.against_reference:
        absent["Difference from MASt3R only"] = "no run without a backbone was measured in the same way"
    if not findings.pictures.viewer_scenes:
        absent["Scenes in the viewer"] = "no Gaussians were exported (eval.num_plys is 0)"
    if mean and mean.low is None:
        absent["Intervals over scenes"] = (
            f"there are {mean.scenes} scored scenes; fewer than {MIN_SCENES}, or scenes without any spread, have none"
        )
    return absent


def key_figures(summary: dict) -> list[tuple[str, str]]:
    """Names and values of the numbers at the top of the page."""
    scores, cloud = summary["methods"]["render"]["aligned"], summary["cloud"]["render"]["aligned"]
    figures = [(METRIC_TITLES[name], plus_minus(scores[name], name)) for name in HEADLINE if name in scores]
    if "chamfer" in cloud:
        title = f"Chamfer distance (m), by pair, n = {cloud['chamfer']['n']}"
        figures.append((title, plus_minus(cloud["chamfer"], "chamfer")))
    return figures


def verdict_part(findings: Findings) -> dict:
    """The top of the page: what the numbers say, in sentences and key figures."""
    scores, experiments = findings.scores, findings.experiments
    current, compared = experiments.current, experiments.against_reference
    own = compared.get(current.name)
    return {
        "label": current.label,
        "detail": current.detail,
        "untrained": current.about["backbone"]["weights"] == "random",
        "headline": unbroken(headline(current, scores.mean, own)),
        "cautions": cautions(current, own is not None),
        "others": [
            f"{each.name}: " + difference_words(each.label, REFERENCE, compared[each.name])
            for each in experiments.results[1:]
            if each.name in compared
        ],
        "baselines": baseline_words(scores.over_baselines) if scores.over_baselines else None,
        "geometry": geometry_words(scores.summary["cloud"], scores.moved) if scores.moved else None,
        "control": control_words(current.label, experiments.against_control.get(current.name)),
        "power": power_words(own) if own else None,
        "probed": unbroken(words) if (words := probe_words(scores.probes)) else None,
        "key_figures": key_figures(scores.summary),
        "brackets": brackets(experiments),
        "differences": differences_chart(experiments, scores.over_baselines),
    }


def score_part(findings: Findings) -> dict:
    """Tables and charts."""
    summary, experiments = findings.scores.summary, findings.experiments
    return {
        "counts": summary["counts"],
        "split": experiments.current.about["protocol"]["eval.split"],
        "resolution": summary["resolution"],
        "several": any(each.repeats for each in experiments.results),
        "leaderboard": leaderboard(experiments),
        "baseline_board": baseline_board(summary),
        "charts": page_charts(findings.scores, experiments),
        "scores": score_table(summary["methods"], METRIC_TITLES),
        "splatt3r_scores": score_table(summary["methods"], SPLATT3R_TITLES),
        "bins": group_table(summary["bins"], "overlap"),
        "categories": group_table(summary["categories"], "scenes"),
        "clouds": cloud_table(summary["cloud"]) if summary["cloud"]["render"]["aligned"] else None,
        "readouts": readout_table(findings.scores.probes),
        "added": added_table(findings.scores.probes),
        "matched": [table for place in MATCHED if (table := match_table(findings.scores.probes, place))],
        "absent": summary["absent"]
        | findings.scores.probes["absent"]
        | findings.pictures.real_pair.summary["absent"]
        | unmeasured(findings),
    }


def picture_part(findings: Findings) -> dict:
    """Cards of chosen targets, and the viewer."""
    pictures = findings.pictures
    return {
        "cards": picture_cards(pictures),
        "second": pictures.second and pictures.second.result,
        "viewer_scenes": pictures.viewer_scenes,
        "viewer_library": viewer_library() if pictures.viewer_scenes else "",
        "viewer_payload": viewer_payload(pictures.viewer_scenes),
        "viewer_stills": viewer_stills(pictures.viewer_scenes),
        "real_pair": real_pair_card(pictures.real_pair),
    }


def origin_part(findings: Findings) -> dict:
    """Speed, stages, and where the numbers come from."""
    benchmark, stages = timings(findings.experiments.current), findings.origin.stages
    return {
        "times": time_table(benchmark) if benchmark else None,
        "speed_facts": speed_facts(benchmark) if benchmark else None,
        "stages": stage_table(stages) if stages else None,
        "provenance": findings.origin.provenance,
    }


def page(findings: Findings) -> str:
    """The whole page."""
    parts = (verdict_part, score_part, picture_part, origin_part)
    return fill_template("report.html", **{key: value for part in parts for key, value in part(findings).items()})
