"""Singular values of a convolution as a linear map, not of its kernel as a matrix.

On a torus (circular padding) a convolution is block diagonal in the Fourier basis, with one (out, in) matrix per
frequency (Sedghi, Gupta & Long 2019, theorem 6). A stride keeps every s-th pixel, so frequencies that are n/s apart
alias: their blocks are concatenated to one (out, in*s) matrix, divided by sqrt(s), for every axis. Groups are
independent convolutions. A transposed convolution is the adjoint of the convolution with the same weight tensor, stride
and groups, so it has the same singular values.

Kernels may be complex, and may have one or more axes after (out, in/groups). Dilation moves the taps further apart.
Taps that wrap around the torus are summed, as in the convolution itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from orthogan.linalg.precision import at_least_float32

Size = int | Sequence[int]


def conv_singular_values(
    kernel: Tensor, size: Size, stride: Size = 1, groups: int = 1, *, dilation: Size = 1
) -> Tensor:
    """Return all min(outputs, inputs) singular values of the circular convolution, descending, in at least float32.

    Args:
        kernel: (out, in/groups, *taps).
        size: size of the input map, one number for all axes or one per axis; a multiple of the stride.

    Raises:
        ValueError: not a convolution kernel, or sizes, strides or groups that do not match it.
    """
    with torch.autocast(kernel.device.type, enabled=False):
        values = torch.linalg.svdvals(_blocks(kernel, size, stride, groups, dilation))
        return values.flatten().sort(descending=True).values


def conv_operator_norm(kernel: Tensor, size: Size, stride: Size = 1, groups: int = 1, *, dilation: Size = 1) -> Tensor:
    """Return only the largest singular value (0-d), several times faster; arguments and errors as above.

    At most sqrt(number of taps) times the norm of the kernel as a matrix (out, in*taps).
    """
    axes = kernel.dim() - 2
    sizes, strides, dilations = (_each(value, axes, name) for value, name in _named(size, stride, dilation))
    _check(kernel, sizes, strides, groups)
    # along an axis with a single tap all frequencies are equal, including those that alias
    flat = [taps == 1 for taps in kernel.shape[2:]]
    sizes = [1 if one else n for one, n in zip(flat, sizes, strict=True)]
    strides = [1 if one else s for one, s in zip(flat, strides, strict=True)]
    with torch.autocast(kernel.device.type, enabled=False):
        scale = at_least_float32(kernel.detach(), allow_complex=True).abs().amax()
        scale = torch.where(scale > 0, scale, 1.0)  # squares of tiny or huge weights exceed the range of float32
        kernel = at_least_float32(kernel, allow_complex=True) / scale
        blocks = _blocks(kernel, sizes, strides, groups, dilations, half=not kernel.is_complex())
        if blocks.shape[-2] > blocks.shape[-1]:
            blocks = blocks.mT
        # the largest eigenvalue of the Gram matrix is exact enough, and much cheaper than all singular values
        top = torch.linalg.eigvalsh(blocks @ blocks.mH).amax()
        return scale * torch.where(top > 0, torch.where(top > 0, top, 1.0).sqrt(), 0.0)  # zero kernel


def _blocks(kernel: Tensor, size: Size, stride: Size, groups: int, dilation: Size, *, half: bool = False) -> Tensor:
    """Return the diagonal blocks (groups * output frequencies, out/groups, in/groups * strides), complex.

    ``half`` omits most blocks whose conjugates are included (for real kernels).
    """
    axes = kernel.dim() - 2
    sizes, strides, dilations = (_each(value, axes, name) for value, name in _named(size, stride, dilation))
    _check(kernel, sizes, strides, groups)
    kernel = at_least_float32(kernel, allow_complex=True)
    real = kernel.real if kernel.is_complex() else kernel
    blocks = kernel if kernel.is_complex() else torch.complex(real, torch.zeros_like(real))
    for n, step in zip(sizes, dilations, strict=True):
        # few taps and frequencies: a matrix product replaces an FFT, and taps may lie beyond the edge
        taps = torch.arange(blocks.shape[2], device=kernel.device) * step
        turns = torch.outer(taps, torch.arange(n, device=kernel.device)) % n
        angle = turns.to(real.dtype) * (2 * math.pi / n)
        # the first remaining axis is transformed; its frequencies come last
        blocks = blocks.movedim(2, -1) @ torch.polar(torch.ones_like(angle), angle)
    out, inputs = kernel.shape[:2]
    # frequency j * (n/s) + g of an axis aliases to g: split it into (j, g)
    blocks = blocks.reshape(groups, out // groups, inputs, *(p for n, s in _pairs(sizes, strides) for p in (s, n // s)))
    aliases, kept = [3 + 2 * a for a in range(axes)], [4 + 2 * a for a in range(axes)]
    if half:
        blocks = blocks.narrow(kept[-1], 0, blocks.shape[kept[-1]] // 2 + 1)
    folded = math.prod(strides)
    return blocks.permute(0, *kept, 1, 2, *aliases).reshape(-1, out // groups, inputs * folded) / math.sqrt(folded)


def _pairs(sizes: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(sizes, strides, strict=True))


def _named(size: Size, stride: Size, dilation: Size) -> list[tuple[Size, str]]:
    return [(size, "size"), (stride, "stride"), (dilation, "dilation")]


def _each(value: Size, axes: int, name: str) -> list[int]:
    """Return one number per axis."""
    values = [value] * axes if isinstance(value, int) else list(value)
    if len(values) != axes or min(values, default=1) < 1:
        raise ValueError(
            f"{name} is {value}: must be one number >= 1, or {axes} numbers for the {axes} axes of the kernel"
        )
    return values


def _check(kernel: Tensor, sizes: Sequence[int], strides: Sequence[int], groups: int) -> None:
    if kernel.dim() < 3:
        raise ValueError(f"kernel of shape {tuple(kernel.shape)}: a convolution kernel must be (out, in/groups, *taps)")
    if groups < 1 or kernel.shape[0] % groups:
        raise ValueError(f"groups is {groups}: it must divide the {kernel.shape[0]} outputs of the kernel")
    for n, s in _pairs(sizes, strides):
        if n % s:
            raise ValueError(f"size is {n}: it must be a multiple of the stride {s}, such as {-(-n // s) * s}")
