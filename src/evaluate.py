"""Stage `evaluate`: score the renders of target views. Reads files only, never a model.

    python -m src.evaluate [key=value ...]

reads data/renders, data/scenes, data/weights/lpips_eval; writes data/eval (see src/results/evaluation.py)
"""

import math
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from src.config import Config
from src.episodes.episodes import LISTED_BIN
from src.geometry.alignment import context_points
from src.metrics.image import Lpips, image_scores
from src.metrics.perceptual import Perceptual
from src.metrics.points import DEPTH_SCORES, CloudScore, cloud_score, depth_scores, scale_error
from src.metrics.splatt3r import pooled, splatt3r_scores
from src.renders.episode_file import Rendered
from src.reproducible.seeds import fix_computation
from src.reproducible.threads import in_threads
from src.results.evaluation import write_evaluation
from src.results.tables import ALIGNMENTS, BINS, METHODS, Row, groups, select_rows, summarise
from src.run import run
from src.scenes.scene import Scene, SceneRecord, View, all_in_metres, read_index

SCENES, RENDERS, EVAL = Path("data/scenes"), Path("data/renders"), Path("data/eval")
LPIPS = Path("data/weights/lpips_eval")
CLOUDS = {"render": "", "points_splat": "points_"}  # method -> how its tensors `depth`, `means` and `scale` begin
BELIEVED_SCALES = 1e-3, 1e3  # predicted over true scale; a pair outside has no scale to speak of


def all_scores(render: Tensor, target: Tensor, mask: Tensor, lpips: Lpips | None) -> Row:
    """All scores of one render (3, H, W) against its target image but LPIPS, which is had for several pictures at once;
    mask (H, W) bool; lpips, the network of Splatt3R's own scores."""
    return (
        image_scores(render, target, mask)
        | splatt3r_scores(render[None], target[None], mask[None], lpips)
        | {"mask_share": mask.double().mean().item()}
    )


def target_rows(rendered: Rendered, views: list[View], perceptual: Perceptual, in_metres: bool) -> list[Row]:
    """Scores of every target, method and alignment of one episode; views are the targets', in order. Depths of scenes
    without a metre are compared at the prediction's size, as distances are (`cloud_rows`), and not as they came out."""
    rows, unit = [], 1.0 if in_metres else rendered.tensors["scale"].item()
    names = {pair: rendered.tensor_name(*pair) for pair in product(METHODS, ALIGNMENTS)}
    for number, view in enumerate(views):
        mask = rendered.tensors["mask"][number].bool()
        pictures = {name: rendered.tensors[name][number].float() for name in names.values()}
        known = {
            name: all_scores(picture, view.image, mask, perceptual.published) for name, picture in pictures.items()
        }
        distances = perceptual.scores(pictures, names, view.image, mask, (rendered.about["scene"], view.name))
        for (method, alignment), name in names.items():
            depth, kept = dict.fromkeys(DEPTH_SCORES), f"{CLOUDS[method]}depth" if method in CLOUDS else None
            if kept in rendered.tensors and (in_metres or alignment == "aligned"):
                shown = rendered.picture(kept, alignment)[number].numpy()
                depth = depth_scores(unit * shown, unit * view.depth.numpy(), mask.numpy())
            row = rendered.names | {"target": view.name, "method": method, "alignment": alignment}
            rows.append(row | known[name] | distances[method, alignment] | depth)
    return rows


