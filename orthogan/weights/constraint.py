"""The base class of all constraints: matrix view of a weight, number format, and held power iterations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrize import ParametrizationList

from orthogan.arguments import checked
from orthogan.recompute import is_repeated
from orthogan.weights.belonging import can_look
from orthogan.weights.matrix import Layer, MatrixView

RULES = "orthogan_rules"  # optimizer attribute: the rules that act on its parameters and can forget() one of them


class Constraint(nn.Module):
    """A parametrization of a weight that ``orthogan.weights`` can find, report, hold and remove.

    ``held`` counts the active ``hold_power_iteration`` blocks. Inside such a block, in eval mode, and in a forward pass
    that activation checkpointing repeats, no state changes: see ``moves``.
    ``kept`` is the result that ``PowerIterationScheduler.hold`` computes once for all forward passes of its block.
    Copies and pickles of a constraint are not held and keep no result. In a half-precision network, the buffers stay
    at least float32 and the effective weight has the dtype of the network.

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

    parametrizes_freely = False  # whether the parameter behind the weight is not itself a matrix of weights
    fixes: tuple[str, ...] = ()  # what no parameter can change: the "spectrum" of the weight or the "gram" of its rows

    def __init__(self, module: nn.Module, weight: Tensor) -> None:
        super().__init__()
        self.view = MatrixView(module, weight)
        self.groups = self.view.groups  # blocks of the matrix, constrained together as one block-diagonal matrix
        self.sparse = bool(getattr(module, "sparse", False))  # an embedding whose gradients are sparse tensors
        self.held = 0
        self.kept: Any = None
        self.looked: Any = None  # result of the last check of a weight that the state may not belong to

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

    @property
    def moves(self) -> bool:
        """Whether a forward pass may change the state now."""
        return self.training and not self.held and not is_repeated()

    def matrix(self, weight: Tensor) -> Tensor:
        """Return ``weight`` as a matrix (rows, columns), or one matrix per group (groups, rows / groups, columns)."""
        return self.view.to(weight) if self.groups == 1 else self.view.blocks(weight)

    def weight_of(self, matrix: Tensor) -> Tensor:
        """Return the weight for a result of ``matrix``; the inverse of ``matrix``."""
        return self.view.back(matrix if self.groups == 1 else matrix.flatten(0, 1))

    def given(self, found: Tensor, weight: Tensor) -> Tensor:
        """Return the effective weight ``found`` in the dtype of the parameter ``weight``."""
        found = found.to(weight.dtype)
        return _Densified.apply(found) if self.sparse and found.requires_grad else found  # pyright: ignore

    def assignable(self, weight: Tensor) -> Tensor:
        """Return ``weight``, after checking that it can be assigned to the constrained weight.

        Raises:
            ValueError: the shape differs, or an entry is not finite.
        """
        if tuple(weight.shape) != self.view.shape:
            raise ValueError(f"a weight of shape {tuple(weight.shape)} assigned to one of shape {self.view.shape}")
        refuse_not_finite("the assigned weight", weight)
        return weight

    def advance(self, weight: Tensor) -> object:
        """Advance the state that follows the weight, such as singular vectors, by one step. Default: do nothing."""

    @staticmethod
    def advance_batch(constraints: Sequence[Any], weights: Sequence[Tensor], keep: bool) -> None:
        """Call ``advance`` for several constraints that share this function, each with its weight.

        Args:
            keep: the weights do not change until ``kept`` is cleared. Set ``kept`` if that saves work.
        """
        for constraint, weight in zip(constraints, weights, strict=True):
            constraint.advance(weight)

    def before_load(self, parameters: ParametrizationList, state: dict[str, Any], prefix: str, own: str) -> None:
        """Prepare to load ``state``, whose keys start with ``prefix`` for ``parameters`` and ``own`` for this one."""

    def facts(self, weight: Tensor) -> dict[str, float]:
        """Return the values that this constraint adds to the report; ``weight`` is the parameter behind the weight."""
        return {}


class _Densified(torch.autograd.Function):
    """Identity whose incoming gradient may be sparse, as from ``nn.Embedding(sparse=True)``."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].to_dense() if gradients[0].is_sparse else gradients[0]


def refuse_not_finite(what: str, weight: Tensor) -> None:
    """Raise a ValueError that names ``what`` if an entry of ``weight`` is NaN or infinite."""
    if can_look(weight) and not bool(torch.isfinite(weight).all()):
        raise ValueError(f"{what} contains NaN or infinite values, so its singular values are not defined")


def check_module(module: object, what: str) -> None:
    """Raise TypeError if ``module`` is not a torch.nn.Module; ``what`` it should be, for the message."""
    if not isinstance(module, nn.Module):
        name = module.__name__ + " itself" if isinstance(module, type) else type(module).__name__
        raise TypeError(f"expected {what} (torch.nn.Module), not {name}")


@checked
def register(module: nn.Module, name: str, make: Callable[[Tensor], Constraint]) -> nn.Module:
    """Register the constraint that ``make(weight)`` builds on a parameter.

    Args:
        module: the layer.
        name: name of its parameter, such as "weight".
        make: builds the constraint from the parameter.

    Returns:
        ``module``, changed in place.

    Raises:
        ValueError: there is no such parameter, or it cannot be constrained because it is a vector, empty, complex, not
            finite, tied, already constrained, or computed from other parameters.

    Example:
        >>> from torch import nn
        >>> from orthogan.weights import SpectralNorm, register
        >>> layer = nn.Linear(4, 4)
        >>> register(layer, "weight", lambda weight: SpectralNorm(layer, weight)) is layer
        True
    """
    check_module(module, "a layer")
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
    if nn.parameter.is_lazy(weight):
        raise ValueError(f"{what} has no shape yet: run the network once on a batch, then constrain it")
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
