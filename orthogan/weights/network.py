"""Constraints over a whole network: put on, found, held still, taken off."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from orthogan.weights.constraint import Constraint
from orthogan.weights.effective import get_gain
from orthogan.weights.orthogonal import orthogonal
from orthogan.weights.rotation import rotation
from orthogan.weights.selection import list_names, refuse_tied, select
from orthogan.weights.spectral import spectral_norm
from orthogan.weights.stable_rank import stable_rank_norm

KINDS = {
    "spectral": spectral_norm,
    "stable_rank": stable_rank_norm,
    "rotation": rotation,
    "orthogonal": orthogonal,
}


NICKNAMES = {"sn": "spectral", "srn": "stable_rank", "opt": "rotation"}


def apply(module: nn.Module, kind: str, layers: str | Sequence[str] = (), **options: Any) -> list[str]:
    """Constrain linear, embedding and convolution weights below ``module``; returns the layers' names.

    Args:
        kind: "spectral", "stable_rank", "rotation", "orthogonal", or "none" (which touches nothing).
        layers: which ones, in the words of ``orthogan.weights.select``; all by default.
        options: of the function that is applied, such as ``stable_rank_norm``.

    Raises:
        ValueError: an unknown kind, no layer to constrain, or one that cannot be constrained, such as one whose weight
            another layer shares; then no layer is changed.
    """
    if kind == "none":
        return []
    if kind not in KINDS:
        near = difflib.get_close_matches(NICKNAMES.get(kind, kind), KINDS, 1, 0.5)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"norm {kind!r}: choose none, {', '.join(KINDS)}{meant}")
    chosen = select(module, layers)
    refuse_tied(module, chosen)
    before: list[tuple[nn.Module, str, dict[str, Any], torch.Tensor]] = []
    for found in chosen:
        parameters = dict(found.layer._parameters)
        stored = parameters.get(found.weight)
        data = None if stored is None else stored.detach().clone()
        try:
            KINDS[kind](found.layer, found.weight, **options)
        except (ValueError, TypeError) as error:
            for layer, weight, parameters, plain in before:
                _own_class(layer)
                parametrize.remove_parametrizations(layer, weight, leave_parametrized=False)
                layer._parameters.clear()
                layer._parameters.update(parameters)  # in their order, which optimizers go by
                parameters[weight].data = plain
            kind_of_error = ValueError if isinstance(error, ValueError) else TypeError
            raise kind_of_error(f"{found.name}: {error}" if found.name else str(error)) from error
        if data is not None:
            before.append((found.layer, found.weight, parameters, data))
    return [found.name for found in chosen]


def list_constrained(module: nn.Module) -> Iterator[tuple[str, nn.Module, str, Constraint]]:
    """(layer name, layer, weight name, constraint) of every constrained weight below ``module``."""
    for name, layer in module.named_modules():
        if "parametrizations" in layer._modules:  # torch's own question costs an exception for every other module
            for weight, constraints in layer.parametrizations.items():  # pyright: ignore
                for constraint in constraints:
                    if isinstance(constraint, Constraint):
                        yield name, layer, weight, constraint


@contextmanager
def hold_power_iteration(module: nn.Module) -> Iterator[None]:
    """Within the block no power iteration runs below ``module``, even in training mode; blocks may nest."""
    constraints = [constraint for _, _, _, constraint in list_constrained(module)]
    for constraint in constraints:
        constraint.held += 1
    try:
        yield
    finally:
        for constraint in constraints:
            constraint.held -= 1


@contextmanager
def ready_to_measure(module: nn.Module) -> Iterator[None]:
    """As ``frozen``, and each constraint looks, as in eval mode, whether what it follows belongs to its weight."""
    moving = [constraint for _, _, _, constraint in list_constrained(module) if constraint.training]
    with hold_power_iteration(module):
        for constraint in moving:
            constraint.training = False
        try:
            yield
        finally:
            for constraint in moving:
                constraint.training = True


def unconstrained(layer: nn.Module, weight: str) -> nn.Parameter:
    """The parameter behind a constrained weight."""
    return layer.parametrizations[weight].original  # pyright: ignore


def remove(module: nn.Module, name: str | None = None) -> nn.Module:
    """Bake the effective weights in, below ``module`` or for its weight ``name`` alone: inference costs nothing more.

    A submodule with a method ``baked()``, such as a Householder projector, makes way for what that returns.
    To go on training, give the plain weights a new optimizer: the old one remembers other parameters.

    Raises:
        ValueError: nothing is constrained there.
    """
    found = [
        (layer, w) for _, layer, w, _ in list_constrained(module) if name is None or (layer is module and w == name)
    ]
    stands_for = (
        [] if name else [(paths, part) for part, paths in list_names(module).items() if paths[0] and _bakes(part)]
    )
    if not found and not stands_for:
        raise ValueError(f"{type(module).__name__} has no constrained weight" + (f" {name!r}" if name else ""))
    with ready_to_measure(module):
        for layer, weight in found:
            unconstrained(layer, weight).grad = None  # of the parameter behind the weight, and often of its shape
            _own_class(layer)
            parametrize.remove_parametrizations(layer, weight, leave_parametrized=True)
            with torch.no_grad():  # an equalized layer multiplies a plain weight by its gain, a constrained one not
                getattr(layer, weight).div_(get_gain(layer))
    for paths, part in stands_for:
        plain = part.baked()  # pyright: ignore
        for path in paths:
            module.set_submodule(path, plain)
    return module


def _own_class(layer: nn.Module) -> None:
    """Give ``layer`` a class apart from that of its copies: torch deletes the weight's property from the class."""
    kind = type(layer)
    own = {key: value for key, value in vars(kind).items() if key not in ("__dict__", "__weakref__")}
    layer.__class__ = type(kind.__name__, kind.__bases__, own)  # pyright: ignore


def _bakes(module: nn.Module) -> bool:
    return callable(getattr(type(module), "baked", None))
