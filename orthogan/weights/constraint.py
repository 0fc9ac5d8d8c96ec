"""What all constraints on a weight share: a view of it as a matrix, its number format, and being held still."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrize import ParametrizationList

from orthogan.weights.belonging import can_look
from orthogan.weights.matrix import Layer, MatrixView

RULES = "orthogan_rules"  # attribute of an optimizer: what acts on its parameters and can forget() one of them


class Constraint(nn.Module):
    """A parametrization of a weight that ``orthogan.weights`` finds, reports, holds and removes.

    ``held`` counts the ``hold_power_iteration`` blocks around it; within one, and in eval mode, nothing in it moves.
    ``kept`` is what ``PowerIterationScheduler.hold`` computed once for all forwards of its block. A copy or a pickle is
    neither held nor keeps anything. Buffers stay at least float32 in a net of half precision, whose dtype the effective
    weight has.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from orthogan.weights import Constraint, register
        >>> class Clipped(Constraint):
        ...     def forward(self, weight):
        ...         return self.given(weight.clamp(-0.1, 0.1), weight)
        ...
        >>> layer = nn.Linear(4, 2)
        >>> layer = register(layer, "weight", lambda weight: Clipped(layer, weight))
        >>> bool(layer.weight.abs().max() <= 0.1)
        True
    """

    parametrizes_freely = False  # the parameter behind the weight is no matrix of weights
    fixes: tuple[str, ...] = ()  # what no parameter changes: the "spectrum" of the weight, or the "gram" of its rows

    def __init__(self, module: nn.Module, weight: Tensor) -> None:
        super().__init__()
        self.view = MatrixView(module, weight)
        self.groups = self.view.groups  # blocks of the matrix that are constrained as one block-diagonal matrix
        self.sparse = bool(getattr(module, "sparse", False))  # an embedding's: its gradients come as sparse tensors
        self.held = 0
        self.kept: Any = None
        self.looked: Any = None  # what was last found out about a weight that the state may not belong to

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"held": 0, "kept": None, "looked": None}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            now = self._buffers[name]
            if buffer is not None and now is not None and now.is_floating_point() and now.itemsize < 4:
                self._buffers[name] = buffer.to(now.device, torch.float32)
        return self

    def matrix(self, weight: Tensor) -> Tensor:
        """The matrix (rows, columns) of ``weight``, or those of its groups (groups, rows / groups, columns)."""
        return self.view.to(weight) if self.groups == 1 else self.view.blocks(weight)

    def weight_of(self, matrix: Tensor) -> Tensor:
        """The weight of what ``matrix`` gives."""
        return self.view.back(matrix if self.groups == 1 else matrix.flatten(0, 1))

    def given(self, found: Tensor, weight: Tensor) -> Tensor:
        """The effective weight ``found`` in the dtype of the parameter ``weight``."""
        found = found.to(weight.dtype)
        return _Densified.apply(found) if self.sparse and found.requires_grad else found  # pyright: ignore

    def assignable(self, weight: Tensor) -> Tensor:
        """``weight``, which is assigned to the constrained weight.

        Raises:
            ValueError: it has another shape, or a number that is not finite.
        """
        if tuple(weight.shape) != self.view.shape:
            raise ValueError(f"a weight of shape {tuple(weight.shape)} assigned to one of shape {self.view.shape}")
        refuse_not_finite("the assigned weight", weight)
        return weight

    def advance(self, weight: Tensor) -> object:
        """Let what follows the weight from step to step (singular vectors) take a step. Nothing, by default."""

    @staticmethod
    def advance_batch(constraints: Sequence[Any], weights: Sequence[Tensor], keep: bool) -> None:
        """``advance`` for several constraints that share this function, each with its weight.

        Args:
            keep: the weights stand still from here on, until ``kept`` is cleared: set it where that saves work.
        """
        for constraint, weight in zip(constraints, weights, strict=True):
            constraint.advance(weight)

    def before_load(self, parameters: ParametrizationList, state: dict[str, Any], prefix: str, own: str) -> None:
        """Prepare for ``state``, in which ``parameters`` has the keys ``prefix`` and this constraint ``own``."""

    def facts(self, weight: Tensor) -> dict[str, float]:
        """Numbers of this constraint's own for the report of its layer; ``weight`` is the parameter behind it."""
        return {}


class _Densified(torch.autograd.Function):
    """A tensor whose gradient may come as a sparse one, as that of an ``nn.Embedding(sparse=True)`` does."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].to_dense() if gradients[0].is_sparse else gradients[0]


def refuse_not_finite(what: str, weight: Tensor) -> None:
    """Raise a ValueError that names ``what`` where a number in ``weight`` is NaN or infinite."""
    if can_look(weight) and not bool(torch.isfinite(weight).all()):
        raise ValueError(f"{what} contains NaN or infinite values, so its singular values are not defined")


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Autocast off, where it is on: to enter a block that changes nothing costs as much as a small kernel."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def register(module: nn.Module, name: str, make: Callable[[Tensor], Constraint]) -> nn.Module:
    """Put the constraint that ``make(weight)`` builds on ``module.name``.

    Raises:
        ValueError: there is no such parameter, or one that cannot be constrained: a vector, without numbers, complex,
            not finite, tied, constrained already or computed from other parameters.

    Example:
        >>> from torch import nn
        >>> from orthogan.weights import SpectralNorm, register
        >>> layer = nn.Linear(4, 4)
        >>> register(layer, "weight", lambda weight: SpectralNorm(layer, weight)) is layer
        True
    """
    what = f"{type(module).__name__}.{name}"
    if parametrize.is_parametrized(module, name):
        others = [type(one).__name__ for one in module.parametrizations[name] if not isinstance(one, Constraint)]  # pyright: ignore
        if others:
            raise ValueError(
                f"{what} has the torch parametrization {', '.join(others)}; remove it first:  "
                f"torch.nn.utils.parametrize.remove_parametrizations(layer, {name!r})"
            )
        raise ValueError(f"{what} is already constrained; remove the constraint first")
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        whole = any(isinstance(part, Layer) for part in module.modules())
        advice = "; orthogan.weights.apply(net, kind) constrains the layers of a whole net" if whole else ""
        raise ValueError(f"{type(module).__name__} has no weight {name!r} to constrain{advice}")
    if name not in module._parameters and name not in module._buffers:
        raise ValueError(
            f"{what} is not a parameter: it is computed from others, for example by a hook of "
            "torch.nn.utils.weight_norm, spectral_norm or prune; remove the hook first (remove_weight_norm, "
            "remove_spectral_norm, prune.remove)"
        )
    if weight.dim() < 2:
        raise ValueError(f"{what} is a vector, which has no singular values to constrain")
    if not weight.is_floating_point():
        raise ValueError(f"{what} is {weight.dtype}: a constraint needs a weight of real floating-point numbers")
    if not weight.numel():
        raise ValueError(f"{what} has the shape {tuple(weight.shape)}: it is empty")
    refuse_not_finite(what, weight)
    same = [own for own, other in module._parameters.items() if other is weight]
    if len(same) > 1:
        raise ValueError(f"{type(module).__name__}: {' and '.join(same)} are the same parameter; untie them first")
    parametrize.register_parametrization(module, name, make(weight), unsafe=True)
    parameters: ParametrizationList = module.parametrizations[name]  # pyright: ignore
    parameters.register_load_state_dict_pre_hook(_before_load)
    return module


def _before_load(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    assert isinstance(module, ParametrizationList)
    for name, constraint in module.named_children():
        if isinstance(constraint, Constraint):
            constraint.before_load(module, state, prefix, f"{prefix}{name}.")
