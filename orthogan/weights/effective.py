"""The weight that a layer applies, whatever stands between it and the parameters."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from orthogan.weights.constraint import Constraint


class Equalized:
    """A base class for layers with an equalized learning rate: they apply weight * ``gain`` and bias * ``rate``.

    ``applied_weight`` is the weight for their forward; a constraint on the weight takes the place of the gain.
    """

    gain: float = 1.0
    rate: float = 1.0


def effective_weight(layer: nn.Module, name: str = "weight") -> Tensor:
    """``layer.name`` as a forward in eval mode would apply it now, with gradients to the parameters; nothing moves.

    Constraints and other parametrizations are evaluated without a power iteration. A weight that a forward pre-hook
    sets (``weight_norm``, ``spectral_norm`` and ``prune`` of ``torch.nn.utils``, or a hook of your own) is computed
    by that hook, so it is right before the first forward and after a step, and each call has a graph of its own. An
    ``Equalized`` layer counts with its gain, unless it is constrained.

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
    """``layer.weight`` for a forward in the present mode, in which a constraint may move: times the gain, if plain."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight if parametrize.is_parametrized(layer, "weight") else weight * get_gain(layer)


def get_gain(layer: nn.Module) -> float:
    """What an equalized layer multiplies a plain weight by; 1 for any other."""
    return layer.gain if isinstance(layer, Equalized) else 1.0


def sources(layer: nn.Module, name: str = "weight") -> tuple[Any, ...]:
    """What ``layer.name`` is made of and how; equal for layers that share a weight."""
    if parametrize.is_parametrized(layer, name):
        stack: Any = layer.parametrizations[name]  # pyright: ignore
        return (*(type(part) for part in stack), *(id(parameter) for parameter in stack.parameters()))
    return (id(layer._parameters.get(name, layer)), get_gain(layer))


def _parametrized(stack: nn.Module) -> Tensor:
    """The value of a list of parametrizations, none of which moves."""
    # a constraint that is held, as by the loop of a training, stays as it is there
    moving = [part for part in stack.modules() if part.training and not (isinstance(part, Constraint) and part.held)]
    for part in moving:
        part.training = False
    try:
        return stack()
    finally:
        for part in moving:
            part.training = True


def _hooked(layer: nn.Module, name: str) -> Tensor:
    """What the layer's forward pre-hooks make of ``name``; the layer is put back as it was.

    Hooks that name the weight, as those of ``torch.nn.utils`` do, are run; where none does, all are. They see no
    input: one that needs it cannot make a weight, and is skipped.
    """
    hooks = [(key in layer._forward_pre_hooks_with_kwargs, hook) for key, hook in layer._forward_pre_hooks.items()]
    naming = [(k, h) for k, h in hooks if name in (getattr(h, "name", None), getattr(h, "_tensor_name", None))]
    before: dict[str, Any] = dict(layer.__dict__)
    # copies: an old spectral_norm changes its vectors in place in a forward that may come before this one's backward
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
