import math

import numba
import numpy as np
import pytest
import torch

from src.splatting import reference as slow
from src.splatting.cpu.rasterize import rasterize
from tests.conftest import load_fixture
from tests.helpers.compositor import composite

NAMES = ("means", "quats", "scales", "opacities", "colors")


def camera(turn: float = 0.0, views: int = 1) -> torch.Tensor:
    """w2c of cameras near the origin that look along +z, each turned a little more than the one before."""
    poses = torch.eye(4).repeat(views, 1, 1)
    for v in range(views):
        a = turn * (v + 1)
        poses[v, :3, :3] = torch.tensor([[math.cos(a), 0, -math.sin(a)], [0, 1, 0], [math.sin(a), 0, math.cos(a)]])
        poses[v, :3, 3] = torch.tensor([0.05, -0.1, 0.02]) * v
    return poses


def intrinsics(width: int, height: int, views: int = 1) -> torch.Tensor:
    K = torch.tensor([[1.1 * width, 0, 0.47 * width], [0, 1.2 * width, 0.52 * height], [0, 0, 1]])
    return K.repeat(views, 1, 1)


def scene(
    count: int,
    width: int,
    height: int,
    views: int = 1,
    seed: int = 0,
    size: float = 2.0,
    opacity: tuple[float, float] = (0.05, 0.95),
) -> dict:
    """Arguments of `rasterize`: Gaussians of about `size` pixels, scattered over the image and a little beyond."""
    g = torch.Generator().manual_seed(seed)
    depth = 1 + 2 * torch.rand(count, generator=g)
    spot = (torch.rand(count, 2, generator=g) * 1.3 - 0.65) / torch.tensor([1.1, 1.2 * width / height])
    low, high = opacity
    return {
        "means": torch.cat([spot * depth[:, None], depth[:, None]], 1),
        "quats": torch.randn(count, 4, generator=g),
        "scales": depth[:, None] * size / width * torch.exp(0.5 * torch.randn(count, 3, generator=g)),
        "opacities": low + (high - low) * torch.rand(count, generator=g),
        "colors": torch.rand(views, count, 3, generator=g),
        "w2c": camera(0.02, views),
        "K": intrinsics(width, height, views),
        "width": width,
        "height": height,
        "near": 0.02,
    }


def one(opacity: float = 0.5, z: float = 2.0, **changes) -> dict:
    """One round Gaussian in front of a 20 x 20 camera, whose centre falls on the corner of four pixels."""
    values = {
        "means": torch.tensor([[0, 0, z]]),
        "quats": torch.tensor([[1.0, 0, 0, 0]]),
        "scales": torch.full((1, 3), 0.1),
        "opacities": torch.tensor([opacity]),
        "colors": torch.ones(1, 1, 3),
        "w2c": torch.eye(4)[None],
        "K": torch.tensor([[[20.0, 0, 10], [0, 20, 10], [0, 0, 1]]]),
        "width": 20,
        "height": 20,
        "near": 0.02,
    }
    return values | changes


def naive(values: dict, view: int = 0, background=(0, 0, 0)):
    arguments = dict(values) | {"colors": values["colors"][view], "w2c": values["w2c"][view], "K": values["K"][view]}
    return composite(**arguments, background=background)


def gradients(values: dict, weights: list[torch.Tensor], rasteriser=rasterize, **options) -> list[torch.Tensor]:
    """Of the weighted sum of images, alphas and depths."""
    inputs = [values[name].clone().requires_grad_() for name in NAMES]
    outputs = rasteriser(**values | dict(zip(NAMES, inputs)), **options)
    return list(torch.autograd.grad(outputs, inputs, [w.to(o) for w, o in zip(weights, outputs)]))


def random_weights(values: dict, seed: int = 1) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    shape = (len(values["w2c"]), values["height"], values["width"])
    return [torch.randn(s, generator=g) for s in ((shape[0], 3, *shape[1:]), shape, shape)]


