"""Initial weights drawn from an explicit generator, so that one layer's start never depends on what else was built."""

import torch
from torch import nn


@torch.no_grad()
def initialise(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, generator: torch.Generator) -> None:
    """PyTorch's default for linear and convolution layers, weight and bias uniform in +-1 / sqrt(fan_in).

    (He et al. 2015, Delving Deep into Rectifiers, with a = sqrt(5).) fan_in counts dimension 1 of the weight and the
    kernel, for transposed convolutions too. Drawn on the CPU in float32: the same on every device, nothing on meta.
    """
    fan_in = layer.weight.shape[1:].numel()
    draw_uniform(layer.weight, fan_in**-0.5, generator)
    if layer.bias is not None:
        draw_uniform(layer.bias, fan_in**-0.5, generator)


@torch.no_grad()
def draw_uniform(tensor: torch.Tensor, bound: float, generator: torch.Generator) -> None:
    """Fill with uniform values in [-bound, bound); draws the same number of values wherever `tensor` lives."""
    tensor.copy_(torch.empty(tensor.shape).uniform_(-bound, bound, generator=generator))
