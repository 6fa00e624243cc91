"""Small two-view networks for tests that need the model and not its quality."""

from pathlib import Path

import torch

from src.mast3r.network import Mast3r, Mast3rConfig
from src.mast3r.weight_file import write_geometry
from src.splatt3r.network import Splatt3R

GEOMETRY = Mast3rConfig(
    enc_embed_dim=16,
    enc_depth=1,
    enc_num_heads=2,
    dec_embed_dim=16,
    dec_depth=4,
    dec_num_heads=2,
    head="dpt",
    dpt_feature_dim=8,
    dpt_last_dim=4,
    dpt_layer_dims=(4, 4, 8, 8),
)

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


def drawn_geometry(config: Mast3rConfig = GEOMETRY, seed: int = 0) -> Mast3r:
    network = Mast3r(config)
    network.init_weights(generator(seed))
    return network


def write_drawn_geometry(path: Path, config: Mast3rConfig = GEOMETRY) -> None:
    """A file of the geometry network, as the stage weights leaves it and as the repository bundles it."""
    write_geometry(path, config, drawn_geometry(config).state_dict())


def with_drawn_geometry(model: Splatt3R) -> Splatt3R:
    """The model with geometry weights that are the same whatever is fused into it."""
    g = generator(7)
    with torch.no_grad():
        for group in ("encoder", "decoder", "point_head"):
            for p in model.parameter_groups()[group].values():
                p.copy_(torch.randn(p.shape, generator=g) * (0.1 if p.ndim == 1 else p.shape[1:].numel() ** -0.5))
    return model
