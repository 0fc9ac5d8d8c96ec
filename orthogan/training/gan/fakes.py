"""Fake images for the discriminator."""

from __future__ import annotations

import torch
from torch import Tensor

from orthogan import weights
from orthogan.models.protocol import Generator
from orthogan.training.compiled import Compiler
from orthogan.training.gan.draws import Draws

Fake = tuple[Tensor, Tensor | None]  # images (n, c, h, w) float32, labels (n,) or None


class Fakes:
    """This process's fakes for each D update, from separate forward passes, or from one for a whole step.

    One forward pass of n_dis batches uses a large device better than n_dis passes. The latents are the same, and so are
    the fakes of a generator without batch statistics; batch norm sees n_dis times as many images.
    """

    def __init__(self, net: Generator, draws: Draws, compiler: Compiler) -> None:
        self.net, self.draws = net, draws
        training = draws.config.training
        self.size, self.n_dis, self.at_once = training.batch_size, training.d_steps_per_g_step, training.fakes_at_once
        self.forward = compiler(make_fakes)
        self._step, self._made = -1, list[Fake]()

    def at(self, index: int) -> Fake:
        """Return the fakes of D update ``index``, without gradients for G."""
        if not self.at_once:
            return self._of([index])[0]
        step, turn = divmod(index, self.n_dis)
        if step != self._step:
            self._made = self._of(range(step * self.n_dis, (step + 1) * self.n_dis))
            self._step = step
        return self._made[turn]

    @torch.no_grad()
    def _of(self, indices: list[int] | range) -> list[Fake]:
        drawn = [self.draws.latents("D", index, self.size) for index in indices]
        labels = [y for _, y in drawn if y is not None]
        with self.draws.accelerator.autocast(), weights.hold_power_iteration(self.net):
            images = self.forward(self.net, torch.cat([z for z, _ in drawn]), torch.cat(labels) if labels else None)
        parts = images.float().chunk(len(drawn))
        return [(part, y) for part, (_, y) in zip(parts, drawn, strict=True)]


def make_fakes(net: Generator, z: Tensor, labels: Tensor | None) -> Tensor:
    """A forward of ``net``."""
    return net(z, labels)
