"""The spectral restricted isometry penalty (Bansal et al. 2018, SRIP)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from orthogan.config.base import Iterations
from orthogan.linalg.gram import flat
from orthogan.linalg.power import normalize
from orthogan.linalg.precision import at_least_float32, without_autocast
from orthogan.penalties.kernel import SideOption, as_matrix
from orthogan.penalties.network import penalty


@penalty("srip", follows="spectrum")
def srip(
    weight: Tensor,
    iterations: Annotated[Iterations, Field(description="number of power iterations")] = 2,
    side: SideOption = "smaller",
    *,
    squared: Annotated[bool, Field(description="use sigma^2, as in the authors' code, instead of sigma")] = True,
) -> Tensor:
    """Return sigma(Gram - I)^2, the squared spectral norm, by power iteration; it never exceeds the true value.

    v <- (Gram - I) v is run ``iterations`` times from a fixed start, then sigma = ||(Gram - I) v|| / ||v||. The
    published code runs one iteration from a random start, and its result is far below the true value. Here the start is
    a hash of the index, so that the result is a function of the weight without random draws. The gradient treats v as a
    constant, which is exact once v has converged. At orthonormal rows it is 0. The Gram matrix is not formed.

    Args:
        side: "rows" is the paper's W^T W, for W of (fan_in, out).
        squared: True for sigma^2, as in the authors' code, to which their coefficients ``SRIP_WEIGHT`` and
            ``SRIP_SCHEDULE`` belong. False for sigma, as in the paper.

    Raises:
        ValueError: iterations is below 1, or the side is unknown.

    Source: Bansal, Chen & Wang 2018, arXiv:1810.09102.

    Example:
        >>> import torch
        >>> from orthogan.penalties import srip
        >>> round(srip(2 * torch.eye(4)).item(), 4)  # all eigenvalues of Gram - I are 3
        9.0
    """
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}: must be at least 1")
    matrix = as_matrix(weight)
    with without_autocast(weight.device):
        vectors = flat(at_least_float32(matrix), side)
        v = start(vectors)
        with torch.no_grad():
            for _ in range(iterations):
                v = normalize(vectors @ (vectors.mT @ v) - v)
        residual = vectors @ (vectors.mT @ v) - v
        return residual.square().sum() if squared else residual.norm()


def start(vectors: Tensor) -> Tensor:
    """Return a fixed vector (m,) of hash values in [-1, 1) without pattern, for ``vectors`` (m, n) on any device."""
    mask = 0xFFFFFFFF
    x = torch.arange(1, vectors.shape[0] + 1, device=vectors.device) * 0x9E3779B1 & mask
    for factor in (0x85EBCA6B, 0xC2B2AE35):  # the finalizer of MurmurHash3
        x = (x ^ (x >> 15)) * factor & mask
    return (x ^ (x >> 16)).to(vectors.dtype) / 2**31 - 1
