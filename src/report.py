"""Stage `report`: the small results that Git tracks, and one page that shows them.

reads data/eval, data/train, data/model, data/renders, data/scenes, data/weights; writes reports/metrics.json,
experiment.json, records.csv, plots, images (the same bytes on every run), and reports/summary/index.html, which shows
other experiments and timings too

`python -m src.report` brings the page up to date after new experiments.
"""

import csv
import os
from dataclasses import replace
from pathlib import Path

from src.cached import second_arm
from src.config import Config, run
from src.experiments import METRIC, REPORTS, SCHEMA, Result, against_baseline, control_of, gather
from src.folders import fresh_folder
from src.gallery import Chosen, choose, other_render, panels, strip
from src.page import Findings, Other, page
from src.provenance import (file_hash, fix_computation, git_revision, numpy_generator, params_hash, read_json, versions,
                            write_json)
from src.records import FLOORS, METHODS, Row, column, groups, read_rows, select, write_rows
from src.scene import Scene, SceneRecord, read_index
from src.statistics import Comparison, Interval, bootstrap_interval, compare
from src.stopwatch import stage_times
from src.verdict import FLOOR_NAMES
from src.viewer import FLOOR, Walk, chosen_episodes, walk

EVAL, TRAIN, MODEL, RENDERS = Path("data/eval"), Path("data/train"), Path("data/model"), Path("data/renders")
SCENES, WEIGHTS = Path("data/scenes"), Path("data/weights")
# keys that may differ between runs whose scores are compared: the variable itself, and what cannot change a score
FREE = {"model": ("backbone", "dinov2_model", "dinov2_dim", "weights", "backbone_layers", "feature_grid", "fusion_site",
                  "fusion_hooks", "fusion_mode", "identity_init", "fusion_parameters", "freeze_dinov2", "freeze_fusion"),
        "opt": ("log_every", "val_every", "gradient_checkpointing")}


def held_still(config: Config, summary: dict, geometry: dict, train_category: str) -> dict:
    """What two runs must share for their scores to be compared; hashes stand for files."""
    sections = {}
    for name in ("model", "opt", "loss"):
        values = vars(getattr(config, name))
        sections[name] = {key: value for key, value in values.items() if key not in FREE.get(name, ())}
    untrained = vars(config.geometries[config.model.geometry])  # how the heads start, and what they may do
    sections["geometries"] = {key: value for key, value in untrained.items() if key != "file"}
    return sections | {
        "training_episodes": vars(config.dataset.episodes),
        "scenes": file_hash(SCENES / "index.jsonl"), "episodes": file_hash(SCENES / "episodes_test.jsonl"),
        "geometry": geometry["sha256"] or geometry["label"], "seed": config.seed, "eval.masks": config.eval.masks,
        "data.batch_size": config.data.batch_size, "train_category": train_category,
        "resolution": "x".join(map(str, summary["resolution"])), "eval.lpips": config.eval.lpips}


def about(config: Config, summary: dict) -> dict:
    """reports/experiment.json but for the names of the curves: what was run, and what it may be compared with."""
    record = read_json(MODEL / "record.json")
    backbone, model = record["backbone"], config.model
    bare = backbone["name"] == "none"
    fusion = [f"{model.fusion_mode} at {model.fusion_site}"] if record["feature_channels"] else []  # the oracle has none
    category = config.dataset.train_category
    recipe = (config.data, replace(config.dataset, train_category=None), model, config.geometries[model.geometry],
              config.opt, config.loss, config.eval, backbone["sha256"])
    return {
        "schema": SCHEMA, "label": "MASt3R only (no backbone)" if bare else backbone["label"],
        "detail": "" if bare else ", ".join([*fusion, model.strategy]),
        "backbone": backbone, "geometry": record["geometry"], "trainable_parameters": record["trainable_parameters"],
        "fusion": record["fusion"],
        "protocol": held_still(config, summary, record["geometry"], record["train_category"]),
        "counts": summary["counts"], "absent": summary["absent"], "versions": versions(),
        # the same for runs that differ in training scenes and seed, in the seed, in nothing
        "recipe": params_hash(*recipe), "arm": params_hash(category, *recipe),
        "params": params_hash(config.seed, category, *recipe),
        "benchmark_params": params_hash(config.seed, config.threads, config.model, config.benchmark)}


