"""Controls: what a result must beat before it is a result about a backbone."""

import hashlib

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_unshuffle

from src.backbones.base import Backbone
from src.backbones.dinov2 import DinoV2
from src.geometry.surface import cell_medians, cell_normals
from src.mast3r.attention import Grid

UNINFORMED = "The backbone of this run is a control: its features carry no learned knowledge."


def generator_of(image: Tensor, seed: int) -> torch.Generator:
    """A generator that depends on the pixels of image (3, H, W) in [0, 1] and the seed alone, not on a batch."""
    pixels = (image * 255).round().to(torch.uint8).cpu().numpy().tobytes()
    digest = hashlib.sha256(seed.to_bytes(8, "big") + pixels).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


class Nothing(Backbone):
    """The baseline: no features at all."""

    name, title, channels, patch_size = "none", "no backbone", 0, 16

    def features(self, images: Tensor) -> Tensor:
        return images.new_zeros(len(images), 0, *self.grid(images))


class Oracle(Nothing):
    """A ceiling: no features, and every Gaussian starts from its pixel's true point instead of the predicted one."""

    name, title, true_points = "oracle", "oracle geometry (true points)", True
    note = (
        "This run is given the true points of its images, which nobody has at inference: a ceiling of what "
        "better geometry could bring, no result about a backbone."
    )


class Random(DinoV2):
    """A DINOv2 that was never trained, whatever model.weights says."""

    own_weights = "random"

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.name, self.licence, self.source = "random", Nothing.licence, None


class Constant(Backbone):
    """Ones everywhere, as wide as the backbone it stands beside: an adapter of equal size that learns from nothing."""

    name, title, patch_size, note = "constant", "constant features", 14, UNINFORMED

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels

    def features(self, images: Tensor) -> Tensor:
        return images.new_ones(len(images), self.channels, *self.grid(images))


class Rgb(Backbone):
    """Each patch's own pixels and place, nothing learned: (B, 3, 14 gh, 14 gw) -> (B, 588 + 2, gh, gw), in [-1, 1].

    The last two channels are x and y of the patch's centre, -1 and 1 at the image's borders.
    """

    name, title, channels, patch_size = "rgb", "RGB pixels and coordinates", 3 * 14 * 14 + 2, 14
    mean, std, note = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), UNINFORMED

    def features(self, images: Tensor) -> Tensor:
        pixels = pixel_unshuffle(images, self.patch_size)
        y, x = ((2 * torch.arange(cells, device=images.device) + 1) / cells - 1 for cells in pixels.shape[-2:])
        places = torch.stack(torch.meshgrid(x, y, indexing="xy")).to(pixels.dtype)
        return torch.cat([pixels, places.expand(len(images), -1, -1, -1)], 1)


class Shuffled(Backbone):
    """Another backbone's features, each image's moved to random places of its map: what they are, without where.

    The permutation depends on the image's pixels and `seed` alone, not on the batch.
    """

    name, note = "shuffled", UNINFORMED

    def __init__(self, inner: Backbone, seed: int = 0):
        super().__init__()
        self.inner, self.seed = inner, seed
        self.channels, self.patch_size = inner.channels, inner.patch_size
        self.mean, self.std, self.licence, self.source = inner.mean, inner.std, inner.licence, inner.source
        self.title = f"{inner.title}, places shuffled"
        self.freeze()

    @property
    def network(self) -> nn.Module:
        """The inner backbone's: its weights are this one's."""
        return self.inner.network

    def permutation(self, image: Tensor, cells: int) -> Tensor:
        """An order of `cells` places from image (3, H, W) in [0, 1]."""
        return torch.randperm(cells, generator=generator_of(image, self.seed))

    def forward(self, images: Tensor, grid: Grid | None = None) -> Tensor:
        maps = super().forward(images, grid)
        orders = torch.stack([self.permutation(image, maps[0, 0].numel()) for image in images]).to(maps.device)
        return maps.flatten(2).gather(2, orders[:, None].expand(-1, self.channels, -1)).view_as(maps)

    def features(self, images: Tensor) -> Tensor:
        return self.inner.features(images)

    def converted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.inner.converted(state)


class Truth(Backbone):
    """The positive control of features: each patch's true depth and normals, which no backbone could know better.

    Channels, sub-cells row by row: logarithm of the median depth of 4x4 sub-cells, then x, y, z of the mean normal of
    2x2 sub-cells, in the camera's frame. A sub-cell without depth has the median of its image.

    noise  standard deviation of what is added to each logarithm of depth, the same in every run: a dose
    """

    title, channels, patch_size = "true depth and normals", 16 + 3 * 4, 16
    note = (
        "The features of this run are the true depth and normals of each patch, which nobody has at inference: a "
        "positive control that says what the benchmark can see, no result about a backbone."
    )

    def __init__(self, noise: float = 0.0):
        super().__init__()
        self.noise = noise
        self.name = f"truth:{noise:g}" if noise else "truth"
        if noise:
            self.title = f"true depth, {noise:.0%} noise, and normals"

    def features(self, images: Tensor) -> Tensor:
        raise ValueError(
            f"model.backbone={self.name} reads the true depth of a dataset, which images by themselves have not; "
            "choose a backbone that reads images."
        )

    @torch.no_grad()
    def of_views(self, images: Tensor, depth: Tensor, K: Tensor, grid: Grid | None = None) -> Tensor:
        """Features (B, 28, H / 16, W / 16); the images name the noise.

        raises    ValueError  when a view has no depth at all
        """
        if not (depth > 0).flatten(1).any(1).all():
            raise ValueError(
                f"model.backbone={self.name} needs true depth, but an image has none; choose a dataset with depth, "
                "or another backbone."
            )
        rows, columns = self.grid(images)
        medians = cell_medians(depth, 4 * rows, 4 * columns)
        whole = cell_medians(depth, 1, 1)  # of the image
        log_depth = medians.where(medians.isfinite(), whole).log()  # (B, 4 h, 4 w)
        for each, image in zip(log_depth, images):
            drawn = torch.randn(each.shape, generator=generator_of(image, 0), dtype=each.dtype)
            each += self.noise * drawn.to(each.device)
        facing = cell_normals(depth, K, 2 * rows, 2 * columns)  # (B, 3, 2 h, 2 w)
        return torch.cat([pixel_unshuffle(log_depth[:, None], 4), pixel_unshuffle(facing, 2)], 1)
