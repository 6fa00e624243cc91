"""What the model makes of a batch of samples: Gaussians from the contexts, their scale, and renders of the targets."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from src.geometry.alignment import baseline_factor, camera_in_prediction, context_points, depth_factor, scale_factor
from src.geometry.visibility import depth_tolerance, loss_mask
from src.mast3r.network import Mast3r
from src.splatt3r.network import SplatOutput, Splatt3R
from src.splatt3r.posed import Cameras, OwnViews, PosedSplatt3R, own_views, unposed_points
from src.splatt3r.samples import Sample, Views
from src.splatting.gaussians import Gaussians
from src.splatting.render import Rendering, render


@dataclass(frozen=True)
class Prediction:
    """Of a batch of B pairs.

    output           of the network
    scales           (B,)              output over true size
    geometry         (B, 2, H, W, 3)   points of both contexts as the frozen geometry network has them; in the posed track
                                       after the views were compared with each other
    geometry_scales  (B,)              those over true size
    """

    output: SplatOutput
    scales: Tensor
    geometry: Tensor
    geometry_scales: Tensor


def splat(network: Splatt3R, images: Tensor, tokens: Tensor, features: Tensor | None) -> SplatOutput:
    """Gaussians and points of a batch of pairs, in the frame of each first context; no cameras are needed.

    images            (B, 2, 3, H, W)  in [0, 1]
    tokens, features  as in a batch of `Sample`
    """
    tokens = encoded(network, images, tokens)
    features1, features2 = (None, None) if features is None else (features[:, 0], features[:, 1])
    return network(tokens[:, 0], tokens[:, 1], images[:, 0], images[:, 1], features1, features2)


def encoded(network: Splatt3R, images: Tensor, tokens: Tensor) -> Tensor:
    """Encoder tokens (B, 2, N, E) of images (B, 2, 3, H, W): the cached ones, which are the frozen encoder's, or new."""
    if not network.encoder_trainable:
        return tokens
    return torch.stack([network.encode(images[:, v] * 2 - 1) for v in range(2)], 1)


def splat_posed(
    network: PosedSplatt3R, images: Tensor, tokens: Tensor, features: Tensor | None, cameras: Cameras
) -> SplatOutput:
    """`splat` of the network that is given the contexts' cameras."""
    return network(posed_views(network, images, tokens, features), images, cameras, features)[0]


def posed_views(network: PosedSplatt3R, images: Tensor, tokens: Tensor, features: Tensor | None) -> OwnViews:
    """What the network says of each view before it is told the cameras; arguments as of `splat`."""
    tokens = encoded(network, images, tokens)
    maps = (None, None) if features is None else (features[:, 0], features[:, 1])
    return network.look(tokens[:, 0], tokens[:, 1], network.grid(images[:, 0]), *maps)


def predict_posed(network: PosedSplatt3R, batch: Sample, frozen: Mast3r | None) -> tuple[SplatOutput, Tensor, Tensor]:
    """Output of the network that is given the contexts' cameras, its scale (B,), and its points (B, 2, H, W, 3) before
    any readout. The scale is the frozen network's."""
    images, grid = batch.contexts.images, network.grid(batch.contexts.images[:, 0])
    views = posed_views(network, images, batch.tokens, batch.features)
    with torch.no_grad():
        reference = views if frozen is None else own_views(frozen, batch.tokens[:, 0], batch.tokens[:, 1], grid)
        found = posed_scales(frozen or network, reference, batch)
    relative = camera_in_prediction(batch.contexts.c2w[:, 0], batch.contexts.c2w[:, 1:], found)[:, 0]
    output, points = network(views, images, Cameras(batch.contexts.K, relative, found), batch.features)
    return output, found, points.detach()