def assert_close_as_wholes(got, wanted, tolerance: float) -> None:
    for name, a, b in zip(NAMES, got, wanted):
        assert torch.isfinite(a).all() and (a.double() - b).norm() <= tolerance * b.norm(), name


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "width, height, size, opacity",
    [(20, 13, 2, (0.05, 0.95)), (37, 18, 6, (0.5, 1.0)), (1, 1, 0.5, (0.05, 0.95)), (16, 16, 0.2, (0, 0.02))],
)
def test_images_agree_with_the_naive_compositor(width, height, size, opacity):
    values = scene(60, width, height, size=size, opacity=opacity, seed=width)
    images, alphas, depths = rasterize(**values, background=torch.tensor([0.1, 0.7, 0.4]))
    image, alpha, depth, _ = naive(values, background=(0.1, 0.7, 0.4))
    np.testing.assert_allclose(images[0], image, atol=3e-6)
    np.testing.assert_allclose(alphas[0], alpha, atol=1e-6)
    np.testing.assert_allclose(depths[0], depth, atol=1e-5)
    assert alpha.max() > 0.002


def test_large_images_agree_with_the_torch_compositor():
    values = scene(1500, 50, 37, views=3, size=2)
    background = torch.tensor([0.1, 0.7, 0.4])
    wanted = slow.rasterize(
        **{k: v.double() if torch.is_tensor(v) else v for k, v in values.items()}, background=background.double()
    )
    for got, reference in zip(rasterize(**values, background=background), wanted):
        torch.testing.assert_close(got.double(), reference, atol=1e-5, rtol=1e-5)


def test_the_reference_decoder_s_picture():
    data, _ = load_fixture("splatt3r/raster_inputs.safetensors")
    data = {key.removeprefix("render."): value for key, value in data.items() if key.startswith("render.")}
    both = {
        name: torch.cat([data[f"pred{v}_{name}"].reshape(768, -1) for v in (1, 2)])
        for name in ("means", "rotations", "scales", "opacities", "sh")
    }
    height, width = data["image_hw"][0].tolist()
    K = data["target_K"][0, :, :3, :3].clone()  # the reference drops the principal point
    K[:, 0, 2], K[:, 1, 2] = width / 2, height / 2
    w2c = torch.linalg.inv(data["target_c2w"][0].double()) @ data["base_c2w"][0].double()
    colors = (0.5 + 0.28209479177387814 * both["sh"]).clamp_min(0).expand(2, -1, -1)
    images, alphas, _ = rasterize(
        both["means"],
        both["rotations"].roll(1, -1),
        both["scales"],
        both["opacities"][:, 0],
        colors,
        w2c,
        K,
        width,
        height,
        0.02,
    )
    for got, wanted in ((images, data["render_own_float64"][0]), (1 - alphas, data["transmittance_own_float64"][0])):
        error = (got - wanted).abs()
        assert error.mean() < 1e-4 and error.max() < 2e-2, (error.mean(), error.max())


@pytest.mark.parametrize("z, visible", [(2.0, True), (0.02, True), (0.0199, False), (0.0, False), (-2.0, False)])
def test_gaussians_before_the_near_plane_are_not_drawn(z, visible):
    values = one(z=z)
    _, alphas, depths = rasterize(**values)
    assert bool(alphas.max() > 0) is visible and bool(depths.max() > 0) is visible
    assert bool(gradients(values, random_weights(values))[3].abs().max() > 0) is visible


def test_alpha_is_the_opacity_times_the_falloff_and_at_most_0_999():
    values = one(opacity=0.5)
    values["K"][:, :2, 2] = 10.5  # the centre falls on a pixel's centre
    assert rasterize(**values)[1][0, 10, 10] == pytest.approx(0.5, abs=1e-6)
    assert rasterize(**values)[1][0, 10, 11] == pytest.approx(0.5 * math.exp(-0.5 / (1 + 0.3)), abs=1e-6)
    values["opacities"][:] = 1
    assert rasterize(**values)[1][0, 10, 10] == pytest.approx(0.999, abs=1e-6)


