"""CroCo v2's image encoder (Weinzaepfel et al. 2023, arXiv 2211.10408), which DUSt3R and MASt3R started from.

Its blocks are those of the geometry network; what differs from there is the training, and so the input statistics.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from src.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone
from src.backbones.blocks import chosen_blocks, with_blocks
from src.mast3r.attention import NORM_EPS, EncoderBlock, rope_angles, token_positions
from src.mast3r.initialise import draw_uniform
from src.mast3r.network import MAST3R, Mast3rConfig, PatchEmbed
from src.mast3r.weight_file import CheckpointError
from src.pretrained.official import NAVER, NAVER_LICENCE, read_official
from src.pretrained.source import Source

SOURCE = Source(f"{NAVER}/CroCo/CroCo_V2_ViTLarge_BaseDecoder.pth", NAVER_LICENCE, 1672)
PARTS = ("patch_embed.", "enc_blocks.", "enc_norm.")  # of an official file; the rest is the decoder's
ENCODER_SIZES = ("patch_size", "enc_embed_dim", "enc_depth", "enc_num_heads", "mlp_ratio", "rope_base")


class CrocoEncoder(nn.Module):
    """Patches, blocks and a last norm, under the official names."""

    def __init__(self, config: Mast3rConfig):
        super().__init__()
        width = config.enc_embed_dim
        self.patch_embed = PatchEmbed(config.patch_size, width)
        self.enc_blocks = nn.ModuleList(
            EncoderBlock(width, config.enc_num_heads, config.mlp_ratio) for _ in range(config.enc_depth)
        )
        self.enc_norm = nn.LayerNorm(width, eps=NORM_EPS)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """As the geometry network starts: Xavier-uniform linear layers and patches, zero biases, unit norms."""
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.reset_parameters()
            elif isinstance(module, nn.Linear | nn.Conv2d):
                draw_uniform(module.weight, (6 / sum(module.weight.flatten(1).shape)) ** 0.5, generator)
                module.bias.zero_()


class CrocoBackbone(Backbone):
    """Patch tokens after the encoder's last norm, as a map.

    layers  blocks to read, see `chosen_blocks`; their maps are concatenated, each after the last norm
    seed    of the untrained weights, see `CrocoEncoder.init_weights`; None = none are drawn, there are names and shapes only
    config  the encoder's sizes, by default those of the published ViT-L
    """

    name, mean, std, licence, source = "croco", IMAGENET_MEAN, IMAGENET_STD, NAVER_LICENCE, SOURCE

    def __init__(
        self, layers: Sequence[int | float] | None = None, seed: int | None = 0, config: Mast3rConfig = MAST3R
    ):
        super().__init__()
        with torch.device("meta"):
            self.network = CrocoEncoder(config)
        if seed is not None:
            self.network.to_empty(device="cpu").init_weights(torch.Generator().manual_seed(seed))
        self.config, self.patch_size = config, config.patch_size
        self.blocks = chosen_blocks(layers, config.enc_depth)
        self.channels = config.enc_embed_dim * len(self.blocks)
        self.title = with_blocks("CroCo v2 ViT-L/16", layers, self.blocks)
        self.freeze()

    def features(self, images: Tensor) -> Tensor:
        network, config = self.network, self.config
        grid = tuple(side // config.patch_size for side in images.shape[-2:])
        angles = rope_angles(
            token_positions(grid, images.device), config.enc_embed_dim // config.enc_num_heads, config.rope_base
        )
        x, maps = network.patch_embed(images), []
        for number, block in enumerate(network.enc_blocks[: self.blocks[-1]], 1):
            x = block(x, angles)
            if number in self.blocks:
                maps.append(network.enc_norm(x))
        return torch.cat(maps, -1).mT.unflatten(-1, grid)

    def read(self, path: str | Path) -> dict[str, Tensor]:
        """The encoder in CroCo's official file, all of whose tensors must be as published, or in one of its own.

        raises    FileNotFoundError; CheckpointError when it is another network's or another size's
        """
        if Path(path).suffix == ".safetensors":
            return super().read(path)
        checkpoint, _ = read_official(path)
        if any(name.startswith("downstream_head") for name in checkpoint.state_dict):
            raise CheckpointError(
                f"{path} is DUSt3R or MASt3R, whose encoder was trained on, with other input "
                "statistics; model.backbone=croco takes a CroCo v2 file."
            )
        for name in ENCODER_SIZES:
            if (found := getattr(checkpoint.config, name)) != (wanted := getattr(self.config, name)):
                raise CheckpointError(
                    f"{path} has {name} {found}, but {self.title} has {wanted}; it is no {SOURCE.name}."
                )
        return {name: tensor for name, tensor in checkpoint.state_dict.items() if name.startswith(PARTS)}
