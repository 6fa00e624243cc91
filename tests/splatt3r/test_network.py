import math
import zlib
from dataclasses import replace

import pytest
import torch

from src.mast3r.network import MAST3R, Mast3r, PointMap
from src.splatt3r.choices import FUSION_SITES
from src.splatt3r.fusion import ADAPTERS, FusionConfig
from src.splatt3r.gaussian_head import GaussianHead, Limits, activate, offsets, wxyz
from src.splatt3r.network import Splatt3R, load_trained, trained_state_dict
from src.splatting.sh import rgb_to_dc
from tests.conftest import assert_reference, load_fixture
from tests.helpers.networks import SMALL, generator, with_drawn_geometry

SIZE = (32, 48)  # H, W


def tiny(fusion: FusionConfig | None = None, seed: int = 0, **options) -> Splatt3R:
    """A small model whose geometry weights are the same for every `fusion`."""
    return with_drawn_geometry(Splatt3R(SMALL, fusion=fusion, generator=generator(seed), **options))


def inputs(model: Splatt3R, features: bool = True, seed: int = 1) -> dict[str, torch.Tensor | None]:
    g = generator(seed)
    images = [torch.rand(2, 3, *SIZE, generator=g) for _ in range(2)]
    maps = [torch.randn(2, 40, 3, 4, generator=g) for _ in range(2)]
    tokens = [model.encode(2 * image - 1) for image in images]
    if not model.encoder_trainable:
        tokens = [t.detach() for t in tokens]
    return {
        "tokens1": tokens[0],
        "tokens2": tokens[1],
        "images1": images[0],
        "images2": images[1],
        "features1": maps[0] if features else None,
        "features2": maps[1] if features else None,
    }


def tensors(output) -> list[torch.Tensor]:
    return [
        *vars(output.gaussians).values(),
        *(getattr(points, name) for points in (output.points1, output.points2) for name in ("pts3d", "conf")),
    ]


# --- activations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["sh1", "sh4"])
@pytest.mark.parametrize("use_offsets", [True, False])
def test_activations_agree_with_the_reference(case, use_offsets):
    data, _ = load_fixture("splatt3r/gaussian_postprocess.safetensors")
    data = {key.removeprefix(case + "."): value for key, value in data.items() if key.startswith(case + ".")}
    raw = data["raw"][:, 29:]
    grey = torch.full((len(raw), 3, *raw.shape[-2:]), 0.5)  # adds nothing to the colour
    g = activate(raw, data["out_pts3d"], grey, use_offsets)
    close = dict(rtol=1e-5, atol=1e-6)
    means = data["out_means" if use_offsets else "out_means_no_offsets"]
    torch.testing.assert_close(g.means, means.flatten(1, 2), **close)
    torch.testing.assert_close(g.scales, data["out_scales"].flatten(1, 2), **close)
    torch.testing.assert_close(g.opacities, data["out_opacities"].flatten(1), **close)
    torch.testing.assert_close(g.sh, data["out_sh"].flatten(1, 2).mT, **close)
    rotations = data["out_rotations"].flatten(1, 2)[..., [3, 0, 1, 2]]
    zero = rotations.norm(dim=-1) == 0
    assert zero[0, 1]
    rotations[zero] = torch.tensor([1.0, 0, 0, 0])  # the reference turns a zero quaternion into the identity later
    torch.testing.assert_close(g.quats, rotations, **close)


@pytest.mark.parametrize("case", ["sh1", "sh4"])
def test_the_point_heads_channels_agree_with_the_reference(case):
    data, _ = load_fixture("splatt3r/gaussian_postprocess.safetensors")
    points = PointMap.activate(data[f"{case}.raw"][:, :29], 24, True)
    assert_reference(points.pts3d, data[f"{case}.out_pts3d"])
    assert_reference(points.conf, data[f"{case}.out_conf"].view_as(points.conf))
    assert_reference(points.desc, data[f"{case}.out_desc"])
    confidence = 1 + points.desc_conf  # Splatt3R states no mode of its own for it, so there it begins at 1
    assert_reference(confidence, data[f"{case}.out_desc_conf"].view_as(confidence))