def test_zero_opacity_draws_nothing_and_gets_no_gradient():
    values = one(opacity=0.0)
    images, alphas, depths = rasterize(**values, background=torch.tensor([0.2, 0.3, 0.4]))
    assert (images == torch.tensor([0.2, 0.3, 0.4])[:, None, None]).all() and not alphas.any() and not depths.any()
    assert not any(g.any() for g in gradients(values, random_weights(values)))


def test_a_view_that_sees_nothing_is_background():
    values = scene(50, 20, 13, views=2)
    values["w2c"][1, :3, :3] = torch.diag(torch.tensor([-1.0, 1, -1]))  # looks back
    images, alphas, _ = rasterize(**values, background=torch.tensor([0.2, 0.3, 0.4]))
    assert alphas[0].max() > 0.1 and not alphas[1].any()
    assert (images[1] == torch.tensor([0.2, 0.3, 0.4])[:, None, None]).all()


def test_no_gaussians_and_no_views():
    values = scene(0, 20, 13, views=2)
    images, alphas, depths = rasterize(**values)
    assert images.shape == (2, 3, 13, 20) and not images.any() and not alphas.any() and not depths.any()
    assert [g.shape for g in gradients(values, random_weights(values))] == [values[name].shape for name in NAMES]
    values = scene(5, 20, 13, views=1)
    for name in ("colors", "w2c", "K"):
        values[name] = values[name][:0]
    assert [o.shape for o in rasterize(**values)] == [(0, 3, 13, 20), (0, 13, 20), (0, 13, 20)]


def test_thousands_of_gaussians_on_one_pixel():
    count, faint = 5000, 0.01
    values = one()
    for name in ("quats", "scales"):
        values[name] = values[name].expand(count, -1)
    g = torch.Generator().manual_seed(0)
    values["means"] = torch.cat([torch.zeros(count, 2), 1 + torch.rand(count, 1, generator=g)], 1)
    values["colors"], values["opacities"] = torch.rand(1, count, 3, generator=g), torch.full((count,), faint)
    values["K"][:, :2, 2] = 10.5
    images, alphas, _ = rasterize(**values)
    order = values["means"][:, 2].argsort(stable=True)
    light, seen = 1.0, torch.zeros(3, dtype=torch.float64)
    for i in order:  # all alphas are `faint` at this pixel
        if light * (1 - faint) <= 1e-4:
            break
        seen += light * faint * values["colors"][0, i]
        light *= 1 - faint
    torch.testing.assert_close(images[0, :, 10, 10].double(), seen, atol=1e-5, rtol=0)
    assert 1 - alphas[0, 10, 10] == pytest.approx(light, rel=2e-3) and light > 1e-4


def test_a_huge_gaussian_covers_everything():
    values = one(opacity=0.6, scales=torch.full((1, 3), 1e4), width=50, height=33)
    images, alphas, depths = rasterize(**values)
    torch.testing.assert_close(alphas, torch.full((1, 33, 50), 0.6), atol=1e-5, rtol=0)
    torch.testing.assert_close(depths, torch.full((1, 33, 50), 1.2), atol=1e-5, rtol=0)
    assert all(torch.isfinite(g).all() for g in gradients(values, random_weights(values)))


@pytest.mark.parametrize("name", NAMES[:4])
def test_gaussians_that_are_not_finite_are_left_out(name):
    values = scene(30, 20, 13)
    without = {**values, "opacities": values["opacities"].clone()}
    without["opacities"][7] = 0
    values[name] = values[name].clone()
    values[name][7] = math.nan
    for got, wanted in zip(rasterize(**values), rasterize(**without)):
        torch.testing.assert_close(got, wanted, atol=0, rtol=0)
    *shared, to_colors = gradients(values, random_weights(values))
    assert all(torch.isfinite(g).all() and g.any() and not g[7].any() for g in (*shared, to_colors[0]))


