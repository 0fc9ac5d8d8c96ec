"""What the rules between backward and step share: whose gradients, and when."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from orthogan.config.base import Layers, OpenSection, Section, section_of_options
from orthogan.linalg.precision import at_least_float32
from orthogan.registry import Registry
from orthogan.weights.constraint import RULES
from orthogan.weights.selection import select

if TYPE_CHECKING:
    from orthogan.config.schema import Config
    from orthogan.models.config import NetConfig

Parameters = nn.Module | Iterable[nn.Parameter] | Iterable[tuple[str, nn.Parameter]]


class GradientRule:
    """Changes the gradients, or the step, of some parameters of an optimizer; a hook on its ``step``.

    The optimizer stays the object it was: schedulers, ``state_dict``, Accelerate and ``GradScaler`` go on with it.
    The rule acts when ``optimizer.step()`` is called, hence after accumulation and all-reduce. To clip
    afterwards, call ``apply()`` yourself between ``unscale_`` and clipping; the step will not do it twice.
    Rules on the same parameters act in the order in which they were made. A group with ``maximize=True`` ascends.

    Args:
        optimizer: any ``torch.optim`` optimizer that can step without a closure, or Accelerate's wrapping of one.
            ``step(closure)`` raises a ValueError: the gradients that a closure makes come too late for a rule.
        params: parameters, (name, parameter) pairs such as ``model.named_parameters()``, or a module. Of a module, a
            parameter that several layers share counts once, and a kernel with groups as one matrix per group.
        layers: for a module, which of its layers, in the words of ``orthogan.weights.select``.

    Raises:
        ValueError: no parameter at all, one that the optimizer does not hold, or one that is not a real matrix; an
            optimizer that needs a closure, such as LBFGS, or with ``differentiable=True``.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from orthogan.gradients import GradientRule
        >>> class Sign(GradientRule):
        ...     def before_step(self):
        ...         for _, parameter in self.parameters:
        ...             gradient = self.gradient(parameter)
        ...             if gradient is not None:
        ...                 self.replace(parameter, gradient.sign())
        ...
        >>> net = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.zeros_(net.weight)
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> rule = Sign(optimizer, net)
        >>> (5 * net(torch.ones(1, 2))).sum().backward()
        >>> optimizer.step()
        >>> net.weight.data
        tensor([[-0.1000, -0.1000]])
    """

    owns_update = False  # whether the rule makes the step of its parameters itself

    @classmethod
    def check(cls, config: Config, net: NetConfig, key: str) -> None:
        """Refuse what does not go together with such a rule on the net ``net``, ``key`` in the config.

        Raises:
            ValueError: its message starts with the key.
        """

    def __init__(self, optimizer: Optimizer, params: Parameters, layers: str | Sequence[str] = ()) -> None:
        inner = getattr(optimizer, "optimizer", None)  # Accelerate's wrapper
        self.optimizer: Optimizer = inner if isinstance(inner, Optimizer) else optimizer
        self._refuse_optimizer()
        self.groups: dict[int, int] = {}  # id of a grouped kernel -> its number of groups
        self.parameters = self.choose(params, layers)
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        if not self.parameters:
            raise ValueError(f"{type(self).__name__} was given no parameter")
        for name, parameter in self.parameters:
            if parameter.dim() < 2:
                raise ValueError(f"{type(self).__name__}: {name} is a vector {tuple(parameter.shape)}, not a matrix")
            if parameter.is_complex():
                raise ValueError(f"{type(self).__name__}: {name} is complex; gradient rules are for real weights")
            if id(parameter) not in held:
                raise ValueError(f"{type(self).__name__}: {name} is not among the optimizer's parameters")
        if len({id(p) for _, p in self.parameters}) < len(self.parameters):
            raise ValueError(f"{type(self).__name__} was given a parameter twice")
        if len({name for name, _ in self.parameters}) < len(self.parameters):  # what is remembered goes by the name
            raise ValueError(f"{type(self).__name__} was given two parameters with the same name; rename one")
        self._refuse_conflicts()
        self._applied = False
        self._handles = [
            self.optimizer.register_step_pre_hook(self._before),
            self.optimizer.register_step_post_hook(lambda *_: self._after()),
        ]

    def choose(self, params: Parameters, layers: str | Sequence[str]) -> list[tuple[str, nn.Parameter]]:
        """The parameters with their names."""
        if isinstance(params, nn.Module):
            chosen: dict[int, tuple[str, nn.Parameter]] = {}  # layers may share a parameter
            for found in select(params, layers):
                parameter = _parameter(found.layer, found.weight)
                chosen.setdefault(id(parameter), (found.name, parameter))
                self.groups.setdefault(id(parameter), found.view.groups)
            return list(chosen.values())
        if layers:
            raise ValueError("layers chooses among those of a module; give the module instead of its parameters")
        pairs = [p if isinstance(p, tuple) else (f"parameter {i}", p) for i, p in enumerate(params)]
        return [(name, parameter) for name, parameter in pairs]

    def apply(self) -> None:
        """Act on the present gradients now, before clipping; the coming step then leaves them as they are."""
        if not self._applied:
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
        getattr(self.optimizer, RULES).remove(self)

    def forget(self, parameter: nn.Parameter) -> None:
        """Drop what is remembered of ``parameter``, which now stands for something else."""

    def state_dict(self) -> dict[str, Tensor]:
        """What must be stored beside the optimizer's own state to continue exactly."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The inverse of ``state_dict``."""

    def scalars(self) -> dict[str, float]:
        """Numbers to log."""
        return {}

    def gradient(self, parameter: nn.Parameter) -> Tensor | None:
        """The gradient, dense, in at least float32, without the ``GradScaler``'s factor that the optimizer undoes."""
        if parameter.grad is None:
            return None
        found = at_least_float32(parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad)
        scale = self._loss_scale()
        return found if scale is None else found / scale

    def replace(self, parameter: nn.Parameter, gradient: Tensor) -> None:
        """Write ``gradient`` over the parameter's own, under the factor it had; a sparse one keeps its rows."""
        assert parameter.grad is not None
        scale = self._loss_scale()
        new = gradient if scale is None else gradient * scale
        if parameter.grad.is_sparse:
            parameter.grad = new.to(parameter.grad.dtype).sparse_mask(parameter.grad.coalesce())
        else:
            parameter.grad.copy_(new)

    def direction(self, parameter: nn.Parameter) -> float:
        """1 where the optimizer descends along the gradient of ``parameter``, -1 where it ascends (``maximize``)."""
        return -1.0 if self.group(parameter).get("maximize", False) else 1.0

    def blocks(self, parameter: nn.Parameter, tensor: Tensor) -> Tensor:
        """``tensor``, of the shape of ``parameter``, as matrices (groups, first dimension / groups, the rest)."""
        return tensor.flatten(1).unflatten(0, (self.groups.get(id(parameter), 1), -1))

    def group(self, parameter: nn.Parameter) -> dict[str, Any]:
        """The optimizer's group that holds ``parameter`` now.

        Raises:
            ValueError: none does any more.
        """
        for group in self.optimizer.param_groups:
            if any(p is parameter for p in group["params"]):
                return group
        name = next((name for name, p in self.parameters if p is parameter), "the parameter")
        raise ValueError(f"{type(self).__name__}: {name} is in no group of the optimizer any more; remove() the rule")

    def _loss_scale(self) -> Tensor | None:
        # set by GradScaler.step for fused optimizers, which divide by it inside their kernel
        return getattr(self.optimizer, "grad_scale", None)

    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        closure = next((arg for arg in args if arg is not optimizer), kwargs.get("closure"))
        if closure is not None:
            raise ValueError(
                f"{type(self).__name__}: step(closure) makes its gradients after the rule has acted; "
                "call the closure yourself, then optimizer.step() without it"
            )
        if not self._applied:
            self.before_step()

    def _after(self) -> None:
        self.after_step()
        self._applied = False

    def _refuse_optimizer(self) -> None:
        name = type(self.optimizer).__name__
        closure = inspect.signature(type(self.optimizer).step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            raise ValueError(
                f"{type(self).__name__}: {name} makes its gradients in a closure inside the step, after the rule has "
                "acted; use an optimizer that steps without a closure, such as SGD or Adam"
            )
        if any(group.get("differentiable", False) for group in self.optimizer.param_groups):
            raise ValueError(
                f"{type(self).__name__}: {name} has differentiable=True, and the rule is not differentiable; "
                "use differentiable=False"
            )

    def _refuse_conflicts(self) -> None:
        if not hasattr(self.optimizer, RULES):
            setattr(self.optimizer, RULES, [])
        others: list[GradientRule] = getattr(self.optimizer, RULES)
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


class GradientRuleConfig(Section):
    """A gradient rule as a section of a config; the options of its kind are further keys."""

    kind: str = Field(description="done between backward and step, in the order given")
    layers: Layers = Field(default=[], description="as of norm.layers; the papers take one layer")
    rule: ClassVar[type[GradientRule]] = GradientRule

    def put_on(self, optimizer: Optimizer, net: nn.Module) -> GradientRule:
        """The rule, on ``optimizer`` for layers of ``net``. Raises ``ValueError``."""
        return self.rule(optimizer, net, **self.model_dump(exclude={"kind"}))

    @classmethod
    def read_old_keys(cls, tree: dict[str, Any]) -> dict[str, Any]:
        """In 0.1 the options of both kinds stood side by side; those of the other one meant nothing."""
        both = ("scale", "every", "momentum", "nesterov", "method", "rank_tolerance", "form")
        if all(key in tree for key in both):
            mine = both[6:] if tree.get("kind") == "optimal_learning_rate" else both[:6]
            return {key: value for key, value in tree.items() if key not in both or key in mine}
        return tree


@cache
def _section(kind: type[GradientRule]) -> type[GradientRuleConfig]:
    section = section_of_options(kind.__init__, GradientRuleConfig, "self", "optimizer", "params", "layers")
    section.rule = kind
    return section


def _adopt(found: Any) -> type[GradientRule]:
    if not (inspect.isclass(found) and issubclass(found, GradientRule)):
        raise TypeError("a gradient rule is a subclass of orthogan.gradients.GradientRule")
    return found


GRADIENT_RULES: Registry[type[GradientRule]] = Registry("gradient rule", "orthogan.gradients", adopt=_adopt)
GRADIENT_RULE = OpenSection(GRADIENT_RULES, _section)


def _parameter(layer: nn.Module, weight: str) -> nn.Parameter:
    """The parameter that stands for a layer's weight: itself, or the one behind a norm or a mask."""
    from torch.nn.utils.parametrizations import _Orthogonal

    stack: Any = layer.parametrizations[weight] if parametrize.is_parametrized(layer, weight) else ()  # pyright: ignore
    for constraint in stack:
        if isinstance(constraint, _Orthogonal) or getattr(constraint, "parametrizes_freely", False):
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