@pytest.mark.parametrize("case", ["sh1", "sh4"])
def test_gradients_of_the_activations_agree_with_the_reference(case):
    data, _ = load_fixture("splatt3r/gaussian_postprocess.safetensors")
    data = {key.removeprefix(case + "."): value for key, value in data.items() if key.startswith(case + ".")}
    raw, points = data["raw"][:, 29:].clone().requires_grad_(), data["out_pts3d"].clone().requires_grad_()
    g = activate(raw, points, torch.full((len(raw), 3, *raw.shape[-2:]), 0.5))
    names = ("means", "scales", "rotations", "sh", "opacities")
    weights = {name: data[f"weight_{name}"].flatten(1, 2) for name in names}
    total = (
        (g.means * weights["means"]).sum()
        + (g.scales * weights["scales"]).sum()
        + (g.quats * weights["rotations"].roll(1, -1)).sum()
        + (g.sh * weights["sh"].mT).sum()
        + (g.opacities * weights["opacities"][..., 0]).sum()
    )
    total.backward()
    assert points.grad is None  # rendering never moves the points
    assert (data["grad_raw"][:, :29] == 0).all()
    wanted, found = data["grad_raw"][:, 29:], raw.grad
    assert (found[0, :3, 0, 0] == 0).all() and (wanted[0, :3, 0, 0] == 0).all()  # the zero offset
    assert (found[0, 6:10, 0, 1] == 0).all()  # a zero quaternion: the reference divides by 1e-8 here
    wanted[0, 6:10, 0, 1] = 0
    assert_reference(found, wanted)


def test_offsets_by_hand():
    assert torch.equal(offsets(torch.zeros(2, 3)), torch.zeros(2, 3))
    raw = torch.tensor([[0.0, 6.0, 0.0], [3.0, 0.0, -4.0]], dtype=torch.float64)
    wanted = torch.tensor(
        [[0, 1 - math.exp(-6), 0], [0.6 * (math.exp(-1) - math.exp(-6)), 0, -0.8 * (math.exp(-1) - math.exp(-6))]],
        dtype=torch.float64,
    )
    torch.testing.assert_close(offsets(raw), wanted)


def test_quaternions_end_up_wxyz():
    found = wxyz(torch.tensor([[0.0, 0, 0, 2], [3, 0, 0, 4], [0, 0, 0, 0]]))
    torch.testing.assert_close(found, torch.tensor([[1.0, 0, 0, 0], [0.8, 0.6, 0, 0], [1, 0, 0, 0]]))


def test_the_colour_residual_agrees_with_the_reference():
    data, _ = load_fixture("splatt3r/covariance_sh.safetensors")
    raw = torch.zeros(2, 14, 8, 10)
    raw[:, 10:13] = data["sh_raw"][..., 0].permute(0, 3, 1, 2)
    g = activate(raw, torch.zeros(2, 8, 10, 3), data["image"])
    torch.testing.assert_close(g.sh[:, :, 0], data["sh_residual"][..., 0].flatten(1, 2), rtol=0, atol=1e-6)


# --- the head ----------------------------------------------------------------------------------------------------


def formula(name: str, shape: torch.Size) -> torch.Tensor:
    i = torch.arange(shape.numel(), dtype=torch.float64)
    c = zlib.crc32(name.encode()) % 1000003
    x = 43758.5453 * torch.sin(12.9898 * i + 0.0078 * c)
    scale = 0.05 if len(shape) == 1 else shape[1:].numel() ** -0.5
    return (scale * 2 * (x - x.floor() - 0.5)).float().reshape(shape)


