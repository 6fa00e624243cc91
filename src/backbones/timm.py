"""Any network of timm that can hand out its intermediate maps, with the statistics and licence of its weights."""

from collections.abc import Sequence
from difflib import get_close_matches

import timm
import torch
from torch import Tensor

from src.backbones.base import Backbone, chosen_blocks, seeded, with_blocks
from src.fetch import Source

CLIP = "vit_base_patch16_clip_quickgelu_224.openai"  # OpenAI's own activation, not timm's default


def create(model: str, seed: int) -> torch.nn.Module:
    """timm's network with seeded, untrained weights and no classifier."""
    known = timm.list_models() + timm.list_pretrained()
    if model not in known:
        near = get_close_matches(model, known, n=3, cutoff=0.4)
        raise ValueError(f"model.backbone names timm:{model}, which timm {timm.__version__} does not have; near are "
                         f"{', '.join(near) or 'none'}.")
    options = {"pretrained": False, "num_classes": 0}
    try:  # transformers: resample positions to whatever size comes
        with seeded(seed):
            network = timm.create_model(model, dynamic_img_size=True, **options)
    except TypeError:  # networks without a position embedding do not know the option
        with seeded(seed):
            network = timm.create_model(model, **options)
    if not hasattr(network, "forward_intermediates"):
        raise ValueError(f"timm:{model} cannot hand out intermediate maps; choose another model.backbone.")
    return network


class Timm(Backbone):
    """Maps of timm's `forward_intermediates`, prefix tokens dropped, after the final norm where the network has one.

    model   timm's name, with the tag of the weights after a dot, e.g. vit_base_patch16_224.mae
    layers  blocks (of hierarchical networks: stages) to read, see `chosen_blocks`; maps of one size are concatenated
    seed    of the untrained weights
    """

    def __init__(self, model: str, layers: Sequence[int | float] | None = None, seed: int = 0, name: str = "",
                 title: str = "", licence: str = ""):
        super().__init__()
        self.network = create(model, seed)
        about = self.network.pretrained_cfg
        stages = list(self.network.feature_info)
        self.blocks = chosen_blocks(layers, len(stages))
        chosen = [stages[number - 1] for number in self.blocks]
        if len({stage["reduction"] for stage in chosen}) > 1:
            raise ValueError(f"model.backbone_layers {list(layers)} of timm:{model} have cells of different sizes; "
                             "choose blocks of one size.")
        self.name, self.patch_size = name or f"timm:{model}", chosen[0]["reduction"]
        self.channels = sum(stage["num_chs"] for stage in chosen)
        self.title = with_blocks(title or model, layers, self.blocks)
        self.mean, self.std = tuple(about["mean"]), tuple(about["std"])
        self.licence = licence or about.get("license") or "see the model's page"
        if hub := about.get("hf_hub_id"):
            self.source = Source(f"https://huggingface.co/{hub}/resolve/main/model.safetensors", self.licence,
                                 megabytes=self.num_parameters * 4 // 10**6,
                                 file=f"{hub.rpartition('/')[2]}.safetensors")
        self.freeze()

    def features(self, images: Tensor) -> Tensor:
        indices = [number - 1 for number in self.blocks]
        return torch.cat(self.network.forward_intermediates(images, indices, norm=True, output_fmt="NCHW",
                                                            intermediates_only=True), 1)

    def converted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Without the classifier, which the network was built without."""
        classifier = self.network.pretrained_cfg.get("classifier") or ()
        heads = tuple(f"{head}." for head in ([classifier] if isinstance(classifier, str) else classifier))
        return {name: tensor for name, tensor in state.items() if not name.startswith(heads)}


def clip(layers: Sequence[int | float] | None, seed: int) -> Timm:
    """Image tower of CLIP (Radford et al. 2021, arXiv 2103.00020), without its projection to the text space."""
    return Timm(CLIP, layers, seed, "clip", "CLIP ViT-B/16", "MIT (OpenAI)")
