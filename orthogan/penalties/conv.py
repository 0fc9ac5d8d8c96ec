"""Orthogonality of a convolution as an operator (Wang et al. 2020, OCNN; Achour et al. 2022, L_orth)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from orthogan.config.base import Count
from orthogan.layers.skew_orthogonal import SkewOrthogonalConv2d
from orthogan.linalg.gram import gram_residual
from orthogan.linalg.precision import at_least_float32, without_autocast
from orthogan.penalties.kernel import check_tensor
from orthogan.penalties.network import penalty
from orthogan.weights import Selected

CONV = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}


def _of_layer(selected: Selected, options: dict[str, Any]) -> Tensor:
    value, layer = selected.value, selected.layer
    if value.dim() == 2:
        return conv_orthogonality(value, **options)
    if isinstance(layer, SkewOrthogonalConv2d):  # its map is a convolution with this kernel, not with the filter
        return conv_orthogonality(layer.torus_kernel()[0], layer.stride, **options)
    assert isinstance(layer, _ConvNd)
    # a stride of 2 over a dilation of 2 moves one tap of the kernel
    stride = [s // math.gcd(s, d) for s, d in zip(layer.stride, layer.dilation, strict=True)]
    return conv_orthogonality(value, stride, groups=layer.groups, **options)


def _steps(selected: Selected) -> tuple[Any, ...]:
    layer = selected.layer
    return (layer.stride, layer.dilation) if isinstance(layer, _ConvNd) else ()


@penalty("conv_orthogonality", "ocnn", of_layer=_of_layer, identity=_steps)
def conv_orthogonality(
    weight: Tensor,
    stride: int | Sequence[int] = 1,
    padding: Annotated[
        Count | list[Count] | None,
        Field(description="padding, a multiple of the stride; null = as large as filters overlap"),
    ] = None,
    *,
    groups: int = 1,
) -> Tensor:
    """Return ||Conv(K, K; P, S) - I_r0||_F^2 - max(0, M - S^2 C), which is 0 only for an orthogonal convolution.

    For an orthogonal convolution it is 0 up to rounding. The definition is Achour et al. 2022, definition 3.1, for K
    (M, C, *kernel), stride S and P = floor((k-1)/S) S. Let A be the matrix of the circular convolution with N output
    positions. The value is ||A A^T - I||_F^2 / N if M <= S^2 C, and ||A^T A - I||_F^2 / N otherwise (theorem 4.2). A
    stride larger than the kernel reads only min(S, k) positions, and that number is used. A matrix or a 1x1 kernel
    gives the Gram residual of its smaller side. The dilation has no effect at stride 1. A transposed convolution is the
    adjoint and has the same condition: pass its kernel as stored.

    Args:
        padding: P of each axis, a multiple of the stride. The authors' default of 1 detects overlaps of a 3x3 kernel
            only at shifts of at most 1. The full test needs 2, which None selects.
        groups: groups of the convolution, whose kernel is then (M, C/groups, *kernel).

    Raises:
        ValueError: the stride, padding or groups do not fit the weight.

    Source: Wang et al. 2020, arXiv:1911.12207; Achour, Malgouyres & Mamalet 2022, arXiv:2108.05623.

    Example:
        >>> import torch
        >>> from orthogan.penalties import conv_orthogonality
        >>> identity = torch.zeros(4, 4, 3, 3)
        >>> identity[:, :, 1, 1] = torch.eye(4)  # a convolution that changes nothing
        >>> conv_orthogonality(identity).item()
        0.0
    """
    check_tensor(weight)
    if not weight.numel():
        raise ValueError(f"the weight has shape {tuple(weight.shape)}: it is empty")
    if weight.dim() == 2:
        return gram_residual(weight).square().sum()
    if weight.dim() not in CONV:
        raise ValueError(
            f"the weight has shape {tuple(weight.shape)}: the weight of a convolution must have 3 to 5 dimensions"
        )
    kernel, rows = weight.shape[2:], weight.shape[0]
    strides = _axes("stride", stride, len(kernel))
    if min(strides) < 1:
        raise ValueError(f"stride is {stride}: must be at least 1")
    if groups < 1 or rows % groups:
        raise ValueError(f"groups is {groups}: it must divide the {rows} filters")
    if padding is None:
        pads = tuple((k - 1) // s * s for k, s in zip(kernel, strides, strict=True))
    else:
        pads = _axes("padding", padding, len(kernel))
        if any(p < 0 or p % s for p, s in zip(pads, strides, strict=True)):
            raise ValueError(f"padding is {padding}: it must be a multiple of the stride {stride}, or None")
    with without_autocast(weight.device):
        weight = at_least_float32(weight)
        # the filters of a group as images, with the groups side by side: (M/g, C, *kernel)
        images = weight.reshape(groups, rows // groups, *weight.shape[1:]).transpose(0, 1)
        images = images.reshape(rows // groups, -1, *kernel)
        overlaps = CONV[weight.dim()](images, weight, stride=strides, padding=pads, groups=groups)  # (M/g, M, *shifts)
        eye = torch.eye(rows // groups, dtype=weight.dtype, device=weight.device).repeat(1, groups)
        border = [p // s for p, s in zip(reversed(pads), reversed(strides), strict=True) for _ in (0, 1)]
        at_centre = F.pad(eye.reshape(*eye.shape, *[1] * len(kernel)), border)
        seen = math.prod([min(s, k) for s, k in zip(strides, kernel, strict=True)])
        return (overlaps - at_centre).square().sum() - max(0, rows - seen * weight.shape[1] * groups)


def _axes(name: str, value: int | Sequence[int], count: int) -> tuple[int, ...]:
    axes = (value,) * count if isinstance(value, int) else tuple(value)
    if len(axes) != count:
        raise ValueError(f"{name} is {value}: must be one number, or one for each of the {count} axes of the kernel")
    return axes