def rounded(value: float) -> float:
    return round(value, 6)


def headline_metrics(summary: dict, parameters: int, fusion: dict) -> dict:
    """reports/metrics.json: scores are means over targets, aligned unless named raw (Splatt3R's own score is
    never aligned); absent ones are left out.

    parameters  how many were trained
    fusion      of data/model/record.json, where there is an adapter: its parameters, and per site what it came to do
    """
    render = summary["methods"]["render"]
    aligned, cloud = render["aligned"], summary["cloud"]["aligned"]
    wanted = "psnr_masked", "psnr", "ssim_masked", "ssim", "lpips_masked", "lpips", "depth_abs_rel"
    metrics = {name: rounded(aligned[name]["mean"]) for name in wanted if name in aligned}
    metrics["psnr_masked_std"] = rounded(aligned[METRIC]["std"]) if "std" in aligned.get(METRIC, {}) else None
    for name, raw in (("psnr_masked_raw", METRIC), ("psnr_splatt3r_masked", "psnr_splatt3r_masked")):
        metrics[name] = rounded(render["raw"][raw]["mean"]) if raw in render["raw"] else None
    metrics |= {name: rounded(entry["mean"]) for name, entry in cloud.items()
                if name in ("chamfer", "scale_error") or name.startswith("fscore")}
    floors = {name: summary["methods"][name]["aligned"] for name in FLOORS}
    metrics["floors"] = {name: rounded(scores[METRIC]["mean"]) for name, scores in floors.items() if METRIC in scores}
    for heading in ("bins", "categories"):
        entries = {name: methods["render"]["aligned"] for name, methods in summary[heading].items()}
        metrics[heading] = {name: rounded(entry[METRIC]["mean"]) for name, entry in entries.items() if METRIC in entry}
    metrics |= {name: summary["counts"][name] for name in ("targets", "scenes")} | {"trainable_parameters": parameters}
    if fusion["sites"]:
        metrics["fusion"] = {"parameters": fusion["parameters"]} | {
            f"{name}_{site}": rounded(value) for site, found in fusion["sites"].items() for name, value in found.items()}
    return {name: value for name, value in metrics.items() if value not in (None, {})}


def published_curves(folder: Path, model: str) -> list[str]:
    """DVCLive's curves as CSV with the model's label, train/loss.tsv -> train_loss.csv; names without the ending."""
    root = TRAIN / "plots" / "metrics"
    names = []
    for path in sorted(root.rglob("*.tsv")):
        names.append("_".join(path.relative_to(root).with_suffix("").parts))
        points = csv.DictReader(path.read_text("utf8").splitlines(), delimiter="\t")
        write_rows(folder / f"{names[-1]}.csv", [point | {"model": model} for point in points])
    return names


def wide(groups_of: dict[str, list[Row]], heading: str, model: str) -> list[Row]:
    """Mean aligned masked PSNR, a row per group and a column per method, with the number of targets and the model."""
    table = []
    for name, rows in groups_of.items():
        values = {method: column(select(rows, method=method, alignment="aligned"), METRIC)[0] for method in METHODS}
        means = {method: sum(scores) / len(scores) if scores else None for method, scores in values.items()}
        table.append({heading: name} | means | {"n": len(values["render"]), "model": model})
    return table


def intervals_by_bin(rows: list[Row], config: Config) -> dict[str, dict[str, Interval | None]]:
    """Overlap bin -> method -> interval of the mean aligned masked PSNR."""
    found = {}
    for name in groups(rows, "bin"):
        found[name] = {}
        for method in METHODS:
            values, scenes = column(select(rows, bin=name, method=method, alignment="aligned"), METRIC)
            found[name][method] = interval(values, scenes, config, name, method) if values else None
    return found


