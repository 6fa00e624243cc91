"""Transformer blocks of the two-view network: self-attention, cross-attention, and rotary position embedding in 2D.

Weinzaepfel et al. 2023, CroCo v2 (arXiv 2211.10408); Su et al. 2021, RoFormer (arXiv 2104.09864).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

NORM_EPS = 1e-6
Grid = tuple[int, int]  # (h, w) cells


def token_positions(grid: Grid, device: torch.device | str | None = None) -> Tensor:
    """(row, column) of each token of a grid (h, w), row by row: (h w, 2) int64."""
    rows, columns = (torch.arange(side, device=device) for side in grid)
    return torch.cartesian_prod(rows, columns)


def rope_angles(positions: Tensor, head_dim: int, base: float = 100.0) -> Tensor:
    """Rotation angles of RoPE2D: position * base^(-2 i / m), m = head_dim / 2 values per axis, y first.

    positions (..., N, 2) (row, column) -> (..., N, 2, m / 2) radians in float32, whatever the network computes in.
    raises ValueError when head_dim is not a multiple of 4
    """
    if head_dim % 4:
        raise ValueError(
            f"RoPE2D needs heads as wide as a multiple of 4, got {head_dim}; change embed_dim or num_heads."
        )
    m = head_dim // 2
    frequencies = base ** (-torch.arange(0, m, 2, dtype=torch.float32, device=positions.device) / m)
    return positions.float()[..., None] * frequencies


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Apply RoPE2D: each half of the channels is rotated by its axis's angles, as contiguous pairs of quarters.

    x (B, heads, N, d); angles (N, 2, d / 4) or (B, N, 2, d / 4) -> as x
    """
    if angles.ndim == 4:
        angles = angles[:, None]
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x.unflatten(-1, (2, 2, -1)).unbind(-2)  # (B, heads, N, 2 axes, d / 4) each
    return torch.stack([a * cos - b * sin, b * cos + a * sin], -2).flatten(-3)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, q_angles: Tensor, k_angles: Tensor) -> Tensor:
    """Multi-head attention of q (B, N, D) over k, v (B, M, D), head by head in contiguous slices -> (B, N, D)."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    out = scaled_dot_product_attention(rotate(q, q_angles), rotate(k, k_angles), v)
    return out.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.proj(attend(q, k, v, self.heads, angles, angles))


class CrossAttention(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.projq, self.projk, self.projv, self.proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor, memory: Tensor, x_angles: Tensor, memory_angles: Tensor) -> Tensor:
        q, k, v = self.projq(x), self.projk(memory), self.projv(memory)
        return self.proj(attend(q, k, v, self.heads, x_angles, memory_angles))


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int, out: int | None = None):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, out or dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class EncoderBlock(nn.Module):
    def __init__(self, dim: int, heads: int, mlp_ratio: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = SelfAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), angles)
        return x + self.mlp(self.norm2(x))


class DecoderBlock(nn.Module):
    """Self-attention, then cross-attention to the other view's residual stream, which it leaves as it is."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = SelfAttention(dim, heads)
        self.cross_attn = CrossAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.norm3 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.norm_y = nn.LayerNorm(dim, eps=NORM_EPS)

    def forward(self, x: Tensor, memory: Tensor, x_angles: Tensor, memory_angles: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), x_angles)
        x = x + self.cross_attn(self.norm2(x), self.norm_y(memory), x_angles, memory_angles)
        return x + self.mlp(self.norm3(x))
