import cmath
import math

import pytest
import torch

from src.splatt3r.fusion import (
    ADAPTERS,
    FusionAdapter,
    FusionConfig,
    group_norm,
    inner_width,
    resize_features,
)

COUNTS = {  # (tokens' width, features' width): concat, add, weighted_sum
    (768, 384): (2_071_296, 297_216, 297_217),
    (768, 768): (2_366_208, 592_128, 592_129),
    (768, 1024): (2_562_816, 788_736, 788_737),
    (1024, 384): (3_548_160, 396_288, 396_289),
    (1024, 768): (3_941_376, 789_504, 789_505),
    (1024, 1024): (4_203_520, 1_051_648, 1_051_649),
}


def maps(width: int, channels: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(2, width, 3, 4, generator=g), torch.randn(2, channels, 3, 4, generator=g)


@pytest.mark.parametrize("identity", [True, False])
@pytest.mark.parametrize("widths", COUNTS)
def test_parameter_counts(widths, identity):
    width, channels = widths
    r, add = width // 4, COUNTS[widths][1]
    counts = dict(zip(("concat", "add", "weighted_sum"), COUNTS[widths])) | {
        "channel_weights": add + width,
        "gated": add + 2 * width**2 + 3 * width,
        "cross_attention": add + 4 * width**2 + 6 * width,
        "film": add + 2 * width**2 + 2 * width,
        "bottleneck": r * (channels + 3) + r * (width + 3) + r * width + width,
    }
    assert counts.keys() == ADAPTERS.keys()
    for mode, wanted in counts.items():
        with torch.device("meta"):
            adapter = FusionAdapter(channels, width, fusion_mode=mode, identity_init=identity)
        assert sum(p.numel() for p in adapter.parameters()) == wanted, mode


ARMS = [(384, "head"), (588, "head"), (1536, "head"), (768, "encoder")]


@pytest.mark.parametrize("mode", ADAPTERS)
@pytest.mark.parametrize("total", [300_000, 1_000_000])
def test_every_arm_can_have_the_same_number_of_parameters(mode, total):
    for channels, site in ARMS:
        widths = [192] if site == "encoder" else [160, 160]
        inner = inner_width(FusionConfig(channels, site, mode=mode, parameters=total), widths)
        adapters = [FusionAdapter(channels, width, fusion_mode=mode, inner_width=inner) for width in widths]
        assert sum(p.numel() for adapter in adapters for p in adapter.parameters()) == pytest.approx(total, rel=0.01)
        tokens, features = maps(widths[0], channels)
        assert torch.equal(adapters[0](tokens, features), tokens)
    assert inner_width(FusionConfig(384, mode=mode), [160]) is None


def test_a_number_of_parameters_out_of_reach_is_refused_with_what_is_in_reach():
    least = 3 * 160**2 + 9 * 160 + (160 + 384 + 3)  # one inner channel
    with pytest.raises(
        ValueError,
        match=f"model.fusion_parameters is 1,000, which fusion_mode concat .* every number from {least:,} on",
    ):
        inner_width(FusionConfig(384, parameters=1000), [160])
    for number in range(least, least + 1500, 97):
        inner_width(FusionConfig(384, parameters=number), [160])


def test_a_narrow_start_changes_what_is_fused():
    tokens, features = maps(160, 48)
    adapter = FusionAdapter(48, 160, fusion_mode="add", identity_init=False, inner_width=7)
    conv, norm, _ = adapter.condense
    narrow = conv1x1(features, conv)
    narrow = torch.stack([(x - x.mean()) / (x.var(unbiased=False) + norm.eps).sqrt() for x in narrow])
    narrow = narrow * 0.5 * (1 + torch.erf(narrow / math.sqrt(2)))
    wanted = tokens + normalised(conv1x1(narrow, adapter.project_features[0]), adapter.project_features[1])
    torch.testing.assert_close(adapter(tokens, features), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ADAPTERS)
@pytest.mark.parametrize("width", [160, 192, 24])
def test_the_identity_at_initialisation_is_exact(mode, width):
    tokens, features = maps(width, 48)
    adapter = FusionAdapter(48, width, fusion_mode=mode)
    assert torch.equal(adapter(tokens, 1000 * features), tokens)


@pytest.mark.parametrize("identity", [True, False])
@pytest.mark.parametrize("mode", ADAPTERS)
def test_every_parameter_moves_within_three_steps(mode, identity):
    tokens, features = maps(160, 48)
    adapter = FusionAdapter(48, 160, fusion_mode=mode, identity_init=identity)
    before = {name: p.detach().clone() for name, p in adapter.named_parameters()}
    optimiser = torch.optim.SGD(adapter.parameters(), lr=0.1)
    target = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(9))
    for _ in range(3):
        optimiser.zero_grad()
        (adapter(tokens, features) - target).square().mean().backward()
        optimiser.step()
    still = [name for name, p in adapter.named_parameters() if torch.equal(p, before[name])]
    assert not still


