"""What directions do to known factors of the images: effect, leakage, feature distance, and a caption in words.

The factors of an image are read by a ``FactorReader``: a classifier trained on labeled images, a linear probe of
features, or a text model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from orthogan.arguments import checked
from orthogan.errors import UserError
from orthogan.latent.directions import Directions
from orthogan.models.generate import generate, in_space, sample_label, sample_latents
from orthogan.models.protocol import Generator, as_generator
from orthogan.words import counted

EFFECT, LEAKAGE, DISTANCE = "effect", "leakage", "feature distance"  # scores
END = 2.0  # both ends of the walk that is measured, in the unit of the directions
SEEDS = 64
SEEN = 16  # of them, whose features are compared: networks of features are slow
NAMED = 0.1  # smallest effect that a caption mentions
MOST_NAMED = 3
LEAST_NORM = 1e-12

Features = Callable[[Tensor], Tensor]  # images uint8 (n, c, h, w) -> (n, d)


@runtime_checkable
class FactorReader(Protocol):
    """Reads the factors of images.

    A factor with several unordered values has one column per value; any other factor has one column.

    Example:
        >>> import numpy as np
        >>> from orthogan.latent import FactorReader
        >>> class Brightness:
        ...     names = groups = ("brightness",)
        ...     def read(self, images):
        ...         return images.reshape(len(images), -1).mean(1, keepdims=True) / 255
        ...
        >>> isinstance(Brightness(), FactorReader), Brightness().read(np.full((1, 1, 2, 2), 255, np.uint8))
        (True, array([[1.]]))
    """

    @property
    def names(self) -> Sequence[str]:
        """A name for each column."""
        ...

    @property
    def groups(self) -> Sequence[str]:
        """The factor of each column."""
        ...

    def read(self, images: np.ndarray) -> np.ndarray:
        """Return (n, columns) for images uint8 (n, c, h, w): probabilities, or positions from 0 (lowest) to 1."""
        ...


@dataclass(frozen=True, eq=False)
class Effects:
    """What each of k directions changes between its two ends, averaged over pictures.

    ``names``, ``groups``: of the m columns of the reader. ``columns`` (k, m): their signed mean changes. ``distance``
    (k,): mean cosine distance of the features of both ends to those of the middle; None without features.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    columns: np.ndarray
    distance: np.ndarray | None

    def of_factors(self) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
        """The K factors, their changes (k, K), and which column each is of (k, K): the one that changes most."""
        factors = tuple(dict.fromkeys(self.groups))
        members = [[at for at, one in enumerate(self.groups) if one == factor] for factor in factors]
        shape = len(self.columns), len(factors)
        most = np.array([[max(own, key=lambda at: abs(row[at])) for own in members] for row in self.columns], np.int64)
        most = most.reshape(shape)
        return factors, np.take_along_axis(self.columns, most, axis=1), most


