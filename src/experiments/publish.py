"""What the stage report says of a run in the files that Git tracks; `src.experiments.result` writes and reads them."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from src.config import Config
from src.experiments.protocol import held_still, scoring_code, trained_on
from src.experiments.result import METRIC, scored
from src.reproducible.files import read_json
from src.reproducible.hashes import params_hash
from src.reproducible.versions import versions
from src.results.statistics import Comparison, Interval, SceneScores, SeedSpread, compare_paired, measured, scores_of
from src.results.tables import (
    ALIGNMENTS,
    BASELINES,
    METHODS,
    METRIC_TITLES,
    Row,
    column,
    groups,
    images,
    present_scores,
    scene_weighted,
    select_rows,
    summarise_scenes,
    write_rows,
)

MODEL, TRAIN = Path("data/model"), Path("data/train")


def experiment_record(config: Config, summary: dict, training: dict | None = None) -> dict:
    """reports/experiment.json but for its schema and the names of the curves: what was run, and what it may be compared
    with. training: of `trained_on`, where the model was trained elsewhere; else it was trained here."""
    record = read_json(MODEL / "record.json")
    training = training or trained_on(config, record["train_category"])
    backbone, model = record["backbone"], config.model
    bare = backbone["name"] == "none"
    fusion = (
        ["readout of depth" if model.site == "depth" else f"{model.fusion_mode} at {model.site}"]
        if record["feature_channels"]
        else []
    )  # the oracle has none
    recipe = (
        config.data.batch_size,
        config.data.crop,
        model,
        config.geometries[model.geometry],
        config.opt,
        config.loss,
        backbone["sha256"],
        record["initial_head"],
    )
    scoring = replace(config.dataset, train_category=None, seed_sd={}), config.data.dataset, config.eval
    return {
        "label": "MASt3R only (no backbone)" if bare else backbone["label"],
        "detail": "" if bare else ", ".join([*fusion, model.strategy]),
        "backbone": backbone,
        "geometry": record["geometry"],
        "trainable_parameters": record["trainable_parameters"],
        "fusion": record["fusion"],
        "protocol": held_still(config, summary, record, training),
        "counts": summary["counts"],
        "absent": summary["absent"],
        "code": scoring_code(),
        "versions": versions(),
        # the same for runs that differ in seed and scenes, trained on and scored; in the seed; in nothing
        "recipe": params_hash(*recipe),
        "arm": params_hash(training, *recipe, *scoring),
        "params": params_hash(config.seed, training, *recipe, *scoring),
        "benchmark_params": params_hash(config.seed, config.threads, config.model, config.benchmark),
    }


def weigh_scenes(summary: dict, rows: list[Row], clouds: list[Row]) -> dict:
    """data/eval/summary.json with means over scenes that weigh the same, as intervals and differences have them, in place
    of means over targets; scores of Splatt3R's definitions stay pooled as published. counts gets the number of different
    target images."""

    def by_method(own: list[Row], found: dict) -> dict:
        return {
            method: {
                alignment: found[method][alignment]
                | {
                    metric: entry
                    for metric, entry in summarise_scenes(select_rows(own, method=method, alignment=alignment)).items()
                    if "splatt3r" not in metric
                }
                for alignment in ALIGNMENTS
            }
            for method in METHODS
        }

    return summary | {
        "methods": by_method(rows, summary["methods"]),
        "bins": {name: by_method(select_rows(rows, bin=name), each) for name, each in summary["bins"].items()},
        "categories": {
            name: by_method(select_rows(rows, category=name), each) for name, each in summary["categories"].items()
        },
        "cloud": {
            method: {a: summarise_scenes(select_rows(clouds, method=method, alignment=a)) for a in ALIGNMENTS}
            for method in summary["cloud"]
        },
        "counts": summary["counts"] | {"images": images(rows)},
    }


def rounded(value: float) -> float:
    return round(value, 6)


def headline_metrics(summary: dict) -> dict:
    """reports/metrics.json, the few numbers that `dvc exp show` has room for: means over scenes that weigh the same,
    aligned; absent ones are left out. The other numbers are those of `detailed_metrics`."""
    aligned, cloud = summary["methods"]["render"]["aligned"], summary["cloud"]["render"]["aligned"]
    metrics = {name: rounded(aligned[name]["mean"]) for name in METRIC_TITLES if name in aligned}
    return metrics | {name: rounded(cloud[name]["mean"]) for name in ("chamfer", "scale_error") if name in cloud}


def detailed_metrics(summary: dict, parameters: int, fusion: dict) -> dict:
    """reports/details.json: means over scenes that weigh the same, aligned unless named raw (Splatt3R's own score is never
    aligned, and pooled as published); absent ones are left out.

    summary     of `weigh_scenes`
    parameters  how many were trained
    fusion      of data/model/record.json, where there is an adapter: its parameters, and per site what it came to do
    """
    render, cloud = summary["methods"]["render"], summary["cloud"]["render"]["aligned"]
    spread = render["aligned"].get(METRIC, {})
    found = {"psnr_masked_std": rounded(spread["std"]) if "std" in spread else None}
    for name, raw in (("psnr_masked_raw", METRIC), ("psnr_splatt3r_masked", "psnr_splatt3r_masked")):
        found[name] = rounded(render["raw"][raw]["mean"]) if raw in render["raw"] else None
    found |= {name: rounded(entry["mean"]) for name, entry in cloud.items() if name.startswith("fscore")}
    baselines = {name: summary["methods"][name]["aligned"] for name in BASELINES}
    found["baselines"] = {
        name: rounded(scores[METRIC]["mean"]) for name, scores in baselines.items() if METRIC in scores
    }
    points = summary["cloud"]["points_splat"]["aligned"] | baselines["points_splat"]
    shown = [name for name in points if name in ("chamfer", "depth_abs_rel") or name.startswith("fscore")]
    found["points"] = {name: rounded(points[name]["mean"]) for name in shown}
    for heading in ("bins", "categories"):
        entries = {name: methods["render"]["aligned"] for name, methods in summary[heading].items()}
        found[heading] = {name: rounded(entry[METRIC]["mean"]) for name, entry in entries.items() if METRIC in entry}
    found |= {name: summary["counts"][name] for name in ("targets", "images", "scenes")}
    found |= {name: rounded(value) for name, value in summary.get("index", {}).get("aligned", {}).items()}
    found["trainable_parameters"] = parameters
    if fusion["sites"]:
        found["fusion"] = {"parameters": fusion["parameters"]} | {
            f"{name}_{site}": rounded(value) for site, sizes in fusion["sites"].items() for name, value in sizes.items()
        }
    return {name: value for name, value in found.items() if value not in (None, {})}


def real_pair_numbers(found: dict) -> dict[str, float]:
    """Of data/real_pair/summary.json, for reports/details.json: one real pair of photographs, no benchmark."""
    numbers = {f"point_error_{whose}": value for whose, value in found["point_error"].items()}
    numbers |= {
        f"{name}_{picture}": scores[name]
        for picture, scores in found["renders"].items()
        for name in (METRIC, "ssim_masked")
        if name in scores
    }
    numbers |= {f"pck_1_{kind}": shares["pck_1"] for kind, shares in found["correspondence"].items()}
    return {name: rounded(value) for name, value in numbers.items()}


def published_curves(folder: Path, model: str) -> list[str]:
    """DVCLive's curves as CSV with the model's label, train/loss.tsv -> train_loss.csv; names without the ending."""
    root = TRAIN / "plots" / "metrics"
    names = []
    for path in sorted(root.rglob("*.tsv")):
        names.append("_".join(path.relative_to(root).with_suffix("").parts))
        points = csv.DictReader(path.read_text("utf8").splitlines(), delimiter="\t")
        write_rows(folder / f"{names[-1]}.csv", [point | {"model": model} for point in points])
    return names


def wide_table(groups_of: dict[str, list[Row]], heading: str, model: str) -> list[Row]:
    """Mean aligned masked PSNR over scenes that weigh the same, a row per group and a column per method, with the number
    of targets and the model."""
    table = []
    for name, rows in groups_of.items():
        aligned = {method: select_rows(rows, method=method, alignment="aligned") for method in METHODS}
        means = {method: scene_weighted(own, METRIC) for method, own in aligned.items()}
        table.append({heading: name} | means | {"n": len(present_scores(aligned["render"], METRIC)), "model": model})
    return table


def intervals_by_bin(rows: list[Row], config: Config) -> dict[str, dict[str, Interval | None]]:
    """Overlap bin -> method -> interval of the mean aligned masked PSNR."""
    return {
        name: {
            method: score_interval(select_rows(rows, bin=name, method=method), config.eval.confidence)
            for method in METHODS
        }
        for name in groups(rows, "bin")
    }


def score_interval(rows: list[Row], confidence: float) -> Interval | None:
    """Interval over scenes of the mean aligned masked PSNR; None without scores."""
    values, scenes = column(select_rows(rows, alignment="aligned"), METRIC)
    return scene_interval(values, scenes, confidence) if values else None


def scene_interval(values: Sequence[float], scenes: Sequence[str], confidence: float) -> Interval:
    """Interval over scenes of the mean of what needs no training; scenes: of each value."""
    return measured(scores_of(values, scenes, ()), None, SeedSpread(None, None), confidence)[0]


def interval_cells(name: str, interval: Interval | None) -> Row:
    """Of a row of a table: a mean, and its limits."""
    values = (interval.mean, interval.low, interval.high) if interval else (None, None, None)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values))


def moved_points(clouds: list[Row], confidence: float) -> Interval | None:
    """Aligned Chamfer distance of the Gaussians minus that of the frozen points, paired; None without both."""
    own, points = (
        {
            row["episode"]: row
            for row in select_rows(clouds, method=method, alignment="aligned")
            if row["chamfer"] is not None
        }
        for method in ("render", "points_splat")
    )
    both = sorted(own.keys() & points.keys())
    differences = [own[name]["chamfer"] - points[name]["chamfer"] for name in both]
    return scene_interval(differences, [own[name]["scene"] for name in both], confidence) if both else None


def against_baselines(rows: list[Row], config: Config, spread: SeedSpread) -> dict[str, Comparison]:
    """This run's renders minus each baseline that needs no training, paired by target; spread: of the run's seed."""
    tables = {method: scored(select_rows(rows, method=method), METRIC) for method in METHODS}
    keys = sorted(tables["render"])
    if not keys:
        return {}
    scenes = [tables["render"][key]["scene"] for key in keys]

    def of(method: str, *seeds: int) -> SceneScores:
        return scores_of([tables[method][key][METRIC] for key in keys], scenes, seeds)

    render = of("render", config.seed)
    return compare_paired({name: (render, of(name), spread) for name in BASELINES}, config.eval.confidence)


def write_plots(folder: Path, rows: list[Row], bins: dict[str, dict[str, Interval | None]], model: str) -> list[str]:
    """CSVs for `dvc plots`, each row with the label of the model; returns the names of the training curves."""
    table = wide_table({name: select_rows(rows, bin=name) for name in bins}, "bin", model)
    for row in table:
        found = bins[row["bin"]]["render"]
        row |= {"render_low": found and found.low, "render_high": found and found.high}
    write_rows(folder / "bins.csv", table)
    for file, heading, name in (("scenes", "scene", "scene"), ("families", "family", "category")):
        members = {group: select_rows(rows, **{name: group}) for group in groups(rows, name)}
        write_rows(folder / f"{file}.csv", wide_table(members, heading, model))
    return published_curves(folder, model)


def probe_rows(probes: dict, model: str) -> list[Row]:
    """reports/plots/probes.csv: how much of each target a readout of each kind of inputs explains, R²."""
    return [
        {"target": f"{target.replace('_', ' ')}, {kind}", "r2": found["r2"], "model": model}
        for target, kinds in probes.get("readouts", {}).items()
        for kind, found in kinds.items()
        if "r2" in found
    ] or [{"target": "none", "r2": None, "model": model}]


def fusion_words(fusion: dict) -> list[tuple[str, str]]:
    """Names and values of what the adapters are and came to do; nothing without one."""
    rows = [("adapter parameters", f"{fusion['parameters']:,}")] if fusion["sites"] else []
    for site, found in fusion["sites"].items():
        place = "encoder tokens" if site == "encoder" else f"token map {site}"
        change = f"changes them by {100 * found['relative_change']:.2f} % of their length"
        others = [f"{name} {value:.4f}" for name, value in found.items() if name != "relative_change"]
        rows.append((f"fusion into {place}", "; ".join([change, *others])))
    return rows
