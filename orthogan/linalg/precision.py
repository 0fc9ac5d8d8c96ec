"""In what precision and at what scale matrices are worked on."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor, *, allow_complex: bool = False) -> Tensor:
    """At least float32: singular vectors iterated in half precision never converge.

    Raises:
        ValueError: a complex tensor, whose imaginary part would be lost; not with ``allow_complex``.
        TypeError: no tensor at all.
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"expected a torch.Tensor, not {type(tensor).__name__}; torch.as_tensor makes one of numbers")
    if tensor.is_complex() and allow_complex:
        return tensor if tensor.dtype == torch.complex128 else tensor.to(torch.complex64)
    if tensor.is_complex():
        raise ValueError(
            f"a {str(tensor.dtype).removeprefix('torch.')} matrix: only real matrices are supported; "
            "torch.view_as_real gives the parts of a complex one"
        )
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def matrices(tensor: Tensor, *, square: bool = False) -> Tensor:
    """``at_least_float32``, of a matrix or a batch of matrices (..., m, n) that has at least one row and one column.

    Raises:
        ValueError: a tensor of another shape, or a complex one.
        TypeError: no tensor at all.
    """
    found = at_least_float32(tensor)
    if found.dim() < 2 or 0 in found.shape[-2:] or (square and found.shape[-1] != found.shape[-2]):
        wanted = "square matrices (..., n, n), n at least 1" if square else "matrices (..., m, n), m and n at least 1"
        raise ValueError(f"a tensor of shape {tuple(found.shape)}: expected {wanted}")
    return found


def magnitude(tensor: Tensor, *dims: int) -> Tensor:
    """The power of two above the largest |entry| over ``dims``, which are kept with size 1; 1 if that entry is 0.

    To divide by it changes no digit, so that a function which does not depend on the scale, or is proportional to it,
    gives the same digits at every scale, without squares that leave the range of the numbers. No gradient; 1 also
    where an entry is NaN or there is none.
    """
    if not tensor.numel():
        return tensor.new_ones([1 if i - tensor.dim() in dims else n for i, n in enumerate(tensor.shape)])
    top = tensor.detach().abs().amax(dims, keepdim=True)
    # 0 and NaN give NaN; what is too large for a power of two above it gives inf
    return torch.nan_to_num(top / torch.frexp(top).mantissa, nan=1.0, posinf=2.0**127)
