"""Penalties on selected layers of a network."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

from pydantic import Field
from torch import Tensor, nn

from orthogan.arguments import checked
from orthogan.config.base import Layers, NotNegative, OpenSection, Section, section_of_options
from orthogan.errors import UserError
from orthogan.registry import Registry, did_you_mean
from orthogan.weights import Selected, hold_power_iteration, select
from orthogan.weights.effective import sources
from orthogan.weights.network import list_constrained, ready_to_measure

Function = TypeVar("Function", bound=Callable[..., Tensor])
FROM_THE_LAYER = ("weight", "stride", "groups")  # arguments that are not options


class PenaltyConfig(Section):
    """The config section of a penalty; the options of its kind are additional keys.

    Example:
        >>> from orthogan import load_config
        >>> penalty = "{kind: srip, weight: 0.1, layers: [conv]}"
        >>> config = load_config(None, [f"model.discriminator.penalties=[{penalty}]"])
        >>> config.model.discriminator.penalties[0].weight
        0.1
    """

    kind: str = Field(description="penalty, added to the loss and summed over the layers")
    weight: NotNegative = Field(default=1e-4, description="coefficient of the penalty")
    layers: Layers = Field(default=[], description="layers to penalize, as in norm.layers")
    schedule: list[list[float]] = Field(
        default=[[0.0, 1.0]],
        max_length=1000,
        description="list of [fraction of the run, factor on the weight]; constant in between",
    )

    @classmethod
    def read_old_keys(cls, tree: dict[str, Any]) -> dict[str, Any]:
        """Convert keys of version 0.1, where the options were in a separate mapping."""
        options = tree.get("options")
        if not isinstance(options, Mapping):
            return tree
        if twice := options.keys() & tree.keys():
            raise ValueError(f"options.{min(twice)}: {min(twice)} is also set beside the kind; remove it from options")
        return {key: value for key, value in tree.items() if key != "options"} | dict(options)


@dataclass(frozen=True)
class PenaltyKind:
    """A penalty function (weight, **options) -> 0-d tensor, with the properties that a network needs to know.

    ``follows``: the penalty is a function of only the "spectrum" (the singular values), or of the "gram" of the rows.
    ``of_layer``: (selected layer, options) -> the penalty, if the effective matrix of the layer is not sufficient.
    ``identity``: the properties that distinguish two layers with the same weight.
    """

    function: Callable[..., Tensor]
    follows: Literal["spectrum", "gram"] | None = None
    of_layer: Callable[[Selected, dict[str, Any]], Tensor] | None = None
    identity: Callable[[Selected], tuple[Any, ...]] = lambda selected: ()

    @cached_property
    def section(self) -> type[PenaltyConfig]:
        """Return the config section with the options of the function."""
        first = next(iter(inspect.signature(self.function).parameters))
        return section_of_options(self.function, PenaltyConfig, first, *FROM_THE_LAYER)

    @property
    def options(self) -> list[str]:
        """Return the names of the options."""
        return [name for name in self.section.model_fields if name not in PenaltyConfig.model_fields]


def _adopt(found: Any) -> PenaltyKind:
    if isinstance(found, PenaltyKind):
        return found
    if not inspect.isfunction(found) or not inspect.signature(found).parameters:
        raise TypeError("a penalty is a function (weight, **options) -> a 0-d tensor")
    return PenaltyKind(found)


PENALTIES: Registry[PenaltyKind] = Registry("penalty", "orthogan.penalties", adopt=_adopt)
PENALTY = OpenSection(PENALTIES, lambda kind: kind.section)


def penalty(name: str, *aliases: str, **about: Any) -> Callable[[Function], Function]:
    """Register a penalty function; ``about`` has the fields of ``PenaltyKind``.

    Example:
        >>> import torch
        >>> from orthogan import penalties
        >>> @penalties.penalty("docs_row_balance")
        ... def row_balance(weight, *, power: float = 2.0):
        ...     lengths = weight.norm(dim=1)
        ...     return (lengths / lengths.mean() - 1).abs().pow(power).mean()
        ...
        >>> penalties.apply(torch.nn.Linear(4, 4), "docs_row_balance").item() > 0
        True
    """

    def add(function: Function) -> Function:
        PENALTIES.register(name, *aliases)(PenaltyKind(function, **about))
        return function

    return add


class Penalty:
    """The weighted sum of a penalty over the effective weights of the selected layers of ``module``.

    Each call uses the current weights. The layers are selected once. ``weight`` may be assigned between calls. The
    power iteration of a constrained layer does not advance. Transposed and grouped kernels are treated as the operators
    that they represent: a kernel with groups is a block-diagonal matrix. A parameter that several layers share counts
    once. Frozen parameters are included in the value.

    Example:
        >>> from torch import nn
        >>> from orthogan.penalties import Penalty
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
        >>> penalty = Penalty(net, "srip", weight=0.1, layers="conv")
        >>> loss = penalty()  # at every step: the weights as they are now
        >>> loss.backward()
    """

    def __init__(
        self, module: nn.Module, name: str, weight: float = 1.0, layers: str | Sequence[str] = (), **options: object
    ) -> None:
        """Select the layers.

        Args:
            name: a name in ``PENALTIES``, or a custom ``module:function``.
            layers: as in ``orthogan.weights.select``.
            options: options of that penalty.

        Raises:
            ValueError: a name, option or layer is unknown.
        """
        try:
            self.kind = PENALTIES.get(name)
        except UserError as error:
            raise ValueError(str(error)) from error
        known = self.kind.options
        for option in options:
            if option not in known:
                choices = f"; choose from {', '.join(known)}" if known else "; it has none"
                raise ValueError(f"penalty {name}: no option {option!r}{did_you_mean(option, known) or choices}")
        if not math.isfinite(weight):
            raise ValueError(f"penalty {name}: weight is {weight}; must be finite")
        self.module, self.name, self.weight, self.options = module, name, weight, options
        with hold_power_iteration(module):
            chosen: dict[Any, Selected] = {}
            for found in select(module, layers):
                chosen.setdefault(self._identity(found), found)
            self.selected = list(chosen.values())

    @property
    def names(self) -> list[str]:
        """Return the names of the layers, with "" for ``module`` itself."""
        return [selected.name for selected in self.selected]

    def values(self) -> list[Tensor]:
        """Return the penalty of each layer, 0-d, before multiplication by ``weight``."""
        with hold_power_iteration(self.module):
            return [self._of(selected) for selected in self.selected]

    def __call__(self) -> Tensor:
        """Return the penalty, 0-d."""
        first, *rest = self.values()
        for value in rest:
            first = first + value
        return self.weight * first

    def refuse_constant(self) -> None:
        """Raise a ValueError if a constraint fixes the penalty of a layer for any value of the parameter."""
        fixed = {name: constraint for name, _, _, constraint in list_constrained(self.module)}
        for selected in self.selected:
            constraint = fixed.get(selected.name)
            if constraint is not None and self.kind.follows in constraint.fixes:
                raise ValueError(
                    f"the norm of {selected.name} ({type(constraint).__name__.lower()}) makes {self.name} constant, "
                    "so the penalty has no effect; choose other layers"
                )

    def _identity(self, selected: Selected) -> tuple[Any, ...]:
        """Return a key that is equal for two layers whose weights are one matrix of the same parameters."""
        view = selected.view
        shared = (view.transposed, view.groups, *self.kind.identity(selected))
        return (*sources(selected.layer, selected.weight), *shared)

    def _of(self, selected: Selected) -> Tensor:
        if self.kind.of_layer is not None:
            return self.kind.of_layer(selected, self.options)
        return self.kind.function(selected.matrix, **self.options)


@checked
def apply(
    module: nn.Module, name: str, weight: float = 1.0, layers: str | Sequence[str] = (), **options: object
) -> Tensor:
    """Compute the weighted penalty of a module once. For training, create a ``Penalty``, which selects the layers once.

    Args:
        module: a layer or a network.
        name: a name in ``PENALTIES``, or a custom ``module:function``.
        weight: coefficient of the penalty.
        layers: layers to penalize, as in ``orthogan.weights.select``; empty for all.
        options: options of that penalty.

    Returns:
        The sum over the layers, a 0-d tensor.

    Raises:
        ValueError: a name, option or layer is unknown.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from orthogan import penalties
        >>> net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 1))
        >>> _ = nn.init.eye_(net[0].weight)
        >>> penalties.apply(net, "soft_orthogonality", layers="first").item()
        0.0
    """
    with ready_to_measure(module):
        return Penalty(module, name, weight, layers, **options)()
