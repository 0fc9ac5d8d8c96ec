"""Style mixing: pictures that take some layers of their latent from one picture, and the rest from another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from torch import nn

from orthogan import __version__
from orthogan.arguments import checked, shown
from orthogan.drawing.grid import image_grid
from orthogan.errors import UserError
from orthogan.latent.films import keyframes
from orthogan.latent.latents import Latents
from orthogan.models.generate import in_space, list_spaces, model_hash
from orthogan.models.protocol import as_generator
from orthogan.models.samples import format_ranges

MOST_IMAGES = 10_000


@dataclass(frozen=True)
class Mix:
    """A grid of mixed pictures.

    ``images``: uint8 (rows, columns, c, h, w). ``rows``, ``columns``: the pictures that are mixed, uint8 (n, c, h, w).
    ``row_names``, ``column_names``: what they are called. ``parts``: what the layers are, in words. ``layers``: the
    numbers of those that come from the columns, of ``count``.
    """

    images: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    row_names: Sequence[str]
    column_names: Sequence[str]
    parts: str
    layers: Sequence[int]
    count: int
    metadata: dict[str, str] = field(default_factory=dict)

    def draw(self) -> Image.Image:
        """Draw the grid: the columns' pictures above it, the rows' at its left, and the names of the rows."""
        down, across = self.images.shape[:2]
        flat = np.concatenate([self.columns, self.rows, self.images.reshape(-1, *self.images.shape[2:])])
        layout = np.full((down + 1, across + 1), -1)
        layout[0, 1:] = np.arange(across)
        layout[1:, 0] = across + np.arange(down)
        layout[1:, 1:] = across + down + np.arange(down * across).reshape(down, across)
        return image_grid(flat, layout=layout, row_labels=["", *self.row_names])


def latent_parts(generator: nn.Module) -> tuple[str, str, list[list[int]]]:
    """Return how a latent is divided for mixing: its space, words for the parts, and the coordinates of each part.

    By layer in W+, or by the subspaces of an EigenGAN and its noise; else each coordinate of z is a part.

    Example:
        >>> import orthogan
        >>> from orthogan.latent.mixing import latent_parts
        >>> space, parts, blocks = latent_parts(orthogan.load("faces-eigengan"))
        >>> space, parts, len(blocks)
        ('z', 'subspaces, and the noise as the last one', 4)
    """
    net = as_generator(generator)
    if "w+" in list_spaces(net):
        seen = in_space(net, "w+", y=0 if net.num_classes else None)
        size = seen.latent_dim // seen.rows
        return "w+", "layers", [list(range(row * size, (row + 1) * size)) for row in range(seen.rows)]
    subspaces = getattr(net, "subspaces", None)
    if callable(subspaces) and isinstance(getattr(net, "dims", None), int):
        dims, count = net.dims, len(list(subspaces()))  # pyright: ignore
        blocks = [list(range(i * dims, (i + 1) * dims)) for i in range(count)]  # pyright: ignore
        rest = list(range(count * dims, net.latent_dim))  # pyright: ignore
        return "z", "subspaces, and the noise as the last one", [*blocks, rest] if rest else blocks
    return "z", "coordinates of z", [[index] for index in range(net.latent_dim)]


@checked
def mix(
    generator: nn.Module,
    rows: Latents | Sequence[int],
    columns: Latents | Sequence[int],
    *,
    layers: Sequence[int] | None = None,
    classes: Sequence[int] | None = None,
    truncation: float = 1.0,
    batch_size: int = 64,
) -> Mix:
    """Mix each picture of ``rows`` with each of ``columns``, which are seeds or latents.

    Args:
        layers: the parts of the latent that come from the column, see ``latent_parts``; the second half by default. The
            class always comes from the row.
        classes: of seeds, as in ``sample_images``.
        truncation: of seeds.

    Raises:
        UserError: a layer that does not exist, too many pictures, or latents that cannot be moved to the space.

    Example:
        >>> import orthogan
        >>> from orthogan.latent.mixing import mix
        >>> mixed = mix(orthogan.load("faces-eigengan"), [1, 2], [3, 4, 5], layers=[2])
        >>> mixed.images.shape
        (2, 3, 3, 32, 32)
    """
    net = as_generator(generator)
    space, parts, blocks = latent_parts(net)
    chosen = list(range(len(blocks) // 2, len(blocks))) if layers is None else sorted(set(layers))
    if not chosen or not 0 <= chosen[0] <= chosen[-1] < len(blocks):
        raise UserError(
            f"layers {shown(list(layers or []))}: this generator has {len(blocks)} {parts}, 0 to {len(blocks) - 1}"
        )
    both = [
        keyframes(net, latents=[one], space=space)
        if isinstance(one, Latents)
        else keyframes(net, one, space=space, classes=classes, truncation=truncation)
        for one in (rows, columns)
    ]
    first, second = both
    if len(first) * len(second) > MOST_IMAGES:
        raise UserError(f"{len(first) * len(second):,} pictures: at most {MOST_IMAGES:,}; use fewer rows or columns")
    taken = np.zeros(first.matrix.shape[1], dtype=bool)
    taken[[index for number in chosen for index in blocks[number]]] = True
    mixed = np.where(taken, second.matrix[None], first.matrix[:, None])
    labels = None if first.labels is None else [label for label in first.labels for _ in range(len(second))]
    drawn = Latents(mixed.reshape(-1, mixed.shape[-1]), space, labels=labels).images(net, batch_size=batch_size)
    about = {
        "software": f"orthogan {__version__}",
        "model_hash": model_hash(net),
        "space": space,
        "layers": f"{format_ranges(chosen)} of {len(blocks)} {parts}",
        "rows": ",".join(first.names),
        "columns": ",".join(second.names),
        "truncation": f"{truncation:g}",
    }
    return Mix(
        drawn.reshape(len(first), len(second), *drawn.shape[1:]),
        first.images(net, batch_size=batch_size),
        second.images(net, batch_size=batch_size),
        first.names,
        second.names,
        parts,
        chosen,
        len(blocks),
        about,
    )
