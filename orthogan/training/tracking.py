"""Activeness of the latent dimensions of a generator during training, and detection of dead subspaces.

Measured on at most 16 fixed latents, fewer where that would be more than 2,000 images but at least two: up to some
ten training steps' worth of work, at every ``logging.spectrum_every``, on the main process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from orthogan.latent.activeness import ACTIVE, VALUES, activeness
from orthogan.layers.subspace import LatentSubspace
from orthogan.models.protocol import Generator

SAMPLES, IMAGES = 16, 2000
EACH = 64  # up to this many dimensions of a plain generator are logged separately
FLOOR = 1e-6  # smaller values count as no change: an eighth of a gray level [squared units of images]
ALIVE, TOLD = 0, 1  # columns of the state


@runtime_checkable
class HasSubspaces(Protocol):
    """A generator whose latent begins with the coordinates of its subspaces, one after the other."""

    def subspaces(self) -> list[tuple[str, LatentSubspace]]:
        """(dotted name, subspace) in that order."""
        ...

    def subspace_report(self) -> dict[str, dict[str, float]]:
        """Numbers of each subspace by name."""
        ...


class Tracking:
    """The numbers of one generator, check after check.

    A subspace is dead at a check if its most active dimension changes the image less than 1 % as much as the most
    active dimension of all subspaces. It is reported once: at the first check at which it is dead and either was alive
    before, or half of the run is over, because early in training the activeness is not informative.
    """

    def __init__(self, generator: Generator) -> None:
        count = len(generator.subspaces()) if isinstance(generator, HasSubspaces) else 0
        self._state = torch.zeros(count, 2, dtype=torch.uint8)
        self._news: list[str] = []

    def numbers(self, generator: Generator, *, step: int, share: float, seed: int) -> dict[str, Mapping[str, float]]:
        """Numbers by layer name ("latent" for a net without subspaces), of a generator at ``share`` of its run.

        A generator whose images are not finite has none: the watch of the training loop names the trouble.
        """
        plain = not isinstance(generator, HasSubspaces)
        dims = generator.latent_dim if plain else sum(s.dims for _, s in generator.subspaces())
        samples = min(SAMPLES, max(2, IMAGES // (dims * len(VALUES))))
        try:
            moved = activeness(generator, samples=samples, dims=dims, seed=seed)
        except ValueError:
            return {}
        if plain:
            return {"latent": _summary(moved)}
        parts = np.split(moved, np.cumsum([subspace.dims for _, subspace in generator.subspaces()])[:-1])
        self._judge([name for name, _ in generator.subspaces()], parts, step, share)
        report = generator.subspace_report()
        return {
            name: numbers | {f"activeness{i}": float(value) for i, value in enumerate(part)}
            for (name, numbers), part in zip(report.items(), parts, strict=True)
        }

    def pop_warnings(self) -> list[str]:
        """The warnings since the last call."""
        found, self._news = self._news, []
        return found

    def state(self) -> dict[str, Tensor]:
        """What must be stored so that a continued run warns as one in a single sitting does."""
        return {"subspaces": self._state} if len(self._state) else {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of ``state``."""
        if "subspaces" in tensors:
            self._state.copy_(tensors["subspaces"])

    def _judge(self, names: list[str], parts: list[np.ndarray], step: int, share: float) -> None:
        largest = [float(part.max()) for part in parts]
        least = max(ACTIVE * max(largest), FLOOR)
        for i, (name, value) in enumerate(zip(names, largest, strict=True)):
            if value >= least:
                self._state[i, ALIVE] = 1
            elif not self._state[i, TOLD] and (self._state[i, ALIVE] or share >= 0.5):
                self._state[i, TOLD] = 1
                self._news.append(
                    f"step {step}: {name} hardly changes the image (activeness {value:.2g}; the most active subspace "
                    f"has {max(largest):.2g}), so its dimensions are not meaningful. Resume from an earlier "
                    "checkpoint, or train again with a smaller optimizer.generator.lr or more augmentation"
                )


def _summary(moved: np.ndarray) -> dict[str, float]:
    found = {
        "dims_active": float((moved >= max(ACTIVE * float(moved.max()), FLOOR)).sum()),
        "activeness_max": float(moved.max()),
        "activeness_mean": float(moved.mean()),
    }
    if len(moved) <= EACH:
        found |= {f"activeness{i}": float(value) for i, value in enumerate(moved)}
    return found
