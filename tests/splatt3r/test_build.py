from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch

from src.config import Config, load_config
from src.mast3r.network import Mast3r
from src.mast3r.weight_file import write_geometry
from src.render import episode_renders
from src.reproducible.files import write_json
from src.reproducible.hashes import file_hash
from src.splatt3r.build import (
    PARAMETER_FILE,
    SHIPPED,
    TRAINED,
    build_model,
    load_model,
    save_trained,
    scale_reference,
    start_heads,
)
from src.splatt3r.choices import FUSION_MODES, FUSION_SITES
from src.splatt3r.fusion import resize_features
from src.splatt3r.fusion_effects import fusion_effects
from src.splatt3r.network import Splatt3R
from src.splatt3r.prediction import predict, render_targets, target_mask
from src.splatt3r.samples import Sample, Views, each_tensor
from src.splatting.gaussians import Gaussians
from src.splatting.sh import colours
from tests.helpers.networks import GEOMETRY, write_drawn_geometry
from tests.helpers.repository import ROOT

SMALL = replace(GEOMETRY, enc_embed_dim=32, dec_embed_dim=32)


def unposed(*overrides: str) -> Config:
    return load_config(["model.cameras=unposed", *overrides], ROOT)


@pytest.fixture()
def geometry(tmp_path) -> Path:
    write_drawn_geometry(tmp_path / "geometry" / "model.safetensors", SMALL)
    write_json(tmp_path / "geometry" / "record.json", {"name": "tiny"})
    return tmp_path / "geometry"


