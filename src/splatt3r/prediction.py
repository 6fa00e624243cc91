"""What the model makes of a batch of samples: Gaussians from the contexts, their scale, and renders of the targets."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from src.geometry.alignment import baseline_factor, camera_in_prediction, context_points, scale_factor
from src.geometry.visibility import loss_mask
from src.mast3r.network import Mast3r
from src.splatt3r.network import SplatOutput, Splatt3R
from src.splatting.gaussians import Gaussians
from src.splatting.render import Rendering, render

METRIC_TOLERANCE, RELATIVE_TOLERANCE = 0.1, 0.05  # of the loss mask: metres, or share of the depth without a metric


@dataclass(frozen=True)
class Prediction:
    """Of a batch of B pairs.

    output           of the network
    scales           (B,)              output over true size
    geometry         (B, 2, H, W, 3)   points of both contexts as the frozen geometry network has them
    geometry_scales  (B,)              those over true size
    """

    output: SplatOutput
    scales: Tensor
    geometry: Tensor
    geometry_scales: Tensor


def splat(network: Splatt3R, sample: dict[str, Tensor]) -> SplatOutput:
    """Gaussians and points of a batch of pairs, in the frame of each first context; no cameras are needed.

    sample    images (B, 2 or more, 3, H, W), tokens and, with a backbone, features as in `Samples`
    """
    tokens, images, features = sample["tokens"], sample["images"], sample.get("features")
    if network.encoder_trainable:  # cached tokens are the frozen encoder's
        tokens = torch.stack([network.encode(images[:, v] * 2 - 1) for v in range(2)], 1)
    features1, features2 = (None, None) if features is None else (features[:, 0], features[:, 1])
    return network(tokens[:, 0], tokens[:, 1], images[:, 0], images[:, 1], features1, features2)


def predict(
    network: Splatt3R, sample: dict[str, Tensor], frozen: Mast3r | None = None, metric: bool = True
) -> Prediction:
    """Gaussians and points of a batch of samples (see `Samples`), in the frame of each first context.

    frozen    the geometry network that scales are taken from, where the model's own points may differ from its
    metric    whether the samples are in metres, in which true points then are; else these take the predicted size, since
              the sizes of Gaussians are the network's metres
    """
    output = splat(network, sample)
    points = [output.points1.pts3d, output.points2.pts3d] if frozen is None else frozen_points(frozen, sample)
    points = torch.stack(points, 1).detach()
    found = scales(points, sample)
    if "true_points" not in sample:
        return Prediction(output, found, points, found)
    wanted = torch.ones_like(found) if metric else found
    truth = sample["true_points"] * wanted[:, None, None, None, None]
    return Prediction(with_true_points(output, truth, found / wanted), wanted, points, found)


def with_true_points(output: SplatOutput, truth: Tensor, scales: Tensor) -> SplatOutput:
    """`output` as if the point heads had been right: points, and the Gaussians around them, moved to the true points.

    truth   (B, 2, H, W, 3)  in view 1's camera frame; where it is NaN the predicted point is kept, at the size of `truth`
    scales  (B,)             predicted over the size of `truth`
    """
    maps, moved = [], []
    for view, each in enumerate((output.points1, output.points2)):
        own = each.pts3d.detach()
        points = truth[:, view].where(truth[:, view].isfinite(), own / scales[:, None, None, None])
        maps.append(replace(each, pts3d=points))
        moved.append((points - own).flatten(1, 2))
    gaussians = replace(output.gaussians, means=output.gaussians.means + torch.cat(moved, 1))
    return SplatOutput(gaussians, *maps)


@torch.no_grad()
def frozen_points(frozen: Mast3r, sample: dict[str, Tensor]) -> list[Tensor]:
    """The geometry network's points of both contexts, each (B, H, W, 3), from its cached tokens."""
    tokens, grid = sample["tokens"].float(), frozen.grid(sample["images"][:, 0])
    lists = frozen.decode(tokens[:, 0], tokens[:, 1], grid, grid)
    return [frozen.head(view, each, grid).pts3d for view, each in enumerate(lists, 1)]


def scales(points: Tensor, sample: dict[str, Tensor]) -> Tensor:
    """Predicted over true size (B,) of each pair: of the distances of its points (B, 2, H, W, 3) where the contexts have
    depth, else of the distance between its cameras."""
    depth, K, c2w = (sample[key][:, :2] for key in ("depth", "K", "c2w"))
    truth, valid = context_points(depth, K, c2w), depth > 0
    return torch.stack(
        [
            scale_factor(points[b], truth[b], valid[b])
            if valid[b].any()
            else baseline_factor(points[b, 1], K[b, 1], c2w[b])
            for b in range(len(points))
        ]
    )


def render_targets(gaussians: Gaussians, sample: dict[str, Tensor], index: int, scale: Tensor | float) -> Rendering:
    """Targets of sample number `index` seen through one set of Gaussians in its first context's frame; `scale`
    multiplies the true camera translations (1 trusts the prediction's metres)."""
    cameras = camera_in_prediction(sample["c2w"][index, 0], sample["c2w"][index, 2:], scale)
    height, width = sample["images"].shape[-2:]
    return render(gaussians, cameras, sample["K"][index, 2:], (width, height))


def target_mask(sample: dict[str, Tensor], metric: bool, mode: str) -> Tensor:
    """Target pixels that a context has seen, (B, T, H, W) bool; all valid ones where the contexts have no depth to tell.
    `metric` says whether depths are metres."""
    targets, contexts = ([sample[key][:, part] for key in ("depth", "K", "c2w")] for part in (slice(2, None), slice(2)))
    tolerance = METRIC_TOLERANCE if metric else RELATIVE_TOLERANCE
    mask = loss_mask(*targets, *contexts, mode=mode, tolerance=tolerance, relative=not metric)
    unknown = ~(contexts[0] > 0).flatten(1).any(1)
    return (mask | unknown[:, None, None, None]) & sample["valid"][:, 2:]
