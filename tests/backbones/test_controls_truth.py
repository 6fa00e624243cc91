import pytest
import torch

from src.backbones import build_backbone
from src.config import load_config
from tests.helpers.repository import ROOT

K = torch.tensor([[[60.0, 0, 32], [0, 60, 24], [0, 0, 1]]])


def truth(name: str = "truth"):
    return build_backbone(load_config([f"model.backbone={name}"], ROOT).model, 0)


def view(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, 48, 64, generator=g), 1 + torch.rand(1, 48, 64, generator=g)


def test_each_patch_has_the_depth_of_its_sub_cells():
    images, depth = view()
    found = truth().of_views(images, depth, K)
    assert found.shape == (1, 28, 3, 4)
    patch = depth[0, 16:32, 48:64]  # second row, last column
    wanted = torch.stack(
        [patch[4 * r : 4 * r + 4, 4 * c : 4 * c + 4].flatten().sort().values[7] for r in range(4) for c in range(4)]
    )
    assert torch.allclose(found[0, :16, 1, 3], wanted.log())


def test_normals_of_a_wall_face_the_camera():
    found = truth().of_views(view()[0], torch.full((1, 48, 64), 2.0), K)
    normals = found[0, 16:, 1, 1].reshape(3, 4)  # x, y, z of four sub-cells
    assert torch.allclose(normals, torch.tensor([0.0, 0, -1])[:, None].expand(3, 4), atol=1e-5)


def test_noise_has_the_size_that_its_name_says_and_is_the_same_in_every_batch():
    images, depth = torch.cat([view(0)[0], view(1)[0]]), torch.full((2, 48, 64), 2.0)
    noisy = truth("truth:0.2").of_views(images, depth, K.expand(2, 3, 3))
    apart = (noisy - truth().of_views(images, depth, K.expand(2, 3, 3)))[:, :16]
    assert 0.17 < apart.std() < 0.23 and abs(apart.mean()) < 0.04
    alone = truth("truth:0.2").of_views(images[1:], depth[1:], K)
    assert torch.equal(alone[0], noisy[1])
    assert "20% noise" in truth("truth:0.2").title


def test_missing_depth_is_filled_and_none_at_all_refused():
    images, depth = view()
    depth[:, :8, :8] = 0
    assert truth().of_views(images, depth, K).isfinite().all()
    with pytest.raises(ValueError, match="an image has none"):
        truth().of_views(images, depth * 0, K)


def test_a_photograph_alone_is_refused_and_so_is_a_noise_that_is_none():
    with pytest.raises(ValueError, match="reads the true depth"):
        truth()(view()[0])
    for name in ("truth:much", "truth:-1", "truth:nan"):
        with pytest.raises(ValueError, match="no share of the depth"):
            truth(name)
