"""A textured slanted plane, seen by two cameras by exact ray casting: the sweep must find it."""

import torch

from src.geometry.cameras import invert_se3
from src.geometry.plane_sweep import swept_depth

SIZE = 64
K = torch.tensor([[60.0, 0, 32], [0, 60, 32], [0, 0, 1]])
NORMAL, OFFSET = torch.nn.functional.normalize(torch.tensor([0.2, 0.1, -1.0]), dim=0), -2.0


def texture(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    waves = [torch.sin(9 * x + 4 * y), torch.sin(13 * y - 5 * x + 1), torch.sin(7 * (x + y))]
    return 0.5 + 0.4 * torch.stack(waves)


def view(c2w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Image (3, H, W) and depth (H, W) of the plane NORMAL . p = OFFSET."""
    y, x = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    rays = torch.stack([(x - 32) / 60, (y - 32) / 60, torch.ones(SIZE, SIZE)], -1) @ c2w[:3, :3].T
    depth = (OFFSET - c2w[:3, 3] @ NORMAL) / (rays @ NORMAL)
    points = c2w[:3, 3] + rays * depth[..., None]
    return texture(points[..., 0], points[..., 1]), depth


def pair() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    second = torch.eye(4)
    angle = torch.tensor(0.15)
    second[0, 0], second[0, 2], second[2, 0], second[2, 2] = angle.cos(), -angle.sin(), angle.sin(), angle.cos()
    second[:3, 3] = torch.tensor([0.45, 0.05, 0.1])
    (image1, depth1), (image2, depth2) = view(torch.eye(4)), view(second)
    return torch.stack([image1, image2])[None], torch.stack([depth1, depth2])[None], second[None]


def test_a_wrong_depth_is_corrected_from_the_other_view():
    images, depth, relative = pair()
    wrong = depth * torch.tensor([1.07, 0.94]).view(1, 2, 1, 1)
    found = swept_depth(wrong, images, K.expand(1, 2, 3, 3), relative)
    error, before = ((each / depth).log().abs()[..., 8:-8, 8:-8] for each in (found, wrong))
    # the belief in the prediction still pulls a little
    assert error[:, 0, :, 20:].median() < before[:, 0].median() / 4
    assert error[:, 1, :, :-20].median() < before[:, 1].median() / 4


def test_what_nothing_contradicts_stays():
    images, depth, relative = pair()
    grey = torch.full_like(images, 0.5)
    found = swept_depth(depth, grey, K.expand(1, 2, 3, 3), relative)
    assert torch.allclose(found, depth, rtol=1e-5)  # nothing distinguishes the depths
    away = invert_se3(relative)
    away[:, :3, 3] = torch.tensor([500.0, 0, 0])
    found = swept_depth(depth, images, K.expand(1, 2, 3, 3), away)
    assert torch.allclose(found, depth, rtol=1e-5)  # nothing of one is in the other


def test_a_pair_does_not_depend_on_its_batch():
    images, depth, relative = pair()
    both = [torch.cat([x, x.flip(1) if x.ndim > 3 else x]) for x in (depth, images, relative)]
    found = swept_depth(both[0], both[1], K.expand(2, 2, 3, 3), both[2])
    assert torch.allclose(found[:1], swept_depth(depth, images, K.expand(1, 2, 3, 3), relative), rtol=1e-6)
