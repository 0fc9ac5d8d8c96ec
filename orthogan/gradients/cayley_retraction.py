"""Orthogonal-group descent: rotation parameters, updated along the group (Li, Fuxin & Todorovic 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from orthogan.arguments import checked
from orthogan.gradients.rule import GradientRule, Parameters
from orthogan.linalg.rotations import newton_schulz_step
from orthogan.weights.rotation import list_rotations
from orthogan.weights.selection import select


class CayleyRetraction(GradientRule):
    """Updates square orthogonal parameters R (..., d, d) itself, by the Cayley transform with momentum.

    M <- beta M - G; the skew-symmetric W from M and R; M <- W R; R <- (I - a/2 W)^-1 (I + a/2 W) R with
    a = min(lr, 1 / ||W||_F) (Liu et al. 2021, "OGD"). The published code approximates the transform with two
    iterations, which drifts at larger rates; here it is solved exactly, and a Newton-Schulz step removes rounding
    errors, so R is orthogonal at any rate. Weight decay is not applied, because it would leave the group.

    Args:
        params: a module, to use its ``orthogan.weights.rotation(method="ogd")`` parameters; or square parameters.
        momentum: momentum factor beta.
        lr: base learning rate of these parameters; it follows the schedule of their group, scaled by lr / initial rate
            of the group (``initial_lr``, which torch's schedulers set, or its rate when the rule is created). None: the
            rate of the group. The authors use 0.02.

    Raises:
        ValueError: see ``GradientRule``; a parameter is not square and orthogonal; ``lr`` is not above 0; or the
            initial rate of the group is 0.

    Source: Li, Fuxin & Todorovic 2020, arXiv:2002.01113; Liu et al. 2021, arXiv:2004.04690.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from orthogan.gradients import CayleyRetraction
        >>> rotation = nn.Parameter(torch.eye(4))
        >>> optimizer = torch.optim.SGD([rotation], lr=0.1)
        >>> rule = CayleyRetraction(optimizer, [rotation])
        >>> (rotation[0, 1] - rotation[2, 3]).backward()
        >>> optimizer.step()
        >>> torch.allclose(rotation @ rotation.T, torch.eye(4), atol=1e-5)
        True
    """

    owns_update = True

    @checked
    def __init__(
        self,
        optimizer: Optimizer,
        params: Parameters,
        *,
        layers: str | Sequence[str] = (),
        momentum: float = 0.9,
        lr: float | None = None,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum is {momentum}: must be in [0, 1)")
        if lr is not None and not 0 < lr < math.inf:
            raise ValueError(f"lr is {lr}: must be a finite number above 0, or None")
        self.momentum = momentum
        super().__init__(optimizer, params, layers)
        for name, parameter in self.parameters:
            matrix = parameter.detach().float()
            square = matrix.shape[-1] == matrix.shape[-2]
            if not square or float((matrix @ matrix.mT - torch.eye(matrix.shape[-1]).to(matrix)).abs().amax()) > 1e-3:
                raise ValueError(f"CayleyRetraction: {name} {tuple(parameter.shape)} is not an orthogonal matrix")
        self._factor = {id(p): 1.0 if lr is None else lr / self._initial_rate(name, p) for name, p in self.parameters}
        self._set_aside: list[tuple[nn.Parameter, Tensor]] = []
        self._momentum: dict[str, Tensor] = {}

    def choose(self, params: Parameters, layers: str | Sequence[str]) -> list[tuple[str, nn.Parameter]]:
        """Select the rotations of a module that were created for this rule."""
        if not isinstance(params, nn.Module):
            return super().choose(params, layers)
        names = {found.name for found in select(params, layers)}
        found = [(name, p) for name, c, p in list_rotations(params) if c.method == "ogd" and name in names]
        if not found:
            raise ValueError(f"{type(params).__name__} has no selected weight with rotation(method='ogd')")
        return found

    @torch.no_grad()
    def before_step(self) -> None:
        """Update every rotation that has a gradient, and hide the gradient from the optimizer."""
        self._set_aside = []
        for name, parameter in self.parameters:
            gradient = self.gradient(parameter)
            if gradient is None:
                continue
            gradient = gradient * self.direction(parameter)
            momentum = self._momentum.get(name, torch.zeros_like(gradient))
            rate = self.group(parameter)["lr"] * self._factor[id(parameter)]
            moved, new = cayley_step(parameter.to(gradient.dtype), gradient, momentum, rate, self.momentum)
            usable = self.usable(gradient)
            self._momentum[name] = torch.where(usable, new, momentum)
            parameter.copy_(torch.where(usable, moved, parameter))
            assert parameter.grad is not None
            self._set_aside.append((parameter, parameter.grad))
            parameter.grad = None

    def after_step(self) -> None:
        """Restore the gradients."""
        for parameter, gradient in self._set_aside:
            parameter.grad = gradient
        self._set_aside = []

    def forget(self, parameter: nn.Parameter) -> None:
        """Drop the momentum of ``parameter``."""
        for name, mine in self.parameters:
            if mine is parameter:
                self._momentum.pop(name, None)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the momentum by parameter name."""
        return dict(self._momentum)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the result of ``state_dict``."""
        self._momentum = {name: state[name].to(p.device) for name, p in self.parameters if name in state}

    def _initial_rate(self, name: str, parameter: nn.Parameter) -> float:
        group = self.group(parameter)
        rate = float(group.get("initial_lr", group["lr"]))
        if not rate > 0:
            raise ValueError(
                f"CayleyRetraction: lr follows the schedule of {name}'s group, whose initial rate is {rate}; set the "
                "rate of the group above 0, or omit lr"
            )
        return rate


def cayley_step(
    rotation: Tensor, gradient: Tensor, momentum: Tensor, rate: float, beta: float
) -> tuple[Tensor, Tensor]:
    """Return (R, M) after one step from R (..., d, d), dL/dR and M."""
    moment = beta * momentum - gradient
    part = moment @ rotation.mT
    part = part - 0.5 * rotation @ (rotation.mT @ part)
    skew = part - part.mT
    length = skew.flatten(-2).norm(dim=-1)[..., None, None]
    half = 0.5 * skew * torch.clamp_max(1 / (length + 1e-8), rate)
    eye = torch.eye(rotation.shape[-1], dtype=rotation.dtype, device=rotation.device)
    return newton_schulz_step(torch.linalg.solve(eye - half, (eye + half) @ rotation)), skew @ rotation
