"""Regularizers of how a generator depends on its latent: Hessian penalty, OroJaR, path length.

All use the generator in eval mode and float32, as a deterministic function of each latent, as users will see it
(running batch statistics, the fixed noise of style-based networks), without updating its state.
"""

from __future__ import annotations

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
from orthogan.penalties.latent import (
    LATENT_PENALTY,
    FeaturePenaltyConfig,
    LatentPenaltyConfig,
    PathLengthConfig,
    path_lengths,
)
from orthogan.weights.selection import choose

KEY = "loss.latent_penalty"


class LatentPenalty:
    """The penalty of ``config``, with its schedule, and the running mean of the path length.

    Args:
        device: of the generator.

    Raises:
        UserError: ``layers`` match nothing, or do not return numbers for each latent.
    """

    def __init__(self, generator: Generator, config: LatentPenaltyConfig, device: torch.device) -> None:
        self.generator, self.config = generator, LATENT_PENALTY.resolved(config)
        self.on = config.kind != "none"
        self.lazy = self.on and config.interval > 1
        layers = self.config.layers if isinstance(self.config, FeaturePenaltyConfig) else []
        self.layers = _matching(generator, layers) if layers else []
        self.mean = torch.zeros((), device=device)
        self._lengths: list[Tensor] = []  # of this step; cleared after the step
        if self.layers:
            self._try_layers(device)

    def due(self, step: int, share: float) -> bool:
        """Whether the penalty is applied in step ``step``, at ``share`` of the run."""
        return self.on and step % self.config.interval == 0 and self.factor(share) > 0

    def factor(self, share: float) -> float:
        """Return the factor of the penalty at ``share`` of the run: weight, start, ramp and interval."""
        since = share - self.config.start
        if since < 0:
            return 0.0
        ramp = min(1.0, since / self.config.ramp) if self.config.ramp else 1.0
        return (self.config.weight or 0.0) * ramp * self.config.interval

    def __call__(self, z: Tensor, labels: Tensor | None, rng: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the penalty (scalar, without weight) on latents (n, d) with labels (n,), and numbers to log.

        Differentiable once with respect to the parameters of the generator.
        """
        config = self.config
        with _observed(self.generator, z.device):
            if isinstance(config, FeaturePenaltyConfig):
                value = config.penalty(self._features(labels), z, generator=rng, **config.keywords())
            else:
                lengths = path_lengths(self.generator, z, labels, rng)
                self._lengths.append(lengths.detach().mean())
                value = (lengths - self.mean).square().mean()
        return value, {f"G/{config.kind.rpartition(':')[2]}": value.detach()}

    def finish_step(self, accelerator: Accelerator) -> None:
        """Update the running mean with the lengths of this step, over all parts and processes.

        Each penalty uses the mean of earlier steps (in the authors' code, 1 % comes from the same batch), so it does
        not depend on how a batch is divided.
        """
        if not self._lengths:
            return
        seen = accelerator.reduce(torch.stack(self._lengths).mean(), "mean")
        assert isinstance(seen, Tensor)
        assert isinstance(self.config, PathLengthConfig)
        self.mean.lerp_(seen, self.config.decay)
        self._lengths.clear()

    def scalars(self) -> dict[str, float]:
        """The running mean of the path length, where that is used."""
        return {"G/path_length_mean": float(self.mean)} if isinstance(self.config, PathLengthConfig) else {}

    def state(self) -> dict[str, Tensor]:
        """What must be stored to continue exactly."""
        return {"path_length_mean": self.mean} if isinstance(self.config, PathLengthConfig) else {}

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
                    raise UserError(f"{KEY}.layers: '{name}' does not return one array of numbers per latent")
            return [output for _, output in found]

        return function

    def _try_layers(self, device: torch.device) -> None:
        labels = torch.zeros(2, dtype=torch.int64, device=device) if self.generator.num_classes else None
        with eval_mode(self.generator):
            found = self._features(labels)(self.generator.sample_latent(2, seed=0).to(device))
        if not found:
            names = ", ".join(name for name, _ in self.layers)
            raise UserError(
                f"{KEY}.layers: {names} are not used when the generator computes an image; choose other layers"
            )


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
