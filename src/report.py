"""Stage `report`: the small results that Git tracks, and one page that shows them.

reads data/eval, data/train, data/model, data/renders, data/scenes, data/weights; writes reports/metrics.json,
experiment.json, records.csv, plots, images (the same bytes on every run), and reports/summary/index.html, which shows
other experiments and timings too

`python -m src.report` brings the page up to date after new experiments.
"""

import os
from pathlib import Path

from src.config import Config
from src.experiments.comparisons import against_reference, control_of, gather
from src.experiments.dvc_cache import second_experiment
from src.experiments.publish import (
    against_baselines,
    experiment_record,
    headline_metrics,
    intervals_by_bin,
    score_interval,
    write_plots,
)
from src.experiments.result import METRIC, REPORTS
from src.page.page import Findings, page
from src.page.pictures import choose, panels, strip
from src.page.sources import others_renders, provenance, walks
from src.reproducible.files import fresh_folder, read_json, write_json
from src.reproducible.seeds import fix_computation
from src.results.tables import column, read_rows, select_rows, write_rows
from src.run import run, stage_times
from src.scenes.scene import Scene, read_index

EVAL, RENDERS, SCENES = Path("data/eval"), Path("data/renders"), Path("data/scenes")


def main(config: Config) -> None:
    fix_computation(config.threads)
    summary, rows = read_json(EVAL / "summary.json"), read_rows((EVAL / "records.csv").read_text("utf8"))
    index = {record.id: record for record in read_index(SCENES)}
    bins = intervals_by_bin(rows, config)
    record = experiment_record(config, summary)
    with fresh_folder(REPORTS / "plots") as folder:
        record["curves"] = write_plots(folder, rows, bins, record["label"])
    pictures = [(chosen, panels(chosen, index, SCENES, RENDERS)) for chosen in choose(rows)]
    with fresh_folder(REPORTS / "images") as folder:
        for chosen, panel in pictures:
            title = f"{chosen.rule} of {chosen.family} · {record['label']}"
            note = (
                f"{chosen.row['scene']}, view {chosen.row['target']}, {chosen.row['bin']} overlap · "
                f"masked PSNR {chosen.row[METRIC]:.2f} dB"
            )
            strip(panel, title, note).save(folder / f"{chosen.name}.png", optimize=True)
    write_rows(REPORTS / "records.csv", select_rows(rows, method="render"))
    write_json(REPORTS / "metrics.json", headline_metrics(summary, record["trainable_parameters"], record["fusion"]))
    write_json(REPORTS / "experiment.json", record)
    root = os.environ.get("DVC_ROOT", ".")
    results = gather(root)
    arm = second_experiment(root, results, RENDERS.as_posix())
    licences = sorted(
        {Scene.open(SCENES / each.file).metadata["license"] for each in index.values() if each.split == "test"}
    )
    bootstrap, control = config.eval.bootstrap, control_of(results)
    settings = bootstrap.resamples, bootstrap.confidence, config.seed
    values, scenes = column(select_rows(rows, method="render", alignment="aligned"), METRIC)
    score = score_interval(values, scenes, config, "score") if values else None
    findings = Findings(
        results,
        summary,
        rows,
        score,
        against_baselines(rows, config),
        against_reference(results, *settings),
        against_reference(results, *settings, reference=control) if control else {},
        bins,
        pictures,
        provenance(config, record, licences, results[1:]),
        stage_times(),
        others_renders(arm, [chosen for chosen, _ in pictures]),
        walks(results[0], arm, index),
        bootstrap.confidence,
    )
    target = REPORTS / "summary" / "index.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(findings), "utf8")


if __name__ == "__main__":
    run(main, "report")
