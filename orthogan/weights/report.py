"""The effect of constraints on each layer, measured with exact singular values."""

from __future__ import annotations

import torch
from torch import nn

from orthogan.arguments import checked
from orthogan.linalg.precision import at_least_float32
from orthogan.weights.effective import effective_weight
from orthogan.weights.network import list_constrained, ready_to_measure, unconstrained
from orthogan.weights.spectral import SpectralNorm


@torch.no_grad()
@checked
def report(module: nn.Module) -> dict[str, dict[str, float]]:
    """Return values for each constrained layer below ``module``, keyed by layer name. No constraint advances.

    ``sigma_after`` and ``stable_rank_after`` describe the effective weight. Spectral and stable rank normalization add
    ``sigma`` and ``stable_rank_before`` of the parameter behind it. Stable rank normalization also adds its
    ``target``, the ``scale`` on the tail, and whether it is ``active``. Rotations and orthogonal weights add the
    ``orthogonality_error`` of their matrix.

    Example:
        >>> from torch import nn
        >>> from orthogan import weights
        >>> net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
        >>> _ = weights.apply(net, "stable_rank", c=0.25)
        >>> numbers = weights.report(net)["0"]
        >>> numbers["target"]
        2.0
    """
    found = {}
    with ready_to_measure(module):
        for name, layer, weight, constraint in list_constrained(module):
            values: dict[str, float] = {}
            parameter = unconstrained(layer, weight)
            if isinstance(constraint, SpectralNorm):
                values["sigma"], values["stable_rank_before"] = _measure(constraint.matrix(parameter))
            effective = constraint.view.blocks(effective_weight(layer, weight))
            values["sigma_after"], values["stable_rank_after"] = _measure(effective)
            found[name] = values | constraint.facts(parameter)
    return found


def _measure(matrix: torch.Tensor) -> tuple[float, float]:
    """Return the spectral norm and the stable rank; several blocks count as one block-diagonal matrix."""
    values = torch.linalg.svdvals(at_least_float32(matrix))
    top = float(values.amax())
    return top, float((values.double() / top).square().sum()) if top else 0.0
