"""The weight that a layer applies, including any constraint, parametrization or hook."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from orthogan.weights.constraint import Constraint


class Equalized:
    """A base class for layers with an equalized learning rate: they apply weight * ``gain`` and bias * ``rate``.

    Their forward pass uses ``applied_weight``. A constraint on the weight replaces the gain.
    """

    gain: float = 1.0
    rate: float = 1.0


def effective_weight(layer: nn.Module, name: str = "weight") -> Tensor:
    """Return ``layer.name`` as a forward pass in eval mode would apply it, with gradients to the parameters.

    No state changes. Constraints and other parametrizations are evaluated without a power iteration. If a forward
    pre-hook sets the weight (``weight_norm``, ``spectral_norm`` and ``prune`` of ``torch.nn.utils``, or a custom
    hook), that hook computes it. The result is therefore correct before the first forward pass and after an optimizer
    step, and each call builds a new graph. For an ``Equalized`` layer, the result includes the gain unless the weight
    is constrained.

    Raises:
        AttributeError: there is no such weight.
    """
    if parametrize.is_parametrized(layer, name):
        return _parametrized(layer.parametrizations[name])  # pyright: ignore
    stored = name in layer._parameters or name in layer._buffers or hasattr(type(layer), name)
    weight = getattr(layer, name) if stored or not layer._forward_pre_hooks else _hooked(layer, name)
    gain = get_gain(layer)
    return weight if gain == 1 else weight * gain


def applied_weight(layer: nn.Module) -> Tensor:
    """Return ``layer.weight`` for a forward pass in the current mode, times the gain if it is not constrained."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight if parametrize.is_parametrized(layer, "weight") else weight * get_gain(layer)


def get_gain(layer: nn.Module) -> float:
    """Return the factor that an equalized layer applies to an unconstrained weight, or 1 for any other layer."""
    return layer.gain if isinstance(layer, Equalized) else 1.0


def sources(layer: nn.Module, name: str = "weight") -> tuple[Any, ...]:
    """Return a key for how ``layer.name`` is computed, and from what; equal for layers that share a weight."""
    if parametrize.is_parametrized(layer, name):
        stack: Any = layer.parametrizations[name]  # pyright: ignore
        return (*(type(part) for part in stack), *(id(parameter) for parameter in stack.parameters()))
    return (id(layer._parameters.get(name, layer)), get_gain(layer))


def _parametrized(stack: nn.Module) -> Tensor:
    """Return the value of a list of parametrizations without advancing any of them."""
    # a constraint that is held, for example by the training loop, stays held
    moving = [part for part in stack.modules() if part.training and not (isinstance(part, Constraint) and part.held)]
    for part in moving:
        part.training = False
    try:
        return stack()
    finally:
        for part in moving:
            part.training = True


def _hooked(layer: nn.Module, name: str) -> Tensor:
    """Return ``name`` as computed by the layer's forward pre-hooks, and restore the layer afterwards.

    Only the hooks that name the weight are run, as those of ``torch.nn.utils`` do. If no hook names it, all hooks are
    run. The hooks get no input. A hook that needs an input cannot compute a weight and is skipped.
    """
    hooks = [(key in layer._forward_pre_hooks_with_kwargs, hook) for key, hook in layer._forward_pre_hooks.items()]
    naming = [(k, h) for k, h in hooks if name in (getattr(h, "name", None), getattr(h, "_tensor_name", None))]
    before: dict[str, Any] = dict(layer.__dict__)
    # copies: an old spectral_norm changes its vectors in place, possibly in a forward pass before this backward pass
    buffers = {key: buffer if buffer is None else buffer.clone() for key, buffer in layer._buffers.items()}
    layer.__dict__.update(training=False, _buffers=buffers)
    try:
        for with_kwargs, hook in naming or hooks:
            try:
                hook(layer, (), {}) if with_kwargs else hook(layer, ())
            except Exception:
                if naming:
                    raise
        return getattr(layer, name)
    finally:
        layer.__dict__.clear()
        layer.__dict__.update(before)
