"""Apply, list, hold and remove constraints over a whole network."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from orthogan.arguments import checked
from orthogan.config.base import Layers, OpenSection, Section, section_of_options
from orthogan.errors import UserError
from orthogan.registry import Registry
from orthogan.weights.constraint import Constraint, check_module
from orthogan.weights.effective import get_gain
from orthogan.weights.selection import list_names, refuse_tied, select

if TYPE_CHECKING:
    from orthogan.config.schema import Config


SINGULAR = ("spectral", "stable_rank")


class ConstraintConfig(Section):
    """The config section of a weight constraint: its options, and what the constraint requires of training.

    A kind is a subclass that registers itself in ``CONSTRAINTS``. Its ``put_on(layer, name, **options)`` returns the
    layer with the constraint on its weight ``name``, or a new layer. It raises ``ValueError`` if that is not possible.

    Example:
        >>> from orthogan.weights import CONSTRAINTS, ConstraintConfig
        >>> stable_rank = CONSTRAINTS.get("stable_rank")
        >>> issubclass(stable_rank, ConstraintConfig)
        True
        >>> stable_rank(c=0.5, layers=["conv"])
        StableRankConfig(kind='stable_rank', layers=['conv'], n_power_iterations=1, c=0.5, k=1)
    """

    kind: str = Field(
        default="none", description="constraint on the weights, or a layer that replaces the constrained one"
    )
    layers: Layers = Field(
        default=[],
        description="layers to constrain: conv, linear, tall, first, a name such as blocks.*, !last, …; [] = all "
        "(skew_orthogonal: conv; householder: first)",
    )
    put_on: ClassVar[Callable[..., nn.Module]]
    flattened: ClassVar = ("rotation", "orthogonal", "householder")
    usual_layers: ClassVar[str] = ""  # default layers
    replaces: ClassVar[bool] = False  # whether ``put_on`` returns a new layer that replaces the old one
    lipschitz: ClassVar[bool] = False  # whether the largest singular value of each layer is bounded
    scale_invariant: ClassVar[bool] = False  # whether multiplying the parameter by a scalar keeps the effective weight
    with_given_weights: ClassVar[Mapping[str, Any]] = {}  # keywords of ``put_on`` for weights that are already trained

    @classmethod
    def read_old_keys(cls, tree: dict[str, Any]) -> dict[str, Any]:
        """Convert keys of version 0.1.

        There, the options of all kinds were side by side or in one section per kind, and those of other kinds had no
        effect.
        """
        old = {key: tree[key] for key in (*cls.flattened, "skew_terms") if key in tree}
        if not old:
            return tree
        kind = tree.get("kind", "none")
        tree = {key: value for key, value in tree.items() if key not in old}
        for key, value in old.items():
            if key == "skew_terms":
                options = {"terms": value} if kind == "skew_orthogonal" else {}
            elif not isinstance(value, Mapping):
                raise ValueError(f"{key}: the options of kind {key!r} belong beside the kind, not under {key}")
            else:
                options = value if key == kind else {}
                CONSTRAINTS.get(key).model_validate(value)
            for name in options:
                if name in tree:
                    raise ValueError(f"{key}.{name}: {name} is also set beside the kind; remove {key}")
            tree |= options
        for name, kinds in (("c", ("stable_rank",)), ("k", ("stable_rank",)), ("n_power_iterations", SINGULAR)):
            if kind not in kinds:
                tree.pop(name, None)
        return tree

    def keywords(self) -> dict[str, Any]:
        """Return the keywords of ``put_on``."""
        return self.model_dump(exclude={*ConstraintConfig.model_fields})

    def check(self, config: Config, net: str) -> None:
        """Check that ``config`` is compatible with this constraint on ``net`` (such as "generator").

        Raises:
            ValueError: it is not; the message starts with the key.
        """

    def attach(self, net: nn.Module, optimizer: Optimizer, *, seed: int) -> Upkeep:
        """Return the work beyond the forward pass while ``optimizer`` trains ``net``. Called once, at the start."""
        return Upkeep()


class Upkeep:
    """The work that a constraint requires during training; none for most kinds.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from orthogan.weights import CONSTRAINTS
        >>> net = nn.Linear(4, 4)
        >>> section = CONSTRAINTS.get("rotation")(method="relaxed")
        >>> layer = section.put_on(net, "weight", **section.keywords())
        >>> upkeep = section.attach(net, torch.optim.SGD(net.parameters(), lr=0.1), seed=0)
        >>> list(upkeep.penalties())  # what is added to the loss
        ['relaxation']
    """

    rules: Sequence[Any] = ()  # rules of ``orthogan.gradients`` for the optimizer
    retraction: Mapping[str, Any] | None = None  # options of the ``CayleyRetraction`` that updates its rotations

    def penalties(self) -> dict[str, tuple[float, Tensor]]:
        """Return {name: (weight, value)} of the terms to add to the loss of the network."""
        return {}

    def finish_step(self, done: int) -> None:
        """Update after each step; ``done`` is the number of steps so far."""


def _adopt(found: Any) -> type[ConstraintConfig]:
    if inspect.isclass(found) and issubclass(found, ConstraintConfig):
        return found
    if not inspect.isfunction(found) or len(inspect.signature(found).parameters) < 2:
        raise TypeError("a constraint is a function (layer, name, **options) -> layer, or a ConstraintConfig")
    return _section(found)


@cache
def _section(function: Callable[..., nn.Module]) -> type[ConstraintConfig]:
    layer, name = list(inspect.signature(function).parameters)[:2]
    config = section_of_options(function, ConstraintConfig, layer, name)
    config.put_on = staticmethod(function)
    return config


CONSTRAINTS: Registry[type[ConstraintConfig]] = Registry(
    "constraint", "orthogan.weights", "orthogan.layers", adopt=_adopt
)
CONSTRAINTS.register("none")(ConstraintConfig)
CONSTRAINT = OpenSection(CONSTRAINTS)


@checked
def apply(
    module: nn.Module, kind: str | ConstraintConfig, layers: str | Sequence[str] = (), **options: Any
) -> list[str]:
    """Constrain linear, embedding and convolution weights below ``module`` and return the names of the layers.

    Args:
        kind: a name in ``CONSTRAINTS``, such as "spectral" ("none" does nothing), a custom ``module:function``, or a
            config section with its options. Some kinds replace the layer with a new one.
        layers: the layers to constrain, as in ``orthogan.weights.select``. Default: the layers of the section, or all
            layers (the convolutions for "skew_orthogonal", the first layer for "householder").
        options: options of the function that is applied, such as ``stable_rank_norm``.

    Raises:
        ValueError: the kind is unknown, there is no layer to constrain, or a layer cannot be constrained, for example
            because another layer shares its weight. No layer is changed in that case.

    Example:
        >>> from torch import nn
        >>> from orthogan import weights
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8, 1))
        >>> weights.apply(net, "stable_rank", "conv,!first", c=0.5)
        ['2']
    """
    if isinstance(kind, ConstraintConfig):
        section = CONSTRAINT.resolved(kind)
        config, layers, options = type(section), layers or section.layers, section.keywords() | options
    else:
        try:
            config = CONSTRAINTS.get(kind)
        except UserError as error:
            raise ValueError(str(error)) from error
    if config is ConstraintConfig:
        return []
    chosen = select(module, layers or config.usual_layers)
    refuse_tied(module, chosen)
    if config.replaces and not chosen[0].name:
        raise ValueError("cannot replace the module itself: wrap it in another module, such as nn.Sequential(layer)")
    before: list[tuple[nn.Module, str, dict[str, Any], Tensor]] = []
    new: dict[str, nn.Module] = {}
    for found in chosen:
        parameters = dict(found.layer._parameters)
        stored = parameters.get(found.weight)
        data = None if stored is None or config.replaces else stored.detach().clone()
        try:
            made = config.put_on(found.layer, found.weight, **options)
        except (ValueError, TypeError) as error:
            for layer, weight, parameters, plain in before:
                _own_class(layer)
                parametrize.remove_parametrizations(layer, weight, leave_parametrized=False)
                layer._parameters.clear()
                layer._parameters.update(parameters)  # in the original order, which optimizers rely on
                parameters[weight].data = plain
            kind_of_error = ValueError if isinstance(error, ValueError) else TypeError
            raise kind_of_error(f"{found.name}: {error}" if found.name else str(error)) from error
        if made is not found.layer:
            _keep_frozen(found.layer, found.weight, made)
            new |= dict.fromkeys((found.name, *found.aliases), made)
        elif data is not None:
            before.append((found.layer, found.weight, parameters, data))
    for place, layer in new.items():
        module.set_submodule(place, layer)
    return [found.name for found in chosen]


def list_constrained(module: nn.Module) -> Iterator[tuple[str, nn.Module, str, Constraint]]:
    """Yield (layer name, layer, weight name, constraint) for every constrained weight below ``module``."""
    check_module(module, "a network")
    for name, layer in module.named_modules():
        if "parametrizations" in layer._modules:  # torch's own check raises an exception for every other module
            for weight, constraints in layer.parametrizations.items():  # pyright: ignore
                for constraint in constraints:
                    if isinstance(constraint, Constraint):
                        yield name, layer, weight, constraint


@contextmanager
def hold_power_iteration(module: nn.Module) -> Iterator[None]:
    """Disable all power iterations below ``module`` inside the block, even in training mode. Blocks may be nested.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from orthogan.weights import hold_power_iteration, spectral_norm
        >>> layer = spectral_norm(nn.Linear(4, 4))
        >>> with hold_power_iteration(layer):
        ...     same = torch.equal(layer(torch.ones(1, 4)), layer(torch.ones(1, 4)))
        ...
        >>> same
        True
    """
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
    """Like ``hold_power_iteration``, and each constraint checks whether its state fits its weight, as in eval mode."""
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
    """Return the parameter behind a constrained weight."""
    return layer.parametrizations[weight].original  # pyright: ignore


@checked
def remove(module: nn.Module, name: str | None = None) -> nn.Module:
    """Replace constrained weights with their effective values, so that inference has no extra cost.

    A submodule with a method ``baked()``, such as a Householder projector, is replaced by the module that the method
    returns. To continue training, create a new optimizer for the plain weights: the old one refers to other parameters.

    Args:
        module: a layer or a network, which is changed.
        name: only this weight of ``module`` itself; None for all weights below it.

    Returns:
        ``module``, or the module that replaces it.

    Raises:
        ValueError: there is no constrained weight.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from orthogan import weights
        >>> layer = weights.stable_rank_norm(nn.Linear(4, 4), c=0.5).eval()
        >>> before = layer(torch.ones(1, 4))
        >>> weights.remove(layer)
        Linear(in_features=4, out_features=4, bias=True)
        >>> torch.equal(layer(torch.ones(1, 4)), before)
        True
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
            unconstrained(layer, weight).grad = None  # it belongs to the parameter, and often has the weight's shape
            _own_class(layer)
            parametrize.remove_parametrizations(layer, weight, leave_parametrized=True)
            with torch.no_grad():  # an equalized layer applies its gain to a plain weight, but not to a constrained one
                getattr(layer, weight).div_(get_gain(layer))
    for paths, part in stands_for:
        plain = part.baked()  # pyright: ignore
        plain.requires_grad_(any(parameter.requires_grad for parameter in part.parameters()))
        for path in paths:
            module.set_submodule(path, plain)
    return module


def _keep_frozen(old: nn.Module, weight: str, new: nn.Module) -> None:
    """Freeze the parameters of a layer ``new`` that stand for frozen ones of ``old``, which it replaces."""
    for name, parameter in new.named_parameters():
        stored = old._parameters.get("bias" if name == "bias" else weight)
        if stored is not None and not stored.requires_grad:
            parameter.requires_grad_(False)


def _own_class(layer: nn.Module) -> None:
    """Give ``layer`` its own copy of its class, because torch deletes the weight's property from the class."""
    kind = type(layer)
    own = {key: value for key, value in vars(kind).items() if key not in ("__dict__", "__weakref__")}
    layer.__class__ = type(kind.__name__, kind.__bases__, own)  # pyright: ignore


def _bakes(module: nn.Module) -> bool:
    return callable(getattr(type(module), "baked", None))