def conv1x1(x, layer):
    return torch.einsum("oc,bchw->bohw", layer.weight[:, :, 0, 0], x) + layer.bias[:, None, None]


def normalised(x, norm):
    """Group normalisation by hand."""
    out = torch.empty_like(x)
    size = x.shape[1] // norm.num_groups
    for b in range(len(x)):
        for g in range(norm.num_groups):
            part = x[b, g * size : (g + 1) * size]
            out[b, g * size : (g + 1) * size] = (part - part.mean()) / (part.var(unbiased=False) + 1e-5).sqrt()
    return out * norm.weight[:, None, None] + norm.bias[:, None, None]


def project(x, pair):
    return normalised(conv1x1(x, pair[0]), pair[1])


def turned(vector, row, column):
    """RoPE2D of one head's vector at (row, column): complex numbers of a half's two quarters, base 100."""
    n = len(vector) // 4
    out = vector.clone()
    for axis, place in enumerate((row, column)):
        for i in range(n):
            a, b = 2 * axis * n + i, (2 * axis + 1) * n + i
            z = complex(vector[a], vector[b]) * cmath.exp(1j * place * 100 ** (-i / n))
            out[a], out[b] = z.real, z.imag
    return out


def attended(adapter, x, memory):
    """Cross-attention token by token and head by head: x, memory (B, o, h, w)."""
    layers, out = adapter.attention, torch.empty_like(x)
    places = [(row, column) for row in range(x.shape[2]) for column in range(x.shape[3])]
    for b in range(len(x)):
        cells = {place: x[b, :, place[0], place[1]] for place in places}
        cells = {place: (v - v.mean()) / (v.var(unbiased=False) + 1e-6).sqrt() for place, v in cells.items()}
        q = {place: layers.projq(adapter.normalise.weight * v + adapter.normalise.bias) for place, v in cells.items()}
        k, v = (
            {place: layer(memory[b, :, place[0], place[1]]) for place in places}
            for layer in (layers.projk, layers.projv)
        )
        width = x.shape[1] // adapter.heads
        for place in places:
            mixed = []
            for h in range(adapter.heads):
                part = slice(h * width, (h + 1) * width)
                query = turned(q[place][part], *place)
                scores = torch.stack([query @ turned(k[other][part], *other) / math.sqrt(width) for other in places])
                mixed.append(sum(share * v[other][part] for share, other in zip(scores.softmax(0), places)))
            out[b, :, place[0], place[1]] = layers.proj(torch.cat(mixed))
    return x + out


def expected(mode, adapter, tokens, features, output_dim, identity):
    f = project(features, adapter.project_features)
    if mode == "concat":
        joined = project(torch.cat([project(tokens, adapter.project_tokens), f], 1), adapter.join)
        return tokens + joined if identity else joined.clamp(min=0)
    x = tokens if output_dim == tokens.shape[1] else project(tokens, adapter.project_tokens)
    if mode == "add":
        return x + f
    if mode == "cross_attention":
        return attended(adapter, x, f)
    if mode == "bottleneck":
        inner = project(x, adapter.down) + f
        return x + conv1x1(inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2))), adapter.up)
    if mode == "film":
        both = conv1x1(f, adapter.modulate)
        return x + both[:, :output_dim] * x + both[:, output_dim:]
    if mode == "gated":
        raw = conv1x1(torch.cat([normalised(x, adapter.normalise), f], 1), adapter.gate)
        e = (2 * raw).exp()
        a = (e - 1) / (e + 1) if identity else 1 / (1 + (-raw).exp())
    else:
        a = adapter.weight if identity else 1 / (1 + (-adapter.weight).exp())
        assert a.numel() == (1 if mode == "weighted_sum" else output_dim)
    return x + a * (f - x)


@pytest.mark.parametrize("output_dim, identity", [(64, True), (64, False), (96, False)])
@pytest.mark.parametrize("mode", ADAPTERS)
def test_forward_agrees_with_the_formulas(mode, output_dim, identity):
    tokens, features = (x.double() for x in maps(64, 40))
    adapter = FusionAdapter(40, 64, output_dim, mode, identity).double()
    g = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in adapter.parameters():  # away from the special values of the start
            p.copy_(torch.randn(p.shape, generator=g) * 0.2)
        torch.testing.assert_close(
            adapter(tokens, features),
            expected(mode, adapter, tokens, features, output_dim, identity),
            rtol=1e-5,
            atol=1e-5,
        )


def test_literal_weighted_sum_starts_half_and_half():
    tokens, features = maps(64, 40)
    adapter = FusionAdapter(40, 64, fusion_mode="weighted_sum", identity_init=False)
    torch.testing.assert_close(adapter(tokens, features), (tokens + adapter.project_features(features)) / 2)


