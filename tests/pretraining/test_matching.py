"""Where the patches of one view are seen in the other, and the loss that teaches attention to look there."""

import numpy as np
import pytest
import torch

from src.mast3r.attention import CrossAttention, rope_angles, token_positions
from src.mast3r.network import Mast3r, Mast3rConfig
from src.pretraining.matching import MATCH_TOLERANCE, attention_matching_loss, log_attention, patch_matches, watched

SMALL = Mast3rConfig(
    enc_embed_dim=16, enc_depth=1, enc_num_heads=2, dec_embed_dim=24, dec_depth=4, dec_num_heads=3, head="linear"
)


def counted(depth, K, c2w, patch):
    """patch_matches of one pair, pixel by pixel."""
    height, width = depth.shape[1:]
    h, w = height // patch, width // patch
    shares = np.zeros((2, h, w, h, w))
    for view, other in ((0, 1), (1, 0)):
        for row in range(height):
            for column in range(width):
                z = depth[view, row, column]
                ray = np.linalg.solve(K[view], [column + 0.5, row + 0.5, 1])
                x = np.linalg.solve(c2w[other], c2w[view] @ [*(z * ray), 1])[:3]
                if z == 0 or x[2] <= 0:
                    continue
                there = np.floor((K[other] @ x)[:2] / x[2]).astype(int)
                if (there >= 0).all() and there[0] < width and there[1] < height:
                    found = depth[other, there[1], there[0]]
                    if found > 0 and abs(found - x[2]) <= MATCH_TOLERANCE * x[2]:
                        shares[view, row // patch, column // patch, there[1] // patch, there[0] // patch] += (
                            1 / patch**2
                        )
    return shares


@pytest.mark.parametrize("patch", [4, 8])
def test_matches_are_those_that_a_loop_over_the_pixels_counts(scenes, patch):  # noqa: F811
    chosen = [(scene.views, pair) for scene in scenes for pair in scene.pairs[:2]][:4]
    depth, K, c2w = (
        torch.stack([views[name][pair] for views, pair in chosen]).double() for name in ("depth", "K", "c2w")
    )
    depth[0, 1, :5] = 0
    found = patch_matches(depth, K, c2w, patch)
    expected = [counted(*(x.numpy() for x in pair), patch) for pair in zip(depth, K, c2w)]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
    assert found.sum() > 20 and found.sum((-1, -2)).max() <= 1 + 1e-12


def inputs(dim: int, generator: torch.Generator) -> tuple:
    x, memory = torch.randn(2, 6, dim, generator=generator), torch.randn(2, 4, dim, generator=generator)
    angles = [rope_angles(token_positions(grid), 4) for grid in ((2, 3), (2, 2))]
    return x, memory, *angles


@pytest.mark.parametrize("head", [0, 1])
def test_the_attention_is_what_the_module_weights_its_values_with(head):
    """Values that tell the memory's tokens apart come out as the weights themselves."""
    generator = torch.Generator().manual_seed(head)
    module, (x, memory, *angles) = CrossAttention(8, 2), inputs(8, generator)
    memory[:, :, :4] = torch.eye(4)
    with torch.no_grad():
        module.projv.weight.zero_()
        module.projv.weight[4 * head : 4 * head + 4, :4] = torch.eye(4)
        module.projv.bias.zero_()
        module.proj.weight.copy_(torch.eye(8))
        module.proj.bias.zero_()
        weights = module(x, memory, *angles)[..., 4 * head : 4 * head + 4]
        torch.testing.assert_close(log_attention(module, head, x, memory, *angles).exp(), weights)


def test_heads_are_watched_in_both_decoders_and_only_within_the_block():
    network = Mast3r(SMALL)
    network.init_weights(torch.Generator().manual_seed(0))
    images = torch.rand(2, 2, 3, 32, 16, generator=torch.Generator().manual_seed(1))
    with watched(network, [[[3, 0]], [[1, 2], [3, 0]]]) as attention:
        network(images[0], images[1])
    network(images[0], images[1])
    assert sorted(view for view, _ in attention) == [0, 1, 1]
    for _, logs in attention:
        assert logs.shape == (2, 2, 2)
        torch.testing.assert_close(logs.exp().sum(-1), torch.ones(2, 2))
    sum(logs[..., 0].sum() for _, logs in attention).backward()
    for blocks in (network.dec_blocks, network.dec_blocks2):
        gradients = [block.cross_attn.projq.weight.grad for block in blocks]
        assert [gradient is not None and bool(gradient.any()) for gradient in gradients] == [True, True, True, True]
        width = 24 // 3
        assert gradients[3][:width].any() and not gradients[3][width:].any()  # head 0 of the last block alone


def test_the_loss_is_the_cross_entropy_of_the_pixels_both_views_see():
    rng = np.random.default_rng(0)
    matches = rng.random((3, 2, 2, 3, 2, 3)) * (rng.random((3, 2, 2, 3, 2, 3)) < 0.3)
    attention = [(view, torch.from_numpy(rng.normal(size=(3, 6, 6))).log_softmax(-1)) for view in (0, 1, 1)]
    expected = []
    for view, logs in attention:
        terms = [
            (matches[b, view, n // 3, n % 3, m // 3, m % 3], logs[b, n, m].item())
            for b in range(3)
            for n in range(6)
            for m in range(6)
        ]
        expected.append(-sum(share * log for share, log in terms) / sum(share for share, _ in terms))
    assert attention_matching_loss(attention, torch.from_numpy(matches)).item() == pytest.approx(
        np.mean(expected), rel=1e-9
    )
    uniform = [(0, torch.full((3, 6, 6), -np.log(6)))]
    assert attention_matching_loss(uniform, torch.from_numpy(matches).float()).item() == pytest.approx(
        np.log(6), rel=1e-5
    )


def test_pairs_without_a_common_pixel_cost_nothing():
    logs = torch.zeros(1, 4, 4).log_softmax(-1)
    assert attention_matching_loss([(0, logs)], torch.zeros(1, 2, 2, 2, 2, 2)).item() == 0
