"""The maximum mean discrepancy with a Gaussian kernel: CMMD for CLIP features."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from orthogan.evaluation.extractors.torch_fidelity_nets import CMMD
from orthogan.evaluation.fidelity.neighbors import chunk_of
from orthogan.evaluation.fidelity.statistics import float64_place
from orthogan.evaluation.metric import Inputs, Metric, Score, register

SIGMA, SCALE = 10.0, 1000.0  # of the authors' code


@register("mmd")
class GaussianMMD(Metric):
    """The squared MMD with a Gaussian kernel of features scaled to length 1, times 1000."""

    feature_label = "MMD"
    better = "lower"
    in_scorecard = True
    needs = frozenset({"rows"})
    compares = True

    def compute(self, inputs: Inputs) -> Score:
        """Return the distance."""
        sides = (functional.normalize(side.rows.to(inputs.device)) for side in (inputs.fakes, inputs.reals))
        return Score(gaussian_mmd(*sides))


@register("cmmd")
class CLIPMMD(GaussianMMD):
    """CMMD (Jayasumana et al. 2024, arXiv 2401.09603): the same of CLIP's embeddings (ViT-L/14, 336 px)."""

    label, feature_label = "CMMD", ""
    extractor = CMMD


def gaussian_mmd(generated: Tensor, reference: Tensor, *, sigma: float = SIGMA, scale: float = SCALE) -> float:
    """Compute ``scale`` times the squared MMD with the kernel exp(-|x - y|^2 / (2 sigma^2)).

    It is the biased estimate with the diagonal, as in the authors' code (arXiv 2401.09603; Gretton et al. 2012, eq. 5).

    Args:
        generated, reference: features (n, d), (m, d); for CMMD, embeddings of length 1.

    Example:
        >>> import torch
        >>> from orthogan.evaluation.fidelity.mmd import gaussian_mmd
        >>> x = torch.eye(3)
        >>> abs(gaussian_mmd(x, x)) < 1e-9
        True
    """

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        squares = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T
        return (squares.clamp_min(0) / (-2 * sigma**2)).exp()

    x, y = (float64_place(side).double() for side in (generated, reference))
    n, m = len(x), len(y)
    total = kernel_sum(kernel, x, x) / n**2 + kernel_sum(kernel, y, y) / m**2
    return scale * (total - 2 * kernel_sum(kernel, x, y) / (n * m))


def kernel_sum(kernel: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> float:
    """Return the sum of ``kernel`` over all pairs of rows, in blocks."""
    chunk = chunk_of(x)
    total = x.new_zeros((), dtype=torch.float64)
    for rows in x.split(chunk):
        for columns in y.split(chunk):
            total += kernel(rows, columns).sum()
    return float(total)
