"""The nearest orthogonal gradient (Song, Sebe & Wang 2022): all directions of a layer learn at the same rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from orthogan.arguments import checked
from orthogan.config.base import Decay, PositiveInt
from orthogan.gradients.rule import GRADIENT_RULES, GradientRule, Parameters
from orthogan.linalg import nearest_orthogonal
from orthogan.linalg.polar import PolarMethod

if TYPE_CHECKING:
    from orthogan.config.schema import Config
    from orthogan.models.config import NetConfig

Scale = Literal["none", "frobenius", "nuclear"]


@GRADIENT_RULES.register("nearest_orthogonal", "nog")
class NearestOrthogonalGradient(GradientRule):
    """Replaces each gradient G = U S V^T, as a matrix (first dimension, the rest), by U V^T.

    The default is the published rule: every step, no scale, before the momentum of the optimizer. Non-finite gradients
    are not changed. For transposed convolutions the first dimension is the input, as published. The kernel of a
    convolution with groups is a block-diagonal matrix: the gradient of each group becomes orthogonal. (Parameters
    passed without their module count as one matrix.)

    Args:
        scale: "none", singular values 1; "frobenius", U V^T times ||G||_F / sqrt(r), which keeps the norm of the
            gradient; "nuclear", times ||G||_* / r, the mean singular value (r = rank).
        every: replace the gradient only at every N-th step, including the first.
        momentum: None: the optimizer uses the new gradient as usual. A number in [0, 1): the rule averages the
            gradients with this decay, makes the average orthogonal and takes the whole step, W <- (1 - lr *
            weight_decay) W - lr * scale * U V^T. That is Muon's update (Jordan et al. 2024) with an exact polar factor;
            the optimizer skips these parameters.
        nesterov: with ``momentum``, use Nesterov momentum: orthogonalize the mean of average and gradient, as Muon
            does.
        method, rank_tolerance: see ``orthogan.linalg.nearest_orthogonal``. "polar_express" is fast on GPUs.

    Raises:
        ValueError: see ``GradientRule``; or an option is out of range.

    Source: Song, Sebe & Wang 2022, arXiv:2207.02119.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from orthogan.gradients import NearestOrthogonalGradient
        >>> net = nn.Linear(2, 2, bias=False)
        >>> _ = nn.init.zeros_(net.weight)
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
        >>> rule = NearestOrthogonalGradient(optimizer, net)
        >>> net.weight.grad = torch.tensor([[3.0, 0.0], [0.0, 0.1]])
        >>> optimizer.step()
        >>> net.weight.data.round(decimals=3)  # both directions were learned at one rate
        tensor([[-1.,  0.],
                [ 0., -1.]])
    """

    @checked
    def __init__(
        self,
        optimizer: Optimizer,
        params: Parameters,
        *,
        layers: str | Sequence[str] = (),
        scale: Annotated[Scale, Field(description="how to scale the new gradient")] = "none",
        every: Annotated[PositiveInt, Field(description="apply at every N-th update")] = 1,
        momentum: Annotated[
            Decay | None,
            Field(
                description="average the gradients with this factor and replace the whole step, as Muon does; null = "
                "transform before Adam"
            ),
        ] = None,
        nesterov: Annotated[bool, Field(description="with momentum: use Nesterov momentum")] = False,
        method: Annotated[
            PolarMethod, Field(description="algorithm; polar_express is fast and approximate, for GPUs")
        ] = "eigh",
        rank_tolerance: Annotated[
            Decay | None,
            Field(
                description="eigh, svd: drop directions whose singular value is at most this fraction of the largest; "
                "null = rounding"
            ),
        ] = None,
    ) -> None:
        if scale not in get_args(Scale):
            raise ValueError(f"scale {scale!r}: choose {', '.join(get_args(Scale))}")
        if method not in get_args(PolarMethod):
            raise ValueError(f"method {method!r}: choose {', '.join(get_args(PolarMethod))}")
        if rank_tolerance is not None and (method not in ("eigh", "svd") or not 0 <= rank_tolerance < 1):
            raise ValueError(f"rank_tolerance is {rank_tolerance}: must be in [0, 1), and only with method eigh or svd")
        if every < 1:
            raise ValueError(f"every is {every}: must be at least 1")
        if momentum is not None and not 0 <= momentum < 1:
            raise ValueError(f"momentum is {momentum}: must be in [0, 1), or None to transform before the optimizer")
        if momentum is not None and every != 1:
            raise ValueError("every: must be 1 with momentum, because the rule then takes every step itself")
        if nesterov and momentum is None:
            raise ValueError("nesterov: needs momentum")
        self.scale: Scale = scale
        self.method: PolarMethod = method
        self.every, self.momentum, self.nesterov, self.rank_tolerance = every, momentum, nesterov, rank_tolerance
        self.owns_update = momentum is not None
        self.steps = 0
        self._averages: dict[str, Tensor] = {}
        self._steps_of: list[tuple[nn.Parameter, Tensor]] = []  # what after_step subtracts
        self._set_aside: list[tuple[nn.Parameter, Tensor]] = []
        super().__init__(optimizer, params, layers)

    @classmethod
    def check(cls, config: Config, net: NetConfig, key: str) -> None:
        """Refuse lazy penalties: their separate updates would become as large as any other."""
        if net is config.model.discriminator:
            name, lazy = "gradient_penalty", config.loss.gradient_penalty
        else:
            name, lazy = "latent_penalty", config.loss.latent_penalty
        if config.task == "gan" and lazy.kind != "none" and lazy.interval > 1:
            raise ValueError(
                f"{key}: nearest_orthogonal would make the separate updates of the lazy penalty as large as any "
                f"other; set loss.{name}.interval to 1"
            )

    @torch.no_grad()
    def before_step(self) -> None:
        """Replace the gradients, or take them from the optimizer."""
        turn = self.steps % self.every == 0
        self.steps += 1
        self._steps_of, self._set_aside = [], []  # left over if the last step was interrupted
        if not turn:
            return
        found = [(name, p, g) for name, p in self.parameters if (g := self.gradient(p)) is not None]
        if self.momentum is None:
            for (_, parameter, _), new in zip(found, self._orthogonal([(p, g) for _, p, g in found]), strict=True):
                self.replace(parameter, new)
            return
        averages = [(p, self._averaged(name, gradient, self.momentum)) for name, p, gradient in found]
        for (_, parameter, _), new in zip(found, self._orthogonal(averages), strict=True):
            self._steps_of.append((parameter, new))
            assert parameter.grad is not None
            self._set_aside.append((parameter, parameter.grad))
            parameter.grad = None  # so the optimizer skips it

    @torch.no_grad()
    def after_step(self) -> None:
        """With momentum, take the step."""
        for parameter, direction in self._steps_of:
            group = self.group(parameter)
            usable = self.usable(direction)
            kept = parameter * (1 - group["lr"] * group.get("weight_decay", 0.0))
            step = group["lr"] * direction * self.direction(parameter)
            parameter.copy_(torch.where(usable, kept - step, parameter))
        for parameter, gradient in self._set_aside:
            parameter.grad = gradient
        self._steps_of, self._set_aside = [], []

    def forget(self, parameter: nn.Parameter) -> None:
        """Drop the average of ``parameter``."""
        for name, mine in self.parameters:
            if mine is parameter:
                self._averages.pop(name, None)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the number of steps, and the averages by parameter name."""
        return {"steps": torch.tensor(self.steps)} | {f"momentum/{n}": t for n, t in self._averages.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the result of ``state_dict``."""
        self.steps = int(state["steps"])
        self._averages = {
            name: state[f"momentum/{name}"].to(p.device) for name, p in self.parameters if f"momentum/{name}" in state
        }

    def _averaged(self, name: str, gradient: Tensor, decay: float) -> Tensor:
        average = self._averages.get(name, torch.zeros_like(gradient))
        # a non-finite gradient must not stay in the average
        average = torch.where(self.usable(gradient), average.lerp(gradient, 1 - decay), average)
        self._averages[name] = average
        return gradient.lerp(average, decay) if self.nesterov else average

    def _orthogonal(self, gradients: list[tuple[nn.Parameter, Tensor]]) -> list[Tensor]:
        """Return the polar factors in the shapes of the gradients; matrices of the same shape are batched."""
        matrices = [self.blocks(parameter, gradient) for parameter, gradient in gradients]
        new: list[Tensor] = list(matrices)
        for key in {(m.shape, m.dtype) for m in matrices}:
            places = [i for i, m in enumerate(matrices) if (m.shape, m.dtype) == key]
            batch = torch.stack([matrices[i] for i in places])  # (number, groups, rows, columns)
            finite = torch.isfinite(batch).flatten(1).all(1)[:, None, None, None]
            safe = torch.where(finite, batch, 0.0)
            polar = nearest_orthogonal(safe, self.method, self.rank_tolerance)
            if self.scale != "none":
                rank = polar.square().sum((-3, -2, -1)).round().clamp_min(1)
                norm = safe.flatten(1).norm(dim=1) / rank.sqrt()
                if self.scale == "nuclear":
                    norm = (polar * safe).sum((-3, -2, -1)) / rank
                polar = polar * norm[:, None, None, None]
            for i, one in zip(places, torch.where(finite, polar, batch), strict=True):
                new[i] = one
        return [one.reshape(gradient.shape) for one, (_, gradient) in zip(new, gradients, strict=True)]
