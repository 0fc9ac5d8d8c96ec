"""The config section of an optimizer, and how a class of optimizers that is named in a config becomes one.

``kind: torch.optim:RMSprop`` takes any subclass of ``torch.optim.Optimizer``; the further arguments of its ``__init__``
are keys of the section.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, ClassVar, TypeVar

import torch
from pydantic import Field
from torch import nn
from torch.optim import Optimizer

from orthogan.config.base import OpenSection, Positive, Section, section_of_options
from orthogan.errors import UserError
from orthogan.io.read import printable
from orthogan.named_code import describe
from orthogan.registry import Registry
from orthogan.training.optimizer_state import optimizer_tensors

Base = TypeVar("Base", bound="NetOptimizerConfig")


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
        raise NotImplementedError("use the class of a kind in GAN_OPTIMIZERS or CLASSIFIER_OPTIMIZERS")


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
    self_, trained, *_ = inspect.signature(optimizer.__init__).parameters
    section = section_of_options(optimizer.__init__, base, self_, trained, "lr")
    names = section.model_fields.keys() - base.model_fields.keys()

    class Own(section):  # pyright: ignore[reportUntypedBaseClass, reportGeneralTypeIssues]
        def build(self, parameters: Sequence[nn.Parameter], interval: int = 1) -> Optimizer:
            options = {name: getattr(self, name) for name in names}
            make = partial(optimizer, lr=self.lr * share_of_main(interval), **options)
            try:
                _try_step(make, parameters)
                built = make(parameters)
            except Exception as error:  # any class of the user's choice
                raise UserError(f"{self.kind}: {printable(str(error) or type(error).__name__)}") from error
            if any("lr" not in group for group in built.param_groups):
                raise UserError(f"{self.kind}: its parameter groups have no 'lr', which the schedule changes")
            return built

    return Own  # pyright: ignore[reportReturnType]


def _try_step(make: Callable[..., Optimizer], parameters: Sequence[nn.Parameter]) -> None:
    """Make a step on copies of a parameter per number of dimensions, so that an error comes before the run."""
    smallest = {one.dim(): one for one in sorted(parameters, key=torch.numel, reverse=True)}
    copies = nn.ParameterDict({f"a {dim}-d parameter": one.detach().clone() for dim, one in smallest.items()})
    for copy in copies.values():
        copy.grad = torch.ones_like(copy)
    with torch.random.fork_rng():
        trial = make(list(copies.values()))
        trial.step()
    optimizer_tensors(copies, trial)


GAN_OPTIMIZERS: Registry[type[GanOptimizerConfig]] = Registry(
    "optimizer", "orthogan.training.optimizers", adopt=partial(_adopt, GanOptimizerConfig)
)
CLASSIFIER_OPTIMIZERS: Registry[type[ClassifierOptimizerConfig]] = Registry(
    "optimizer", "orthogan.training.optimizers", adopt=partial(_adopt, ClassifierOptimizerConfig)
)
GAN_OPTIMIZER = OpenSection(GAN_OPTIMIZERS)
CLASSIFIER_OPTIMIZER = OpenSection(CLASSIFIER_OPTIMIZERS)
