"""The network of the reference fixtures, small."""

import torch

from src.mast3r.network import PointMap
from tests.conftest import load_fixture

TINY = dict(
    enc_embed_dim=32,
    enc_depth=2,
    enc_num_heads=4,
    dec_embed_dim=24,
    dec_depth=12,
    dec_num_heads=2,
    dpt_feature_dim=16,
    dpt_last_dim=8,
    dpt_layer_dims=(8, 12, 16, 24),
    local_features_factor=1.0,
)

TOLERANCE = 3e-5  # of the largest magnitude of each tensor


def weights_of(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix("weights."): value.float() for name, value in tensors.items() if name.startswith("weights.")
    }


def tiny_weights() -> dict[str, torch.Tensor]:
    tensors, _ = load_fixture("mast3r/tiny_weights.safetensors")
    return weights_of(tensors)


def assert_close(actual: torch.Tensor, expected: torch.Tensor, name: str) -> None:
    expected = expected.float()
    assert actual.shape == expected.shape, f"{name}: {tuple(actual.shape)} instead of {tuple(expected.shape)}"
    error = ((actual - expected).abs().max() / expected.abs().max()).item()
    assert error <= TOLERANCE, f"{name} is off by {error:.1e} of its maximum"


def assert_outputs(maps: tuple[PointMap, PointMap], tensors: dict[str, torch.Tensor]) -> None:
    compared = 0
    for view, output in enumerate(maps, 1):
        points = "pts3d" if view == 1 else "pts3d_in_other_view"
        for name, value in (
            (points, output.pts3d),
            ("conf", output.conf),
            ("desc_conf", output.desc_conf),
            ("desc_s3", None if output.desc is None else output.desc[:, ::3, ::3]),
        ):
            if value is not None:
                assert_close(value, tensors[f"output.view{view}.{name}"], f"view {view} {name}")
                compared += 1
    assert compared == sum(name.startswith("output.view") for name in tensors)


def images(tensors: dict[str, torch.Tensor], view: int) -> torch.Tensor:
    return next(value.float() for name, value in tensors.items() if name in (f"input.img{view}", f"input.image{view}"))