def test_the_full_size_head_agrees_with_the_reference():
    data, _ = load_fixture("splatt3r/gaussian_dpt_formula.safetensors")
    dpt = GaussianHead(MAST3R, 0, generator()).dpt
    dpt.load_state_dict({name: formula(name, p.shape) for name, p in dpt.named_parameters()}, strict=False)
    torch.testing.assert_close(dpt.head[4].weight.flatten()[:8], data["head4_w_first8"], rtol=0, atol=1e-7)
    torch.testing.assert_close(dpt.scratch.layer1_rn.weight.flatten()[:8], data["layer1_rn_first8"], rtol=0, atol=1e-7)
    height, width = data["image_hw"].tolist()
    with torch.no_grad():
        out = dpt([data[name] for name in ("tok0", "tok6", "tok9", "tok12")], (height // 16, width // 16))
    assert_reference(out, data["out"])


def test_initial_values_of_the_last_layer():
    last = GaussianHead(MAST3R, 0, generator()).dpt.head[4]
    rows = {
        "offset": (0, 3, 2.140e-4, 0.001),
        "scale": (3, 6, 6.420e-6, -7),
        "quats": (6, 10, 0.21320, 0),
        "sh": (10, 13, 0.21401, 0),
        "opacity": (13, 14, 0.21567, -2),
    }
    for start, stop, bound, bias in rows.values():
        assert last.weight[start:stop].abs().max().item() == pytest.approx(bound, rel=0.03)
        assert last.weight[start:stop].abs().max().item() <= bound * 1.0005
        assert torch.equal(last.bias[start:stop], torch.full((stop - start,), float(bias)))


def test_a_new_head_makes_small_faint_gaussians_on_the_points():
    model = tiny()
    given = inputs(model, features=False)
    out = model(**given)
    points = torch.cat([out.points1.pts3d.flatten(1, 2), out.points2.pts3d.flatten(1, 2)], 1)
    g = out.gaussians
    assert 0 < (g.means - points).norm(dim=-1).max() < 1e-4
    torch.testing.assert_close(g.scales, torch.full_like(g.scales, math.exp(-7)), rtol=1e-3, atol=0)
    assert g.opacities.shape == (2, 2 * SIZE[0] * SIZE[1]) and (g.opacities.mean() - 0.12).abs() < 0.05


# --- the model ---------------------------------------------------------------------------------------------------


def full_size(fusion: FusionConfig | None = None) -> Splatt3R:
    with torch.device("meta"):
        return Splatt3R(MAST3R, fusion=fusion, generator=generator())


def test_full_size_keys_and_parameter_counts():
    model = full_size()
    state = model.state_dict()
    assert len(state) == 1153 and sum(p.numel() for p in model.parameters()) == 729_044_772
    new = {key for key in state if ".gaussian_dpt." in key}
    assert len(new) == 136 and all(key.split(".")[2] == "dpt" for key in new)
    counts = {group: sum(p.numel() for p in named.values()) for group, named in model.parameter_groups().items()}
    assert counts == {
        "encoder": 303_098_880,
        "decoder": 227_668_224,
        "gaussian_head": 40_405_916,
        "point_head": 157_870_984,
        "fusion": 0,
    }
    assert sum(counts.values()) + 768 == 729_044_772  # and the mask token
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trainable == 2 * 19_022_798
    shapes = {
        "scratch.layer3_rn.weight": (256, 384, 3, 3),
        "scratch.layer_rn.2.weight": (256, 384, 3, 3),
        "scratch.refinenet4.resConfUnit1.conv1.bias": (256,),
        "head.4.weight": (14, 128, 1, 1),
        "act_postprocess.0.0.weight": (96, 1024, 1, 1),
        "act_postprocess.3.1.weight": (768, 768, 3, 3),
    }
    for view in (1, 2):
        for key, shape in shapes.items():
            assert tuple(state[f"downstream_head{view}.gaussian_dpt.dpt.{key}"].shape) == shape


@pytest.mark.parametrize(
    "fusion, added",
    [
        (FusionConfig(384), 2_071_296),
        (FusionConfig(1024, hooks=(6, 12)), 2 * 2_562_816),
        (FusionConfig(768, mode="add", site="encoder"), 789_504),
        (FusionConfig(384, mode="weighted_sum"), 297_217),
    ],
)
def test_fusion_adds_only_its_own_keys(fusion, added):
    model, plain = full_size(fusion), full_size()
    extra = model.state_dict().keys() - plain.state_dict().keys()
    assert extra and all(key.startswith("fusion.") for key in extra)
    assert plain.state_dict().keys() <= model.state_dict().keys()
    assert sum(p.numel() for p in model.parameters()) == 729_044_772 + added


FUSIONS = [FusionConfig(40, site, mode=mode) for site in FUSION_SITES for mode in ADAPTERS]
FUSIONS += [
    FusionConfig(40, hooks=(2, 3, 4)),
    FusionConfig(40, parameters=60_000),
    FusionConfig(40, "encoder", mode="film", parameters=60_000),
]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_step_0_is_the_model_without_features_bit_for_bit(fusion):
    plain, fused = tiny(), tiny(fusion)
    for name, p in plain.named_parameters():
        assert torch.equal(p, dict(fused.named_parameters())[name]), name
    for track in (False, True):
        with torch.set_grad_enabled(track):
            without, with_features = plain(**inputs(plain, features=False)), fused(**inputs(fused))
        assert all(torch.equal(a, b) for a, b in zip(tensors(without), tensors(with_features)))


def test_gaussians_are_view_1_then_view_2_row_by_row():
    model = tiny(use_offsets=False, sh_degree=1)
    given = inputs(model, features=False)
    out = model(**given)
    H, W = SIZE
    assert out.gaussians.sh.shape == (2, 2 * H * W, 4, 3)
    for view, points in enumerate((out.points1, out.points2)):
        for y, x in ((0, 0), (5, 17), (H - 1, W - 1)):
            n = view * H * W + y * W + x
            assert torch.equal(out.gaussians.means[1, n], points.pts3d[1, y, x])
    raw = model.downstream_head2.gaussian_dpt.dpt
    lists = model.decode(given["tokens1"], given["tokens2"], (2, 3), (2, 3))
    pixel = raw([lists[1][h] for h in SMALL.hooks], (2, 3))[1, :, 5, 17]
    n = H * W + 5 * W + 17
    torch.testing.assert_close(out.gaussians.scales[1, n], pixel[3:6].exp())
    for colour in range(3):
        for k in range(4):
            extra = rgb_to_dc(given["images2"][1, colour, 5, 17]) if k == 0 else 0
            torch.testing.assert_close(out.gaussians.sh[1, n, k, colour], pixel[10 + 4 * colour + k] + extra)


@pytest.mark.parametrize("head", ["catmlp+dpt", "dpt", "linear"])
def test_the_points_are_the_geometry_networks(head):
    model = Splatt3R(replace(SMALL, head=head), generator=generator()).eval()
    given = inputs(model, features=False)
    with torch.no_grad():
        out = model(**given)
        wanted = Mast3r.forward(model, 2 * given["images1"] - 1, 2 * given["images2"] - 1)
    for found, points in zip((out.points1, out.points2), wanted):
        torch.testing.assert_close(found.pts3d, points.pts3d, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.conf, points.conf)
        assert found.desc is None


def test_head_fusion_leaves_the_geometry_alone_and_encoder_fusion_does_not():
    for site in ("head", "encoder"):
        model = tiny(FusionConfig(40, site=site, identity_init=False))
        with torch.no_grad():
            one = model(**inputs(model))
            other = model(**inputs(model) | {"features1": 3 * torch.ones(2, 40, 3, 4)})
        assert torch.equal(one.points1.pts3d, other.points1.pts3d) == (site == "head")
        assert not torch.equal(one.gaussians.sh, other.gaussians.sh)
        half = SIZE[0] * SIZE[1]
        same_view_2 = torch.equal(one.gaussians.sh[:, half:], other.gaussians.sh[:, half:])
        assert same_view_2 == (site == "head")  # the decoder lets views see each other


def test_only_the_named_hooks_are_fused():
    model = tiny(FusionConfig(40, hooks=(3,), mode="add", identity_init=False))
    assert list(model.fusion) == ["3"]
    given = inputs(model)
    seen = []
    handle = model.downstream_head1.gaussian_dpt.dpt.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(**given)
        tokens = model.decode(given["tokens1"], given["tokens2"], (2, 3), (2, 3))[0]
    handle.remove()
    same = [torch.equal(fused, tokens[hook]) for fused, hook in zip(seen[0], SMALL.hooks)]
    assert same == [True, True, False, True]


@pytest.mark.parametrize("hooks", [(0,), (1,), (2, 2), (), (5,)])
def test_hooks_that_the_heads_do_not_read_are_refused(hooks):
    with pytest.raises(ValueError, match=r"model.fusion_hooks .*\[2, 3, 4\]"):
        tiny(FusionConfig(40, hooks=hooks))


def test_features_that_do_not_fit_are_refused():
    model, plain = tiny(FusionConfig(40)), tiny()
    with pytest.raises(ValueError, match="expects 40-channel backbone features and got none"):
        model(**inputs(model, features=False))
    with pytest.raises(ValueError, match="expects no backbone features and got some"):
        plain(**inputs(plain))
    with pytest.raises(ValueError, match="39 channels"):
        model(**inputs(model) | {"features2": torch.zeros(2, 39, 3, 4)})
    with pytest.raises(ValueError, match="model.sh_degree"):
        tiny(sh_degree=4)


@pytest.mark.parametrize("head, follow", [("dpt", False), ("dpt", True), ("linear", False), ("linear", True)])
def test_mixed_precision_still_gives_float32(head, follow):
    model = Splatt3R(replace(SMALL, head=head), fusion=FusionConfig(40), generator=generator()).eval()
    model.heads_in_autocast = follow
    kinds = []
    model.downstream_head1.gaussian_dpt.dpt.register_forward_hook(lambda _, __, out: kinds.append(out.dtype))
    given = inputs(model)
    with torch.no_grad():
        full = model(**given)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(**given)
    assert kinds == [torch.float32, torch.bfloat16 if follow else torch.float32]
    assert all(t.dtype == torch.float32 for t in tensors(mixed))
    torch.testing.assert_close(mixed.gaussians.opacities, full.gaussians.opacities, rtol=0, atol=0.05)
    torch.testing.assert_close(mixed.points1.pts3d, full.points1.pts3d, rtol=0.1, atol=0.1)


# --- training strategies -----------------------------------------------------------------------------------------

HEAD = FusionConfig(40, identity_init=False, hooks=(2, 4))
ENCODER = FusionConfig(40, site="encoder", identity_init=False)
HEADS, FUSED = {"gaussian_head"}, {"gaussian_head", "fusion"}
CASES = [  # fusion, arguments, groups trained
    (None, {}, HEADS),
    (HEAD, {"strategy": "feature_extraction"}, FUSED),
    (ENCODER, {"strategy": "feature_extraction"}, FUSED),
    (HEAD, {"strategy": "fusion_finetune"}, FUSED | {"decoder"}),
    (ENCODER, {"strategy": "full_finetune"}, FUSED | {"decoder", "encoder"}),
    (HEAD, {"freeze_decoder": False}, FUSED | {"decoder"}),
    (HEAD, {"strategy": "full_finetune", "freeze_decoder": True}, FUSED | {"encoder"}),
    (HEAD, {"freeze_fusion": True}, HEADS),
    (HEAD, {"train_points": True}, FUSED | {"point_head"}),
    (ENCODER, {"strategy": "full_finetune", "train_points": True}, FUSED | {"decoder", "encoder", "point_head"}),
    (HEAD, {"strategy": "full_finetune", "freeze_fusion": True}, HEADS | {"decoder", "encoder"}),
    (None, {"strategy": "fusion_finetune", "freeze_encoder": False}, HEADS | {"decoder", "encoder"}),
    *(
        (FusionConfig(40, site, mode=mode, identity_init=False), {"strategy": strategy}, trained)
        for mode in ADAPTERS
        for site, strategy, trained in (
            ("head", "feature_extraction", FUSED),
            ("encoder", "full_finetune", FUSED | {"decoder", "encoder"}),
        )
    ),
]


def differentiate(model: Splatt3R, points: bool = False) -> None:
    """Gradients of a number to which everything that the model puts out contributes; its points, too, only if asked."""
    out = model(**inputs(model, features=model.fusion_config is not None))
    parts = [t for t in vars(out.gaussians).values()]
    if points:
        parts += [p for view in (out.points1, out.points2) for p in (view.pts3d, view.conf)]
    else:
        assert not out.points1.pts3d.requires_grad  # no activations are kept
    g = generator(5)
    sum((t * torch.randn(t.shape, generator=g)).sum() for t in parts).backward()


@pytest.mark.parametrize("fusion, arguments, trained", CASES)
def test_gradients_reach_exactly_what_the_strategy_names(fusion, arguments, trained):
    model = tiny(fusion).train()
    model.apply_strategy(**arguments)
    differentiate(model, "point_head" in trained)
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    assert all(p.grad.abs().max() > 0 for p in model.parameters() if p.grad is not None)
    wanted = {
        name
        for group in trained
        for name in model.parameter_groups()[group]
        if "refinenet4.resConfUnit1" not in name and "head_local_features" not in name
    }
    assert reached == wanted
    assert {name for name, p in model.named_parameters() if p.requires_grad} == wanted
    assert "mask_token" not in wanted


@pytest.mark.parametrize("fusion, arguments, trained", CASES)
def test_checkpointing_recomputes_activations_and_gives_the_same_gradients(fusion, arguments, trained, monkeypatch):
    gradients, recomputed = [], []
    for checkpointing in (False, True):
        model = tiny(fusion).train()
        model.gradient_checkpointing = checkpointing
        model.apply_strategy(**arguments)
        calls = []
        dpt = model.downstream_head1.gaussian_dpt.dpt
        forward = dpt.forward
        monkeypatch.setattr(dpt, "forward", lambda *given: (calls.append(1), forward(*given))[1])
        differentiate(model, "point_head" in trained)
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
        recomputed.append(len(calls))
    assert recomputed == [1, 2] and gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


@pytest.mark.parametrize("mode", ADAPTERS)
@pytest.mark.parametrize("site", FUSION_SITES)
def test_identity_adapters_learn(site, mode):
    model = tiny(FusionConfig(40, site=site, mode=mode)).train()
    before = trained_state_dict(model)
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=10)
    for _ in range(3):
        optimiser.zero_grad()
        g = model(**inputs(model)).gaussians
        (g.opacities.square().mean() + g.sh.square().mean()).backward()
        optimiser.step()
    after = trained_state_dict(model)
    assert not [name for name in before if name.startswith("fusion.") and torch.equal(before[name], after[name])]


@pytest.mark.parametrize(
    "fusion, arguments, message",
    [
        (None, {"strategy": "everything"}, "model.strategy is 'everything'; choose one of feature_extraction"),
        (FusionConfig(40), {"freeze_fusion": True}, "baseline under another name"),
        (None, {"freeze_gaussian_head": True}, "Gaussian head"),
    ],
)
def test_impossible_strategies_are_refused(fusion, arguments, message):
    model = tiny(fusion)
    before = [p.requires_grad for p in model.parameters()]
    with pytest.raises(ValueError, match=message):
        model.apply_strategy(**arguments)
    assert before == [p.requires_grad for p in model.parameters()]


def test_every_flag_can_be_turned_against_its_strategy():
    """What `apply_strategy` says of strategies and flags, written as a table of its own."""
    names = {
        "encoder": "enc_blocks.0.norm1.weight",
        "decoder": "dec_blocks2.1.norm1.bias",
        "gaussian_head": "downstream_head2.gaussian_dpt.dpt.head.4.bias",
        "fusion": "fusion.4.join.1.weight",
    }
    strategies = {
        "feature_extraction": FUSED,
        "fusion_finetune": FUSED | {"decoder"},
        "full_finetune": FUSED | {"decoder", "encoder"},
    }
    flags = {
        "freeze_encoder": "encoder",
        "freeze_decoder": "decoder",
        "freeze_fusion": "fusion",
        "freeze_gaussian_head": "gaussian_head",
    }
    model = Splatt3R(SMALL, fusion=FusionConfig(40, identity_init=False), generator=generator())
    model.head_loaded = True
    parameters = dict(model.named_parameters())
    for strategy, trained in strategies.items():
        for flag, group in flags.items():
            for frozen in (True, False):
                model.apply_strategy(strategy, **{flag: frozen})
                found = {group for group, name in names.items() if parameters[name].requires_grad}
                assert found == (trained - {group} if frozen else trained | {group}), (strategy, flag, frozen)


def test_a_loaded_gaussian_head_may_be_frozen_but_not_everything():
    model = tiny(FusionConfig(40))
    model.load_geometry({name: p for name, p in tiny(seed=3).state_dict().items()})
    model.apply_strategy(freeze_gaussian_head=True)
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"fusion"}
    plain = tiny()
    plain.load_geometry(tiny(seed=3).state_dict())
    with pytest.raises(ValueError, match="nothing to train"):
        plain.apply_strategy(freeze_gaussian_head=True)


