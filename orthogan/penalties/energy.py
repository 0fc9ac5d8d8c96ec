"""The minimum hyperspherical energy penalty (Liu et al. 2018, MHE): filters apart on the sphere, of any length."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from orthogan.linalg.energy import hyperspherical_energy as energy
from orthogan.penalties.kernel import as_matrix


def hyperspherical_energy(
    weight: Tensor,
    s: float = 2.0,
    *,
    angular: bool = False,
    half_space: bool = False,
    reduction: Literal["mean", "sum"] = "mean",
    chunk: int = 1024,
) -> Tensor:
    """``orthogan.linalg.energy.hyperspherical_energy`` of the filters of a weight (out, in, *kernel).

    The authors take the mean over pairs, weigh hidden layers 1 and the classifier 10, and compare s = 0, 1 and 2
    with and without ``half_space``, which suits layers with fewer dimensions than filters.
    """
    return energy(as_matrix(weight), s, angular=angular, half_space=half_space, reduction=reduction, chunk=chunk)
