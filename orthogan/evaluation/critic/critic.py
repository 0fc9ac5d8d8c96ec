"""A critic that learns to distinguish two streams of images, with the objective of WGAN-GP.

The settings follow the code of Gulrajani, Raffel & Metz (ICLR 2019), "Towards GAN benchmarks which require
generalization".
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orthogan.errors import CannotWrite, UserError
from orthogan.fit import fit
from orthogan.fit import seeded as seeded_init
from orthogan.io.weights import read_sealed, write_sealed
from orthogan.penalties.input_gradient import WGAN_GP, between
from orthogan.rng import generator as seeded

BOTTOM = 4  # pixels of the last feature map
SAVE_EVERY = 1000  # steps between two saved states
LOOK_EVERY = 50  # steps between two checks of the loss, each of which synchronizes with the device
LARGEST = {"steps": 10**9, "batch_size": 2**16, "width": 2**12, "lr": 1e30, "penalty": 1e30}
Pairs = Callable[[int], tuple[Tensor, Tensor]]  # index of a batch -> (reals, fakes), float32 (n, c, h, w) each


@dataclass(frozen=True)
class Recipe:
    """Architecture and training of a critic; by default as published, for 32 pixels.

    Args:
        steps: training steps.
        batch_size: reals and fakes per step.
        width: channels of the first convolution; each further one has twice as many.
        lr: learning rate, which falls linearly to 0.
        penalty: lambda of the gradient penalty.
        average: decay of the averaged weights per step; at most (1 + t) / (10 + t) in step t.

    Raises:
        UserError: a number is out of range.

    Example:
        >>> from orthogan.evaluation.critic.critic import Recipe
        >>> Recipe(steps=2000, width=16).described  # what differs from the published recipe
        'steps=2000,width=16'
    """

    steps: int = 100_000
    batch_size: int = 256
    width: int = 64
    lr: float = 2e-4
    penalty: float = 10.0
    average: float = 0.999

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.width) < 1:
            raise UserError(f"steps={self.steps}, batch_size={self.batch_size}, width={self.width}: must be at least 1")
        for name, most in LARGEST.items():
            if getattr(self, name) > most:
                raise UserError(f"{name}={getattr(self, name):g}: must be at most {most:g}")
        if not (self.lr > 0 and self.penalty > 0 and 0 <= self.average < 1):
            raise UserError(
                f"lr={self.lr}, penalty={self.penalty}, average={self.average}: must be above 0, above 0, and in [0, 1)"
            )

    @property
    def described(self) -> str:
        """Return the settings that differ from the published ones, such as ``steps=2000,width=32``."""
        changed = [(field.name, getattr(self, field.name), field.default) for field in fields(self)]
        return ",".join(f"{name}={value:g}" for name, value, usual in changed if value != usual)

    def decay(self, step: int) -> float:
        """Return the decay of the averaged weights in ``step``."""
        return min(self.average, (1 + step) / (10 + step))


class Critic(nn.Module):
    """Images (n, c, h, w) -> values (n,): convolutions 5x5 of stride 2, each with swish, down to 4 pixels; linear.

    No normalization. Kernels start He-normal, the linear layer Glorot-uniform, biases at 0.
    """

    def __init__(self, channels: int, resolution: int, width: int = 64) -> None:
        super().__init__()
        self.widths: list[int] = []
        layers: list[nn.Module] = []
        side, before = resolution, channels
        while side > BOTTOM:
            after = width << len(self.widths)
            conv = nn.Conv2d(before, after, 5, stride=2, padding=2)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)  # pyright: ignore[reportArgumentType]
            layers += [conv, nn.SiLU()]
            self.widths.append(after)
            side, before = (side + 1) // 2, after
        linear = nn.Linear(before * side**2, 1)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        self.layers = nn.Sequential(*layers, nn.Flatten(), linear)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map images (n, c, h, w) to values (n,); classes are ignored."""
        return self.layers(images).squeeze(1)

    @property
    def described(self) -> str:
        """Describe the architecture."""
        if not self.widths:
            return "linear"
        return f"conv5x5 of stride 2, swish: {', '.join(map(str, self.widths))}; linear"


def new_critic(channels: int, resolution: Any, width: int, *, seed: int) -> Critic:
    """Build a critic whose weights depend on the arguments alone; the global random state is not changed."""
    if not isinstance(resolution, int):
        raise UserError("metrics: the critic of neural_divergence and lipschitz needs square images")
    with seeded_init(seed, "critic"):
        return Critic(channels, resolution, width)


