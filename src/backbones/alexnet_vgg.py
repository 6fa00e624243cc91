"""AlexNet and VGG-16 trained on ImageNet (Krizhevsky et al. 2012; Simonyan and Zisserman 2014, arXiv 1409.1556).

They are the trunks of LPIPS, so a run that fuses one may not be judged or trained by it (src/check.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, grid_sample

from src.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone
from src.backbones.blocks import chosen_blocks, with_blocks
from src.pretrained.trunks import TRUNKS, layers, read_trunk


@dataclass(frozen=True)
class TrunkStage:
    """A feature map after a ReLU. layer: of torchvision's `features`; stride: pixels between its places; first: the
    pixel coordinate, from the image's corner, of the first place's centre."""

    layer: int
    stride: int
    first: float


# as LPIPS reads them. AlexNet's kernels leave the border out, so that its places do not lie in the middle of cells:
# the first convolution (11 x 11, padding 2) is centred at 3.5 px, each pooling (3 x 3) one place further
TRUNK_STAGES = {
    "alex": (
        TrunkStage(1, 4, 3.5),
        TrunkStage(4, 8, 7.5),
        TrunkStage(7, 16, 15.5),
        TrunkStage(9, 16, 15.5),
        TrunkStage(11, 16, 15.5),
    ),
    "vgg": (
        TrunkStage(3, 1, 0.5),
        TrunkStage(8, 2, 1.0),
        TrunkStage(15, 4, 2.0),
        TrunkStage(22, 8, 4.0),
        TrunkStage(29, 16, 8.0),
    ),
}


@torch.no_grad()
def draw_convolutions(network: nn.Module, generator: torch.Generator) -> None:
    """Untrained weights that keep the variance through ReLUs (He et al. 2015, as torchvision draws VGG's); zero biases."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            module.bias.zero_()


class Trunk(Backbone):
    """Feature maps of chosen stages, each at the centres of its own cells, averaged over those of the coarsest.

    trunk   alex or vgg, as LPIPS calls it
    layers  stages 1 to 5 to read, see `chosen_blocks`; their maps are concatenated
    seed    of the untrained weights, see `draw_convolutions`; None = none are drawn, there are names and shapes only
    """

    patch_size = 16
    mean, std, trained_on = IMAGENET_MEAN, IMAGENET_STD, "ImageNet"

    def __init__(self, trunk: str, stages: Sequence[int | float] | None = None, seed: int | None = 0):
        super().__init__()
        network = layers(trunk)
        self.network = nn.ModuleDict({"features": network})
        if seed is not None:
            draw_convolutions(self.network.to_empty(device="cpu"), torch.Generator().manual_seed(seed))
        self.trunk, self.name = trunk, {"alex": "alexnet", "vgg": "vgg16"}[trunk]
        self.blocks = chosen_blocks(stages, len(TRUNK_STAGES[trunk]))
        self.stages = [TRUNK_STAGES[trunk][number - 1] for number in self.blocks]
        self.patch_size = max(stage.stride for stage in self.stages)
        convolutions = [layer.out_channels if isinstance(layer, nn.Conv2d) else 0 for layer in network]
        self.channels = sum(convolutions[stage.layer - 1] for stage in self.stages)
        title, self.source = TRUNKS[trunk]
        self.title, self.licence = with_blocks(title, stages, self.blocks), self.source.licence
        self.freeze()

    def features(self, images: Tensor) -> Tensor:
        x, maps = images, {}
        for number, layer in enumerate(self.network["features"][: self.stages[-1].layer + 1]):
            x = layer(x)
            maps[number] = x
        cells = tuple(side // self.patch_size for side in images.shape[-2:])
        found = [at_cells(maps[stage.layer], stage, images.shape[-2:]) for stage in self.stages]
        return torch.cat([adaptive_avg_pool2d(each, cells) for each in found], 1)

    def read(self, path: str | Path) -> dict[str, Tensor]:
        """From the package's file, or as of every other network."""
        return read_trunk(Path(path), self.trunk) if Path(path).suffix == ".ckpt" else super().read(path)

    def converted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Without torchvision's classifier."""
        return {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}


def at_cells(features: Tensor, stage: TrunkStage, size: tuple[int, int]) -> Tensor:
    """A stage's map at the centres of the cells that tile an image of `size` (H, W): interpolated between its own
    places, the outermost repeated; the map itself where the places are those centres already."""
    counts = [side // stage.stride for side in size]
    if stage.first == stage.stride / 2 and list(features.shape[-2:]) == counts:
        return features
    axes = []
    for count, places in zip(counts, features.shape[-2:]):
        centres = (torch.arange(count, device=features.device, dtype=features.dtype) + 0.5) * stage.stride
        axes.append((2 * (centres - stage.first) / stage.stride + 1) / places - 1)  # grid_sample: -1 and 1 at the edges
    y, x = torch.meshgrid(*axes, indexing="ij")
    grid = torch.stack([x, y], -1).expand(len(features), -1, -1, -1)  # (B, gh, gw, 2)
    return grid_sample(features, grid, mode="bilinear", padding_mode="border", align_corners=False)
