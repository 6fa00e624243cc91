"""The network where the contexts' cameras are given: Gaussians of each view in its own camera, on exact rays.

The setting of pixelSplat (Charatan et al. 2024, arXiv 2312.12337) and MVSplat (Chen et al. 2024, arXiv 2403.14627), on a
two-view network that needs no cameras: what these tell replaces its guess of focal length and relative pose.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from src.geometry.cameras import transform, turned_quats, unproject
from src.geometry.plane_sweep import swept_depth
from src.mast3r.attention import Grid
from src.mast3r.network import Mast3r, PointMap
from src.splatt3r.gaussian_head import activate
from src.splatt3r.network import GROUPS, SplatOutput, Splatt3R
from src.splatt3r.readout import DepthReadout, corrected_depth, patch_inputs
from src.splatting.gaussians import Gaussians
from src.splatting.sh import turned

LEAST_DEPTH = 0.02  # depth in the network's units, below which no prediction is believed
SIZE_DISTANCE = 2.0  # at which Gaussians have the sizes that geometries.<name> states; elsewhere they are in proportion


@dataclass(frozen=True)
class Cameras:
    """Of a batch of pairs. K (B, 2, 3, 3) in pixels; relative (B, 4, 4), c2w of view 2 in view 1's camera frame, in the
    network's units; scale (B,), those over the unit in which depth features are."""

    K: Tensor
    relative: Tensor
    scale: Tensor


@dataclass(frozen=True)
class OwnViews:
    """What the network says of each view when it is the first of the pair, both views of a batch stacked.

    tokens    lists as of `Mast3r.decode`, (2 B, N, C): all first views, then all second ones
    partners  the same of each view's partner, as the second of the pair
    points    (B, 2, H, W, 3)  in the view's own camera
    conf      (B, 2, H, W)     confidence > 1
    """

    tokens: list[Tensor]
    partners: list[Tensor]
    points: Tensor
    conf: Tensor

    @property
    def depth(self) -> Tensor:
        """(B, 2, H, W) z-depth in the view's own camera."""
        return self.points[..., 2].clamp_min(LEAST_DEPTH)


def own_views(network: Mast3r, tokens1: Tensor, tokens2: Tensor, grid: Grid) -> OwnViews:
    """Both views as the first of their pair: the decoder runs in both orders, the encoder's tokens (B, N, E) serve both."""
    lists, partners = network.decode(torch.cat([tokens1, tokens2]), torch.cat([tokens2, tokens1]), grid, grid)
    points = (
        network._points(network.downstream_head1, lists, grid)
        if isinstance(network, Splatt3R)
        else network.head(1, lists, grid)
    )
    batch = len(tokens1)
    return OwnViews(lists, partners, by_view(points.pts3d, batch), by_view(points.conf, batch))


@torch.no_grad()
def unposed_points(network: Mast3r, views: OwnViews, grid: Grid) -> Tensor:
    """Points (B, 2, H, W, 3) of both views in view 1's camera frame, as without cameras."""
    batch = len(views.points)
    second = network.head(2, [x[:batch] for x in views.partners], grid).pts3d
    return torch.stack([views.points[:, 0], second], 1)


def by_view(stacked: Tensor, batch: int) -> Tensor:
    """(2 B, ...) -> (B, 2, ...)"""
    return stacked.unflatten(0, (2, batch)).transpose(0, 1)