def train_critic(
    critic: Critic,
    pairs: Pairs,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    progress: bool = True,
    keep: Path | None = None,
    about: str = "",
) -> Critic:
    """Train a critic for ``recipe.steps`` steps on ``pairs(0)``, ``pairs(1)``, …; returns the average in eval mode.

    Args:
        critic: network to train; it is moved to ``device``.
        keep: file for the state, written every 1,000 steps; an existing file is resumed.
        about: further facts that identify the state, in addition to recipe and seed; other states are refused.

    Raises:
        UserError: the loss is no longer finite, or the state belongs to another training.
    """
    critic.to(device).train()
    average = copy.deepcopy(critic)
    optimiser = torch.optim.Adam(critic.parameters(), lr=recipe.lr, betas=(0.0, 0.9))
    belongs = f"{recipe}, seed {seed}, {critic.described}, {about}"
    first = _restore(keep, critic, average, optimiser, belongs) if keep is not None and keep.is_file() else 0
    ours: list[Tensor] = [*average.parameters()]
    theirs: list[Tensor] = [*critic.parameters()]

    def after(step: int) -> None:
        nonlocal keep
        with torch.no_grad():
            torch._foreach_lerp_(ours, theirs, 1 - recipe.decay(step))  # pyright: ignore[reportPrivateImportUsage]
        if keep is not None and (step + 1) % SAVE_EVERY == 0:
            try:
                _save(keep, critic, average, optimiser, step + 1, belongs)
            except CannotWrite as error:  # the result does not depend on it
                print(f"orthogan: cannot save the state of the critic: {error}", file=sys.stderr)
                keep = None

    fit(
        optimiser,
        lambda step: _loss(critic, *pairs(step), recipe.penalty, seed=seed, index=step),
        recipe.steps,
        what="critic",
        rate=lambda step: recipe.lr * (1 - step / recipe.steps),
        after=after,
        start=first,
        check_every=LOOK_EVERY,
        progress=progress,
    )
    return average.eval().requires_grad_(False)


def _loss(critic: Critic, real: Tensor, fake: Tensor, penalty: float, *, seed: int, index: int) -> Tensor:
    """Compute E[D(fake)] - E[D(real)] + ``penalty`` * E[(|grad D| - 1)^2] between them; 0-d, differentiable."""
    values = critic(torch.cat([real, fake]))
    regular = gradient_penalty(critic, real, fake, penalty, seed=seed, index=index)
    return values[len(real) :].mean() - values[: len(real)].mean() + regular


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, penalty: float, *, seed: int, index: int) -> Tensor:
    """Compute ``penalty`` * E[(|grad D| - 1)^2] at random points between paired images, a function of (seed, index)."""
    mix = torch.rand(len(real), generator=seeded(real.device, seed, "critic mix", index), device=real.device)
    origin = torch.zeros((), device=real.device, requires_grad=True)
    return penalty * WGAN_GP.at(lambda images, _: critic(images), between(real, fake, mix), None, origin)


def _save(file: Path, critic: Critic, average: Critic, optimiser: torch.optim.Adam, step: int, belongs: str) -> None:
    """Save the training state in one file, atomically."""
    tensors = {f"critic.{name}": tensor for name, tensor in critic.state_dict().items()}
    tensors |= {f"average.{name}": tensor for name, tensor in average.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{name}": tensor for name, tensor in state.items()}
    write_sealed(file, tensors, {"step": str(step), "belongs": belongs})


def _restore(file: Path, critic: Critic, average: Critic, optimiser: torch.optim.Adam, belongs: str) -> int:
    """Restore what ``_save`` wrote; returns the step."""
    try:
        tensors, header = read_sealed(file, needed=True)
    except UserError as error:
        raise UserError(f"{error}; delete this file to restart the training of the critic") from error
    if header.get("belongs") != belongs:
        raise UserError(
            f"{file}: contains the state of another critic ({header.get('belongs')}); delete it to restart the training"
        )
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "adam":
            index, _, key = rest.partition(".")
            state.setdefault(int(index), {})[key] = tensor
    critic.load_state_dict({k.removeprefix("critic."): t for k, t in tensors.items() if k.startswith("critic.")})
    average.load_state_dict({k.removeprefix("average."): t for k, t in tensors.items() if k.startswith("average.")})
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return int(header["step"])
