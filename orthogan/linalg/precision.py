"""Conversion of matrices to the precision and scale used for computations."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch._C import _functorch  # pyright: ignore
from torch.autograd import forward_ad

P = ParamSpec("P")
Found = TypeVar("Found")


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context that turns autocast off if it is on; entering one without effect costs as much as a kernel."""
    if device.type != "meta" and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def autocast_off(function: Callable[P, Found]) -> Callable[P, Found]:
    """Return ``function``, whose first argument is a tensor, with autocast turned off while it runs."""

    @wraps(function)
    def exact(*args: P.args, **keywords: P.kwargs) -> Found:
        first = args[0] if args else next(iter(keywords.values()), None)
        with without_autocast(first.device) if isinstance(first, Tensor) else nullcontext():
            return function(*args, **keywords)

    return exact


def transformed(tensor: Tensor) -> bool:
    """Return whether ``tensor`` is a ``torch.func`` wrapper around other tensors."""
    return _functorch.is_functorch_wrapped_tensor(tensor)


def needs_plain(tensor: Tensor) -> bool:
    """Return whether a function with its own backward pass must use a formula that torch differentiates itself.

    That is so under ``torch.func`` and in forward mode, which would ignore the own derivative or refuse the function.
    """
    if torch.compiler.is_compiling():
        return False
    return transformed(tensor) or forward_ad.unpack_dual(tensor).tangent is not None


def differentiates_again() -> bool:
    """Return whether a backward pass must itself be differentiable (``create_graph=True``)."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def second_order(plain: Callable[..., Tensor], gradient: Tensor, matrix: Tensor, *others: Tensor) -> Tensor:
    """Return the gradient of ``plain(matrix, *others)`` by autograd, so that it can be differentiated again."""
    with without_autocast(matrix.device):
        return torch.autograd.grad(plain(matrix, *others), matrix, gradient, create_graph=True)[0]


def at_least_float32(tensor: Tensor, *, allow_complex: bool = False) -> Tensor:
    """Convert to at least float32, because singular vectors iterated in half precision never converge.

    Raises:
        ValueError: the tensor is complex and would lose its imaginary part; not raised with ``allow_complex``.
        TypeError: the argument is not a tensor.
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
    """Convert a matrix or a batch of matrices (..., m, n) to at least float32; m and n must be at least 1.

    Raises:
        ValueError: the shape is different, or the tensor is complex.
        TypeError: the argument is not a tensor.
    """
    found = at_least_float32(tensor)
    if found.dim() < 2 or 0 in found.shape[-2:] or (square and found.shape[-1] != found.shape[-2]):
        wanted = "square matrices (..., n, n), n at least 1" if square else "matrices (..., m, n), m and n at least 1"
        raise ValueError(f"a tensor of shape {tuple(found.shape)}: expected {wanted}")
    return found


def magnitude(tensor: Tensor, *dims: int) -> Tensor:
    """Return the power of two above the largest |entry| over ``dims``, kept with size 1; 1 if that entry is 0.

    Dividing by it is exact. A function that does not depend on the scale, or is proportional to it, therefore gives the
    same digits at every scale, and its squares stay in the range of the number format. The result has no gradient. It
    is also 1 if an entry is NaN or if there are no entries.
    """
    if not tensor.numel():
        return tensor.new_ones([1 if i - tensor.dim() in dims else n for i, n in enumerate(tensor.shape)])
    top = tensor.detach().abs().amax(dims, keepdim=True)
    # 0 and NaN give NaN; a value too large for a power of two above it gives inf
    return torch.nan_to_num(top / torch.frexp(top).mantissa, nan=1.0, posinf=2.0**127)
