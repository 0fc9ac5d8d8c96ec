"""The optimal learning rate (Song, Sebe & Wang 2022), which limits the step of a layer to preserve orthogonality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import ASGD, Optimizer, Rprop

from orthogan.arguments import checked
from orthogan.gradients.rule import GRADIENT_RULES, GradientRule, Parameters
from orthogan.linalg import optimal_learning_rate

if TYPE_CHECKING:
    from orthogan.config.schema import Config
    from orthogan.models.config import NetConfig


@GRADIENT_RULES.register("optimal_learning_rate", "olr")
class OptimalLearningRate(GradientRule):
    """Uses eta* instead of the learning rate lr if 0 < eta* < lr (the published switching rule).

    eta* is that of the step W - eta G, or W + eta G in a group with ``maximize=True``. The kernel of a convolution with
    groups is a block-diagonal matrix.

    lr is the current rate of the parameter's group, including schedulers. The update is applied after the step of the
    optimizer, as W + (eta* / lr) (W' - W), which is the step with eta* for every optimizer whose step is proportional
    to its lr (SGD, Adam, AdamW and similar ones). So groups are not split, none can be empty (as in two of the released
    scripts), schedulers are not affected, and nothing synchronizes with the device.

    Args:
        form: form of ``orthogan.linalg.optimal_learning_rate``: "vector" as published, "matrix" the exact form.

    Raises:
        ValueError: see ``GradientRule``; the form is unknown; or the step of the optimizer is not proportional to its
            lr (Rprop and ASGD).

    Source: Song, Sebe & Wang 2022, arXiv:2207.02119.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from orthogan.gradients import OptimalLearningRate
        >>> net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> rule = OptimalLearningRate(optimizer, net, layers="first")
        >>> net(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
    """

    @checked
    def __init__(
        self,
        optimizer: Optimizer,
        params: Parameters,
        *,
        layers: str | Sequence[str] = (),
        form: Annotated[
            Literal["vector", "matrix"], Field(description="vector = as published, matrix = the exact matrix form")
        ] = "vector",
    ) -> None:
        if form not in ("vector", "matrix"):
            raise ValueError(f"form {form!r}: choose vector or matrix")
        self.form: Literal["vector", "matrix"] = form
        self._pending: list[tuple[nn.Parameter, Tensor, Tensor]] = []
        self._numbers: dict[str, Tensor] = {}  # eta*, cosine, steps that used eta*, steps
        super().__init__(optimizer, params, layers)

    def _refuse_optimizer(self) -> None:
        super()._refuse_optimizer()
        if isinstance(self.optimizer, Rprop | ASGD):
            raise ValueError(
                f"OptimalLearningRate: the step of {type(self.optimizer).__name__} is not proportional to its lr; use "
                "an optimizer such as SGD or Adam"
            )

    @classmethod
    def check(cls, config: Config, net: NetConfig, key: str) -> None:
        """Refuse scale-invariant weights, whose gradient is orthogonal to them."""
        if net.norm.scale_invariant and not net.norm.layers:
            raise ValueError(
                f"{key}: under {net.norm.kind} normalization the gradient of a layer is orthogonal to its weight, so "
                "the optimal learning rate is 0 and the layer would not learn; restrict norm.layers, or remove one "
                "of the two"
            )

    @torch.no_grad()
    def before_step(self) -> None:
        """Compute eta* from the current weights and gradients."""
        self._pending = []
        for name, parameter in self.parameters:
            gradient = self.gradient(parameter)
            if gradient is None:
                continue
            w = self.blocks(parameter, parameter.detach().to(gradient.dtype))
            g = self.blocks(parameter, gradient) * self.direction(parameter)
            rate = self.group(parameter)["lr"]
            eta = optimal_learning_rate(w, g, self.form, block_diagonal=True)
            used = (eta > 0) & (eta < rate)
            share = torch.where(used, eta / rate, 1.0)
            self._pending.append((parameter, parameter.detach().clone(), share))
            cosine = (w * g).sum() / (w.norm() * g.norm()).clamp_min(torch.finfo(w.dtype).tiny)
            now = torch.stack([eta, cosine, used.to(eta.dtype), torch.ones_like(eta)])
            old = self._numbers.get(name, torch.zeros_like(now))
            self._numbers[name] = torch.cat([now[:2], old[2:] + now[2:]])

    @torch.no_grad()
    def after_step(self) -> None:
        """Shorten the steps that were too long."""
        for parameter, before, share in self._pending:
            shortened = before + share.to(parameter.dtype) * (parameter - before)
            parameter.copy_(torch.where(share < 1, shortened, parameter))
        self._pending = []

    def statistics(self) -> dict[str, dict[str, float]]:
        """Return eta* and cos(weight, G) of each parameter at the last step, and the fraction of steps with eta*."""
        found = {}
        for name, numbers in self._numbers.items():
            eta, cosine, used, steps = numbers.tolist()
            found[name] = {"eta": eta, "cosine": cosine, "used": used / max(steps, 1)}
        return found

    def scalars(self) -> dict[str, float]:
        """Return the statistics to log, by layer."""
        return {f"olr/{name}/{what}": v for name, numbers in self.statistics().items() for what, v in numbers.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the statistics; the rule itself has no state."""
        return dict(self._numbers)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the result of ``state_dict``."""
        devices = {name: parameter.device for name, parameter in self.parameters}
        self._numbers = {name: numbers.to(devices[name]) for name, numbers in state.items()}
