"""What all constraints on a weight share: a view of it as a matrix, and being held still."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from orthogan.weights.matrix import MatrixView


class Constraint(nn.Module):
    """A parametrization of a weight that ``orthogan.weights`` finds, reports, holds and removes.

    ``held`` counts the ``frozen`` blocks around it; within one, and in eval mode, nothing in it moves. ``kept`` is what
    ``Advance.held`` worked out once for all forwards of its block. A copy or a pickle is neither held nor keeps.
    """

    def __init__(self, module: nn.Module, weight: Tensor) -> None:
        super().__init__()
        self.view = MatrixView(module, weight)
        self.held = 0
        self.kept: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"held": 0, "kept": None}

    def advance(self, weight: Tensor) -> object:
        """Let what follows the weight from step to step (singular vectors) take a step. Nothing, by default."""

    @staticmethod
    def together(constraints: Sequence[Any], weights: Sequence[Tensor], keep: bool) -> None:
        """``advance`` for several constraints that share this function, each with its weight.

        Args:
            keep: the weights stand still from here on, until ``kept`` is cleared: set it where that saves work.
        """
        for constraint, weight in zip(constraints, weights, strict=True):
            constraint.advance(weight)

    def facts(self, weight: Tensor) -> dict[str, float]:
        """Numbers of this constraint's own for the report of its layer; ``weight`` is the parameter behind it."""
        return {}


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Autocast off, where it is on: to enter a block that changes nothing costs as much as a small kernel."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


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