def measure_effects(
    generator: nn.Module,
    directions: Directions,
    reader: FactorReader | None = None,
    features: Features | None = None,
    *,
    seeds: Sequence[int] = tuple(range(SEEDS)),
    end: float = END,
    y: int | None = None,
    batch_size: int = 64,
) -> Effects:
    """Measure what ``directions`` change between the offsets ``-end`` and ``end``, averaged over ``seeds``.

    Args:
        reader: reads the factors; None measures none.
        features: maps uint8 images (n, c, h, w) to features (n, d); None measures no distance.
        y: class of a conditional generator; None cycles through all classes, in z.

    Raises:
        UserError: the directions do not match this generator, there is no seed, or the reader returns another shape or
            values that are not finite.

    Example:
        >>> import numpy as np
        >>> import orthogan
        >>> from orthogan.latent import measure_effects
        >>> class Brightness:
        ...     names = groups = ("brightness",)
        ...     def read(self, images):
        ...         return images.reshape(len(images), -1).mean(1, keepdims=True) / 255
        ...
        >>> generator = orthogan.load("sprites-sngan")
        >>> found = measure_effects(generator, orthogan.native_directions(generator), Brightness(), seeds=[0, 1])
        >>> found.columns.shape
        (16, 1)
    """
    directions.check(generator)
    net, label = _seen(generator, directions, y)
    if not len(seeds):
        raise UserError("seeds: at least one is needed")
    z = sample_latents(net, seeds).double()
    chosen = [sample_label(net, seed, None if label is None else [label]) for seed in seeds]
    labels = [one for one in chosen if one is not None] or None  # none, or one for each seed
    names = () if reader is None else tuple(map(str, reader.names))
    groups = () if reader is None else tuple(map(str, reader.groups))

    def look(latents: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        images = generate(net, latents.float(), labels, batch_size=batch_size)
        read = np.zeros((len(images), 0))
        if reader is not None:
            read = np.asarray(reader.read(images), dtype=np.float64)
            if read.shape != (len(images), len(names)) or not np.isfinite(read).all():
                raise UserError(
                    f"{type(reader).__name__}: read() returned {read.shape} for {counted(len(images), 'image')} and "
                    f"{counted(len(names), 'name')}; expected one finite number per image and name"
                )
        return read, None if features is None else _units(features, images[:SEEN])

    _, middle = look(z)
    columns, distance = [], []
    for row in torch.from_numpy(directions.matrix.astype(np.float64)):
        (low, left), (high, right) = look(z - end * row), look(z + end * row)
        columns.append((high - low).mean(axis=0))
        if middle is not None and left is not None and right is not None:
            distance.append(1 - (np.concatenate([left, right]) * np.tile(middle, (2, 1))).sum(axis=1).mean())
    return Effects(names, groups, np.stack(columns), None if features is None else np.array(distance))


@checked
def describe_factors(
    generator: nn.Module,
    directions: Directions,
    reader: FactorReader | None = None,
    features: Features | None = None,
    *,
    captions: bool = True,
    **options: object,
) -> Directions:
    """Add the scores "effect", "leakage" and "feature distance" to ``directions``, and captions to their notes.

    All changes are means over pictures of what the ``reader`` reads at an offset of 2 minus that at -2. A direction
    whose name is a name of the reader is scored for that factor: "effect" is the signed change of it, and "leakage" the
    largest change of any other factor. Any other direction, such as an unsupervised or a random one, is scored for the
    factor that it changes most, without sign, so a random direction is judged at its best. "feature distance" is the
    mean cosine distance between the features of a picture and those of both ends (0: the same picture). A caption such
    as "hair: short +0.8, skin: pale -0.1" names up to three factors that change by at least 0.1.

    Args:
        generator: the generator.
        directions: the directions that are scored.
        reader: reads factors from images, for the first two scores and the captions; None omits these.
        features: maps images to features, for the third score; None omits it.
        captions: write captions to the notes.
        **options: those of ``measure_effects``, which this function calls.

    Raises:
        UserError: as ``measure_effects``.

    Source of the scores: re-scoring analysis of Shen et al. 2020, arXiv:2005.09635, Section 4.3.

    Example:
        >>> import orthogan
        >>> from orthogan.latent import describe_factors
        >>> class Brightness:
        ...     names = groups = ("brightness",)
        ...     def read(self, images):
        ...         return images.reshape(len(images), -1).mean(1, keepdims=True) / 255
        ...
        >>> generator = orthogan.load("sprites-sngan")
        >>> axes = orthogan.native_directions(generator).select([0, 1])
        >>> sorted(describe_factors(generator, axes, Brightness(), seeds=[0, 1]).scores)
        ['effect']
    """
    found = measure_effects(generator, directions, reader, features, **options)  # pyright: ignore[reportArgumentType]
    scores = dict(directions.scores)
    notes = list(directions.notes)
    if reader is not None:
        factors, changes, _ = found.of_factors()
        effect, leakage = [], []
        for i, name in enumerate(directions.names):
            own = next((at for at, one in enumerate(found.names) if name == one or name.endswith(f" {one}")), None)
            sizes = np.abs(changes[i])
            factor = int(sizes.argmax()) if own is None else factors.index(found.groups[own])
            effect.append(float(sizes[factor] if own is None else found.columns[i, own]))
            leakage.append(float(np.delete(sizes, factor).max(initial=0)))
            if captions:
                notes[i] = "; ".join(filter(None, [caption(found, i), notes[i]]))
        scores[EFFECT] = effect
        if len(set(found.groups)) > 1:
            scores[LEAKAGE] = leakage
    if found.distance is not None:
        scores[DISTANCE] = found.distance.tolist()
    return replace(directions, scores=scores, notes=notes)


def caption(found: Effects, index: int) -> str:
    """What direction ``index`` changes most: "hair: short +0.8, glasses -0.1", or "no known factor"."""
    _, changes, columns = found.of_factors()
    order = np.argsort(-np.abs(changes[index]), kind="stable")[:MOST_NAMED]
    changed = [(found.names[columns[index, at]], float(changes[index, at])) for at in order]
    return ", ".join(f"{name} {change:+.1f}" for name, change in changed if abs(change) >= NAMED) or "no known factor"


def _seen(generator: nn.Module, directions: Directions, y: int | None) -> tuple[Generator, int | None]:
    """The generator seen from the space of the directions, and the class that it still needs."""
    if directions.space == "z":
        return as_generator(generator), y
    net = as_generator(generator)
    label = 0 if y is None and net.num_classes else y
    return in_space(net, directions.space, y=label, layers=directions.layers), None


def _units(features: Features, images: np.ndarray) -> np.ndarray:
    """Features (n, d) float64 of unit length."""
    with torch.no_grad():
        rows = features(torch.from_numpy(images)).double().cpu().numpy()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(LEAST_NORM)
