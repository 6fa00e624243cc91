import pytest
import torch
from torch import nn

from src.fusion import MODES, DINOv2FeatureFusionAdapter, FusionConfig, group_norm, resize_features

COUNTS = {  # (tokens' width, features' width): concat, add, weighted_sum
    (768, 384): (2_071_296, 297_216, 297_217), (768, 768): (2_366_208, 592_128, 592_129),
    (768, 1024): (2_562_816, 788_736, 788_737), (1024, 384): (3_548_160, 396_288, 396_289),
    (1024, 768): (3_941_376, 789_504, 789_505), (1024, 1024): (4_203_520, 1_051_648, 1_051_649),
}


def maps(width: int, channels: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(2, width, 3, 4, generator=g), torch.randn(2, channels, 3, 4, generator=g)


@pytest.mark.parametrize("identity", [True, False])
@pytest.mark.parametrize("widths", COUNTS)
def test_parameter_counts(widths, identity):
    width, channels = widths
    for mode, wanted in zip(MODES, COUNTS[widths]):
        with torch.device("meta"):
            adapter = DINOv2FeatureFusionAdapter(channels, width, fusion_mode=mode, identity_init=identity)
        assert sum(p.numel() for p in adapter.parameters()) == wanted


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("width", [160, 192, 24])
def test_the_identity_at_initialisation_is_exact(mode, width):
    tokens, features = maps(width, 48)
    adapter = DINOv2FeatureFusionAdapter(48, width, fusion_mode=mode)
    assert torch.equal(adapter(tokens, 1000 * features), tokens)


@pytest.mark.parametrize("identity", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_every_parameter_moves_within_three_steps(mode, identity):
    tokens, features = maps(160, 48)
    adapter = DINOv2FeatureFusionAdapter(48, 160, fusion_mode=mode, identity_init=identity)
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
            part = x[b, g * size:(g + 1) * size]
            out[b, g * size:(g + 1) * size] = (part - part.mean()) / (part.var(unbiased=False) + 1e-5).sqrt()
    return out * norm.weight[:, None, None] + norm.bias[:, None, None]


def expected(adapter, tokens, features, output_dim, identity):
    def project(x, pair):
        return normalised(conv1x1(x, pair[0]), pair[1])
    f = project(features, adapter.project_features)
    if adapter.mode == "concat":
        joined = project(torch.cat([project(tokens, adapter.project_tokens), f], 1), adapter.join)
        return tokens + joined if identity else joined.clamp(min=0)
    x = tokens if output_dim == tokens.shape[1] else project(tokens, adapter.project_tokens)
    if adapter.mode == "add":
        return x + f
    a = adapter.weight if identity else 1 / (1 + (-adapter.weight).exp())
    return (1 - a) * x + a * f


@pytest.mark.parametrize("output_dim, identity", [(64, True), (64, False), (96, False)])
@pytest.mark.parametrize("mode", MODES)
def test_forward_agrees_with_the_formulas(mode, output_dim, identity):
    tokens, features = maps(64, 40)
    adapter = DINOv2FeatureFusionAdapter(40, 64, output_dim, mode, identity)
    g = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in adapter.parameters():  # away from the special values of the start
            p.copy_(torch.randn(p.shape, generator=g) * 0.5)
        torch.testing.assert_close(adapter(tokens, features),
                                   expected(adapter, tokens, features, output_dim, identity), rtol=1e-4, atol=1e-4)


def test_literal_weighted_sum_starts_half_and_half():
    tokens, features = maps(64, 40)
    adapter = DINOv2FeatureFusionAdapter(40, 64, fusion_mode="weighted_sum", identity_init=False)
    torch.testing.assert_close(adapter(tokens, features), (tokens + adapter.project_features(features)) / 2)


def test_groups_divide_the_width():
    assert {width: group_norm(width).num_groups for width in (768, 160, 192, 48, 37, 7)} == {
        768: 32, 160: 32, 192: 32, 48: 24, 37: 1, 7: 7}


def test_weights_depend_on_the_generator_alone():
    states = []
    for seed in (0, 0, 1):
        torch.rand(1)
        generator = torch.Generator().manual_seed(seed)
        states.append(DINOv2FeatureFusionAdapter(40, 64, generator=generator).project_features[0].weight)
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def test_addition_is_an_alias_and_other_mistakes_are_refused():
    assert DINOv2FeatureFusionAdapter(40, 64, fusion_mode="addition").mode == "add"
    with pytest.raises(ValueError, match="concat, add, weighted_sum"):
        DINOv2FeatureFusionAdapter(40, 64, fusion_mode="sum")
    with pytest.raises(ValueError, match="identity_init"):
        DINOv2FeatureFusionAdapter(40, 64, output_dim=96)
    with pytest.raises(ValueError, match="resize_features"):
        DINOv2FeatureFusionAdapter(40, 64)(torch.zeros(1, 64, 3, 4), torch.zeros(1, 40, 4, 4))
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
            corner = features[0, :, y0:y0 + 2, x0:x0 + 2]
            wanted = ((1 - a) * ((1 - b) * corner[:, 0, 0] + b * corner[:, 0, 1])
                      + a * ((1 - b) * corner[:, 1, 0] + b * corner[:, 1, 1]))
            torch.testing.assert_close(found[0, :, i, j], wanted)
    assert resize_features(features, (4, 5)) is features
