"""Base class of gradient rules, which act between backward and step."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import torch
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
    """Changes the gradients or the step of some parameters of an optimizer, as a hook on its ``step``.

    The optimizer object stays the same, so schedulers, ``state_dict``, Accelerate and ``GradScaler`` keep working. The
    rule acts when ``optimizer.step()`` is called, so after accumulation and all-reduce. To clip afterward, call
    ``apply()`` yourself between ``unscale_`` and clipping; the step does not apply it again. Rules on the same
    parameters act in the order of their creation. A group with ``maximize=True`` ascends.

    Args:
        optimizer: any ``torch.optim`` optimizer that can step without a closure, or Accelerate's wrapper of one.
            ``step(closure)`` raises a ValueError, because a closure computes its gradients too late for a rule.
        params: parameters, (name, parameter) pairs such as ``model.named_parameters()``, or a module. In a module, a
            parameter shared by several layers counts once, and a kernel with groups as one matrix per group.
        layers: for a module, its layers to act on, as in ``orthogan.weights.select``.

    Raises:
        ValueError: there is no parameter, or one that is not in the optimizer, or not a real matrix; or the optimizer
            needs a closure, such as LBFGS, or has ``differentiable=True``.

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

    owns_update = False  # whether the rule takes the step of its parameters itself

    @classmethod
    def check(cls, config: Config, net: NetConfig, key: str) -> None:
        """Refuse settings that are incompatible with this rule on the network ``net``, ``key`` in the config.

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
            raise ValueError(f"{type(self).__name__}: there is no parameter to act on")
        for name, parameter in self.parameters:
            if parameter.dim() < 2:
                raise ValueError(f"{type(self).__name__}: {name} is a vector {tuple(parameter.shape)}, not a matrix")
            if parameter.is_complex():
                raise ValueError(f"{type(self).__name__}: {name} is complex; gradient rules need real weights")
            if id(parameter) not in held:
                raise ValueError(f"{type(self).__name__}: {name} is not among the optimizer's parameters")
        if len({id(p) for _, p in self.parameters}) < len(self.parameters):
            raise ValueError(f"{type(self).__name__}: a parameter was passed twice")
        if len({name for name, _ in self.parameters}) < len(self.parameters):  # state is stored by name
            raise ValueError(f"{type(self).__name__}: two parameters have the same name; rename one")
        self._refuse_conflicts()
        self._applied = False
        self._left: list[tuple[Tensor | None, int]] = []  # the gradients after ``apply``, and their versions
        self._handles = [
            self.optimizer.register_step_pre_hook(self._before),
            self.optimizer.register_step_post_hook(lambda *_: self._after()),
        ]

    def choose(self, params: Parameters, layers: str | Sequence[str]) -> list[tuple[str, nn.Parameter]]:
        """Return the parameters with their names."""
        if isinstance(params, nn.Module):
            chosen: dict[int, tuple[str, nn.Parameter]] = {}  # layers may share a parameter
            for found in select(params, layers):
                parameter = _parameter(found.layer, found.weight)
                chosen.setdefault(id(parameter), (found.name, parameter))
                self.groups.setdefault(id(parameter), found.view.groups)
            return list(chosen.values())
        if layers:
            raise ValueError("layers: selects layers of a module; pass the module instead of its parameters")
        pairs = [p if isinstance(p, tuple) else (f"parameter {i}", p) for i, p in enumerate(params)]
        return [(name, parameter) for name, parameter in pairs]

    def apply(self) -> None:
        """Act on the current gradients now, before clipping; the next step then does not change them again.

        If that step does not come, such as when a ``GradScaler`` skips it, the next call acts on the new gradients.
        """
        if self._applied and all(
            now is left and version == before
            for (now, version), (left, before) in zip(self._versions(), self._left, strict=True)
        ):
            return
        self._applied = True
        self.before_step()
        self._left = self._versions()

    def before_step(self) -> None:
        """Change the gradients before the step of the optimizer."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Act after the step of the optimizer."""

    def remove(self) -> None:
        """Remove the rule from its optimizer."""
        for handle in self._handles:
            handle.remove()
        getattr(self.optimizer, RULES).remove(self)

    def forget(self, parameter: nn.Parameter) -> None:
        """Drop the state of ``parameter``, whose meaning has changed."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state that is needed, in addition to that of the optimizer, to resume exactly."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the result of ``state_dict``."""

    def scalars(self) -> dict[str, float]:
        """Return numbers to log."""
        return {}

    def gradient(self, parameter: nn.Parameter) -> Tensor | None:
        """Return the dense gradient in at least float32, without the factor of the ``GradScaler``."""
        if parameter.grad is None:
            return None
        found = at_least_float32(parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad)
        scale = self._loss_scale()
        return found if scale is None else found / scale

    def replace(self, parameter: nn.Parameter, gradient: Tensor) -> None:
        """Replace the gradient of the parameter by ``gradient``, with the same factor; a sparse one keeps its rows."""
        assert parameter.grad is not None
        scale = self._loss_scale()
        new = gradient if scale is None else gradient * scale
        if parameter.grad.is_sparse:
            parameter.grad = new.to(parameter.grad.dtype).sparse_mask(parameter.grad.coalesce())
        else:
            parameter.grad.copy_(new)

    def direction(self, parameter: nn.Parameter) -> float:
        """Return 1 if the optimizer descends along the gradient of ``parameter``, -1 if it ascends (``maximize``)."""
        return -1.0 if self.group(parameter).get("maximize", False) else 1.0

    def blocks(self, parameter: nn.Parameter, tensor: Tensor) -> Tensor:
        """Reshape ``tensor``, shaped like ``parameter``, to matrices (groups, first dimension / groups, the rest)."""
        return tensor.flatten(1).unflatten(0, (self.groups.get(id(parameter), 1), -1))

    def group(self, parameter: nn.Parameter) -> dict[str, Any]:
        """Return the group of the optimizer that contains ``parameter``.

        Raises:
            ValueError: no group contains it anymore.
        """
        for group in self.optimizer.param_groups:
            if any(p is parameter for p in group["params"]):
                return group
        name = next((name for name, p in self.parameters if p is parameter), "the parameter")
        raise ValueError(
            f"{type(self).__name__}: {name} is no longer in a group of the optimizer; call remove() on the rule"
        )

    def usable(self, tensor: Tensor) -> Tensor:
        """Return whether all numbers of ``tensor`` are finite and the optimizer takes this step, as a boolean, 0-d.

        With a ``GradScaler``, a fused optimizer is called even if gradients are not finite, and skips the step itself.
        """
        finite = torch.isfinite(tensor).all()
        found: Tensor | None = getattr(self.optimizer, "found_inf", None)  # set by GradScaler.step
        return finite if found is None else finite & (found.to(finite.device).sum() == 0)

    def _versions(self) -> list[tuple[Tensor | None, int]]:
        gradients = [parameter.grad for _, parameter in self.parameters]
        return [(gradient, 0 if gradient is None else gradient._version) for gradient in gradients]

    def _loss_scale(self) -> Tensor | None:
        # set by GradScaler.step for fused optimizers, which divide by it in their kernel
        return getattr(self.optimizer, "grad_scale", None)

    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        closure = next((arg for arg in args if arg is not optimizer), kwargs.get("closure"))
        if closure is not None:
            raise ValueError(
                f"{type(self).__name__}: step(closure) computes gradients after the rule has acted; call the closure "
                "yourself, then optimizer.step() without it"
            )
        if not self._applied:
            self.before_step()

    def _after(self) -> None:
        self.after_step()
        self._applied, self._left = False, []

    def _refuse_optimizer(self) -> None:
        name = type(self.optimizer).__name__
        if not isinstance(self.optimizer, Optimizer):
            raise TypeError(
                f"{type(self).__name__}: the first argument must be a torch.optim.Optimizer, not {name}; the network "
                "is the second"
            )
        closure = inspect.signature(type(self.optimizer).step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            raise ValueError(
                f"{type(self).__name__}: {name} computes gradients in a closure inside the step, after the rule has "
                "acted; use an optimizer that steps without a closure, such as SGD or Adam"
            )
        if any(group.get("differentiable", False) for group in self.optimizer.param_groups):
            raise ValueError(
                f"{type(self).__name__}: {name} has differentiable=True, but the rule is not differentiable; use "
                "differentiable=False"
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
                    f"{shared[0]}: {type(owner).__name__} takes the whole step of this parameter itself, so "
                    f"{type(guest).__name__} would have no effect; choose one"
                )
            if shared and type(self) is type(other):
                raise ValueError(f"{shared[0]} already has a {type(self).__name__}")
        others.append(self)


class GradientRuleConfig(Section):
    """The config section of a gradient rule; the options of its kind are further keys."""

    kind: str = Field(description="transform of the gradients between backward and step; several are applied in order")
    layers: Layers = Field(default=[], description="layers to transform, as in norm.layers; the papers use one layer")
    rule: ClassVar[type[GradientRule]] = GradientRule

    def put_on(self, optimizer: Optimizer, net: nn.Module) -> GradientRule:
        """Create the rule on ``optimizer`` for layers of ``net``. Raises ``ValueError``."""
        return self.rule(optimizer, net, **self.model_dump(exclude={"kind"}))

    @classmethod
    def read_old_keys(cls, tree: dict[str, Any]) -> dict[str, Any]:
        """Read configs of version 0.1, which listed the options of both kinds, those of the other without effect."""
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
        raise TypeError("a gradient rule must be a subclass of orthogan.gradients.GradientRule")
    return found


GRADIENT_RULES: Registry[type[GradientRule]] = Registry("gradient rule", "orthogan.gradients", adopt=_adopt)
GRADIENT_RULE = OpenSection(GRADIENT_RULES, _section)


def _parameter(layer: nn.Module, weight: str) -> nn.Parameter:
    """Return the parameter of a layer's weight: the weight itself, or the one behind a parametrization or mask."""
    from torch.nn.utils.parametrizations import _Orthogonal

    stack: Any = layer.parametrizations[weight] if parametrize.is_parametrized(layer, weight) else ()  # pyright: ignore
    for constraint in stack:
        if isinstance(constraint, _Orthogonal) or getattr(constraint, "parametrizes_freely", False):
            raise ValueError(
                f"{type(layer).__name__}.{weight} is under {type(constraint).__name__.strip('_').lower()}(): "
                "the parameter behind it is not a weight matrix, so this rule does not apply"
            )
    found = getattr(stack, "original", layer._parameters.get(weight, layer._parameters.get(f"{weight}_orig")))
    if found is None:
        raise ValueError(
            f"{type(layer).__name__}.{weight} is not a single parameter of the layer (weight_norm splits it into "
            "two), so it has no gradient; choose other layers, or pass the parameters themselves"
        )
    return found
