"""A batch of fakes with a class for each: what measures draw from a generator that stays in floating point."""

from __future__ import annotations

import torch
from torch import Tensor

from orthogan.evaluation.finite import Finite
from orthogan.evaluation.steady import generate_image
from orthogan.models.protocol import Generator


class _Labelled(Generator):
    """A generator whose classes are settled: image i is of class ``labels[i]``."""

    def __init__(self, net: Generator, labels: Tensor) -> None:
        super().__init__()
        self.net, self.labels = net, labels

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.net(z, self.labels)


def fake_batch(
    net: Generator, z: Tensor, labels: Tensor | None, *, noise_seed: int, device: torch.device, finite: Finite
) -> Tensor:
    """Images (n, c, h, w) of latents ``z`` (n, latent_dim) and, of a conditional net, ``labels`` (n,), on ``device``.

    A generator that draws noise as it runs draws a function of ``noise_seed``; ``finite`` and errors as of
    ``generate_image``.
    """
    seen = net if labels is None else _Labelled(net, labels.to(device))
    return generate_image(seen, z, None, noise_seed=noise_seed, device=device, finite=finite)
