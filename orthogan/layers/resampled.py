"""A 3x3 convolution after nearest-neighbor upsampling, or before a 2x2 mean, as one convolution of stride 2.

Upsampling repeats each pixel, and the mean adds neighbors, so neighboring taps of the kernel meet the same numbers:
they are summed beforehand into a 4x4 kernel. It is the same function with 4/9 of the multiplications, and the larger
map in between is never made.
"""

from __future__ import annotations

from typing import TypeGuard

from torch import Tensor, nn
from torch.nn import functional


def upsample_conv(layer: nn.Module, x: Tensor) -> Tensor:
    """``layer(functional.interpolate(x, scale_factor=2))``: (n, inputs, h, w) -> (n, outputs, 2h, 2w)."""
    if not _folds(layer):
        return layer(functional.interpolate(x, scale_factor=2))
    kernel = _pairs(layer.weight.flip(2, 3)).transpose(0, 1)
    return functional.conv_transpose2d(x, kernel, layer.bias, stride=2, padding=1)


def conv_pool(layer: nn.Module, x: Tensor) -> Tensor:
    """``functional.avg_pool2d(layer(x), 2)`` for even h and w: (n, inputs, h, w) -> (n, outputs, h/2, w/2)."""
    if not _folds(layer) or x.shape[2] % 2 or x.shape[3] % 2:
        return functional.avg_pool2d(layer(x), 2)
    return functional.conv2d(x, _pairs(layer.weight) / 4, layer.bias, stride=2, padding=1)


def _folds(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether the layer is a plain 3x3 convolution; another kind, or one that somebody listens to, runs by itself."""
    return (
        type(layer).forward is nn.Conv2d.forward
        and (layer.kernel_size, layer.padding, layer.stride) == ((3, 3), (1, 1), (1, 1))
        and (layer.dilation, layer.groups, layer.padding_mode) == ((1, 1), 1, "zeros")
        and not layer._forward_hooks
        and not layer._forward_pre_hooks
    )


def _pairs(kernel: Tensor) -> Tensor:
    """(a, b, 3, 3) -> (a, b, 4, 4): all ways to shift the kernel by 0 or 1 tap down and to the right, summed."""
    tall = functional.pad(kernel, (0, 0, 0, 1)) + functional.pad(kernel, (0, 0, 1, 0))
    return functional.pad(tall, (0, 1)) + functional.pad(tall, (1, 0))
