"""A small two-view network for tests that need the model and not its quality."""

import torch

from src.mast3r.network import Mast3rConfig
from src.splatt3r.network import Splatt3R

SMALL = Mast3rConfig(
    enc_embed_dim=48,
    enc_depth=2,
    enc_num_heads=2,
    dec_embed_dim=64,
    dec_depth=4,
    dec_num_heads=2,
    head="catmlp+dpt",
    dpt_feature_dim=8,
    dpt_last_dim=6,
    dpt_layer_dims=(4, 6, 8, 10),
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_drawn_geometry(model: Splatt3R) -> Splatt3R:
    """The model with geometry weights that are the same whatever is fused into it."""
    g = generator(7)
    with torch.no_grad():
        for group in ("encoder", "decoder", "point_head"):
            for p in model.parameter_groups()[group].values():
                p.copy_(torch.randn(p.shape, generator=g) * (0.1 if p.ndim == 1 else p.shape[1:].numel() ** -0.5))
    return model