def cloud_rows(rendered: Rendered, contexts: list[View], taus: list[float], in_metres: bool) -> list[Row]:
    """Predicted means, and the frozen geometry's points, against the true points of both contexts, pixels with valid
    depth, in view 1's frame; no rows without depth. Scenes in metres: as predicted, and with the prediction's scale
    corrected. Other scenes: true points are brought to the prediction's scale, so distances are metres as the geometry
    network has them, and neither a scale error nor a raw row exists. Means that are not finite have scores that are not.
    """
    depth, K, c2w = (torch.stack([getattr(view, key) for view in contexts]) for key in ("depth", "K", "c2w"))
    truth = context_points(depth, K, c2w).reshape(-1, 3)
    valid = (depth > 0).flatten()
    rows = []
    for (method, start), alignment in product(CLOUDS.items(), ALIGNMENTS if in_metres else ("aligned",)):
        if f"{start}means" not in rendered.tensors:
            continue  # pictures that others rendered lack them
        means, scale = rendered.tensors[f"{start}means"].double(), rendered.tensors[f"{start}scale"].item()
        predicted = means / scale if in_metres and alignment == "aligned" else means
        wanted = truth if in_metres else truth * scale
        score = (
            cloud_score(predicted[valid].numpy(), wanted[valid].double().numpy(), taus)
            if means.isfinite().all()
            else CloudScore(*[math.nan] * 3, dict.fromkeys(taus, math.nan))
        )
        if score is None:
            return []
        rows.append(
            rendered.names
            | {
                "method": method,
                "alignment": alignment,
                "chamfer": score.chamfer,
                "accuracy": score.accuracy,
                "completeness": score.completeness,
            }
            | {f"fscore_{tau:g}": score.fscores[tau] for tau in taus}
            | {"scale": scale, "scale_error": scale_error(scale) if in_metres else None}
        )
    return rows


