"""A transposed convolution whose bias has a fast gradient on a CPU.

oneDNN has no fast kernel for the gradient of the bias of a transposed convolution: with the bias, a backward pass on a
CPU takes 1.4 to 4.5 times as long as without it. Here, the gradient of the bias is a sum that torch computes itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.linalg.precision import needs_plain


class _BiasGradient(torch.autograd.Function):
    """The map itself; its gradient is also that of a bias that was already added to each pixel."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, bias: Tensor) -> Tensor:
        ctx.mark_dirty(y)  # not a view of ``y``: autograd refuses to write into a view that a function returned
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient, gradient.sum((0, 2, 3))


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] = 0,
    output_padding: int | tuple[int, ...] = 0,
    groups: int = 1,
    dilation: int | tuple[int, ...] = 1,
) -> Tensor:
    """Return ``functional.conv_transpose2d`` of the arguments: (n, inputs, h, w) -> (n, outputs, h', w').

    The result and all derivatives are those of torch. ``torch.compile``, ``torch.jit.trace`` and ``torch.func`` see
    torch's function.
    """
    geometry = (stride, padding, output_padding, groups, dilation)
    if (
        bias is None
        or not (bias.requires_grad and torch.is_grad_enabled())
        or x.dim() != 4
        or x.device.type != "cpu"
        or torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or any(map(needs_plain, (x, weight, bias)))
    ):
        return functional.conv_transpose2d(x, weight, bias, *geometry)
    y = functional.conv_transpose2d(x, weight, bias.detach(), *geometry)
    return _BiasGradient.apply(y, bias)  # pyright: ignore[reportReturnType]


class ConvTranspose2d(nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` with the fast gradient of the bias."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map (n, inputs, h, w) to (n, outputs, h', w')."""
        if output_size is not None:
            return super().forward(input, output_size)
        geometry = (self.stride, self.padding, self.output_padding, self.groups, self.dilation)
        return conv_transpose2d(input, self.weight, self.bias, *geometry)  # pyright: ignore[reportArgumentType]
