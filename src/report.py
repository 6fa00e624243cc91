"""Stage `report`: the small results that Git tracks, and one page that shows them.

    python -m src.report [key=value ...]

reads data/eval, data/train, data/model, data/renders, data/real_pair, data/scenes, data/weights; writes
reports/metrics.json, details.json, experiment.json, records.csv, probes.csv, plots, images (the same bytes on every
run), and reports/summary/index.html, which shows other experiments and timings too

`python -m src.report` brings the page up to date after new experiments.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from src.config import Config
from src.experiments.comparisons import control_of, gather, judge, reference_of, scores_and_spread
from src.experiments.dvc_cache import second_experiment
from src.experiments.publish import (
    against_baselines,
    detailed_metrics,
    experiment_record,
    headline_metrics,
    intervals_by_bin,
    moved_points,
    probe_rows,
    real_pair_numbers,
    score_interval,
    weigh_scenes,
    write_plots,
)
from src.experiments.result import METRIC, REPORTS, protocol_differences, write_result
from src.page.findings import Experiments, Findings, Origin, Pictures, RealPair, Scores
from src.page.page import page
from src.page.pictures import Chosen, choose, panels, second_renders
from src.page.provenance import provenance
from src.page.strip import strip
from src.page.viewer import viewer_scenes
from src.probes.results import read_probe
from src.reproducible.files import fresh_folder, read_json, write_whole
from src.reproducible.seeds import fix_computation
from src.results.evaluation import read_evaluation
from src.results.tables import Row, select_rows, write_rows
from src.run import run, stage_times
from src.scenes.scene import Scene, SceneRecord, read_index

EVAL, RENDERS, SCENES = Path("data/eval"), Path("data/renders"), Path("data/scenes")
PROBE, REAL_PAIR = Path("data/probe"), Path("data/real_pair")
PAGE = REPORTS / "summary" / "index.html"

Targets = list[tuple[Chosen, dict[str, np.ndarray]]]  # chosen targets and their panels


def score_findings(summary: dict, rows: list[Row], clouds: list[Row], probes: dict, config: Config) -> Scores:
    """What was measured of this run, with its intervals over scenes; over_baselines needs other experiments too."""
    return Scores(
        summary=summary,
        rows=rows,
        mean=score_interval(select_rows(rows, method="render"), config.eval.confidence),
        by_bin=intervals_by_bin(rows, config),
        over_baselines={},
        moved=moved_points(clouds, config.eval.confidence),
        probes=probes,
    )


def publish(scores: Scores, targets: Targets, pair: RealPair, record: dict, by_scene: list[Row]) -> None:
    """by_scene: the probes' scores. The files that Git tracks; they depend on this run alone."""
    with fresh_folder(REPORTS / "plots") as folder:
        curves = write_plots(folder, scores.rows, scores.by_bin, record["label"])
        write_rows(folder / "probes.csv", probe_rows(scores.probes, record["label"]))
    with fresh_folder(REPORTS / "images") as folder:
        for chosen, pictures in targets:
            title = f"{chosen.rule} of {chosen.family} · {record['label']}"
            note = (
                f"{chosen.row['scene']}, view {chosen.row['target']}, {chosen.row['bin']} overlap · "
                f"masked PSNR {chosen.row[METRIC]:.2f} dB"
            )
            strip(pictures, title, note).save(folder / f"{chosen.name}.png", optimize=True)
        write_whole(folder / "real_pair.png", pair.picture)
    metrics = headline_metrics(scores.summary)
    rest = detailed_metrics(scores.summary, record["trainable_parameters"], record["fusion"])
    rest |= {"probe": {name: scores.probes[name] for name in ("readouts", "added") if name in scores.probes}}
    rest |= {"real_pair": real_pair_numbers(pair.summary)}
    write_result(
        REPORTS, record | {"curves": curves}, metrics, rest, select_rows(scores.rows, method="render"), by_scene
    )


def gather_findings(
    config: Config, scores: Scores, targets: Targets, pair: RealPair, record: dict, index: dict[str, SceneRecord]
) -> Findings:
    """What the page shows: this run, read back as it was published, beside the experiments that Git knows."""
    root = os.environ.get("DVC_ROOT", ".")
    results = gather(root)
    second = second_experiment(root, results, RENDERS.as_posix())
    priors, confidence, reference = config.dataset.seed_sd, config.eval.confidence, reference_of(results)
    comparable = [each for each in results if not protocol_differences(results[0], each)]
    claimed = [each for each in comparable if each is reference or not each.is_mast3r_only]
    seeds = scores_and_spread(comparable, METRIC, priors)[1]
    licences = {
        Scene.open(SCENES / each.file).metadata["license"] for each in index.values() if each.split == config.eval.split
    }
    return Findings(
        scores=replace(scores, over_baselines=against_baselines(scores.rows, config, seeds)),
        experiments=Experiments(
            results=results,
            verdicts=judge(claimed, reference, control_of(claimed), priors, confidence),
            confidence=confidence,
        ),
        pictures=Pictures(
            targets=targets,
            second=second_renders(second, [chosen for chosen, _ in targets]),
            viewer_scenes=viewer_scenes(results[0], second, RENDERS, SCENES, index),
            real_pair=pair,
        ),
        origin=Origin(
            provenance=provenance(config, record, sorted(licences), results[1:]),
            stages=stage_times(),
        ),
    )


def main(config: Config) -> None:
    fix_computation(config.threads)
    summary, rows, clouds = read_evaluation(EVAL)
    summary = weigh_scenes(summary, rows, clouds)
    index = {record.id: record for record in read_index(SCENES)}
    probes, by_scene = read_probe(PROBE)
    scores, record = score_findings(summary, rows, clouds, probes, config), experiment_record(config, summary)
    targets = [(chosen, panels(chosen, index, SCENES, RENDERS)) for chosen in choose(rows)]
    pair = RealPair(read_json(REAL_PAIR / "summary.json"), (REAL_PAIR / "pictures.png").read_bytes())
    publish(scores, targets, pair, record, by_scene)
    findings = gather_findings(config, scores, targets, pair, record, index)
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(findings), "utf8")


if __name__ == "__main__":
    run(main, "report")
