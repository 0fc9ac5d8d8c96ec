"""In what precision and at what scale matrices are worked on."""

from __future__ import annotations

import torch
from torch import Tensor


def exact(tensor: Tensor) -> Tensor:
    """At least float32: singular vectors iterated in half precision never converge.

    Raises:
        ValueError: a complex tensor, whose imaginary part would be lost.
    """
    if tensor.is_complex():
        raise ValueError(
            f"a {str(tensor.dtype).removeprefix('torch.')} matrix: only real matrices are supported; "
            "torch.view_as_real gives the parts of a complex one"
        )
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def magnitude(tensor: Tensor, *dims: int) -> Tensor:
    """The power of two at or below the largest |entry| over ``dims``, which are kept with size 1; 1 if that is 0.

    To divide by it changes no digit, so that a function which does not depend on the scale, or is proportional to it,
    gives the same digits at every scale, without squares that leave the range of the numbers. No gradient; 1 also
    where an entry is not finite or there is none.
    """
    if not tensor.numel():
        return tensor.new_ones([1 if dim - tensor.dim() in dims else n for dim, n in enumerate(tensor.shape)])
    top = tensor.detach().abs().amax(dims, keepdim=True)
    mantissa = torch.frexp(top).mantissa  # in [0.5, 1)
    return torch.where((top > 0) & (top < torch.inf), top / (2 * mantissa), 1.0)
