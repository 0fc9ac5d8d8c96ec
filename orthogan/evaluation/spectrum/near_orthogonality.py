"""How close to orthogonal every layer of a network is, as a matrix and as a linear map."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from orthogan import weights
from orthogan.linalg.gram import orthogonality_error
from orthogan.models import modes
from orthogan.penalties import Penalty
from orthogan.weights.matrix import Layer


def near_orthogonality(net: nn.Module, layers: str | Sequence[str] = ()) -> dict[str, float]:
    """Compute the root mean square of s^2 - 1 over the singular values s of each layer; 0 if orthogonal.

    ``NAME/kernel``: of the weight K as a matrix (outputs, inputs * taps; block diagonal with groups), that is ||K K^T -
    I||_F / sqrt(rows), or of K^T K if there are more rows than columns. ``NAME/operator``: of the layer as a linear
    map; for a convolution on a large torus, by its exact self-convolution (Achour et al. 2022;
    ``penalties.conv_orthogonality``); if the stride skips pixels, only the pixels that it reads count. ``mean/…`` and
    ``max/…``: over the layers with equal weights, so that the stem and 1x1 convolutions matter as well.

    The effective weights are measured, including constraints; the network is not changed. The results are plain
    numbers, accurate to about 1e-3 near 0 if there are more rows than columns, and to 1e-6 elsewhere.

    Args:
        net: the network.
        layers: layers to measure, as in ``orthogan.weights.select``; all by default, including the last linear one.

    Raises:
        ValueError: no such layer.

    Example:
        >>> from torch import nn
        >>> from orthogan.evaluation.spectrum.near_orthogonality import near_orthogonality
        >>> net = nn.Sequential(nn.Linear(4, 4, bias=False))
        >>> _ = nn.init.eye_(net[0].weight)
        >>> near_orthogonality(net)["max/kernel"]
        0.0
    """
    found: dict[str, float] = {}
    with modes.eval_mode(net):
        penalty = Penalty(net, "conv_orthogonality", layers=layers)
        # the filter of a skew orthogonal convolution is not its linear map, which is orthogonal by construction
        penalty.selected = [s for s in penalty.selected if isinstance(s.layer, Layer) or len(s.view.shape) == 2]
        if not penalty.selected:
            raise ValueError(
                "only skew orthogonal convolutions are selected, which are orthogonal by construction; choose other "
                "layers"
            )
        for layer, square in zip(penalty.selected, penalty.values(), strict=True):
            matrix = layer.matrix
            kernel = float(orthogonality_error(matrix)) / math.sqrt(min(matrix.shape))
            operator = math.sqrt(max(float(square), 0.0) / _rank(layer))
            found |= {f"{layer.name}/kernel": kernel, f"{layer.name}/operator": operator}
    for view in ("kernel", "operator"):
        values = [found[f"{name}/{view}"] for name in penalty.names]
        found |= {f"mean/{view}": sum(values) / len(values), f"max/{view}": max(values)}
    return found


def _rank(found: weights.Selected) -> int:
    """Return the number of singular values of the map per position of its output (input, if transposed)."""
    shape, layer = found.value.shape, found.layer
    if not isinstance(layer, nn.modules.conv._ConvNd):
        return min(shape)
    # positions skipped by a stride do not contribute
    strides = [s // math.gcd(s, d) for s, d in zip(layer.stride, layer.dilation, strict=True)]
    read = math.prod(min(s, k) for s, k in zip(strides, shape[2:], strict=True))
    return min(shape[0], read * shape[1] * layer.groups)
