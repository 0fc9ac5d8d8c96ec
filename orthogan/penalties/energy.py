"""The minimum hyperspherical energy penalty (Liu et al. 2018, MHE), which spreads filter directions over the sphere."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from orthogan.config.base import PositiveInt
from orthogan.linalg.energy import hyperspherical_energy as energy
from orthogan.penalties.kernel import as_matrix
from orthogan.penalties.network import penalty


@penalty("hyperspherical_energy", "mhe", follows="gram")
def hyperspherical_energy(
    weight: Tensor,
    s: Annotated[
        float,
        Field(ge=0.0, le=1e3, description="exponent of the inverse distance; 0 = logarithm of the inverse distance"),
    ] = 2.0,
    *,
    angular: Annotated[bool, Field(description="use angles instead of distances")] = False,
    half_space: Annotated[bool, Field(description="include the negative of each filter")] = False,
    reduction: Annotated[Literal["mean", "sum"], Field(description="reduction over pairs of filters")] = "mean",
    chunk: Annotated[PositiveInt, Field(description="number of filters processed at a time [filters]")] = 1024,
) -> Tensor:
    """Return ``orthogan.linalg.energy.hyperspherical_energy`` of the filters of a weight (out, in, *kernel).

    The authors take the mean over pairs, weight hidden layers by 1 and the classifier by 10, and compare s = 0, 1 and 2
    with and without ``half_space``, which is suited to layers with fewer dimensions than filters.

    Source: Liu et al. 2018, arXiv:1805.09298.

    Example:
        >>> import torch
        >>> from orthogan.penalties import hyperspherical_energy
        >>> even, close = torch.eye(3), torch.eye(3) + 5
        >>> bool(hyperspherical_energy(even) < hyperspherical_energy(close))
        True
    """
    return energy(as_matrix(weight), s, angular=angular, half_space=half_space, reduction=reduction, chunk=chunk)
