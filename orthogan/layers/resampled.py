"""A 3x3 convolution after nearest-neighbor upsampling, or before a 2x2 mean, as one convolution with stride 2.

Upsampling repeats each pixel, and the mean adds neighbors. Neighboring taps of the kernel are therefore multiplied by
the same numbers, and they can be summed beforehand into a 4x4 kernel. The result is the same function with 4/9 of the
multiplications, and the larger intermediate map is never created.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.layers.transposed import conv_transpose2d
from orthogan.linalg.precision import without_autocast

# channels_last kernels of fewer entries per tap are summed by pooling, others by a matrix product (benchmarks/NOTES.md)
POOLED = 128 * 128


def upsample_conv(layer: nn.Module, x: Tensor) -> Tensor:
    """Return ``layer(functional.interpolate(x, scale_factor=2))``: (n, inputs, h, w) -> (n, outputs, 2h, 2w)."""
    if not _folds(layer):
        return layer(functional.interpolate(x, scale_factor=2))
    kernel = _pairs(layer.weight, flip=True).transpose(0, 1)
    return conv_transpose2d(x, kernel, layer.bias, stride=2, padding=1)


def conv_pool(layer: nn.Module, x: Tensor) -> Tensor:
    """Return ``functional.avg_pool2d(layer(x), 2)`` for even h and w: (n, inputs, h, w) -> (n, outputs, h/2, w/2)."""
    if not _folds(layer) or x.shape[2] % 2 or x.shape[3] % 2:
        return functional.avg_pool2d(layer(x), 2)
    return functional.conv2d(x, _pairs(layer.weight, divisor=4), layer.bias, stride=2, padding=1)


def _folds(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Return whether the layer is a plain 3x3 convolution without hooks; any other layer runs unchanged."""
    own: Any = type(layer)
    return (
        own.forward is nn.Conv2d.forward
        and own._conv_forward is nn.Conv2d._conv_forward
        and own.__call__ is nn.Module.__call__
        and not {"forward", "_conv_forward"} & vars(layer).keys()
        and (layer.kernel_size, layer.padding, layer.stride) == ((3, 3), (1, 1), (1, 1))
        and (layer.dilation, layer.groups, layer.padding_mode) == ((1, 1), 1, "zeros")
        and not any((layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks))
    )


def _pairs(kernel: Tensor, *, flip: bool = False, divisor: int = 1) -> Tensor:
    """Sum all shifts of the kernel by 0 or 1 tap down and to the right: (a, b, 3, 3) -> (a, b, 4, 4), over ``divisor``.

    ``flip``: of the kernel turned by 180 degrees. It keeps the memory layout of ``kernel``.
    """
    a, b = kernel.shape[:2]
    with without_autocast(kernel.device):
        if a * b < POOLED and not kernel.is_contiguous():
            kernel = kernel.flip(2, 3) if flip else kernel
            return functional.avg_pool2d(kernel, 2, stride=1, padding=1, divisor_override=divisor)
        # (4, 3): 1 where row - column is 0 or 1
        side = torch.ones(4, 4, dtype=kernel.dtype, device=kernel.device).tril().triu(-1)[:, :3]
        taps = torch.kron(side, side) / divisor  # (16, 9)
        if flip:
            taps = taps.flip(1)
        if kernel.is_contiguous():
            return (kernel.reshape(a, b, 9) @ taps.T).reshape(a, b, 4, 4)
        return (taps @ kernel.permute(0, 2, 3, 1).reshape(a, 9, b)).reshape(a, 4, 4, b).permute(0, 3, 1, 2)
