"""Any network of timm that can hand out its intermediate maps, with the statistics and licence of its weights."""

from collections.abc import Sequence
from functools import cache
from importlib.metadata import version

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from src.backbones.base import Backbone, seeded
from src.backbones.blocks import chosen_blocks, with_blocks
from src.backbones.efficientnet_lite0 import MODEL as LITE0
from src.backbones.efficientnet_lite0 import PACKAGED, TITLE, TRAINED_ON, timm_names
from src.backbones.spelling import names_like
from src.mast3r.attention import Grid
from src.pretrained.source import HUB, Source
from src.scenes.crop import PATCH

CLIP = "vit_base_patch16_clip_quickgelu_224.openai"
REFUSALS = (AssertionError, RuntimeError, IndexError)  # what timm's networks raise for sizes they were not built for
SMALL_GRID, ODD_GRID = (2, 3), (7, 10)  # cells of the images that a new network is tried on


@cache
def names() -> tuple[str, ...]:
    """All networks of timm, and all its weights as network.tag."""
    import timm  # here, as it takes seconds and most stages need no network of its

    return (*timm.list_models(), *timm.list_pretrained())


def create(model: str, seed: int | None, **sizes) -> torch.nn.Module:
    """timm's network with seeded, untrained weights and no classifier; `sizes` are its constructor's, for tests."""
    import timm

    if model not in names():
        near = names_like(model, names(), 0.4)
        raise ValueError(
            f"model.backbone names timm:{model}, which timm {version('timm')} does not have; near are "
            f"{', '.join(near) or 'none'}."
        )
    options = {"pretrained": False, "num_classes": 0} | sizes
    try:  # transformers: resample positions to whatever size comes
        with seeded(seed or 0):
            network = timm.create_model(model, dynamic_img_size=True, **options)
    except TypeError:  # networks without a position embedding do not know the option
        with seeded(seed or 0):
            network = timm.create_model(model, **options)
    if not hasattr(network, "forward_intermediates"):
        raise ValueError(f"timm:{model} cannot hand out intermediate maps; choose another model.backbone.")
    return network.eval()