def test_equal_depths_are_drawn_in_the_order_given():
    values = one(opacity=0.9)
    for name in ("means", "quats", "scales"):
        values[name] = values[name].expand(3, -1)
    values["opacities"] = values["opacities"].expand(3)
    values["colors"] = torch.eye(3)[None]
    values["K"][:, :2, 2] = 10.5
    seen = rasterize(**values)[0][0, :, 10, 10]
    torch.testing.assert_close(seen, torch.tensor([0.9, 0.09, 0.009]), atol=1e-6, rtol=0)


# --- gradients -------------------------------------------------------------------------------------------------------


def difficult() -> dict:
    """Nine Gaussians: large, thin, opaque beyond the clamp, beside the field of view, and a stack that ends pixels."""
    values = scene(9, 14, 11, seed=4, size=1.5, opacity=(0.3, 0.9))
    values["scales"][0] = torch.tensor([0.4, 0.3, 0.5])
    values["scales"][1] = torch.tensor([0.5, 0.01, 0.02])
    values["means"][2], values["opacities"][2], values["scales"][2] = torch.tensor([0.1, 0.05, 1.2]), 1.0, 0.3
    values["means"][3], values["scales"][3] = torch.tensor([-1.6, 0.3, 1.5]), 0.8  # x/z = -1.07, clamped at -0.56
    values["means"][4], values["scales"][4] = torch.tensor([0.2, 1.7, 1.6]), 0.8
    values["means"][5:8] = torch.tensor([[-0.3, -0.2, 1.3], [-0.3, -0.2, 1.5], [-0.3, -0.2, 1.7]])
    values["scales"][5:8], values["opacities"][5:8] = 0.2, 0.98
    return values


def test_gradients_agree_with_finite_differences():
    values = difficult()
    weights = random_weights(values)
    background = (0.3, 0.6, 0.1)

    def loss() -> float:
        *outputs, margin = naive(values, background=background)
        assert margin > 1e-5  # no threshold lies between the two points of a difference
        return sum(float((w[0].numpy() * o).sum()) for w, o in zip(weights, outputs))

    analytic = gradients(values, weights, background=torch.tensor(background))
    for name in NAMES:
        values[name] = values[name].double()
    for name, gradient in zip(NAMES, analytic):
        flat, wanted = values[name].view(-1), torch.empty(values[name].numel(), dtype=torch.float64)
        for i in range(len(flat)):
            centre, step = float(flat[i]), 1e-6
            difference = 0.0
            for sign in (1, -1):
                flat[i] = centre + sign * step
                difference += sign * loss()
            flat[i] = centre
            wanted[i] = difference / (2 * step)
        torch.testing.assert_close(gradient.double().view(-1), wanted, rtol=1e-4, atol=2e-5 * float(wanted.abs().max()))
        assert wanted.abs().max() > 0.05, name


@pytest.mark.parametrize("size, opacity", [(2, (0.05, 0.95)), (8, (0.01, 0.2)), (0.3, (0.5, 1.0))])
def test_gradients_agree_with_autograd(size, opacity):
    values = scene(500, 50, 37, views=2, size=size, opacity=opacity)
    weights, background = random_weights(values), torch.tensor([0.1, 0.7, 0.4])
    wanted = gradients(
        {k: v.double() if torch.is_tensor(v) else v for k, v in values.items()},
        weights,
        slow.rasterize,
        background=background.double(),
    )
    assert_close_as_wholes(gradients(values, weights, background=background), wanted, 2e-5)


@pytest.mark.parametrize("used", range(3))
def test_each_output_alone_carries_a_gradient(used):
    values = scene(100, 20, 13)
    weights = [w * (i == used) for i, w in enumerate(random_weights(values))]
    wanted = gradients({k: v.double() if torch.is_tensor(v) else v for k, v in values.items()}, weights, slow.rasterize)
    got = gradients(values, weights)
    assert_close_as_wholes(got[:4], wanted, 2e-5)
    assert bool(got[4].any()) is (used == 0)


