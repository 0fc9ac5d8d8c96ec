"""What all constraints on a weight share: a view of it as a matrix, and being held still."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.utils import parametrize

from orthogan.weights.matrix import MatrixView


class Constraint(nn.Module):
    """A parametrization of a weight that ``orthogan.weights`` finds, reports, holds and removes.

    ``held`` counts the ``frozen`` blocks around it; within one, and in eval mode, nothing in it moves.
    """

    def __init__(self, module: nn.Module, weight: Tensor) -> None:
        super().__init__()
        self.view = MatrixView(module, weight)
        self.held = 0

    def advance(self, weight: Tensor) -> None:
        """Let what follows the weight from step to step (singular vectors) take a step. Nothing, by default."""

    def facts(self, weight: Tensor) -> dict[str, float]:
        """Numbers of this constraint's own for the report of its layer; ``weight`` is the parameter behind it."""
        return {}


def register(module: nn.Module, name: str, make: Callable[[Tensor], Constraint]) -> nn.Module:
    """Put the constraint that ``make(weight)`` builds on ``module.name``.

    Raises:
        ValueError: there is no such parameter, it is a vector, or it is constrained already.
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"{type(module).__name__} has no weight {name!r} to constrain")
    if parametrize.is_parametrized(module, name):
        raise ValueError(f"{type(module).__name__}.{name} is constrained already; remove that first")
    if weight.dim() < 2:
        raise ValueError(
            f"{type(module).__name__}.{name} is a vector: a constraint on its singular values means nothing"
        )
    parametrize.register_parametrization(module, name, make(weight), unsafe=True)
    return module