def posed_scales(network: Mast3r, views: OwnViews, batch: Sample) -> Tensor:
    """Predicted over true size (B,) of each pair: of the depths of its views where they are known, else of the distance
    between its cameras, for which the second view's points in the first one's frame are predicted too."""
    depth, K, c2w = batch.contexts.depth, batch.contexts.K, batch.contexts.c2w
    known = (depth > 0).flatten(1).any(1)
    if known.all():
        return torch.stack([depth_factor(*each) for each in zip(views.depth, depth)])
    second = unposed_points(network, views, network.grid(batch.contexts.images[:, 0]))[:, 1]
    return torch.stack(
        [
            depth_factor(views.depth[b], depth[b]) if known[b] else baseline_factor(second[b], K[b, 1], c2w[b])
            for b in range(len(depth))
        ]
    )


def predict(network: Splatt3R, batch: Sample, frozen: Mast3r | None = None, in_metres: bool = True) -> Prediction:
    """Gaussians and points of a batch of samples, in the frame of each first context.

    frozen    the geometry network that scales are taken from, where the model's own points may differ from its
    in_metres whether the samples are, and so their true points; else these take the predicted size, since the sizes of
              Gaussians are the network's metres
    """
    if isinstance(network, PosedSplatt3R):
        output, found, points = predict_posed(network, batch, frozen)
    else:
        output = splat(network, batch.contexts.images, batch.tokens, batch.features)
        maps = [output.points1.pts3d, output.points2.pts3d] if frozen is None else frozen_points(frozen, batch)
        points = torch.stack(maps, 1).detach()  # (B, 2, H, W, 3)
        found = scales(points, batch.contexts)  # (B,)
    if batch.true_points is None:
        return Prediction(output, found, points, found)
    wanted = torch.ones_like(found) if in_metres else found
    truth = batch.true_points * wanted[:, None, None, None, None]
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
def frozen_points(frozen: Mast3r, batch: Sample) -> list[Tensor]:
    """The geometry network's points of both contexts, each (B, H, W, 3), from its cached tokens."""
    tokens, grid = batch.tokens.float(), frozen.grid(batch.contexts.images[:, 0])
    lists = frozen.decode(tokens[:, 0], tokens[:, 1], grid, grid)
    return [frozen.head(view, each, grid).pts3d for view, each in enumerate(lists, 1)]


def scales(points: Tensor, contexts: Views) -> Tensor:
    """Predicted over true size (B,) of each pair: of the distances of its points (B, 2, H, W, 3) where the contexts have
    depth, else of the distance between its cameras."""
    depth, K, c2w = contexts.depth, contexts.K, contexts.c2w
    truth, valid = context_points(depth, K, c2w), depth > 0
    return torch.stack(
        [
            scale_factor(points[b], truth[b], valid[b])
            if valid[b].any()
            else baseline_factor(points[b, 1], K[b, 1], c2w[b])
            for b in range(len(points))
        ]
    )


def render_targets(gaussians: Gaussians, batch: Sample, index: int, scale: Tensor | float) -> Rendering:
    """Targets of sample number `index` of the batch seen through one set of Gaussians in its first context's frame; `scale`
    multiplies the true camera translations (1 trusts the prediction's metres)."""
    cameras = camera_in_prediction(batch.contexts.c2w[index, 0], batch.targets.c2w[index], scale)
    return render(gaussians, cameras, batch.targets.K[index], batch.targets.size)


def target_mask(batch: Sample, in_metres: bool, mode: str) -> Tensor:
    """Target pixels that a context has seen, (B, T, H, W) bool; all valid ones where the contexts have no depth to tell.
    `in_metres` says whether depths are; `mode` is one of MASKS."""
    targets, contexts = ((views.depth, views.K, views.c2w) for views in (batch.targets, batch.contexts))
    tolerance, relative = depth_tolerance(in_metres)
    mask = loss_mask(*targets, *contexts, mode=mode, tolerance=tolerance, relative=relative)
    unknown = ~(batch.contexts.depth > 0).flatten(1).any(1)  # (B,)
    return (mask | unknown[:, None, None, None]) & batch.targets.valid
