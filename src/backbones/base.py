"""What every backbone answers to: images in, one feature map out, frozen."""

from abc import ABC, abstractmethod
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from src.mast3r.attention import Grid
from src.pretrained.source import Source
from src.pretrained.state_dicts import Described, load_strictly, read_state

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Backbone(nn.Module, ABC):
    """A frozen network from images to feature maps, always in evaluation mode.

    name        model.backbone as in params.yaml; of DINOv2, model.dinov2_model
    title       what tables and plots call it
    channels    C of the feature map; 0 = there is none
    patch_size  pixels per side of a cell
    mean, std   per RGB channel, the statistics its weights were trained with
    licence     of the pretrained weights
    source      where they come from; None where there is nothing to fetch
    network     holds the weights, where there are any
    own_weights `random`, or a file: the weights it has whatever model.weights says; empty = as that says
    described   of a fine-tuned one: what its file says it is
    note        a sentence that no report of a run may leave out; empty for what the benchmark is about
    trained_on  what pretrained weights learnt, where the title does not say it
    true_points the network's points are replaced by true ones, see `predict`
    """

    name: str
    title: str
    channels: int
    patch_size: int
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    licence: str = "none needed"
    source: Source | None = None
    network: nn.Module
    own_weights: str = ""
    described: Described | None = None
    note: str = ""
    trained_on: str = ""
    true_points: bool = False

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def gated(self) -> bool:
        """The publisher hands the weights out only after its terms were accepted."""
        return self.source is not None and self.source.gated

    def label(self, weights: str) -> str:
        """Title that says what the weights are: `random`, `pretrained`, `file` or `none`."""
        file = "" if self.described else " (weights from a file)"  # a fine-tuned one's title names it
        pretrained = f" ({self.trained_on})" if self.trained_on else ""
        untrained = " (random weights, untrained)"
        return self.title + {"random": untrained, "file": file, "pretrained": pretrained, "none": ""}[weights]

    def freeze(self) -> None:
        """To be called at the end of each __init__."""
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Backbone":
        return super().train(False)

    def grid(self, images: Tensor) -> Grid:
        """Cells (gh, gw) that cover images (B, 3, H, W), the last ones of a row or column perhaps in part."""
        return tuple(-(-side // self.patch_size) for side in images.shape[-2:])

    @torch.no_grad()
    def forward(self, images: Tensor, grid: Grid | None = None) -> Tensor:
        """Features of images (B, 3, H, W), sRGB in [0, 1]  ->  (B, channels, gh, gw).

        grid    (gh, gw) cells wanted: the images are resized (bicubic, antialiased) to exactly that many patches;
                None = the smallest grid that covers them at their own size
        raises  ValueError  when values leave [0, 1]: other ranges are converted by whoever knows them, never guessed
        """
        return self.features(self.prepared(images, grid))

    def of_views(self, images: Tensor, depth: Tensor, K: Tensor, grid: Grid | None = None) -> Tensor:
        """`forward` where all of a view is at hand: the positive control reads its true depth (B, H, W), 0 = invalid, and
        K (B, 3, 3), every other backbone the image alone."""
        return self(images, grid)

    def prepared(self, images: Tensor, grid: Grid | None = None) -> Tensor:
        """What `features` takes, from what `forward` takes: images resized to whole patches and normalised."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"A backbone takes images (B, 3, H, W); got {tuple(images.shape)}.")
        if images.min() < 0 or images.max() > 1:
            raise ValueError(
                f"A backbone takes images in [0, 1]; got values from {images.min():.3f} to {images.max():.3f}."
            )
        rows, columns = grid or self.grid(images)
        images = resize(images, (rows * self.patch_size, columns * self.patch_size))
        mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (images - mean) / std

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Feature maps of normalised images whose sides are multiples of patch_size."""

    def converted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """`state` under this network's own names, from any layout that its weights are published in."""
        return state

    def read(self, path: str | Path) -> dict[str, Tensor]:
        """The state dict in a weight file, from whatever a publisher or a training loop put around it.

        raises    FileNotFoundError, CheckpointError
        """
        own = self.network.state_dict().keys()
        return read_state(path, lambda state: self.converted(state).keys() == own)

    def load(self, state: dict[str, Tensor], origin: str) -> None:
        """Take over all weights, strictly; `origin` names the file in messages.

        raises    CheckpointError  when a tensor is missing, left over, or of another shape
        """
        load_strictly(self.network, self.converted(state), f"{origin} does not hold the weights of {self.title}")


def resize(images: Tensor, size: Grid) -> Tensor:
    """(B, 3, H, W) -> (B, 3, *size), bicubic and antialiased; the images themselves where nothing changes."""
    if images.shape[-2:] == size:
        return images
    return interpolate(images, size, mode="bicubic", antialias=True)


@contextmanager
def seeded(seed: int):
    """Inside, libraries that draw from torch's global CPU generator repeat themselves; outside nothing changes."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
