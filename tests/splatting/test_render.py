import math

import numpy as np
import pytest
import torch

from src.splatting import reference
from src.splatting.gaussians import Gaussians
from src.splatting.render import NEAR, render
from src.splatting.sh import colours
from tests.helpers.compositor import composite

WIDTH, HEIGHT = 24, 17


def gaussians(count: int = 40, degree: int = 0, seed: int = 0) -> Gaussians:
    """In front of cameras at the origin that look along +z."""
    g = torch.Generator().manual_seed(seed)
    means = torch.randn(count, 3, generator=g) * torch.tensor([0.7, 0.5, 0.4]) + torch.tensor([0, 0, 2.0])
    return Gaussians(
        means,
        torch.randn(count, 4, generator=g),
        0.2 * torch.rand(count, 3, generator=g),
        torch.rand(count, generator=g),
        0.5 * torch.randn(count, (degree + 1) ** 2, 3, generator=g),
    )


def cameras(views: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """c2w and K of cameras that step to the right and turn back towards the middle."""
    c2w = torch.eye(4).repeat(views, 1, 1)
    for v in range(views):
        a = -0.15 * v
        c2w[v, :3, :3] = torch.tensor([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
        c2w[v, 0, 3] = 0.3 * v
    return c2w, torch.tensor([[26.0, 0, 12.4], [0, 25, 8.1], [0, 0, 1]]).repeat(views, 1, 1)


def test_renders_agree_with_the_naive_compositor():
    scene, (c2w, K) = gaussians(), cameras()
    scene.sh[:9] = torch.linspace(-3, 3, 27).view(9, 1, 3)  # colours below 0, which are clamped, and above 1
    colors = np.maximum(0, 0.5 + 0.28209479177387814 * scene.sh[:, 0].numpy())
    assert (colors == 0).any() and (colors > 1).any()
    background = (0.1, 0.2, 0.3)
    rendering = render(scene, c2w, K, (WIDTH, HEIGHT), torch.tensor(background))
    for v in range(2):
        w2c = np.linalg.inv(c2w[v].double().numpy())
        image, alpha, depth, _ = composite(
            scene.means, scene.quats, scene.scales, scene.opacities, colors, w2c, K[v], WIDTH, HEIGHT, 0.02, background
        )
        np.testing.assert_allclose(rendering.images[v], image, atol=5e-6)
        np.testing.assert_allclose(rendering.alphas[v], alpha, atol=2e-6)
        expected = np.divide(depth, alpha, out=np.zeros_like(depth), where=alpha > 0)
        np.testing.assert_allclose(rendering.depths[v], expected, atol=1e-4)
        assert (alpha == 0).any() and (rendering.depths[v][torch.tensor(alpha == 0)] == 0).all()


def test_expected_depth_is_that_of_what_is_there_however_faint():
    scene = Gaussians(
        torch.tensor([[0, 0, 3.0]]),
        torch.tensor([[1.0, 0, 0, 0]]),
        torch.full((1, 3), 0.5),
        torch.tensor([0.1]),
        torch.zeros(1, 1, 3),
    )
    rendering = render(scene, torch.eye(4)[None], cameras(1)[1], (WIDTH, HEIGHT))
    seen = rendering.alphas > 0
    assert 5 < seen.sum() < seen.numel()
    torch.testing.assert_close(rendering.depths[seen], torch.full_like(rendering.depths[seen], 3.0), atol=1e-4, rtol=0)


def test_higher_harmonics_change_the_colour_with_the_side_it_is_seen_from():
    """A degree-1 coefficient of order +1 alone adds -sqrt(3 / 4 pi) x / r to the colour."""
    sh = torch.zeros(1, 4, 3)
    sh[0, 3] = 0.4
    scene = Gaussians(
        torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), 0.05), torch.tensor([0.9]), sh
    )
    K = torch.tensor([[20.0, 0, 4.5], [0, 20, 4.5], [0, 0, 1]]).repeat(2, 1, 1)
    c2w = torch.eye(4).repeat(2, 1, 1)
    c2w[0, :3] = torch.tensor([[0.0, 0, 1, -1], [0, 1, 0, 0], [-1, 0, 0, 0]])  # from x = -1, looking along +x
    c2w[1, :3] = torch.tensor([[0.0, 0, -1, 1], [0, 1, 0, 0], [1, 0, 0, 0]])  # from x = +1, looking along -x
    centre = render(scene, c2w, K, (9, 9)).images[:, 0, 4, 4]
    step = 0.4 * math.sqrt(3 / (4 * math.pi))
    torch.testing.assert_close(centre, 0.9 * torch.tensor([0.5 - step, 0.5 + step]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("degree", [0, 2])
def test_every_part_of_the_gaussians_gets_its_gradient(degree):
    """Against autograd in float64 through the torch compositor."""
    scene, (c2w, K) = gaussians(12, degree), cameras()
    g = torch.Generator().manual_seed(1)
    weights = [torch.randn(s, generator=g) for s in ((2, 3, HEIGHT, WIDTH), (2, HEIGHT, WIDTH), (2, HEIGHT, WIDTH))]
    inputs = [getattr(scene, name).requires_grad_() for name in ("means", "quats", "scales", "opacities", "sh")]
    drawn = render(scene, c2w, K, (WIDTH, HEIGHT))
    got = torch.autograd.grad((drawn.images, drawn.alphas, drawn.depths), inputs, weights)

    doubles = [t.detach().double().requires_grad_() for t in inputs]
    colors = colours(doubles[4], doubles[0], c2w[:, :3, 3].double())
    images, alphas, depths = reference.rasterize(
        *doubles[:4], colors, torch.linalg.inv(c2w.double()), K, WIDTH, HEIGHT, NEAR
    )
    expected = depths / alphas.clamp_min(1e-6)
    wanted = torch.autograd.grad((images, alphas, expected), doubles, [w.double() for w in weights])
    for a, b in zip(got, wanted):  # faint pixels divide by an alpha of 1/255, which costs float32 digits
        assert (a.double() - b).norm() < 5e-4 * b.norm() and b.norm() > 1


def test_cameras_get_no_gradient():
    scene, (c2w, K) = gaussians(), cameras()
    scene.means.requires_grad_()
    c2w.requires_grad_(), K.requires_grad_()
    render(scene, c2w, K, (WIDTH, HEIGHT)).images.sum().backward()
    assert scene.means.grad.any() and c2w.grad is None and K.grad is None


def test_pictures_do_not_depend_on_the_unit_of_length():
    scene, (c2w, K) = gaussians(), cameras()
    larger = c2w.clone()
    larger[:, :3, 3] *= 10
    small = render(scene, c2w, K, (WIDTH, HEIGHT), near=1.5)
    large = render(scene.scaled(10), larger, K, (WIDTH, HEIGHT), near=15)
    torch.testing.assert_close(small.images, large.images, atol=1e-5, rtol=0)
    torch.testing.assert_close(small.depths * 10, large.depths, atol=1e-4, rtol=0)
    assert not torch.allclose(small.images, render(scene, c2w, K, (WIDTH, HEIGHT)).images, atol=1e-2)  # 1.5 cuts some


def test_the_near_plane_is_splatt3r_s():
    assert NEAR == 0.02
    scene = gaussians(2)
    scene.means[:] = torch.tensor([[0, 0, 0.021], [0, 0, 0.019]])
    scene.scales[:], scene.opacities[:] = 0.001, torch.tensor([0.0, 0.9])
    K = cameras(1)[1]
    assert not render(scene, torch.eye(4)[None], K, (WIDTH, HEIGHT)).alphas.any()
    scene.opacities[:] = torch.tensor([0.9, 0.0])
    assert render(scene, torch.eye(4)[None], K, (WIDTH, HEIGHT)).alphas.any()


def test_half_precision_gaussians_are_drawn_in_float32():
    scene, (c2w, K) = gaussians(), cameras()
    half = scene.to(torch.bfloat16)
    wanted = render(half.to(torch.float32), c2w, K, (WIDTH, HEIGHT))
    assert torch.equal(render(half, c2w, K, (WIDTH, HEIGHT)).images, wanted.images)


@pytest.mark.parametrize("degree", [0, 1])
def test_autocast_and_inference_mode_change_nothing(degree):
    scene, (c2w, K) = gaussians(degree=degree), cameras()
    wanted = render(scene, c2w, K, (WIDTH, HEIGHT))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = render(scene, c2w, K, (WIDTH, HEIGHT))
    with torch.inference_mode():
        inferred = render(
            Gaussians(*(getattr(scene, name).clone() for name in ("means", "quats", "scales", "opacities", "sh"))),
            c2w,
            K,
            (WIDTH, HEIGHT),
        )
    for other in (mixed, inferred):
        assert all(torch.equal(getattr(other, name), getattr(wanted, name)) for name in ("images", "alphas", "depths"))


def test_an_empty_set_is_background():
    c2w, K = cameras()
    rendering = render(gaussians(0), c2w, K, (WIDTH, HEIGHT), torch.tensor([0.1, 0.2, 0.3]))
    assert (rendering.images == torch.tensor([0.1, 0.2, 0.3])[:, None, None]).all()
    assert not rendering.alphas.any() and not rendering.depths.any()


def test_wrong_arguments_are_refused():
    scene, (c2w, K) = gaussians(), cameras()
    batch = Gaussians(*(getattr(scene, name)[None] for name in ("means", "quats", "scales", "opacities", "sh")))
    for arguments, message in (
        ((batch, c2w, K), "index the batch"),
        ((scene, c2w[0], K), r"c2w \(V, 4, 4\)"),
        ((scene, c2w, K[:1]), r"got \(2, 4, 4\) and \(1, 3, 3\)"),
        ((scene, c2w.to("meta"), K), "c2w is on meta"),
    ):
        with pytest.raises(ValueError, match=message):
            render(*arguments, (WIDTH, HEIGHT))
    with pytest.raises(ValueError, match="near is -1"):
        render(scene, c2w, K, (WIDTH, HEIGHT), near=-1)
    with pytest.raises(ValueError, match="background has shape"):
        render(scene, c2w, K, (WIDTH, HEIGHT), torch.zeros(4))
    with pytest.raises(ValueError, match="0 x 17 pixels"):
        render(scene, c2w, K, (0, HEIGHT))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: gsplat has no CPU backend to compare with")
@pytest.mark.parametrize("degree", [0, 3])
def test_gsplat_draws_the_same(degree):
    c2w, K = cameras(3)
    g = torch.Generator().manual_seed(2)
    size, background = (90, 70), torch.tensor([0.1, 0.2, 0.3])
    K[:, 0] *= 90 / WIDTH
    K[:, 1] *= 70 / HEIGHT
    shapes = ((3, 3, 70, 90), (3, 70, 90), (3, 70, 90))
    weights = [torch.randn(s, generator=g) for s in shapes]
    results = {}
    for device in ("cpu", "cuda"):
        scene = gaussians(2000, degree).to(device)
        inputs = [getattr(scene, name).requires_grad_() for name in ("means", "quats", "scales", "opacities", "sh")]
        drawn = render(scene, c2w.to(device), K.to(device), size, background.to(device))
        outputs = (drawn.images, drawn.alphas, drawn.depths)
        gradients = torch.autograd.grad(outputs, inputs, [w.to(device) for w in weights])
        results[device] = [o.detach().cpu() for o in outputs], [g.cpu() for g in gradients]
    for ours, theirs in zip(results["cpu"][0], results["cuda"][0]):  # a pixel may differ where an alpha is near 1/255
        assert (ours - theirs).abs().mean() < 1e-4 and (ours - theirs).abs().max() < 2e-2
    for ours, theirs in zip(results["cpu"][1], results["cuda"][1]):
        assert (ours - theirs).norm() < 1e-2 * theirs.norm()