def sample(channels: int = 0) -> Sample:
    """A batch of one: two contexts and a target, 1 m before a wall; the target stands where the first context does."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(1, 3, 3, 32, 32, generator=generator)
    c2w = torch.eye(4).repeat(1, 3, 1, 1)
    c2w[:, 1, 0, 3] = 0.1
    depth = torch.ones(1, 3, 32, 32)
    K = torch.tensor([[32.0, 0, 16], [0, 32, 16], [0, 0, 1]]).expand(1, 3, 3, 3)
    contexts, targets = (
        Views(images[:, p], depth[:, p], depth[:, p] > 0, K[:, p], c2w[:, p]) for p in (slice(2), slice(2, 3))
    )
    tokens = torch.randn(1, 2, 4, 32, generator=generator)
    features = torch.randn(1, 2, channels, 3, 3, generator=generator) if channels else None
    return Sample(contexts, targets, tokens, features)


def test_step_0_with_features_is_the_baseline_bit_for_bit(geometry):
    config = unposed()
    with torch.no_grad():
        bare = predict(build_model(config, geometry, 0), sample())
        for mode, site in product(FUSION_MODES, FUSION_SITES):
            config.model.fusion_mode, config.model.fusion_site = mode, site
            fused = predict(build_model(config, geometry, 24), sample(24))
            for name in ("means", "quats", "scales", "opacities", "sh"):
                found, wanted = (getattr(each.output.gaussians, name) for each in (fused, bare))
                assert torch.equal(found, wanted), (mode, site, name)
            assert torch.equal(fused.scales, bare.scales)


def test_backbones_of_any_width_get_as_many_parameters_as_asked(geometry):
    config = unposed("model.fusion_parameters=100000")
    for mode, channels in product(FUSION_MODES, (24, 700)):
        config.model.fusion_mode = mode
        adapters = build_model(config, geometry, channels).parameter_groups()["fusion"].values()
        assert sum(p.numel() for p in adapters) == pytest.approx(100_000, rel=0.01), (mode, channels)
    assert not build_model(config, geometry, 0).parameter_groups()["fusion"]
    config.model.fusion_parameters = 20
    with pytest.raises(ValueError, match="model.fusion_parameters is 20, which fusion_mode film"):
        build_model(config, geometry, 24)


def test_what_fusion_does_is_measured_on_what_the_network_shows_the_adapters(geometry):
    config = unposed("model.fusion_hooks=[2,4]", "model.fusion_mode=weighted_sum")
    network, batch = build_model(config, geometry, 24), sample(24)
    with torch.no_grad():
        network.fusion["2"].weight += 0.25
        found = fusion_effects(network, [batch])
        tokens = network.decode(*batch.tokens.unbind(1), (2, 2), (2, 2))
        changes = []
        for view, listed in enumerate(tokens):
            x = listed[2].mT.unflatten(-1, (2, 2))
            f = network.fusion["2"].project_features(resize_features(batch.features[:, view], (2, 2)))
            changes.append(0.25 * ((f - x).square().sum() / x.square().sum()).sqrt().item())
    assert found == {
        "2": {"relative_change": pytest.approx(sum(changes) / 2, rel=1e-4), "weight": 0.25},
        "4": {"relative_change": 0, "weight": 0},
    }
    assert not any(adapter._forward_pre_hooks for adapter in network.fusion.values())
    assert fusion_effects(build_model(unposed(), geometry, 0), [sample()]) == {}


def test_the_untrained_heads_gaussians_start_as_the_parameters_say(geometry):
    config = unposed("geometries.tiny.initial_scale=0.02", "geometries.tiny.initial_opacity=0.3")
    with torch.no_grad():
        gaussians = predict(build_model(config, geometry, 0), sample()).output.gaussians
    assert gaussians.scales.median().item() == pytest.approx(0.02, rel=0.05)
    assert gaussians.opacities.median().item() == pytest.approx(0.3, abs=0.1)


def test_gaussian_heads_start_from_the_point_heads_where_asked(geometry):
    """What enters the last layer is then the same in both heads; Gaussians have their pixels' colours and the opacity of
    the parameters, and are otherwise what a drawn last layer makes of that."""
    config = unposed("geometries.tiny.initial_head=points")
    network, drawn = build_model(config, geometry, 0), build_model(config, geometry, 0)
    assert start_heads(network, config, geometry) == "points"
    assert start_heads(drawn, unposed("geometries.tiny.initial_head=drawn"), geometry) == "drawn"
    for name in ("downstream_head1", "downstream_head2"):
        head, other = getattr(network, name), getattr(drawn, name)
        last = [part.head[-1] for part in (head.dpt, head.gaussian_dpt.dpt, other.gaussian_dpt.dpt)]
        entered = {}
        for layer in last:
            layer.register_forward_pre_hook(lambda layer, inputs, entered=entered: entered.update({layer: inputs[0]}))
        with torch.no_grad():
            predict(network, sample())
            predict(drawn, sample())
        points, gaussians, unlike = (entered[layer] for layer in last)
        assert torch.equal(points, gaussians) and not torch.allclose(points, unlike)
        assert torch.equal(last[1].weight[:10], last[2].weight[:10]) and torch.equal(last[1].bias, last[2].bias)
    with torch.no_grad():
        first = predict(network, sample()).output.gaussians
    assert torch.allclose(first.opacities, torch.tensor(config.geometries["tiny"].initial_opacity))
    pixels = sample().contexts.images.movedim(2, -1).flatten(1, 3)
    assert torch.allclose(colours(first.sh[0], first.means[0], torch.zeros(1, 3)), pixels, atol=1e-6)


@pytest.fixture
def shipped(geometry, monkeypatch) -> torch.nn.Module:
    """A model, shipped where the work directory is, whose Gaussian head was moved from where it started."""
    monkeypatch.chdir(geometry.parent)
    write_json(geometry / "record.json", {"name": "tiny", "sha256": "feed"})
    config = load_config(["model.backbone=none", "geometries.tiny.initial_head=points"], ROOT)
    model = build_model(config, geometry, 0)
    start_heads(model, config, geometry)
    for parameter in model.parameter_groups()["gaussian_head"].values():
        parameter.data += 0.1
    save_trained(model, SHIPPED, {})
    said = {"model": {"sh_degree": 0, "use_offsets": True}, "geometry": {"file": "g"}}
    write_json(SHIPPED / PARAMETER_FILE, said | {"sha256": {"g": "feed", TRAINED: file_hash(SHIPPED / TRAINED)}})
    return model


def test_a_gaussian_head_starts_from_the_shipped_one_where_cameras_are_given(geometry, shipped):
    config = load_config(["geometries.tiny.initial_head=trained"], ROOT)
    network = build_model(config, geometry, 24)
    assert start_heads(network, config, geometry) == file_hash(SHIPPED / TRAINED)
    wanted = shipped.parameter_groups()["gaussian_head"]
    found = network.parameter_groups()["gaussian_head"]
    reached = network.reached_parameters()["gaussian_head"]
    assert reached and all(torch.equal(found[name], wanted[name]) for name in reached)
    config = unposed("geometries.tiny.initial_head=trained")
    assert start_heads(build_model(config, geometry, 0), config, geometry) == "points"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.sh_degree=1"], "stands on model.sh_degree 0, not 1; set geometries.tiny.initial_head=points"),
        (["model.use_offsets=false"], "model.use_offsets True, not False"),
    ],
)
def test_a_trained_head_of_another_kind_is_refused(geometry, shipped, overrides, words):
    config = load_config(["geometries.tiny.initial_head=trained", *overrides], ROOT)
    with pytest.raises(ValueError, match=words):
        start_heads(build_model(config, geometry, 0), config, geometry)


def test_a_trained_head_that_is_missing_damaged_or_of_another_geometry_is_refused(geometry, shipped):
    config = load_config(["geometries.tiny.initial_head=trained"], ROOT)
    network = build_model(config, geometry, 0)
    write_json(geometry / "record.json", {"name": "tiny", "sha256": "beef"})
    with pytest.raises(ValueError, match="the geometry network feed, not beef"):
        start_heads(network, config, geometry)
    write_json(geometry / "record.json", {"name": "tiny", "sha256": "feed"})
    with (SHIPPED / TRAINED).open("ab") as file:
        file.write(b" ")
    with pytest.raises(ValueError, match="a file of SHA-256"):
        start_heads(network, config, geometry)
    (SHIPPED / TRAINED).unlink()
    with pytest.raises(FileNotFoundError, match="git checkout -- data/bundled/splatt3r, or set geometries"):
        start_heads(network, config, geometry)


def test_gaussian_heads_cannot_start_from_linear_point_heads(geometry):
    linear = Mast3r(replace(SMALL, head="linear"))
    write_geometry(geometry / "model.safetensors", linear.config, linear.state_dict())
    with pytest.raises(ValueError, match="initial_head is points, but .* linear .* set it to drawn"):
        start_heads(build_model(unposed(), geometry, 0), unposed("geometries.tiny.initial_head=points"), geometry)


def test_trained_tensors_come_back(geometry, tmp_path):
    config = unposed()
    network = build_model(config, geometry, 24)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1
    record = {"feature_channels": 24, "train_points": False}
    save_trained(network, tmp_path / "model", record)
    copy, found = load_model(config, geometry, tmp_path / "model")
    assert found == record
    for name, value in network.state_dict().items():
        assert torch.equal(copy.state_dict()[name], value), name


def test_scales_and_renders_follow_the_prediction(geometry):
    network, batch = build_model(unposed(), geometry, 0), sample()
    with torch.no_grad():
        prediction = predict(network, batch)
    lengths = torch.cat(
        [m.pts3d.norm(dim=-1).flatten() for m in (prediction.output.points1, prediction.output.points2)]
    )
    rows, columns = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(32) + 0.5, indexing="ij")
    rays = torch.stack([(columns - 16) / 32, (rows - 16) / 32, torch.ones(32, 32)], -1)
    true = torch.cat([rays.norm(dim=-1).flatten(), (rays + torch.tensor([0.1, 0, 0])).norm(dim=-1).flatten()])
    assert prediction.scales[0].item() == pytest.approx((lengths / true).median().item(), rel=1e-5)
    wall = torch.stack([(columns - 16) / 16, (rows - 16) / 16, 2 * torch.ones(32, 32)], -1).reshape(
        -1, 3
    )  # twice as far
    ones = torch.ones(len(wall))
    gaussians = Gaussians(
        wall,
        torch.tensor([1.0, 0, 0, 0]).expand(len(wall), 4),
        0.04 * torch.ones_like(wall),
        0.99 * ones,
        torch.zeros(len(wall), 1, 3),
    )
    rendering = render_targets(gaussians, batch, 0, 2.0)
    assert rendering.images.shape == (1, 3, 32, 32) and rendering.depths[0, 16, 16].item() == pytest.approx(2, rel=1e-3)


def test_the_mask_needs_a_valid_target_pixel(geometry):
    batch = sample()
    assert target_mask(batch, True, "strict").all()
    batch.targets.valid[0, 0, 5, 7] = False
    mask = target_mask(batch, True, "strict")
    assert not mask[0, 0, 5, 7] and mask.sum() == 32 * 32 - 1


def test_trained_gaussian_heads_are_used_as_they_were_trained(geometry):
    torch.manual_seed(0)
    published = Splatt3R(SMALL, sh_degree=1, use_offsets=False, generator=torch.Generator().manual_seed(5))
    write_geometry(geometry / "model.safetensors", SMALL, published.state_dict())
    write_json(geometry / "record.json", {"name": "splatt3r", "sh_degree": 1, "use_offsets": False})
    right = ["model.geometry=splatt3r", "model.sh_degree=1", "model.use_offsets=false"]
    network = build_model(unposed(*right), geometry, 0)
    head = network.downstream_head2.gaussian_dpt.dpt.head[-1].weight
    assert torch.equal(head, published.downstream_head2.gaussian_dpt.dpt.head[-1].weight) and network.head_loaded
    frozen = build_model(unposed(*right, "model.freeze_gaussian_head=true"), geometry, 24)
    assert {name.split(".")[0] for name, p in frozen.named_parameters() if p.requires_grad} == {"fusion"}
    with pytest.raises(
        ValueError,
        match="model.sh_degree is 0, but the Gaussian heads of geometry splatt3r were trained "
        "with 1; set model.sh_degree=1",
    ):
        build_model(unposed(*right, "model.sh_degree=0"), geometry, 0)
    with pytest.raises(ValueError, match="model.use_offsets is True, .* set model.use_offsets=false"):
        build_model(unposed(*right, "model.use_offsets=true"), geometry, 0)


def test_scales_stay_the_frozen_geometrys_whatever_is_trained(geometry):
    batch = sample()
    with torch.no_grad():
        expected = predict(build_model(unposed(), geometry, 0), batch).scales
        for overrides, channels in ((["model.strategy=fusion_finetune"], 0), (["model.fusion_site=encoder"], 24)):
            network = build_model(unposed(*overrides), geometry, channels)
            frozen, given = scale_reference(network, geometry), sample(channels)
            for parameter in network.parameters():
                if parameter.requires_grad:
                    parameter += 0.05
            assert torch.equal(predict(network, given, frozen).scales, expected)
            assert not torch.equal(predict(network, given).scales, expected)
    for backbone in (0, 24):
        assert scale_reference(build_model(unposed(), geometry, backbone), geometry) is None


def test_pairs_without_depth_have_a_scale_and_all_valid_pixels(geometry):
    network, batch = build_model(unposed(), geometry, 0), sample()
    batch.contexts.depth.zero_()
    batch.targets.depth.zero_()
    batch.targets.valid[0, 0, 3] = False
    with torch.no_grad():
        scale = predict(network, batch).scales
    assert scale.shape == (1,) and scale.item() > 0
    for in_metres in (True, False):
        assert target_mask(batch, in_metres, "strict").sum() == 31 * 32


@torch.no_grad()
def test_true_points_take_the_place_of_predicted_ones(geometry):
    network, batch = build_model(unposed(), geometry, 0), sample()
    plain = predict(network, batch)
    generator = torch.Generator().manual_seed(4)
    truth = torch.randn(1, 2, 32, 32, 3, generator=generator)
    truth[0, 1, 7, 9] = torch.nan
    oracle = predict(network, replace(batch, true_points=truth))
    assert torch.equal(oracle.scales, torch.ones(1))
    before, after = plain.output.gaussians, oracle.output.gaussians
    for name in ("quats", "scales", "opacities", "sh"):
        assert torch.equal(getattr(after, name), getattr(before, name))
    for view, row, column in ((0, 0, 0), (0, 31, 2), (1, 7, 9), (1, 20, 30)):
        predicted = (plain.output.points1, plain.output.points2)[view].pts3d[0, row, column]
        place = 1024 * view + 32 * row + column
        offset = before.means[0, place] - predicted
        point = predicted / plain.scales[0] if (view, row, column) == (1, 7, 9) else truth[0, view, row, column]
        torch.testing.assert_close(after.means[0, place], point + offset, rtol=0, atol=1e-5)
        torch.testing.assert_close((oracle.output.points1, oracle.output.points2)[view].pts3d[0, row, column], point)


@torch.no_grad()
def test_true_points_of_scenes_without_a_metre_take_the_predicted_size(geometry):
    """Whatever the unit of depths and poses, the Gaussians stand in the same places and the scale makes up for it."""
    network, batch = build_model(unposed(), geometry, 0), sample()
    truth = torch.rand(1, 2, 32, 32, 3, generator=torch.Generator().manual_seed(4))
    truth[0, 0, 3, 5] = torch.nan
    own = predict(network, batch).output.points1.pts3d[0, 3, 5]
    means, scales = [], []
    for unit in (1, 10):
        poses = batch.contexts.c2w.clone()
        poses[..., :3, 3] *= unit
        contexts = replace(batch.contexts, depth=unit * batch.contexts.depth, c2w=poses)
        scaled = replace(batch, contexts=contexts, true_points=unit * truth)
        prediction = predict(network, scaled, in_metres=False)
        torch.testing.assert_close(prediction.output.points1.pts3d[0, 3, 5], own)
        torch.testing.assert_close(
            prediction.scales, predict(network, replace(scaled, true_points=truth)).geometry_scales
        )
        means.append(prediction.output.gaussians.means)
        scales.append(prediction.scales)
    torch.testing.assert_close(means[0], means[1])
    torch.testing.assert_close(scales[0], 10 * scales[1])


@torch.no_grad()
def test_floors_show_the_frozen_geometrys_points_whatever_is_trained_or_given(geometry):
    floors = [f"{name}{suffix}" for name in ("points", "points_splat") for suffix in ("", "_aligned")]
    forwards = Mast3r(SMALL)
    forwards.init_weights(torch.Generator().manual_seed(0))
    for head in (forwards.downstream_head1, forwards.downstream_head2):
        head.dpt.head[-1].bias[2] = 2.0  # points before the camera, where pictures show them
    write_geometry(geometry / "model.safetensors", SMALL, forwards.state_dict())
    network, given = (
        build_model(unposed(), geometry, 0),
        each_tensor(lambda x: x[0], sample()),
    )
    wanted, _ = episode_renders(network, given, True, "strict")
    oracle, _ = episode_renders(network, replace(given, true_points=torch.ones(2, 32, 32, 3)), True, "strict")
    tuned = build_model(unposed("model.strategy=fusion_finetune"), geometry, 0)
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter += 0.05
    moved, _ = episode_renders(tuned, given, True, "strict", scale_reference(tuned, geometry))
    for name in floors:
        assert wanted[name].max() > 0
        assert torch.equal(oracle[name], wanted[name]), name
        torch.testing.assert_close(moved[name], wanted[name], rtol=0, atol=1e-4)
    assert not torch.equal(oracle["means"], wanted["means"]) and not torch.equal(moved["means"], wanted["means"])


def test_with_true_points_the_gaussian_head_still_learns(geometry):
    network, batch = build_model(unposed(), geometry, 0), sample()
    prediction = predict(network, replace(batch, true_points=torch.full((1, 2, 32, 32, 3), 0.5)))
    prediction.output.gaussians.means.square().sum().backward()
    last = network.downstream_head1.gaussian_dpt.dpt.head[-1].bias.grad
    assert last[:3].abs().min() > 0 and last[3:].abs().max() == 0
