"""Which patches of two views show the same surface, and a loss that teaches cross-attention to look there.

A point map's loss says nothing of how view 2 is to be placed in view 1's frame; in training as short as the bundled
network's, its cross-attention hardly learns to match by itself.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.functional import linear

from src.geometry.cameras import invert_se3, project, transform, unproject, visible
from src.mast3r.attention import CrossAttention, rotate
from src.mast3r.network import Mast3r

MATCH_TOLERANCE = 0.05  # of the depth, within which two views see the same surface


def patch_matches(depth: Tensor, K: Tensor, c2w: Tensor, patch: int) -> Tensor:
    """Share of each patch's pixels whose surface is seen in each patch of the other view.

    depth    (B, 2, H, W)  z-depth, 0 = invalid; H and W multiples of `patch`
    K, c2w   (B, 2, 3, 3), (B, 2, 4, 4)
    returns  (B, 2, h, w, h, w)  [b, v, r, c, y, x]: share of the pixels of view v's patch (r, c) that view 1 - v shows
             in its patch (y, x); the sum over (y, x) is what it sees of the patch at all, at most 1
    """
    height, width = depth.shape[-2:]
    h, w = height // patch, width // patch
    points = transform(c2w, unproject(depth, K))
    K, c2w = K.flip(1), c2w.flip(1)
    seen = (depth > 0) & visible(points, depth.flip(1), K, c2w, MATCH_TOLERANCE, relative=True)
    pixels = project(transform(invert_se3(c2w), points), K)
    column, row = torch.where(seen[..., None], pixels / patch, 0).long().unbind(-1)
    rows, columns = (torch.arange(side, device=depth.device) // patch for side in (height, width))
    cell = (rows[:, None] * w + columns) * h * w + row * w + column
    shares = depth.new_zeros(*depth.shape[:2], (h * w) ** 2)
    shares.scatter_add_(-1, cell.flatten(2), seen.flatten(2).to(depth.dtype) / patch**2)
    return shares.unflatten(-1, (h, w, h, w))


def log_attention(
    module: CrossAttention, head: int, x: Tensor, memory: Tensor, x_angles: Tensor, memory_angles: Tensor
) -> Tensor:
    """Logarithm of what one head of `module` attends to, (B, N, M), of the module's own inputs."""
    width = module.projq.out_features // module.heads
    part = slice(head * width, (head + 1) * width)
    q, k = (
        rotate(linear(tokens, layer.weight[part], layer.bias[part])[:, None], angles)
        for tokens, layer, angles in ((x, module.projq, x_angles), (memory, module.projk, memory_angles))
    )
    return (q @ k.mT / width**0.5).squeeze(1).log_softmax(-1)


@contextmanager
def watched(network: Mast3r, heads: Sequence[Sequence[Sequence[int]]]) -> Iterator[list[tuple[int, Tensor]]]:
    """A list to which every run of `network` adds (view, log attention (B, N, M)) of `heads`: pairs of block and head
    in the decoder of view 0, and those in that of view 1; the view is the one that attends to the other."""
    found, handles = [], []
    for view, blocks in enumerate((network.dec_blocks, network.dec_blocks2)):
        for block, head in heads[view]:

            def look(module: CrossAttention, inputs: tuple, _, view: int = view, head: int = head) -> None:
                found.append((view, log_attention(module, head, *inputs)))

            handles.append(blocks[block].cross_attn.register_forward_hook(look))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def attention_matching_loss(attention: list[tuple[int, Tensor]], matches: Tensor) -> Tensor:
    """Cross-entropy in nats of the attention of `watched` to the patches that show a pixel's surface, the mean over the
    pixels that both views see and over the heads; matches of `patch_matches`."""
    targets = matches.flatten(4).flatten(2, 3)
    losses = [-(targets[:, view] * logs).sum() / targets[:, view].sum().clamp(min=1e-9) for view, logs in attention]
    return torch.stack(losses).mean()