def test_training_the_encoder_on_cached_tokens_is_refused():
    model = tiny().train()
    model.apply_strategy("full_finetune")
    given = inputs(model, features=False)
    model(**given)
    with pytest.raises(ValueError, match="cache"):
        model(**given | {"tokens1": given["tokens1"].detach()})
    with torch.no_grad():
        model(**given | {"tokens1": given["tokens1"].detach()})


# --- saving and loading ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fusion, strategy",
    [(None, "feature_extraction"), (FusionConfig(40), "feature_extraction"), (FusionConfig(40), "fusion_finetune")],
)
def test_trained_parts_round_trip(fusion, strategy):
    model, other = tiny(fusion, seed=1), tiny(fusion, seed=2)
    model.apply_strategy(strategy)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=generator(3)) * 0.1)
    state = trained_state_dict(model)
    assert all(t.is_contiguous() and not t.requires_grad for t in state.values())
    assert len({t.data_ptr() for t in state.values()}) == len(state)
    load_trained(other, state)
    with torch.no_grad():
        features = fusion is not None
        one, two = model(**inputs(model, features)), other(**inputs(other, features))
    assert all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(two)))


def test_trained_parts_that_do_not_fit_are_refused_and_change_nothing():
    fused, plain = tiny(FusionConfig(40)), tiny()
    whole = trained_state_dict(fused)
    name = next(key for key in whole if key.startswith("fusion."))
    bad = [
        {key: value for key, value in whole.items() if key != name},
        trained_state_dict(plain),
        {key: value for key, value in whole.items() if key.startswith("fusion.")},
        whole | {"fusion.9.weight": torch.zeros(1)},
        whole | {name: torch.zeros(1, 2, 3)},
    ]
    before = {key: value.clone() for key, value in fused.state_dict().items()}
    for state in bad:
        with pytest.raises(ValueError, match="trained weights"):
            load_trained(fused, state)
    with pytest.raises(ValueError, match="trained weights"):
        load_trained(plain, whole)
    assert all(torch.equal(before[key], value) for key, value in fused.state_dict().items())