def finite(rows: list[Row]) -> tuple[list[Row], dict[str, int]]:
    """The rows with numbers that are not finite made absent, and how many there were of each metric."""
    broken, kept = {}, []
    for row in rows:
        lost = [name for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
        kept.append(row | dict.fromkeys(lost))
        for name in lost:
            broken[name] = broken.get(name, 0) + 1
    return kept, broken


def by_method(rows: list[Row]) -> dict:
    """method -> alignment -> metric -> mean, std, n; scores of Splatt3R's definitions are pooled as published."""
    tables = {
        method: {alignment: select_rows(rows, method=method, alignment=alignment) for alignment in ALIGNMENTS}
        for method in METHODS
    }
    return {
        method: {alignment: summarise(table) | pooled(table) for alignment, table in alignments.items()}
        for method, alignments in tables.items()
    }


def absences(
    rows: list[Row], clouds: list[Row], perceptual: Perceptual, in_metres: bool, broken: dict[str, int]
) -> dict[str, str]:
    """What could not be measured, and why, in words; broken: metric -> number of scores that were not finite."""
    reasons = {
        f"{count} scores of {name}": "they came out as infinite or not a number, so the render or the cloud "
        "behind them is broken; means are of the others"
        for name, count in broken.items()
    }
    reasons |= perceptual.absences()
    if not clouds:
        reasons["Chamfer distance and F-score"] = "the context views have no depth to compare with"
    renders = select_rows(rows, method="render", alignment="aligned")
    unknown = sum(row["depth_abs_rel"] is None for row in renders)
    if unknown == len(renders):
        reasons["Depth error"] = "no visible target pixel has a true depth"
    elif unknown:
        reasons[f"Depth error of {unknown} targets"] = "no visible pixel of them has a true depth"
    if not in_metres:
        reasons["Scale error, and depths and distances as predicted"] = (
            "these scenes are not in metres, so no true scale exists; aligned depths and points are compared in metres as "
            "the geometry network has them"
        )
    with_depth = {cloud["episode"] for cloud in clouds}
    blind = len({(row["episode"], row["target"]) for row in rows if row["episode"] not in with_depth})
    if blind:
        reasons[f"What the contexts of {blind} targets have seen"] = (
            "they have no depth to tell it, so the masked scores of these targets count all valid pixels"
        )
    unmasked = len({(row["episode"], row["target"]) for row in rows if row["psnr_masked"] is None})
    if unmasked:
        reasons[f"Masked scores of {unmasked} targets"] = "no pixel of them is known to be visible in a context view"
    found = {row["bin"] for row in rows}
    for name in BINS:
        if found & set(BINS) and name not in found:
            reasons[f"Overlap bin {name}"] = "no test pair overlaps that much, n = 0"
    return reasons


def summary(
    rows: list[Row],
    clouds: list[Row],
    resolution: tuple[int, int],
    perceptual: Perceptual,
    in_metres: bool,
    dropped: list[str],
    broken: dict[str, int],
) -> dict:
    return {
        "methods": by_method(rows),
        "bins": {name: by_method(select_rows(rows, bin=name)) for name in groups(rows, "bin")},
        "categories": {name: by_method(select_rows(rows, category=name)) for name in groups(rows, "category")},
        "cloud": {
            method: {a: summarise(select_rows(clouds, method=method, alignment=a)) for a in ALIGNMENTS}
            for method in CLOUDS
        },
        "counts": {
            "episodes": len({row["episode"] for row in rows}),
            "scenes": len({row["scene"] for row in rows}),
            "targets": len({(row["episode"], row["target"]) for row in rows}),
        },
        "resolution": list(resolution),
        "units": "metre" if in_metres else "scene",
        "lpips": list(perceptual.networks),
        "absent": absences(rows, clouds, perceptual, in_metres, broken)
        | {
            f"All scores of {name}": f"its predicted over true scale lies outside {BELIEVED_SCALES}" for name in dropped
        },
    }


def index_scores(rows: list[Row], repeated: list[Row]) -> dict:
    """Whole-image scores of the renders of all targets that an evaluation index lists, by alignment: means over images,
    as published ones are, with the `repeated` targets that are contexts too; {} without such an index."""
    listed = [row for row in rows if row["bin"].partition("_")[0] == LISTED_BIN]
    found = {}
    for alignment in ALIGNMENTS if listed else ():
        entries = summarise(select_rows(listed + repeated, method="render", alignment=alignment))
        scores = {f"{name}_index": entries[name]["mean"] for name in ("psnr", "ssim", "lpips") if name in entries}
        counts = {"targets_index": entries["psnr"]["n"]} if "psnr" in entries else {}
        own = select_rows(repeated, method="render", alignment=alignment)
        found[alignment] = scores | counts | {"repeated_index": len(own)}
    return found


def episode_rows(
    path: Path, index: dict[str, SceneRecord], perceptual: Perceptual, taus: list[float], in_metres: bool
) -> tuple[list[Row], list[Row], list[Row]]:
    """Both tables' rows of one file of data/renders, and those of targets that an evaluation index repeats; none when its
    pair's scale is not believed."""
    rendered = Rendered.read(path)
    if not BELIEVED_SCALES[0] <= rendered.tensors["scale"].item() <= BELIEVED_SCALES[1]:
        return [], [], []
    scene = Scene.open(SCENES / index[rendered.about["scene"]].file)
    names, repeated = rendered.about["targets"], rendered.about.get("repeated", [])
    if len(rendered.tensors["mask"]) == len(names) + len(repeated):  # pictures that others rendered lack them
        names = names + repeated
    contexts, targets = (
        [scene.view(name, rendered.resolution) for name in each] for each in (rendered.about["contexts"], names)
    )
    scored = target_rows(rendered, targets, perceptual, in_metres)
    return (
        [row for row in scored if row["target"] not in repeated],
        cloud_rows(rendered, contexts, taus, in_metres),
        [row for row in scored if row["target"] in repeated],
    )


def main(config: Config) -> None:
    fix_computation(1)  # of each of the threads below, which score different episodes
    perceptual = Perceptual.load(config.eval.lpips, config.eval.lpips_rows, LPIPS)
    index = {record.id: record for record in read_index(SCENES)}
    in_metres = all_in_metres(index.values())
    files = sorted(RENDERS.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{RENDERS} holds no renders to score; run dvc repro render.")

    def scored(path: Path) -> tuple[list[Row], list[Row], list[Row]]:
        return episode_rows(path, index, perceptual, config.eval.fscore_tau, in_metres)

    tables = list(in_threads(scored, files, config.threads, "evaluate"))
    (rows, broken), (clouds, holes), (repeated, _) = (
        finite([row for table in tables for row in table[kind]]) for kind in range(3)
    )
    dropped = [path.stem for path, (scores, *_) in zip(files, tables) if not scores]
    if not rows:
        raise ValueError(
            f"The predicted over true scale of all {len(files)} test pairs lies outside {BELIEVED_SCALES}; the "
            "geometry network sees nothing in these images, choose another in model.geometry."
        )
    resolution = Rendered.read(files[0]).resolution
    found = summary(rows, clouds, resolution, perceptual, in_metres, dropped, broken | holes)
    if listed := index_scores(rows, repeated):
        found["index"] = listed
    write_evaluation(EVAL, found, rows, clouds)


if __name__ == "__main__":
    run(main, "evaluate")