class PosedSplatt3R(Splatt3R):
    """One Gaussian head for both views, and a readout of depth that features can correct.

    Arguments are those of `Splatt3R`; at fusion site `depth` features enter the readout alone. Until the readout has a
    solution, see `DepthReadout`, the model with features is the one without, bit for bit.
    """

    def __init__(self, mast3r, *arguments, fusion=None, **options):
        at_depth = fusion is not None and fusion.site == "depth"
        super().__init__(mast3r, *arguments, fusion=None if at_depth else fusion, **options)
        self.fusion_config = fusion
        width = mast3r.enc_embed_dim + mast3r.dec_embed_dim + 16 + 5
        self.readout = DepthReadout(width + (fusion.channels if at_depth else 0))
        if at_depth:
            self.fusion = nn.ModuleDict()
        self.apply_strategy("feature_extraction")

    def parameter_groups(self) -> dict[str, dict[str, nn.Parameter]]:
        """As of `Splatt3R`, but the second view's Gaussian head, which nothing reads here, is in no group."""
        groups = super().parameter_groups()
        second = GROUPS["gaussian_head"][1]
        groups["gaussian_head"] = {n: p for n, p in groups["gaussian_head"].items() if not n.startswith(second)}
        return groups

    def look(
        self, tokens1: Tensor, tokens2: Tensor, grid: Grid, features1: Tensor | None, features2: Tensor | None
    ) -> OwnViews:
        """The geometry network in both orders; features join its tokens where they are fused at site `encoder`."""
        self._check(tokens1, tokens2, features1, features2)
        tokens1 = self._fuse("encoder", tokens1, features1, grid)
        tokens2 = self._fuse("encoder", tokens2, features2, grid)
        trained = {"decoder", "point_head"} & self.trained_groups or tokens1.requires_grad or tokens2.requires_grad
        with torch.set_grad_enabled(torch.is_grad_enabled() and bool(trained)):
            return own_views(self, tokens1, tokens2, grid)

    def forward(
        self,
        views: OwnViews,
        images: Tensor,
        cameras: Cameras,
        features: Tensor | None = None,
    ) -> tuple[SplatOutput, Tensor]:
        """Gaussians of a batch of pairs, in view 1's camera frame and the network's units.

        views     of `look`
        images    (B, 2, 3, H, W)   in [0, 1]
        features  (B, 2, C, gh, gw) of the backbone; None exactly when nothing is fused
        returns   also the points (B, 2, H, W, 3) before the readout, in view 1's camera frame
        """
        batch, grid = len(images), self.grid(images[:, 0])
        # 1. The views are compared along the rays that are known now.
        predicted = views.depth
        swept = predicted * (swept_depth(predicted, images, cameras.K, cameras.relative) / predicted).detach()
        # 2. The readout corrects what tokens and features know better.
        depth = torch.stack([self._corrected(views, swept, cameras, features, view, grid) for view in range(2)], 1)
        # 3. One Gaussian per pixel on its ray, in the view's own camera.
        points = unproject(depth, cameras.K)  # (B, 2, H, W, 3)
        sets = [
            self._own_gaussians(
                [x[view * batch :][:batch] for x in views.tokens],
                points[:, view],
                images[:, view],
                None if features is None else features[:, view],
                grid,
            )
            for view in range(2)
        ]
        # 4. The second view's are carried into the first one's frame.
        gaussians = Gaussians.cat([sets[0], carried(sets[1], cameras.relative)])
        placed, before = (in_first_frame(each, cameras.relative) for each in (points, unproject(swept, cameras.K)))
        maps = [PointMap(placed[:, view], views.conf[:, view]) for view in range(2)]
        return SplatOutput(gaussians, *maps), before

    def _corrected(
        self, views: OwnViews, swept: Tensor, cameras: Cameras, features: Tensor | None, view: int, grid: Grid
    ) -> Tensor:
        """Depth (B, H, W) of one view after the readout."""
        batch = len(swept)
        encoded, decoded = (x[view * batch :][:batch] for x in (views.tokens[0], views.tokens[-1]))
        at_depth = self.fusion_config is not None and self.fusion_config.site == "depth"
        known = features[:, view] if features is not None and at_depth else None
        with torch.no_grad():
            inputs = patch_inputs(encoded, decoded, swept[:, view], cameras.scale, known, grid)
            factor = corrected_depth(swept[:, view], self.readout(inputs, grid)) / swept[:, view]
        return swept[:, view] * factor

    def _own_gaussians(
        self, tokens: list[Tensor], points: Tensor, images: Tensor, features: Tensor | None, grid: Grid
    ) -> Gaussians:
        """Gaussians of one view in its own camera, sizes and offsets in proportion to its depth."""
        raw = self._raw_gaussians(self.downstream_head1, tokens, images, features, grid)
        unit = points[..., 2].flatten(1)[..., None].detach() / SIZE_DISTANCE
        with torch.autocast(images.device.type, enabled=False):
            return activate(raw, points, images, self.use_offsets, self.limits, unit)


def in_first_frame(points: Tensor, relative: Tensor) -> Tensor:
    """Points (B, 2, H, W, 3) of both views, each in its own camera's frame, in view 1's; relative (B, 4, 4)."""
    return torch.stack([points[:, 0], transform(relative, points[:, 1])], 1)


def carried(gaussians: Gaussians, pose: Tensor) -> Gaussians:
    """A batch of sets of Gaussians after rigid transforms (B, 4, 4)."""
    rotation = pose[:, :3, :3]
    return replace(
        gaussians,
        means=transform(pose, gaussians.means),
        quats=turned_quats(rotation, gaussians.quats),
        sh=turned(gaussians.sh, rotation),
    )