def test_geometry_weights_load_strictly_and_keep_the_new_head():
    model, source = tiny(FusionConfig(40), seed=1), tiny(seed=2)
    geometry = {key: value + 1 for key, value in source.state_dict().items() if ".gaussian_dpt." not in key}
    head = model.downstream_head1.gaussian_dpt.dpt.head[4].weight.clone()
    model.load_geometry({key: value for key, value in geometry.items() if ".layer_rn." not in key})  # names of aliases
    pyramid = "downstream_head2.dpt.scratch.layer3_rn.weight"
    assert torch.equal(model.state_dict()[pyramid], geometry[pyramid])
    assert torch.equal(model.enc_norm.weight, geometry["enc_norm.weight"])
    assert torch.equal(model.downstream_head1.gaussian_dpt.dpt.head[4].weight, head)
    for wrong in (
        {k: v for k, v in geometry.items() if k != "enc_norm.weight"},
        geometry | {"extra": torch.zeros(1)},
        geometry | {"enc_norm.weight": torch.zeros(3)},
    ):
        with pytest.raises(ValueError, match="geometry network's weights"):
            model.load_geometry(wrong)


def test_the_gaussian_head_starts_the_same_for_every_backbone():
    heads = [
        tiny(fusion).downstream_head2.gaussian_dpt.state_dict()
        for fusion in (None, FusionConfig(40), FusionConfig(64, mode="add"), FusionConfig(8, site="encoder"))
    ]
    for head in heads[1:]:
        assert all(torch.equal(head[key], value) for key, value in heads[0].items())
    assert not torch.equal(tiny(seed=1).downstream_head2.gaussian_dpt.dpt.head[4].weight, heads[0]["dpt.head.4.weight"])


def test_limits_bound_sizes_and_offsets_and_change_nothing_below_them():
    raw = torch.randn(1, 14, 6, 6, generator=torch.Generator().manual_seed(3))
    raw[:, :3] *= 5
    points, images = torch.zeros(1, 6, 6, 3), torch.zeros(1, 3, 6, 6)
    free, bound = activate(raw, points, images), activate(raw, points, images, limits=Limits(0.9, 0.05))
    assert free.scales.max() > 0.9 and free.means.norm(dim=-1).max() > 0.05
    assert bound.scales.max() <= 0.9 + 1e-6 and bound.means.norm(dim=-1).max() <= 0.05 + 1e-6
    torch.testing.assert_close(bound.scales, free.scales.clamp(max=0.9))
    near = free.means.norm(dim=-1) < 0.049
    assert near.any() and torch.equal(bound.means[near], free.means[near])
    for name in ("quats", "opacities", "sh"):
        assert torch.equal(getattr(bound, name), getattr(free, name))