def interval(values: list[float], scenes: list[str], config: Config, *purpose: str) -> Interval:
    settings = config.eval.bootstrap
    rng = numpy_generator(config.seed, "interval", *purpose)
    return bootstrap_interval(values, scenes, rng, settings.resamples, settings.confidence)


def against_floors(rows: list[Row], config: Config) -> dict[str, Comparison]:
    """This run's renders minus each floor, paired by target."""
    tables = {method: {(row["episode"], row["target"]): row for row in select(rows, method=method, alignment="aligned")
                       if row[METRIC] is not None} for method in METHODS}
    keys = sorted(tables["render"])
    if not keys:
        return {}
    gains = {floor: [tables["render"][key][METRIC] - tables[floor][key][METRIC] for key in keys] for floor in FLOORS}
    settings = config.eval.bootstrap
    return compare(gains, [tables["render"][key]["scene"] for key in keys], numpy_generator(config.seed, "floors"),
                   settings.resamples, settings.confidence)


def write_plots(folder: Path, rows: list[Row], bins: dict[str, dict[str, Interval | None]], model: str) -> list[str]:
    """CSVs for `dvc plots`, each row with the label of the model; returns the names of the training curves."""
    table = wide({name: select(rows, bin=name) for name in bins}, "bin", model)
    for row in table:
        found = bins[row["bin"]]["render"]
        row |= {"render_low": found and found.low, "render_high": found and found.high}
    write_rows(folder / "bins.csv", table)
    for file, heading, name in (("scenes", "scene", "scene"), ("families", "family", "category")):
        members = {group: select(rows, **{name: group}) for group in groups(rows, name)}
        write_rows(folder / f"{file}.csv", wide(members, heading, model))
    return published_curves(folder, model)


def others_renders(arm: tuple[Result, dict[str, Path]] | None, pictures: list[Chosen]) -> Other | None:
    """What the second arm rendered of the chosen targets."""
    if arm is None:
        return None
    shown = {chosen.name: other_render(chosen, arm[1][file]) for chosen in pictures
             if (file := f"{chosen.row['episode']}.safetensors") in arm[1]}
    return Other(arm[0], {name: picture for name, picture in shown.items() if picture is not None})


def walks(current: Result, arm: tuple[Result, dict[str, Path]] | None, index: dict[str, SceneRecord]) -> list[Walk]:
    """The exported scenes to look around in: this run beside the second arm, or else beside the splatted points."""
    found = []
    for episode in chosen_episodes(RENDERS):
        arms = {f"{current.name}: {current.label}": RENDERS / f"{episode}.ply"}
        if arm and f"{episode}.ply" in arm[1]:
            arms[f"{arm[0].name}: {arm[0].label}"] = arm[1][f"{episode}.ply"]
        else:
            arms[f"floor: {FLOOR_NAMES['points_splat']}"] = RENDERS / f"{episode}{FLOOR}"
        found.append(walk(episode, RENDERS, SCENES, index, arms))
    return found


def fusion_words(fusion: dict) -> list[tuple[str, str]]:
    """Names and values of what the adapters are and came to do; nothing without one."""
    rows = [("adapter parameters", f"{fusion['parameters']:,}")] if fusion["sites"] else []
    for site, found in fusion["sites"].items():
        place = "encoder tokens" if site == "encoder" else f"token map {site}"
        change = f"changes them by {100 * found['relative_change']:.2f} % of their length"
        others = [f"{name} {value:.4f}" for name, value in found.items() if name != "relative_change"]
        rows.append((f"fusion into {place}", "; ".join([change, *others])))
    return rows


def weights_words(record: dict) -> str:
    """What some weights are, whose, and from where."""
    digest = f", sha256 {record['sha256'][:16]}" if record.get("sha256") else ""
    return (f"{record['label']}: {record['weights']} weights, licence {record['licence']}, source {record['source']}"
            f"{digest}")


