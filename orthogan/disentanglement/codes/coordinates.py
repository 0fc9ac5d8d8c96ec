"""The codes of a generator: coordinates of its latents along directions, and how to change one of them alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from orthogan.drawing.grid import as_pixels
from orthogan.latent.directions import Directions
from orthogan.latent.discovery.native import native_directions
from orthogan.latent.discovery.response import GeneratorFunction, trace_generator
from orthogan.models.generate import in_space
from orthogan.models.protocol import Generator, as_generator
from orthogan.rng import derive

BATCH = 256
PRIOR_DRAWS = 10_000  # for the mean and spread of coordinates in a space whose prior has no closed form
LEAST_ANGLE = 1e-3  # smallest over largest singular value of unit rows; below, they are linearly dependent


@dataclass(frozen=True, eq=False)
class Coordinates:
    """k coordinates of latents (n, latent_dim), all float32 on the CPU.

    ``rows`` (k, latent_dim): the directions at unit length. ``duals`` (k, latent_dim): rows @ duals.T = 1, so for
    orthonormal rows the rows themselves, else their pseudo-inverse; moving along one row changes one coordinate.
    ``centre``, ``spread`` (k,): mean and standard deviation of the prior, which normalize the coordinates. 0 and 1 in
    space z, whose prior is N(0, I), so that a coordinate there is a length; elsewhere found from 10,000 draws.

    Example:
        >>> import numpy as np
        >>> import orthogan
        >>> from orthogan.disentanglement import get_coordinates
        >>> generator = orthogan.load("sprites-sngan")
        >>> first_two = orthogan.Directions(np.eye(2, 16, dtype=np.float32), method="mine")
        >>> coordinates = get_coordinates(generator, first_two)
        >>> z = generator.sample_latent(3, seed=0)
        >>> bool((coordinates.of(z) == z[:, :2]).all())
        True
    """

    rows: Tensor
    duals: Tensor
    centre: Tensor
    spread: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, z: Tensor) -> Tensor:
        """Return the least-squares coordinates (n, k) of ``z``."""
        return (z @ self.duals.T - self.centre) / self.spread

    def put(self, z: Tensor, values: Tensor) -> Tensor:
        """Replace all coordinates of ``z`` by ``values`` (n, k); components outside of the span stay."""
        return z + (values - self.of(z)) * self.spread @ self.rows

    def put_one(self, z: Tensor, index: Tensor, values: Tensor) -> Tensor:
        """Replace coordinate ``index`` (n,) of ``z`` by ``values`` (n,); the others stay."""
        change = values - self.of(z).gather(1, index[:, None])[:, 0]
        return z + (change * self.spread[index])[:, None] * self.rows[index]

    def scaled_rest(self, z: Tensor, scale: float) -> Tensor:
        """Multiply the part of ``z`` outside of the span of the directions by ``scale``."""
        reached = z @ self.duals.T @ self.rows
        return reached + scale * (z - reached)


def get_coordinates(generator: Generator, directions: Directions) -> Coordinates:
    """Build the coordinates along ``directions``; ``generator`` is already viewed from their space.

    Raises ValueError for linearly dependent directions, or directions along which the prior never varies.

    Example:
        >>> import orthogan
        >>> from orthogan.disentanglement import get_coordinates
        >>> generator = orthogan.load("sprites-sngan")
        >>> coordinates = get_coordinates(generator, orthogan.native_directions(generator))
        >>> coordinates.of(generator.sample_latent(3, seed=0)).shape
        torch.Size([3, 16])
    """
    matrix = directions.matrix.astype(np.float64)
    rows = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    sigma = np.linalg.svd(rows, compute_uv=False)
    if len(rows) > rows.shape[1] or sigma[-1] < LEAST_ANGLE * sigma[0]:
        raise ValueError(
            f"the {len(rows)} directions are linearly dependent, so their coordinates are not defined; remove "
            "duplicates with orthogan.latent.discovery.merge"
        )
    duals = np.linalg.pinv(rows).T
    centre, spread = np.zeros(len(rows)), np.ones(len(rows))
    if directions.space != "z":
        drawn = generator.sample_latent(PRIOR_DRAWS, seed=derive(0, "prior")).cpu().double().numpy() @ duals.T
        centre, spread = drawn.mean(0), drawn.std(0)
        still = np.flatnonzero(~(spread > 0))
        if len(still):
            raise ValueError(
                f"directions {still.tolist()}: latents of the space '{directions.space}' do not vary along them"
            )
    return Coordinates(*(torch.from_numpy(array).float() for array in (rows, duals, centre, spread)))


@dataclass(frozen=True, eq=False)
class LatentCoordinates:
    """A generator with coordinates along directions; created by ``subject``."""

    response: GeneratorFunction
    directions: Directions
    coordinates: Coordinates

    def __len__(self) -> int:
        """The number of directions."""
        return len(self.coordinates)

    def draw(self, n: int, seed: int) -> tuple[Tensor, Tensor | None]:
        """Draw ``n`` latents of the prior (n, latent_dim) and their classes (None: unconditional), on the CPU."""
        z, labels = self.response.draw(n, seed)
        return z.cpu(), None if labels is None else labels.cpu()

    def images(self, z: Tensor, labels: Tensor | None, *, batch_size: int = BATCH) -> np.ndarray:
        """Generate images uint8 (n, c, h, w). Raises UserError for non-finite images."""
        place = self.response.device
        parts = [
            as_pixels(self.response(z[few].to(place), None if labels is None else labels[few].to(place)))
            for few in torch.arange(len(z)).split(batch_size)
        ]
        return np.concatenate(parts)

    def along(self, directions: Directions) -> LatentCoordinates:
        """Return the same generator along other directions of the same space."""
        return LatentCoordinates(self.response, directions, get_coordinates(self.response.net, directions))


@contextmanager
def subject(
    generator: nn.Module, directions: Directions | None = None, *, y: int | None = None
) -> Iterator[LatentCoordinates]:
    """Context with the frozen generator, viewed from the space of ``directions`` (default: its native ones).

    ``y``: the class of a conditional generator; None cycles through all classes (not in a space that belongs to a
    class). Raises UserError for invalid directions or classes; ValueError as ``get_coordinates``.
    """
    chosen = native_directions(generator) if directions is None else directions
    chosen.check(generator)
    net = as_generator(generator)
    inside = chosen.space != "z"
    seen = in_space(net, chosen.space, y=y, layers=chosen.layers) if inside else net
    with trace_generator(seen, y=None if inside else y) as response:
        yield LatentCoordinates(response, chosen, get_coordinates(seen, chosen))
