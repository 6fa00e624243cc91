"""Stage `real_pair`: what the trained model makes of one real pair of photographs, with true depth.

    python -m src.real_pair [key=value ...]

reads data/weights/geometry, data/weights/backbone, data/model, and the pair in scikit-image's wheel; writes
data/real_pair: summary.json, pictures.png

One pair that the bundled network was never made for: an example, no benchmark, and so without an interval.
"""

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src.config import Config
from src.geometry.alignment import camera_in_prediction, context_points, scale_factor
from src.geometry.visibility import depth_tolerance, loss_mask
from src.inference.motorcycle import motorcycle
from src.inference.trained_model import LoadedModel, work_tree_model
from src.mast3r.weight_file import load_geometry
from src.metrics.image import image_scores
from src.page.strip import bytes_of, depth_panel, strip
from src.probes.compared import DISTANCES
from src.probes.correspondence import matches
from src.reproducible.files import fresh_folder, write_json, write_whole
from src.reproducible.seeds import fix_computation
from src.run import memory_advice, run
from src.splatt3r.build import scale_reference
from src.splatt3r.prediction import Prediction, frozen_points, predict
from src.splatt3r.samples import Sample, Views, collate, true_points
from src.splatting.render import Rendering, render

WEIGHTS, REAL_PAIR = Path("data/weights"), Path("data/real_pair")
PAIR_NAME = "motorcycle (scikit-image, Middlebury 2014)"


def pair_sample(model: LoadedModel, views: Views) -> Sample:
    """The pair as contexts and as targets: what is rendered is what went in."""
    _, tokens, features = model.inputs(views.images, views.depth, views.K)
    truth = true_points(views, PAIR_NAME) if model.backbone.true_points else None
    return Sample(views, views, tokens[0], None if features is None else features[0], truth)


def point_error(points: Tensor, views: Views) -> float:
    """Median of |predicted - true| / |true| of both views' points (2, H, W, 3), after one scale factor."""
    truth, known = context_points(views.depth, views.K, views.c2w), views.depth > 0
    off = (points / scale_factor(points, truth, known) - truth)[known].norm(dim=-1)
    return (off / truth[known].norm(dim=-1)).median().item()


def correspondence(sample: Sample, grid: tuple[int, int]) -> dict[str, dict[str, float]]:
    """Shares of matched cells by what they are matched by; without features that do not vary."""
    views, maps = sample.contexts, {"tokens": sample.tokens.mT.unflatten(-1, grid)}
    if sample.features is not None:
        maps["features"] = sample.features
    found = {}
    for kind, each in maps.items():
        matched = matches(each, views.depth, views.K, views.c2w, *depth_tolerance(True))
        if matched is not None and matched.visible:
            shares = {f"pck_{distance}": n / matched.visible for distance, n in zip(DISTANCES, matched.within)}
            found[kind] = shares | {"mutual": matched.mutual / matched.visible, "cells": matched.visible}
    return found


def renders(prediction: Prediction, views: Views) -> tuple[Rendering, Rendering]:
    """Both photographs from all Gaussians of the pair; and the left one from those that the right one's pixels became."""
    gaussians, scale = prediction.output.gaussians[0], prediction.scales[0]
    cameras = camera_in_prediction(views.c2w[0], views.c2w, scale)
    of_right = torch.arange(len(gaussians)) >= len(gaussians) // 2
    return (
        render(gaussians, cameras, views.K, views.size),
        render(gaussians.chosen(of_right), cameras[:1], views.K[:1], views.size),
    )


def seen_by_other(views: Views) -> Tensor:
    """Pixels (2, H, W) of each photograph whose surface the other one shows."""
    tolerance, relative = depth_tolerance(True)
    parts = [(views.depth[v : v + 1], views.K[v : v + 1], views.c2w[v : v + 1]) for v in (0, 1)]
    pairs = ((parts[0], parts[1]), (parts[1], parts[0]))
    return torch.cat([loss_mask(*own, *other, tolerance=tolerance, relative=relative) for own, other in pairs])


def summary_of(
    model: LoadedModel, views: Views, frozen: Tensor, prediction: Prediction, sample: Sample
) -> tuple[dict, dict[str, np.ndarray]]:
    """data/real_pair/summary.json, and the panels of its picture, each (H, W, 3) uint8.

    frozen   (2, H, W, 3)  the geometry network's points, without cameras
    """
    output = prediction.output
    points = torch.stack([output.points1.pts3d[0], output.points2.pts3d[0]])
    both, left_alone = renders(prediction, views)
    seen, scale = seen_by_other(views), prediction.scales[0].item()
    shown = {"left": both.images[0], "right": both.images[1], "left_from_right": left_alone.images[0]}
    scores = {
        name: image_scores(image, views.images[int(name == "right")], seen[int(name == "right")])
        for name, image in shown.items()
    }
    matched = correspondence(sample, model.network.grid(views.images))
    absent = {}
    if model.backbone.channels and "features" not in matched:
        absent["Matches of one real pair by the features"] = "they are the same everywhere"
    summary = {
        "pair": PAIR_NAME,
        "resolution": [*views.size],
        "cameras": "given" if model.posed else "not given",
        "backbone": model.record["backbone"]["label"],
        "geometry": model.record["geometry"]["label"],
        "known": (views.depth[0] > 0).float().mean().item(),
        "median_depth": views.depth[0][views.depth[0] > 0].median().item(),
        "scale": prediction.geometry_scales[0].item(),
        "point_error": {"geometry": point_error(frozen, views), "model": point_error(points, views)},
        "correspondence": matched,
        "renders": {
            name: {key: value for key, value in each.items() if value is not None} for name, each in scores.items()
        },
        "seen": {"left": seen[0].float().mean().item(), "right": seen[1].float().mean().item()},
        "absent": absent,
    }
    panels = {
        "left photograph": bytes_of(views.images[0]),
        "right photograph": bytes_of(views.images[1]),
        "left, from both": bytes_of(both.images[0]),
        "right, from both": bytes_of(both.images[1]),
        "left, from right's": bytes_of(left_alone.images[0]),
        "depth, from both": depth_panel(both.depths[0].numpy() / scale, views.depth[0].numpy()),
        "true depth": depth_panel(views.depth[0].numpy(), views.depth[0].numpy()),
    }
    return summary, panels


@memory_advice()
@torch.inference_mode()
def main(config: Config) -> None:
    fix_computation(config.threads)
    model = work_tree_model(config)
    views = motorcycle(model.resolution)
    sample = pair_sample(model, views)
    batch = collate([sample])
    prediction = predict(model.network, batch, scale_reference(model.network, WEIGHTS / "geometry"))
    frozen = torch.cat(frozen_points(load_geometry(WEIGHTS / "geometry"), batch))
    summary, panels = summary_of(model, views, frozen, prediction, sample)
    error, scored = summary["point_error"], summary["renders"]["left_from_right"]
    errors = [f"{100 * error[whose]:.1f} %" for whose in ("model", "geometry")]
    note = f"median relative point error {errors[0]}, of the frozen geometry {errors[1]}"
    if "psnr_masked" in scored:
        note += f"; left from right's Gaussians: masked PSNR {scored['psnr_masked']:.2f} dB"
    picture = io.BytesIO()
    title = f"one real pair, no benchmark: {PAIR_NAME} · {model.words}"
    strip(panels, title, note).save(picture, "PNG", optimize=True)
    with fresh_folder(REAL_PAIR) as folder:
        write_json(folder / "summary.json", summary)
        write_whole(folder / "pictures.png", picture.getvalue())


if __name__ == "__main__":
    run(main, "real_pair")