def provenance(config: Config, record: dict, licences: list[str], others: list[Result]
               ) -> dict[str, list[tuple[str, str]]]:
    """Headings -> names and values, for the page alone: the revision is not known to reproducible files; licences: of
    the scenes; others: runs shown beside this one, whose weights are listed too."""
    protocol = record["protocol"]
    weights = [("geometry", record["geometry"]), ("backbone", record["backbone"])]
    for use, folder in (("LPIPS, scores", "lpips_eval"), ("LPIPS, training loss", "lpips_loss")):
        if (path := WEIGHTS / folder / "record.json").exists():
            weights.append((use, read_json(path)))
    used = {entry["label"] for _, entry in weights}
    for each in others:
        for use in ("geometry", "backbone"):
            if (entry := each.about[use])["label"] not in used:
                used.add(entry["label"])
                weights.append((f"{use} of {each.name}", entry))
    return {
        "This run": [("revision", git_revision() or "not in a Git repository"), ("parameters", record["params"]),
                     ("protocol", params_hash(protocol)), ("seed", str(config.seed)),
                     ("optimiser steps", str(config.opt.steps)),
                     ("trainable parameters", f"{record['trainable_parameters']:,}"), *fusion_words(record["fusion"]),
                     ("training scenes", protocol["train_category"]), ("visibility masks", config.eval.masks)],
        "Data": [("data set", config.data.dataset), ("licence", "; ".join(licences)),
                 ("scenes", protocol["scenes"][:16]), ("test episodes", protocol["episodes"][:16]),
                 ("resolution", protocol["resolution"])],
        "Weights and licences": [(use, weights_words(entry)) for use, entry in weights],
        "Versions": list(record["versions"].items())}


def main(config: Config) -> None:
    fix_computation(config.threads)
    summary, rows = read_json(EVAL / "summary.json"), read_rows((EVAL / "records.csv").read_text("utf8"))
    index = {record.id: record for record in read_index(SCENES)}
    bins = intervals_by_bin(rows, config)
    record = about(config, summary)
    with fresh_folder(REPORTS / "plots") as folder:
        record["curves"] = write_plots(folder, rows, bins, record["label"])
    pictures = [(chosen, panels(chosen, index, SCENES, RENDERS)) for chosen in choose(rows)]
    with fresh_folder(REPORTS / "images") as folder:
        for chosen, panel in pictures:
            title = f"{chosen.rule} of {chosen.family} · {record['label']}"
            note = f"{chosen.row['scene']}, view {chosen.row['target']}, {chosen.row['bin']} overlap · " \
                   f"masked PSNR {chosen.row[METRIC]:.2f} dB"
            strip(panel, title, note).save(folder / f"{chosen.name}.png", optimize=True)
    write_rows(REPORTS / "records.csv", select(rows, method="render"))
    write_json(REPORTS / "metrics.json", headline_metrics(summary, record["trainable_parameters"], record["fusion"]))
    write_json(REPORTS / "experiment.json", record)
    root = os.environ.get("DVC_ROOT", ".")
    results = gather(root)
    arm = second_arm(root, results, RENDERS.as_posix())
    licences = sorted({Scene.open(SCENES / each.file).metadata["license"] for each in index.values()
                       if each.split == "test"})
    bootstrap, control = config.eval.bootstrap, control_of(results)
    settings = bootstrap.resamples, bootstrap.confidence, config.seed
    values, scenes = column(select(rows, method="render", alignment="aligned"), METRIC)
    score = interval(values, scenes, config, "score") if values else None
    findings = Findings(results, summary, rows, score, against_floors(rows, config),
                        against_baseline(results, *settings),
                        against_baseline(results, *settings, reference=control) if control else {}, bins, pictures,
                        provenance(config, record, licences, results[1:]), stage_times(),
                        others_renders(arm, [chosen for chosen, _ in pictures]), walks(results[0], arm, index),
                        bootstrap.confidence)
    target = REPORTS / "summary" / "index.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(findings), "utf8")


if __name__ == "__main__":
    run(main, "report")
