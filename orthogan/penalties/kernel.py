"""Penalties on the Gram matrix of a weight (out, in, *kernel), viewed as W (out, in*kh*kw) with one filter per row.

The papers write W as (fan_in, out), so their W^T W is side "rows" here. Orthonormal rows exist only if out <= fan_in.
"smaller" selects the side on which the penalty can be zero.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from orthogan.linalg.gram import Side, gram, gram_residual
from orthogan.penalties.network import penalty

SideOption = Annotated[Side, Field(description="take the Gram matrix of the rows, the columns, or the smaller side")]


def check_tensor(weight: object) -> None:
    """Raise TypeError if ``weight`` is not a tensor."""
    if isinstance(weight, nn.Module):
        raise TypeError(
            f"expected the weight of a layer, not {type(weight).__name__}: pass layer.weight, or use "
            "orthogan.penalties.apply(net, ...) for a whole net"
        )
    if not isinstance(weight, Tensor):
        raise TypeError(f"expected a torch.Tensor, not {type(weight).__name__}; torch.as_tensor makes one of numbers")


def as_matrix(weight: Tensor) -> Tensor:
    """Reshape (out, in, *kernel) to (out, in*kh*kw).

    Raises:
        ValueError: the weight is a vector or a scalar, or has no entries.
        TypeError: it is not a tensor.
    """
    check_tensor(weight)
    if weight.dim() < 2 or not weight.numel():
        raise ValueError(f"the weight has shape {tuple(weight.shape)}: a penalty needs (out, in, ...), each at least 1")
    return weight.reshape(weight.shape[0], -1)


@penalty("soft_orthogonality", "so", follows="spectrum")
def soft_orthogonality(weight: Tensor, side: SideOption = "smaller") -> Tensor:
    """Return SO: ||Gram - I||_F^2 (Bansal et al. 2018, eq. 4). The paper uses side "rows", at least out - fan_in.

    Source: Bansal, Chen & Wang 2018, arXiv:1810.09102.

    Example:
        >>> import torch
        >>> from orthogan.penalties import soft_orthogonality
        >>> soft_orthogonality(torch.eye(4)).item(), soft_orthogonality(2 * torch.eye(4)).item()
        (0.0, 36.0)
    """
    return gram_residual(as_matrix(weight), side).square().sum()


@penalty("double_soft_orthogonality", "dso", follows="spectrum")
def double_soft_orthogonality(weight: Tensor) -> Tensor:
    """Return DSO: ||W W^T - I||_F^2 + ||W^T W - I||_F^2 (Bansal et al. 2018, eq. 5); at least |out - fan_in|.

    Source: Bansal, Chen & Wang 2018, arXiv:1810.09102.

    Example:
        >>> import torch
        >>> from orthogan.penalties import double_soft_orthogonality
        >>> double_soft_orthogonality(torch.eye(4)).item(), double_soft_orthogonality(torch.eye(4)[:2]).item()
        (0.0, 2.0)
    """
    return soft_orthogonality(weight, "rows") + soft_orthogonality(weight, "columns")


@penalty("mutual_coherence", "mc")
def mutual_coherence(
    weight: Tensor,
    reading: Annotated[
        Literal["max_entry", "row_sum"], Field(description="the norm: largest entry or largest row sum")
    ] = "max_entry",
    side: SideOption = "smaller",
) -> Tensor:
    """Return MC: ||Gram - I||_inf (Bansal et al. 2018, eq. 6). The paper uses side "rows".

    Args:
        reading: interpretation of the norm, which the paper does not specify: the largest |entry|, or the largest row
            sum of |entries|.

    Raises:
        ValueError: the reading or the side is unknown.

    Source: Bansal, Chen & Wang 2018, arXiv:1810.09102.

    Example:
        >>> import torch
        >>> from orthogan.penalties import mutual_coherence
        >>> mutual_coherence(torch.tensor([[1.0, 0.0], [0.6, 0.8]]))
        tensor(0.6000)
    """
    if reading not in ("max_entry", "row_sum"):
        raise ValueError(f"reading is {reading!r}: choose max_entry or row_sum")
    residual = gram_residual(as_matrix(weight), side).abs()
    return residual.amax() if reading == "max_entry" else residual.sum(-1).amax()


@penalty("off_diagonal", follows="gram")
def off_diagonal(weight: Tensor) -> Tensor:
    """Return ||W W^T o (1 - I)||_F^2 (Brock et al. 2019, eq. 3), which is 0 for orthogonal rows of any length.

    The gradient is the true one, 4 ((W W^T) o (1 - I)) W. BigGAN's code has the factor 2 instead of 4, so its weight w
    corresponds to w / 2 here.

    Source: Brock, Donahue & Simonyan 2019, arXiv:1809.11096.

    Example:
        >>> import torch
        >>> from orthogan.penalties import off_diagonal
        >>> off_diagonal(3 * torch.eye(4)).item()  # rows at right angles, of any length
        0.0
    """
    return 2 * gram(as_matrix(weight)).tril(-1).square().sum()
