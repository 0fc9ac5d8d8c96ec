"""The Fréchet distance of a contender's generator, measured by orthogan in the contender's process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from orthogan.data import ImageSource
from orthogan.evaluation import evaluate
from orthogan.latent import sample_images, save_samples
from orthogan.models.protocol import Generator

SHOWN = 32


class Wrapped(Generator):
    """A generator of a peer, with the latent width and the image size that the score needs."""

    def __init__(self, net: nn.Module, latent_dim: int, image_channels: int, resolution: int = 32) -> None:
        super().__init__()
        self.net, self.latent_dim = net, latent_dim
        self.image_channels, self.resolution = image_channels, resolution

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Not conditional: ``y`` is None."""
        return self.net(z)


def scorer(
    shown: Callable[[], Generator], source: ImageSource, device: torch.device
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Answers a request with keys ``samples``, ``reference_samples``, ``extractor`` and ``seed``.

    With ``picture``, a file name, it also writes the samples of the first ``SHOWN`` random seeds.
    """

    def score(request: dict[str, Any]) -> dict[str, Any]:
        began = time.perf_counter()
        if (picture := request.pop("picture", None)) is not None:
            save_samples(sample_images(shown(), range(SHOWN), batch_size=SHOWN, device=device), picture)
        result = evaluate(shown(), source, metrics=["fid"], device=device, progress=False, **request)[0]
        return {"fd": result.value, "protocol": result.protocol, "took": time.perf_counter() - began}

    return score