@pytest.mark.parametrize("mode", ADAPTERS)
def test_gradients_flow_into_every_parameter_by_step_1(mode):
    """No zero stands behind another zero: the layer that starts at 0 moves first, and all others with the next step."""
    tokens, features = maps(160, 48)
    adapter = FusionAdapter(48, 160, fusion_mode=mode, inner_width=11)
    target = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(9))
    optimiser = torch.optim.SGD(adapter.parameters(), lr=0.5)
    alive = []
    for _ in range(2):
        optimiser.zero_grad()
        (adapter(tokens, features) - target).square().mean().backward()
        alive.append({name for name, p in adapter.named_parameters() if p.grad is not None and p.grad.abs().max() > 0})
        optimiser.step()
    assert alive[0] and alive[1] == {name for name, _ in adapter.named_parameters()}


@pytest.mark.parametrize("mode", ADAPTERS)
def test_a_moved_adapter_tells_a_feature_map_from_its_cells_in_another_order(mode):
    tokens, features = maps(64, 40)
    adapter = FusionAdapter(40, 64, fusion_mode=mode)
    with torch.no_grad():
        for p in adapter.parameters():
            p += 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(2))
        assert not torch.allclose(adapter(tokens, features), adapter(tokens, features.flip(2, 3)), atol=1e-3)


@pytest.mark.parametrize("mode", ADAPTERS)
def test_the_effect_is_nothing_at_first_and_then_what_the_output_says(mode):
    tokens, features = maps(64, 40)
    adapter = FusionAdapter(40, 64, fusion_mode=mode)
    assert adapter.effect(tokens, features)["relative_change"] == 0
    with torch.no_grad():
        for p in adapter.parameters():
            p += 0.1
        found, fused = adapter.effect(tokens, features), adapter(tokens, features)
    wanted = [
        sum((a - b) ** 2 for a, b in zip(out.flatten().tolist(), x.flatten().tolist())) ** 0.5
        / sum(b * b for b in x.flatten().tolist()) ** 0.5
        for out, x in zip(fused, tokens)
    ]
    assert found.pop("relative_change") == pytest.approx(sum(wanted) / 2, rel=1e-4)
    names = {
        "weighted_sum": {"weight"},
        "channel_weights": {"weight", "weight_std"},
        "gated": {"weight", "weight_std"},
        "film": {"scale", "scale_std", "shift", "shift_std"},
    }
    assert found.keys() == names.get(mode, set())
    if mode in ("weighted_sum", "channel_weights"):
        assert found["weight"] == pytest.approx(0.1)
    if mode == "film":
        assert found["scale"] > 1 - 0.5 and found["scale"] != pytest.approx(1, abs=1e-3)


def test_groups_divide_the_width():
    assert {width: group_norm(width).num_groups for width in (768, 160, 192, 48, 37, 7)} == {
        768: 32,
        160: 32,
        192: 32,
        48: 24,
        37: 1,
        7: 7,
    }


def test_weights_depend_on_the_generator_alone():
    states = []
    for seed in (0, 0, 1):
        torch.rand(1)
        generator = torch.Generator().manual_seed(seed)
        states.append(FusionAdapter(40, 64, generator=generator).project_features[0].weight)
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def test_addition_is_an_alias_and_other_mistakes_are_refused():
    assert type(FusionAdapter(40, 64, fusion_mode="addition")) is ADAPTERS["add"]
    with pytest.raises(ValueError, match="concat, add, weighted_sum"):
        FusionAdapter(40, 64, fusion_mode="sum")
    with pytest.raises(ValueError, match="identity_init"):
        FusionAdapter(40, 64, output_dim=96)
    with pytest.raises(ValueError, match="resize_features"):
        FusionAdapter(40, 64)(torch.zeros(1, 64, 3, 4), torch.zeros(1, 40, 4, 4))
    for wrong in ({"channels": 0}, {"channels": 8, "site": "no"}, {"channels": 8, "site": "encoder", "hooks": (6,)}):
        with pytest.raises(ValueError, match="model."):
            FusionConfig(**wrong)


def test_resizing_agrees_with_bilinear_interpolation_by_hand():
    features = torch.randn(1, 2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    h, w = 3, 7
    found = resize_features(features, (h, w))
    for i in range(h):
        for j in range(w):
            y = min(max((i + 0.5) * 4 / h - 0.5, 0), 3)
            x = min(max((j + 0.5) * 5 / w - 0.5, 0), 4)
            y0, x0 = min(int(y), 2), min(int(x), 3)
            a, b = y - y0, x - x0
            corner = features[0, :, y0 : y0 + 2, x0 : x0 + 2]
            wanted = (1 - a) * ((1 - b) * corner[:, 0, 0] + b * corner[:, 0, 1]) + a * (
                (1 - b) * corner[:, 1, 0] + b * corner[:, 1, 1]
            )
            torch.testing.assert_close(found[0, :, i, j], wanted)
    assert resize_features(features, (4, 5)) is features
