"""What the rules between backward and step share: whose gradients, and when."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from orthogan.weights.selection import select

Parameters = nn.Module | Iterable[nn.Parameter] | Iterable[tuple[str, nn.Parameter]]
ATTRIBUTE = "orthogan_rules"  # of the optimizer: the rules on it, in order


class GradientRule:
    """Changes the gradients, or the step, of some parameters of an optimizer; a hook on its ``step``.

    The optimizer stays the object it was: schedulers, ``state_dict``, Accelerate and ``GradScaler`` go on with it.
    The rule acts when ``optimizer.step()`` is called, hence after accumulation and all-reduce. To clip
    afterwards, call ``apply()`` yourself between ``unscale_`` and clipping; the step will not do it twice.
    Rules on the same parameters act in the order in which they were made.

    Args:
        optimizer: any ``torch.optim`` optimizer that steps without a closure, or Accelerate's wrapping of one.
        params: parameters, (name, parameter) pairs such as ``model.named_parameters()``, or a module.
        layers: for a module, which of its layers, in the words of ``orthogan.weights.select``.

    Raises:
        ValueError: no parameter at all, one that the optimizer does not hold, or one that is not a matrix.
    """

    owns_update = False  # whether the rule makes the step of its parameters itself

    def __init__(self, optimizer: Optimizer, params: Parameters, layers: str | Sequence[str] = ()) -> None:
        inner = getattr(optimizer, "optimizer", None)  # Accelerate's wrapper
        self.optimizer: Optimizer = inner if isinstance(inner, Optimizer) else optimizer
        self.parameters = self.choose(params, layers)
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        if not self.parameters:
            raise ValueError(f"{type(self).__name__} was given no parameter")
        for name, parameter in self.parameters:
            if parameter.dim() < 2:
                raise ValueError(f"{type(self).__name__}: {name} is a vector {tuple(parameter.shape)}, not a matrix")
            if id(parameter) not in held:
                raise ValueError(f"{type(self).__name__}: {name} is not among the optimizer's parameters")
        if len({id(p) for _, p in self.parameters}) < len(self.parameters):
            raise ValueError(f"{type(self).__name__} was given a parameter twice")
        self._refuse_conflicts()
        self._applied = False
        self._handles = [
            self.optimizer.register_step_pre_hook(lambda *_: self._before()),
            self.optimizer.register_step_post_hook(lambda *_: self._after()),
        ]

    def choose(self, params: Parameters, layers: str | Sequence[str]) -> list[tuple[str, nn.Parameter]]:
        """The parameters with their names."""
        if isinstance(params, nn.Module):
            return [(found.name, _parameter(found.layer, found.weight)) for found in select(params, layers)]
        if layers:
            raise ValueError("layers chooses among those of a module; give the module instead of its parameters")
        pairs = [p if isinstance(p, tuple) else (f"parameter {i}", p) for i, p in enumerate(params)]
        return [(name, parameter) for name, parameter in pairs]

    def apply(self) -> None:
        """Act on the present gradients now, before clipping; the coming step then leaves them as they are."""
        self._applied = True
        self.before_step()

    def before_step(self) -> None:
        """What is done to gradients (and remembered) before the optimizer moves."""
        raise NotImplementedError

    def after_step(self) -> None:
        """What is done once it has moved."""

    def remove(self) -> None:
        """Take the rule off its optimizer."""
        for handle in self._handles:
            handle.remove()
        getattr(self.optimizer, ATTRIBUTE).remove(self)

    def forget(self, parameter: nn.Parameter) -> None:
        """Drop what is remembered of ``parameter``, which now stands for something else."""

    def state_dict(self) -> dict[str, Tensor]:
        """What must be stored beside the optimizer's own state to continue exactly."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The inverse of ``state_dict``."""

    def gradient(self, parameter: nn.Parameter) -> Tensor | None:
        """The gradient in at least float32, without the factor of a ``GradScaler`` that the optimizer is to undo."""
        if parameter.grad is None:
            return None
        found = parameter.grad if parameter.grad.dtype == torch.float64 else parameter.grad.float()
        scale = self._loss_scale()
        return found if scale is None else found / scale

    def replace(self, parameter: nn.Parameter, gradient: Tensor) -> None:
        """Write ``gradient`` over the parameter's own, under the factor it had."""
        assert parameter.grad is not None
        scale = self._loss_scale()
        parameter.grad.copy_(gradient if scale is None else gradient * scale)

    def group(self, parameter: nn.Parameter) -> dict[str, Any]:
        """The optimizer's group that holds ``parameter``."""
        return next(g for g in self.optimizer.param_groups if any(p is parameter for p in g["params"]))

    def _loss_scale(self) -> Tensor | None:
        # set by GradScaler.step for fused optimizers, which divide by it inside their kernel
        return getattr(self.optimizer, "grad_scale", None)

    def _before(self) -> None:
        if not self._applied:
            self.before_step()

    def _after(self) -> None:
        self.after_step()
        self._applied = False

    def _refuse_conflicts(self) -> None:
        if not hasattr(self.optimizer, ATTRIBUTE):
            setattr(self.optimizer, ATTRIBUTE, [])
        others: list[GradientRule] = getattr(self.optimizer, ATTRIBUTE)
        mine = {id(p): name for name, p in self.parameters}
        for other in others:
            shared = [mine[id(p)] for _, p in other.parameters if id(p) in mine]
            if shared and (self.owns_update or other.owns_update):
                owner, guest = (self, other) if self.owns_update else (other, self)
                raise ValueError(
                    f"{shared[0]}: {type(owner).__name__} makes the whole step of this parameter itself, "
                    f"so {type(guest).__name__} would have nothing to act on; choose one"
                )
            if shared and type(self) is type(other):
                raise ValueError(f"{shared[0]} is under {type(self).__name__} already")
        others.append(self)


def _parameter(layer: nn.Module, weight: str) -> nn.Parameter:
    """The parameter that stands for a layer's weight: itself, or the one behind a norm or a mask."""
    from torch.nn.utils.parametrizations import _Orthogonal

    from orthogan.weights.orthogonal import Orthogonal
    from orthogan.weights.rotation import Rotation

    stack: Any = layer.parametrizations[weight] if parametrize.is_parametrized(layer, weight) else ()  # pyright: ignore
    for constraint in stack:
        if isinstance(constraint, Rotation | Orthogonal | _Orthogonal):
            raise ValueError(
                f"{type(layer).__name__}.{weight} is under {type(constraint).__name__.strip('_').lower()}(): "
                "the parameter behind it is no matrix of weights, so this rule means nothing for it"
            )
    found = getattr(stack, "original", layer._parameters.get(weight, layer._parameters.get(f"{weight}_orig")))
    if found is None:
        raise ValueError(
            f"{type(layer).__name__}.{weight} is not one parameter of the layer (weight_norm makes two of it), so "
            "it has no gradient of its own; choose other layers, or give the parameters themselves"
        )
    return found