class Timm(Backbone):
    """Maps of timm's `forward_intermediates`, prefix tokens dropped, after the final norm where the network has one.

    Maps of one network with cells of different sizes (stages of convolutional and hierarchical networks) are averaged
    over the cells of the coarsest and concatenated. The default of such a network is its deepest stage that is not
    coarser than the geometry network's patches. What lies behind has lost where it saw things: of a real pair's points
    EfficientNet-Lite0 matches 88 % at stride 16, and 60 % at stride 32. Most networks take images of any size; the few
    that do not see them resized to their own one.

    model   timm's name, with the tag of the weights after a dot, e.g. vit_base_patch16_224.mae
    layers  blocks (of hierarchical networks: stages) to read, see `chosen_blocks`
    seed    of the untrained weights; None = 0, as timm draws some in any case
    sizes   other sizes than the network's own, for tests: timm's depth, embed_dim, num_heads, ...
    """

    def __init__(
        self,
        model: str,
        layers: Sequence[int | float] | None = None,
        seed: int | None = 0,
        name: str = "",
        title: str = "",
        licence: str = "",
        **sizes,
    ):
        super().__init__()
        self.network = create(model, seed, **sizes)
        about = self.network.pretrained_cfg
        stages = list(self.network.feature_info)
        fine = [number for number, stage in enumerate(stages, 1) if stage["reduction"] <= PATCH]
        self.blocks = chosen_blocks(layers, len(stages), max(fine, default=0))
        self.patch_size = max(stages[number - 1]["reduction"] for number in self.blocks)
        lite = model == LITE0
        title = title or (TITLE if lite else model)
        self.name, self.title = name or f"timm:{model}", with_blocks(title, layers, self.blocks)
        self.trained_on = TRAINED_ON if lite else ""
        self.mean, self.std = tuple(about["mean"]), tuple(about["std"])
        self.licence = licence or about.get("license") or "see the model's page"
        if hub := about.get("hf_hub_id"):
            self.source = Source(
                f"{HUB}/{hub}/resolve/main/model.safetensors",
                self.licence,
                megabytes=self.num_parameters * 4 // 10**6,
                file=f"{hub.rpartition('/')[2]}.safetensors",
                packaged=PACKAGED if lite else None,
            )
        self.freeze()
        self.only_grid, self.channels = self.tried(about)

    @torch.no_grad()
    def tried(self, about: dict) -> tuple[Grid | None, int]:
        """The one grid that the network can give, None where it takes any image; and the width of its maps, which is
        not always what timm's table of stages says.

        raises    ValueError  when its maps cannot be had at all
        """
        own = tuple(side // self.patch_size for side in about["input_size"][1:])
        doubtful = about.get("fixed_input_size") and not getattr(self.network, "dynamic_img_size", False)
        trials = ((ODD_GRID, None), (own, own)) if doubtful else ((SMALL_GRID, None),)
        for cells, only in trials:
            try:
                images = torch.zeros(1, 3, *(side * self.patch_size for side in cells))
                return only, self.features(images).shape[1]
            except REFUSALS as error:
                refusal = error
        raise ValueError(f"{self.name} cannot hand out feature maps ({refusal}); choose another model.backbone.")

    def grid(self, images: Tensor) -> Grid:
        return self.only_grid or super().grid(images)

    def forward(self, images: Tensor, grid: Grid | None = None) -> Tensor:
        if grid and self.only_grid not in (None, tuple(grid)):
            raise ValueError(
                f"{self.name} takes images of one size only, {self.only_grid[0]} x {self.only_grid[1]} "
                f"cells, so its grid cannot be {grid[0]} x {grid[1]}; set model.feature_grid=native."
            )
        return super().forward(images, grid)

    def features(self, images: Tensor) -> Tensor:
        indices = [number - 1 for number in self.blocks]
        maps = self.network.forward_intermediates(
            images, indices, norm=True, stop_early=True, output_fmt="NCHW", intermediates_only=True
        )
        cells = tuple(side // self.patch_size for side in images.shape[-2:])
        return torch.cat([adaptive_avg_pool2d(each, cells) for each in maps], 1)

    def converted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Without the classifier, which the network was built without; and from the layout of a package."""
        state = timm_names(state) if "_conv_stem.weight" in state else state
        classifier = self.network.pretrained_cfg.get("classifier") or ()
        heads = tuple(f"{head}." for head in ([classifier] if isinstance(classifier, str) else classifier))
        return {name: tensor for name, tensor in state.items() if not name.startswith(heads)}


def clip(model: str, layers: Sequence[int | float] | None, seed: int | None) -> Timm:
    """Image tower of a CLIP (Radford et al. 2021, arXiv 2103.00020), without its projection to the text space.

    model   timm's name with the tag of the weights; empty = OpenAI's ViT-B/16. Weights that were trained with QuickGELU
            get it, though timm lists them under the name with the usual GELU too
    raises  ValueError  when it is no CLIP tower
    """
    if not model:
        return Timm(CLIP, layers, seed, "clip", "CLIP ViT-B/16", "MIT (OpenAI)")
    quick = model.replace("_clip_", "_clip_quickgelu_")
    towers = [name for name in names() if "_clip_" in name]
    if model not in towers:
        near = names_like(model, towers, 0.4)
        raise ValueError(
            f"model.backbone names clip:{model}, which is no CLIP tower of timm {version('timm')}; near "
            f"are {', '.join(near) or 'none'}; other networks are timm:<name>."
        )
    quick_weights = "." in model and "quickgelu" not in model and quick in towers
    return Timm(quick if quick_weights else model, layers, seed, f"clip:{model}", f"CLIP {model}")