def test_unused_outputs_may_be_left_out():
    values = scene(100, 20, 13)
    means = values["means"].requires_grad_()
    rasterize(**values)[0].sum().backward()
    weights = [torch.ones(1, 3, 13, 20), torch.zeros(1, 13, 20), torch.zeros(1, 13, 20)]
    torch.testing.assert_close(means.grad, gradients(values | {"means": means.detach()}, weights)[0], atol=0, rtol=0)


def test_gradients_held_in_small_blocks_are_the_same_bits(monkeypatch):
    values = scene(1500, 70, 53)
    weights = random_weights(values)
    wanted = gradients(values, weights)
    for block in (1, 700):
        monkeypatch.setattr("src.splatting.cpu.rasterize.BLOCK", block)
        assert all(torch.equal(a, b) for a, b in zip(gradients(values, weights), wanted))


# --- determinism, memory layout, refusals ----------------------------------------------------------------------------


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="no second thread to test with")
def test_threads_change_no_bit():
    values = scene(3000, 90, 70, views=2, size=3)
    weights, results = random_weights(values), []
    before = torch.get_num_threads()
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            results.append([*rasterize(**values)])
            assert torch.get_num_threads() == numba.get_num_threads() == count
            results[-1] += gradients(values, weights)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


def test_memory_layout_does_not_matter():
    values = scene(100, 20, 13, views=2)
    wanted = [*rasterize(**values), *gradients(values, random_weights(values))]
    strided = {k: torch.stack([v, v], -1)[..., 0] if torch.is_tensor(v) else v for k, v in values.items()}
    assert not any(strided[name].is_contiguous() for name in NAMES)
    weights = [torch.stack([w, w], -1)[..., 1] for w in random_weights(values)]
    assert all(torch.equal(a, b) for a, b in zip([*rasterize(**strided), *gradients(strided, weights)], wanted))


def test_colours_expanded_over_views():
    values = scene(100, 20, 13, views=2)
    values["colors"] = values["colors"][:1].expand(2, -1, -1)
    repeated = values | {"colors": values["colors"].contiguous()}
    weights = random_weights(values)
    assert all(torch.equal(a, b) for a, b in zip(gradients(values, weights), gradients(repeated, weights)))


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("means", torch.zeros(5, 2), r"means has shape \(5, 2\)"),
        ("quats", torch.zeros(5, 3), "quats has shape"),
        ("scales", torch.zeros(4, 3), "scales has shape"),
        ("opacities", torch.zeros(5, 1), "opacities has shape"),
        ("colors", torch.zeros(5, 3), "colors has shape"),
        ("colors", torch.zeros(2, 5, 3), "colors has shape"),
        ("w2c", torch.zeros(1, 3, 4), "w2c has shape"),
        ("K", torch.zeros(3, 3), "K has shape"),
        ("K", torch.diag(torch.tensor([-1.0, 1, 1]))[None], "focal length"),
        ("background", torch.zeros(4), "background has shape"),
        ("means", torch.zeros(5, 3, dtype=torch.float64), "means is torch.float64"),
        ("width", 0, "0 x 13 pixels"),
        ("height", -1, "20 x -1 pixels"),
        ("near", 0.0, "near is 0.0"),
        ("near", math.nan, "near is nan"),
        ("opacities", torch.zeros(5, device="meta"), "opacities is on meta"),
    ],
)
def test_wrong_arguments_are_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        rasterize(**scene(5, 20, 13) | {name: value})


def test_too_many_gaussians_are_refused():
    count = 1 << 24
    with pytest.raises(ValueError, match="Gaussians were given"):
        rasterize(
            **one()
            | {
                "means": torch.zeros(1).expand(count, 3),
                "quats": torch.zeros(1).expand(count, 4),
                "scales": torch.zeros(1).expand(count, 3),
                "opacities": torch.zeros(1).expand(count),
                "colors": torch.zeros(1).expand(1, count, 3),
            }
        )
