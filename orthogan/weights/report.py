"""What a constraint does to each layer, by exact singular values."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import nn

from orthogan.weights.matrix import exact
from orthogan.weights.network import constrained, frozen, unconstrained
from orthogan.weights.stable_rank import StableRankNorm


@dataclass(frozen=True)
class LayerReport:
    """A constrained layer: spectral norms and stable ranks before and after, and whether the rank constraint binds.

    ``target`` is infinite and ``active`` false where only the spectral norm is constrained.
    """

    sigma: float
    sigma_after: float
    stable_rank_before: float
    stable_rank_after: float
    target: float
    active: bool
    scale: float

    def as_dict(self) -> dict[str, float]:
        """Plain numbers for a log; without the target and its kin where there is none."""
        values = asdict(self)
        if self.target == float("inf"):
            for name in ("target", "active", "scale"):
                del values[name]
        return values


@torch.no_grad()
def report(module: nn.Module) -> dict[str, LayerReport]:
    """A report of each constrained layer below ``module``, by name; nothing advances."""
    found = {}
    with frozen(module):
        for name, layer, weight, constraint in constrained(module):
            before = exact(constraint.view.to(unconstrained(layer, weight)))
            after = exact(constraint.view.to(getattr(layer, weight)))
            raw, effective = torch.linalg.svdvals(before), torch.linalg.svdvals(after)
            scale, target = 1.0, float("inf")
            if isinstance(constraint, StableRankNorm):
                target = constraint.target
                if min(before.shape) > 1:  # a single row has no tail to scale
                    # as the forward has it, from the present u and v: their sigma is at most the true one, so the
                    # constraint binds a little before the exact stable rank reaches the target
                    scale = float(constraint.scale(before))
            found[name] = LayerReport(
                sigma=float(raw[0]),
                sigma_after=float(effective[0]),
                stable_rank_before=_stable_rank(raw),
                stable_rank_after=_stable_rank(effective),
                target=target,
                active=scale < 1.0,
                scale=scale,
            )
    return found


def _stable_rank(singular_values: torch.Tensor) -> float:
    squares = singular_values.square()
    return float(squares.sum() / squares[0].clamp_min(torch.finfo(squares.dtype).tiny))
