"""Regularisers of how a generator depends on its latent: Hessian penalty, OroJaR, path length.

All look at the generator in eval mode, in float32: a deterministic function of each latent by itself, as users will
see it (running batch statistics, the fixed noise of style-based nets), and nothing in it moves on.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils import parametrize

from orthogan.errors import UserError
from orthogan.models.modes import eval_mode
from orthogan.models.protocol import Generator
from orthogan.penalties.latent import LATENT_PENALTIES, LatentPenaltyConfig, path_lengths
from orthogan.weights.selection import choose

KEY = "loss.latent_penalty"


class LatentPenalty:
    """The penalty that ``config`` asks for, with its schedule, and the running mean of path length.

    Args:
        device: of the generator.

    Raises:
        UserError: ``layers`` that match nothing, or give no numbers for each latent.
    """

    def __init__(self, generator: Generator, config: LatentPenaltyConfig, device: torch.device) -> None:
        self.generator, self.config = generator, config
        self.on = config.kind != "none"
        self.lazy = self.on and config.interval > 1
        self.layers = _matching(generator, config.layers) if config.layers else []
        self.mean = torch.zeros((), device=device)
        self._penalty = LATENT_PENALTIES.get(config.kind, f"{KEY}.kind")
        self._options = inspect.signature(self._penalty).parameters
        self._lengths: list[Tensor] = []  # of this step; nothing of it outlives the step
        if self.layers:
            self._try_layers(device)

    def due(self, step: int, share: float) -> bool:
        """Whether step ``step``, at ``share`` of the run, has the penalty."""
        return self.on and step % self.config.interval == 0 and self.factor(share) > 0

    def factor(self, share: float) -> float:
        """What the penalty is multiplied with at ``share`` of the run: weight, ramp and interval."""
        ramp = min(1.0, share / self.config.ramp) if self.config.ramp else 1.0
        return (self.config.weight or 0.0) * ramp * self.config.interval

    def __call__(self, z: Tensor, labels: Tensor | None, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The penalty (scalar, without weight) on latents (n, d) with labels (n,), and what to log.

        Differentiable once with respect to the parameters of the generator.
        """
        config = self.config
        with _observed(self.generator, z.device):
            if config.kind == "path_length":
                lengths = path_lengths(self.generator, z, labels, rng)
                self._lengths.append(lengths.detach().mean())
                value = (lengths - self.mean).square().mean()
            else:
                given = {"k": config.directions, "epsilon": config.epsilon, "generator": rng}
                given |= {} if config.reduction is None else {"reduction": config.reduction}
                options = {name: option for name, option in given.items() if name in self._options}
                value = self._penalty(self._features(labels), z, **options)
        return value, {f"G/{config.kind.rpartition(':')[2]}": value.detach()}

    def finish_step(self, accelerator: Accelerator) -> None:
        """Let the running mean take in the lengths of this step, over all parts and processes.

        Each penalty looks at the mean of the steps before (the authors' has 1 % of its own batch in it): so it is the
        same however a batch is divided.
        """
        if not self._lengths:
            return
        seen = accelerator.reduce(torch.stack(self._lengths).mean(), "mean")
        assert isinstance(seen, Tensor)
        self.mean.lerp_(seen, self.config.decay)
        self._lengths.clear()

    def scalars(self) -> dict[str, float]:
        """The running mean of the path length, where that is used."""
        return {"G/path_length_mean": float(self.mean)} if self.config.kind == "path_length" else {}

    def state(self) -> dict[str, Tensor]:
        """What must be stored to continue exactly."""
        return {"path_length_mean": self.mean} if self.config.kind == "path_length" else {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of ``state``."""
        if "path_length_mean" in tensors:
            self.mean.copy_(tensors["path_length_mean"])

    def _features(self, labels: Tensor | None) -> Callable[[Tensor], list[Tensor]]:
        """z -> the outputs of the chosen layers in the order in which they run, or the images."""

        def function(z: Tensor) -> list[Tensor]:
            if not self.layers:
                return [_run(self.generator, z, labels)]
            found: list[tuple[str, Any]] = []
            handles = [
                layer.register_forward_hook(lambda _, __, output, name=name: found.append((name, output)))
                for name, layer in self.layers
            ]
            try:
                _run(self.generator, z, labels)
            finally:
                for handle in handles:
                    handle.remove()
            for name, output in found:
                if not isinstance(output, Tensor) or output.dim() < 2 or len(output) != len(z):
                    raise UserError(f"{KEY}.layers: '{name}' does not give one array of numbers for each latent")
            return [output for _, output in found]

        return function

    def _try_layers(self, device: torch.device) -> None:
        labels = torch.zeros(2, dtype=torch.int64, device=device) if self.generator.num_classes else None
        with eval_mode(self.generator):
            found = self._features(labels)(self.generator.sample_latent(2, seed=0).to(device))
        if not found:
            names = ", ".join(name for name, _ in self.layers)
            raise UserError(f"{KEY}.layers: {names} are not run when the generator makes an image; choose others")


@contextmanager
def _observed(generator: nn.Module, device: torch.device) -> Iterator[None]:
    """Eval mode with gradients, in float32; constrained weights are computed once, however often it is run."""
    with eval_mode(generator), torch.enable_grad(), parametrize.cached(), torch.autocast(device.type, enabled=False):
        yield


def _run(generator: nn.Module, z: Tensor, labels: Tensor | None) -> Tensor:
    return generator(z) if labels is None else generator(z, labels)


def _matching(generator: nn.Module, layers: list[str]) -> list[tuple[str, nn.Module]]:
    """(name, submodule), the outermost ones that each word matches: ``blocks.*`` are the blocks."""
    named = {name: part for name, part in generator.named_modules() if name}
    try:
        return [(name, named[name]) for name in choose(named, layers, what=type(generator).__name__, outermost=True)]
    except ValueError as error:
        raise UserError(f"loss.latent_penalty.{error}") from error
