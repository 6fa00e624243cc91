import cmath
import math

import pytest
import torch

from src.mast3r.attention import CrossAttention, DecoderBlock, SelfAttention, rope_angles, rotate, token_positions
from tests.conftest import load_fixture


def rope_by_complex_numbers(x: list[float], row: int, column: int, base: float) -> list[float]:
    """One vector, one token: each axis's half as m/2 complex numbers turned by their angle."""
    half = len(x) // 2
    turned = []
    for position, z in ((row, x[:half]), (column, x[half:])):
        pairs = half // 2
        rotated = [
            complex(z[i], z[i + pairs]) * cmath.exp(1j * position * base ** (-2 * i / half)) for i in range(pairs)
        ]
        turned += [c.real for c in rotated] + [c.imag for c in rotated]
    return turned


def test_rope_equals_the_reference():
    tensors, _ = load_fixture("mast3r/rope2d.safetensors")
    for case in "abc":
        q, positions = tensors[f"input.q_{case}"].float(), tensors[f"input.pos_{case}"]
        actual = rotate(q, rope_angles(positions, q.shape[-1]))
        assert (actual - tensors[f"output.q_{case}"]).abs().max() <= 5e-6


def test_rope_equals_complex_rotation():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2, 6, 12, generator=generator, dtype=torch.float64)
    positions = token_positions((2, 3))
    actual = rotate(x, rope_angles(positions, 12, 100.0))
    for head in range(2):
        for token, (row, column) in enumerate(positions.tolist()):
            expected = rope_by_complex_numbers(x[0, head, token].tolist(), row, column, 100.0)
            expected = torch.tensor(expected, dtype=torch.float64)
            torch.testing.assert_close(actual[0, head, token], expected, rtol=1e-5, atol=1e-5)


def test_rope_makes_scores_depend_on_relative_positions_alone():
    generator = torch.Generator().manual_seed(1)
    q, k = torch.randn(2, 1, 1, 1, 16, generator=generator)

    def score(shift: int) -> float:
        at = [rope_angles(torch.tensor([[row + shift, column + 2 * shift]]), 16) for row, column in ((1, 5), (4, 2))]
        return (rotate(q, at[0]) * rotate(k, at[1])).sum().item()

    assert score(0) == pytest.approx(score(9), abs=1e-4)


def test_token_positions_run_row_by_row():
    assert token_positions((2, 3)).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]


def test_attention_equals_a_loop_over_heads():
    generator = torch.Generator().manual_seed(2)
    attention = CrossAttention(16, 2)
    x, memory = torch.randn(1, 4, 16, generator=generator), torch.randn(1, 6, 16, generator=generator)
    still = torch.zeros(4, 2, 2), torch.zeros(6, 2, 2)
    q, k, v = attention.projq(x)[0], attention.projk(memory)[0], attention.projv(memory)[0]
    heads = []
    for part in (slice(0, 8), slice(8, 16)):
        scores = q[:, part] @ k[:, part].T / math.sqrt(8)
        heads.append(scores.exp() / scores.exp().sum(1, keepdim=True) @ v[:, part])
    torch.testing.assert_close(attention(x, memory, *still)[0], attention.proj(torch.cat(heads, 1)))


def test_fused_projection_is_query_key_value_in_that_order():
    fused, separate = SelfAttention(16, 2), CrossAttention(16, 2)
    for number, layer in enumerate((separate.projq, separate.projk, separate.projv)):
        layer.weight.data = fused.qkv.weight.data[16 * number : 16 * (number + 1)]
        layer.bias.data = fused.qkv.bias.data[16 * number : 16 * (number + 1)]
    separate.proj = fused.proj
    x = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(3))
    angles = rope_angles(token_positions((2, 3)), 8)
    torch.testing.assert_close(fused(x, angles), separate(x, x, angles, angles))


def test_a_decoder_block_leaves_the_other_view_alone():
    block = DecoderBlock(16, 2, 2.0)
    x, memory = torch.randn(2, 1, 6, 16, generator=torch.Generator().manual_seed(4))
    angles, before = rope_angles(token_positions((2, 3)), 8), memory.clone()
    block(x, memory, angles, angles)
    assert torch.equal(memory, before)


def test_rope_needs_heads_in_quarters():
    with pytest.raises(ValueError, match="multiple of 4"):
        rope_angles(token_positions((1, 1)), 10)
