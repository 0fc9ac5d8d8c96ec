"""The config section of an optimizer, and how a class of optimizers that is named in a config becomes one.

``kind: torch.optim:RMSprop`` takes any subclass of ``torch.optim.Optimizer``; the further arguments of its ``__init__``
are keys of the section.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache, partial, reduce
from operator import or_
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

from pydantic import Field, create_model
from torch import Tensor, nn
from torch.optim import Optimizer

from orthogan.config.base import OpenSection, Positive, Section, hints_of
from orthogan.errors import UserError
from orthogan.io.read import printable
from orthogan.named_code import describe
from orthogan.registry import Registry

Base = TypeVar("Base", bound="NetOptimizerConfig")
PLAIN = (bool, int, float, str, NoneType)  # types that YAML has


class NetOptimizerConfig(Section):
    """The optimizer of one net; each kind is a subclass."""

    kind: str = Field(description="optimizer")
    lr: Positive = Field(description="learning rate")

    def build(self, parameters: Sequence[nn.Parameter], interval: int = 1) -> Optimizer:
        """Create the optimizer.

        Args:
            interval: there is one further update, of a lazy penalty, per ``interval`` updates.

        Raises:
            UserError: it refuses its options.
        """
        raise NotImplementedError


class GanOptimizerConfig(NetOptimizerConfig):
    """The optimizer of G or D; each kind is a subclass in ``GAN_OPTIMIZERS``."""

    kind: str = "adam"
    lr: Positive = 2e-4


class ClassifierOptimizerConfig(NetOptimizerConfig):
    """The optimizer of a classifier; each kind is a subclass in ``CLASSIFIER_OPTIMIZERS``."""

    kind: str = "sgd"
    lr: Positive = 0.1
    of_all_kinds: ClassVar = {"momentum": 0.9, "nesterov": False, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}


def share_of_main(interval: int) -> float:
    """Return the exponent and factor that make room for the updates of a lazy penalty.

    Per ``interval`` main updates there is one more, so lr * s and beta ** s with s = interval / (interval + 1) leave
    the rates per image as they are (Karras et al. 2020b, arXiv:1912.04958, appendix B).
    """
    return interval / (interval + 1) if interval > 1 else 1.0


def _adopt(base: type[Base], found: Any) -> type[Base]:
    if inspect.isclass(found) and issubclass(found, base):
        return found
    if not (inspect.isclass(found) and issubclass(found, Optimizer) and found is not Optimizer):
        raise TypeError(f"{describe(found)}; name a subclass of torch.optim.Optimizer, such as torch.optim:RMSprop")
    return _section(base, found)


@cache
def _section(base: type[Base], optimizer: type[Optimizer]) -> type[Base]:
    """A section with the arguments of ``optimizer`` as keys. Only its lr is scaled for lazy penalties."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise TypeError(f"the step of {optimizer.__name__} needs a closure, which the training loop does not have")
    hints = hints_of(optimizer.__init__)
    arguments = list(inspect.signature(optimizer.__init__).parameters.values())[2:]  # without self and the parameters
    fields: dict[str, Any] = {
        one.name: (_readable(hints.get(one.name, Any)), ... if one.default is one.empty else _as_yaml(one.default))
        for one in arguments
        if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD) and one.name not in ("lr", "kind")
    }

    class Own(base):  # pyright: ignore[reportUntypedBaseClass, reportGeneralTypeIssues]
        def build(self, parameters: Sequence[nn.Parameter], interval: int = 1) -> Optimizer:
            options = {name: getattr(self, name) for name in fields}
            try:
                built = optimizer(parameters, lr=self.lr * share_of_main(interval), **options)  # pyright: ignore
            except Exception as error:  # any class of the user's choice
                raise UserError(f"{self.kind}: {printable(str(error) or type(error).__name__)}") from error
            if any("lr" not in group for group in built.param_groups):
                raise UserError(f"{self.kind}: its parameter groups have no 'lr', which the schedule changes")
            return built

    mine: type[Base] = Own  # pyright: ignore[reportAssignmentType]
    return create_model(base.__name__, __base__=mine, __module__=base.__module__, **fields)


def _as_yaml(default: Any) -> Any:
    """``default`` as it will be when it is read from the config of a run."""
    return list(default) if isinstance(default, tuple) else default


def _readable(hint: Any) -> Any:
    """``hint`` without tensors, or anything where it has types that YAML does not have."""
    if hint in PLAIN or get_origin(hint) in (Literal, Annotated):
        return hint
    options = [one for one in get_args(hint) if one is not Tensor]
    if get_origin(hint) in (Union, UnionType) and options and set(options) <= set(PLAIN):
        return reduce(or_, options)
    return Any


GAN_OPTIMIZERS: Registry[type[GanOptimizerConfig]] = Registry(
    "optimizer", "orthogan.training.optimizers", adopt=partial(_adopt, GanOptimizerConfig)
)
CLASSIFIER_OPTIMIZERS: Registry[type[ClassifierOptimizerConfig]] = Registry(
    "optimizer", "orthogan.training.optimizers", adopt=partial(_adopt, ClassifierOptimizerConfig)
)
GAN_OPTIMIZER = OpenSection(GAN_OPTIMIZERS)
CLASSIFIER_OPTIMIZER = OpenSection(CLASSIFIER_OPTIMIZERS)
