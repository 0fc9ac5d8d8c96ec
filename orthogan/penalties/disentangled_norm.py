"""The disentangled norm (Wu, Zhang, Long, Yin & Leng 2023, arXiv 2306.09939): our reconstruction.

The full text of the paper was not available, only its abstract and the reviews, which describe its equations. They
specify the following: the Gram matrix of the rows is split into the filter norms and their correlations. "strict" uses
all correlations. "relaxed" leaves the k largest free, and k is estimated by Monte Carlo over uniformly drawn labels.
Everything else is our choice.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from orthogan.arguments import checked
from orthogan.config.base import Count, NotNegative, Positive
from orthogan.linalg.gram import correlations
from orthogan.linalg.precision import at_least_float32
from orthogan.penalties.kernel import as_matrix
from orthogan.penalties.network import penalty
from orthogan.rng import generator


@penalty("disentangled_norm", follows="gram")
def disentangled_norm(
    weight: Tensor,
    *,
    norm_weight: Annotated[NotNegative, Field(description="coefficient of the norms of the filters")] = 1.0,
    correlation_weight: Annotated[
        NotNegative, Field(description="coefficient of the correlations between filters")
    ] = 1.0,
    relaxed: Annotated[bool, Field(description="ignore the largest correlations")] = False,
    free: Annotated[
        Count | None, Field(description="relaxed: number of correlations to ignore; null = estimate it")
    ] = None,
    transition: Annotated[Positive | None, Field(description="relaxed: number of orthogonal dimensions")] = None,
    by: Annotated[
        Literal["magnitude", "value"], Field(description="relaxed: how to rank the correlations")
    ] = "magnitude",
    squared_norm: Annotated[bool, Field(description="use squared norms instead of norms")] = False,
    root: Annotated[bool, Field(description="use norms of the residuals instead of sums of squares")] = False,
) -> Tensor:
    """Return a penalty on the norms of the filters k_i plus a penalty on their correlations.

    It is norm_weight * sum_i (||k_i|| - 1)^2 + correlation_weight * sum over pairs of cos(k_i, k_j)^2. The gradient of
    the first part is along each filter and that of the second part is perpendicular to it, so the two parts do not
    interfere. In strict form, with o filters in n dimensions, the second part is at least o (o - n) / (2 n) if o > n.

    Args:
        relaxed: exclude the ``free`` largest correlations.
        free: how many of the o (o - 1) / 2 correlations to exclude, for any n. None means ``free_correlations(o, d)``
            if o exceeds the dimension d in which orthogonality is required, and none otherwise.
        transition: d for a layer with ``free`` None, at most n (the paper's rank*, whose formula is unknown to us). It
            is a number of dimensions from 1, or a fraction of min(o, n) below 1, rounded up, so that one value works
            for layers of all sizes. None means n, so that a layer with o <= n stays strict.
        by: exclude the largest correlations by magnitude or by value (by value, negative correlations are never free
            before positive ones).
        squared_norm: use ||k_i||^2 instead of ||k_i||.
        root: use the Euclidean norm of the residuals of each part instead of their sum of squares.

    Raises:
        ValueError: an option is out of range, ``free`` or ``transition`` is given without ``relaxed``, or both are
            given.

    Source: Wu, Zhang, Long, Yin & Leng 2023, arXiv:2306.09939.

    Example:
        >>> import torch
        >>> from orthogan.penalties import disentangled_norm
        >>> disentangled_norm(torch.eye(4)).item(), disentangled_norm(2 * torch.eye(4)).item()
        (0.0, 4.0)
    """
    if not relaxed and (free is not None or transition is not None):
        raise ValueError("free and transition need relaxed=True")
    if by not in ("magnitude", "value"):
        raise ValueError(f"by is {by!r}: choose magnitude or value")
    matrix = at_least_float32(as_matrix(weight))
    cosines = correlations(matrix)
    kept = len(cosines) - (_free(matrix, free, transition) if relaxed else 0)
    if kept < len(cosines):
        cosines = (cosines.abs() if by == "magnitude" else cosines).topk(kept, largest=False, sorted=False).values
    deviations = (matrix.square().sum(-1) if squared_norm else matrix.norm(dim=-1)) - 1
    if root:
        return norm_weight * deviations.norm() + correlation_weight * cosines.norm()
    return norm_weight * deviations.square().sum() + correlation_weight * cosines.square().sum()


def _free(matrix: Tensor, free: int | None, transition: float | None) -> int:
    filters, columns = matrix.shape
    pairs = filters * (filters - 1) // 2
    if free is not None:
        if transition is not None:
            raise ValueError(f"free is {free} and transition is {transition}: set only one of them")
        if not 0 <= free <= pairs:
            raise ValueError(f"free is {free}: {filters} filters have {pairs} correlations")
        return free
    if transition is not None and not (0 < transition < 1 or (transition >= 1 and transition == int(transition))):
        raise ValueError(
            f"transition is {transition}: must be an integer number of dimensions from 1, or a fraction below 1"
        )
    if transition is None:
        dimensions = columns
    elif transition < 1:
        dimensions = math.ceil(transition * min(filters, columns))
    else:
        dimensions = min(int(transition), columns)
    return free_correlations(filters, dimensions) if filters > dimensions else 0


@checked
def free_correlations(filters: int, dimensions: int, trials: int = 1000, seed: int = 0) -> int:
    """Return how many correlations of ``filters`` vectors in fewer ``dimensions`` are free, as we read the paper.

    Each filter is labeled structural with probability dimensions/filters, independently, and flexible otherwise.
    Structural filters can be orthogonal to each other. The result is the mean, over ``trials``, of the number of pairs
    with at least one flexible filter, near filters (filters - 1) / 2 * (1 - (dimensions/filters)^2). The minimum number
    of pairs that must be free (several filters on each vector of an orthonormal basis) is much lower, filters (filters
    - dimensions) / (2 dimensions).

    Args:
        filters: number of vectors.
        dimensions: length of each vector.
        trials: number of random labelings.
        seed: of the labelings.

    Raises:
        ValueError: a count is below 1.

    Source: Wu, Zhang, Long, Yin & Leng 2023, arXiv:2306.09939.

    Example:
        >>> from orthogan.penalties import free_correlations
        >>> free_correlations(filters=8, dimensions=8), free_correlations(filters=64, dimensions=9) > 0
        (0, True)
    """
    if min(filters, dimensions, trials) < 1:
        raise ValueError(f"filters = {filters}, dimensions = {dimensions}, trials = {trials}: all must be at least 1")
    return _free_correlations(filters, dimensions, trials, seed)


# torch.compiler.assume_constant_result does the same, but takes a second to import torch._dynamo
setattr(free_correlations, "_dynamo_marked_constant", True)  # noqa: B010


@lru_cache
def _free_correlations(filters: int, dimensions: int, trials: int, seed: int) -> int:
    rng = generator("cpu", seed, "free_correlations", filters, dimensions)
    chance = min(1.0, dimensions / filters)
    structural = (torch.rand(trials, filters, generator=rng) < chance).sum(1).double()
    bound = float((structural * (structural - 1) / 2).mean())
    return round(filters * (filters - 1) / 2 - bound)
