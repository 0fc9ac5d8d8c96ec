"""A 3x3 convolution after nearest-neighbor upsampling, or before a 2x2 mean, as one convolution with stride 2.

Upsampling repeats each pixel, and the mean adds neighbors. Neighboring taps of the kernel are therefore multiplied by
the same numbers, and they can be summed beforehand into a 4x4 kernel. The result is the same function with 4/9 of the
multiplications, and the larger intermediate map is never created.
"""

from __future__ import annotations

from typing import TypeGuard

from torch import Tensor, nn
from torch.nn import functional


def upsample_conv(layer: nn.Module, x: Tensor) -> Tensor:
    """Return ``layer(functional.interpolate(x, scale_factor=2))``: (n, inputs, h, w) -> (n, outputs, 2h, 2w)."""
    if not _folds(layer):
        return layer(functional.interpolate(x, scale_factor=2))
    kernel = _pairs(layer.weight.flip(2, 3)).transpose(0, 1)
    return functional.conv_transpose2d(x, kernel, layer.bias, stride=2, padding=1)


def conv_pool(layer: nn.Module, x: Tensor) -> Tensor:
    """Return ``functional.avg_pool2d(layer(x), 2)`` for even h and w: (n, inputs, h, w) -> (n, outputs, h/2, w/2)."""
    if not _folds(layer) or x.shape[2] % 2 or x.shape[3] % 2:
        return functional.avg_pool2d(layer(x), 2)
    return functional.conv2d(x, _pairs(layer.weight) / 4, layer.bias, stride=2, padding=1)


def _folds(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Return whether the layer is a plain 3x3 convolution without hooks; any other layer runs unchanged."""
    return (
        type(layer).forward is nn.Conv2d.forward
        and (layer.kernel_size, layer.padding, layer.stride) == ((3, 3), (1, 1), (1, 1))
        and (layer.dilation, layer.groups, layer.padding_mode) == ((1, 1), 1, "zeros")
        and not layer._forward_hooks
        and not layer._forward_pre_hooks
    )


def _pairs(kernel: Tensor) -> Tensor:
    """Sum all shifts of the kernel by 0 or 1 tap down and to the right: (a, b, 3, 3) -> (a, b, 4, 4)."""
    tall = functional.pad(kernel, (0, 0, 0, 1)) + functional.pad(kernel, (0, 0, 1, 0))
    return functional.pad(tall, (0, 1)) + functional.pad(tall, (1, 0))
