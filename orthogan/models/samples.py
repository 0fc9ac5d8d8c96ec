"""Samples by seed: the images, their grid or folder, and the parsing of seeds and classes."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from orthogan import __version__
from orthogan.arguments import checked, integer, is_whole_number, some_path
from orthogan.drawing.grid import class_grid, image_grid, save_png, to_picture
from orthogan.drawing.notebook import png
from orthogan.errors import UserError
from orthogan.io.write import check_folder
from orthogan.models.generate import generate, model_hash, sample_label, sample_latents
from orthogan.models.label_table import LabelTable, label_table, unchanged_classes
from orthogan.models.protocol import as_generator
from orthogan.registry import did_you_mean
from orthogan.weights.selection import choose
from orthogan.words import counted

MOST_SEEDS = 1_000_000
MOST_IN_A_GRID = 10_000
_PART = re.compile(r"(\d{1,15})(?:-(\d{1,15}))?", re.ASCII)


@dataclass(frozen=True, repr=False)
class Samples:
    """Generated images; in a notebook, they show themselves as a grid.

    ``len``, ``np.asarray`` and ``orthogan.fid`` accept them.

    Attributes:
        images: uint8 (n, c, h, w).
        seeds: n random seeds.
        labels: n classes; None for an unconditional generator.
        metadata: where the images come from, as strings.
        class_names: names of the classes, if known.

    Example:
        >>> import orthogan
        >>> from orthogan.latent import sample_images
        >>> samples = sample_images(orthogan.load("sprites-sngan"), seeds=[0, 1, 2])
        >>> samples.images.shape, samples.images.dtype
        ((3, 1, 32, 32), dtype('uint8'))
    """

    images: np.ndarray
    seeds: Sequence[int]
    labels: Sequence[int] | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    class_names: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.images, dtype, copy=copy) if copy is not None else np.asarray(self.images, dtype)

    def __repr__(self) -> str:
        _, channels, height, width = self.images.shape
        colors = {1: "gray", 3: "RGB"}.get(channels, f"{channels} channels")
        seeds = format_ranges(sorted(self.seeds))
        return f"<{counted(len(self), 'sample')}, {width}x{height} px, {colors}, seeds {seeds}>"

    def _repr_png_(self) -> bytes:
        return png(self.picture)

    @property
    def picture(self) -> Image.Image:
        """All images in one grid; a conditional generator's classes are in rows or below the images."""
        if self.labels is None:
            return image_grid(self.images)
        return class_grid(self.images, self.labels, self.class_names)

    @property
    def tensor(self) -> torch.Tensor:
        """The images as floats (n, c, h, w) in [-1, 1]."""
        return torch.from_numpy(self.images).float() / 127.5 - 1

    def save(self, path: str | os.PathLike[str]) -> list[Path]:
        """Write a grid (a ``.png`` path) or one PNG per seed (a folder); see ``save_samples``."""
        return save_samples(self, path, class_names=self.class_names)


@checked
def parse_seeds(text: str, what: str = "seeds", *, repeats: bool = False) -> list[int]:
    """Parse numbers and inclusive ranges: ``"0-3,70"`` -> [0, 1, 2, 3, 70]; repeats are dropped.

    Args:
        text: numbers and ranges, separated by commas.
        what: name of the option, for messages.
        repeats: keep repeated numbers, for a walk that returns to a place.

    Raises:
        UserError: a part is neither a number nor a range, or there are too many numbers.

    Example:
        >>> from orthogan.latent import parse_seeds
        >>> parse_seeds("0-3,70")
        [0, 1, 2, 3, 70]
    """
    return _numbers(text, what, repeats)


@checked
def parse_layers(text: str, generator: nn.Module | None = None) -> list[int]:
    """Parse numbers of layers such as ``"0-3,5"``.

    Args:
        text: numbers and ranges, separated by commas; for a generator with named styles also the words of
            ``orthogan.weights.select``, such as ``"blocks.0.*,!last"``.
        generator: the generator whose styles the words name.

    Raises:
        UserError: a part is not a number, a range, or a word that matches a style.

    Example:
        >>> from orthogan.latent import parse_layers
        >>> parse_layers("0-3,5")
        [0, 1, 2, 3, 5]
    """
    styles, rows = getattr(generator, "style_layers", None), getattr(generator, "style_rows", None)
    if styles is None or rows is None or all(_PART.fullmatch(part.strip()) for part in text.split(",")):
        return _numbers(text, "layers")
    try:
        names = choose(dict(styles()), text, what=f"the styles of {type(generator).__name__}")
    except ValueError as error:
        raise UserError(str(error)) from error
    return sorted({rows()[name] for name in names})


@checked
def parse_classes(text: str, num_classes: int, names: Sequence[str] = ()) -> list[int]:
    """Parse class numbers from numbers, ranges and names such as ``"0-2,ship"``; repeats are dropped.

    Names are first compared with case, then without. If all names are numbers, such as 1, 2 and 10, numbers and the
    ends of ranges are names.

    Args:
        text: numbers, ranges and names, separated by commas.
        num_classes: number of classes of the generator.
        names: the names of these classes; empty if there are none.

    Raises:
        UserError: the generator is unconditional, a name is unknown or ambiguous, or a number is out of range.

    Example:
        >>> from orthogan.latent import parse_classes
        >>> parse_classes("0-1,ship", 3, ["car", "cat", "ship"])
        [0, 1, 2]
    """
    if num_classes == 0:
        raise UserError("classes: this generator is unconditional and has no classes; omit them")
    known = f"the classes {', '.join(names)}" if names else "numbers as classes, without names"
    exact = {name.strip(): index for index, name in enumerate(names)}
    alike: dict[str, list[int]] = {}
    for name, index in exact.items():
        alike.setdefault(name.lower(), []).append(index)
    numbers = {int(name): index for name, index in exact.items() if is_whole_number(name)}
    numbered = bool(names) and len(numbers) == len(names)
    chosen: list[int] = []
    for part in text.split(","):
        name = part.strip()
        found = alike.get(name.lower(), [])
        if name in exact:
            chosen.append(exact[name])
        elif len(found) == 1:
            chosen += found
        elif found or (name and not name[0].isdigit()):
            unknown = f"no class '{name}'{did_you_mean(name, names)}"
            what = f"'{name}' is ambiguous: {', '.join(names[i] for i in found)}" if found else unknown
            raise UserError(f"classes: {what}; this generator has {known}")
        elif numbered:
            meant = _numbers(part, "classes")
            missing = next((number for number in (meant[0], meant[-1]) if number not in numbers), None)
            if missing is not None:
                raise UserError(f"classes: no class '{missing}'; this generator has {known}")
            chosen += [numbers[number] for number in meant if number in numbers]
        else:
            chosen += _numbers(part, "classes")
    wrong = [label for label in chosen if label >= num_classes]
    if wrong:
        raise UserError(f"classes: {wrong[0]} is out of range; this generator has classes 0 to {num_classes - 1}")
    return list(dict.fromkeys(chosen))


@checked
def choose_classes(generator: nn.Module, text: str, *, new: bool = False) -> list[int]:
    """Parse the classes of a generator, as ``parse_classes``; if its labels are vectors, these can be written too.

    A vector is written as its numbers with spaces between them, or as the names of its attributes joined by "+"
    (``none`` for none).

    Args:
        text: classes, separated by commas.
        new: also accept vectors that no training image has; the generator gets them as further classes.

    Raises:
        UserError: as ``parse_classes``; or a new vector has another length, or is not accepted here.

    Example:
        >>> import torch
        >>> from orthogan.models import LabelTable, SNGANGenerator, add_label_table
        >>> from orthogan.models.samples import choose_classes
        >>> net = SNGANGenerator(resolution=32, image_channels=1, channels=4, latent_dim=6, num_classes=2)
        >>> add_label_table(net, LabelTable(torch.tensor([[0.0, 1.0], [1.0, 1.0]]), names=["hat", "beard"]))
        >>> choose_classes(net, "1,hat,0.5 0.5", new=True), net.class_names[2:]
        ([1, 2, 3], ['hat', '0.5 0.5'])
    """
    net = as_generator(generator)
    table = label_table(net)
    names = list(getattr(net, "class_names", ()))
    if table is None:
        return parse_classes(text, net.num_classes, names)
    names += [f"class {label}" for label in range(len(names), net.num_classes)]
    chosen: list[int] = []
    for part in map(str.strip, text.split(",")):
        if part in names:
            chosen.append(names.index(part))
            continue
        vector = _vector(part, table)
        if vector is None:
            chosen += _numbers(part, "classes")
            if chosen[-1] >= net.num_classes:
                raise UserError(f"classes: {chosen[-1]} is out of range; this generator has {net.num_classes} classes")
            continue
        label = table.find(vector)
        if label is None:
            if not new:
                raise UserError(
                    f"classes: no training image has the label '{part}', and this command needs one that has"
                )
            label = table.add(vector)
            names.append(part)
        chosen.append(label)
    whole: Any = net
    whole.num_classes, whole.class_names = len(table.vectors), names
    return list(dict.fromkeys(chosen))


def _vector(text: str, table: LabelTable) -> list[float] | None:
    """Return the label vector that ``text`` is; None if it is a number or a range of classes."""
    size = table.vectors.shape[1]
    attributes = [] if text == "none" else [name.strip() for name in text.split("+")]
    if table.names and set(attributes) <= set(table.names):
        return [float(name in attributes) for name in table.names]
    if _PART.fullmatch(text):
        return None
    words = text.split()
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        listed = f"; its names are {', '.join(table.names)}" if table.names else ""
        raise UserError(
            f"classes: '{text}' is not a label; write {size} numbers with spaces between them, names joined by +, "
            f"or the number of a class{listed}"
        ) from None
    if len(numbers) != size or not all(map(math.isfinite, numbers)):
        raise UserError(
            f"classes: '{text}' has {counted(len(numbers), 'number')}; the label vectors have {size} finite numbers"
        )
    return numbers


def _numbers(text: str, what: str, repeats: bool = False) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise UserError(f"{what}: '{part}' in '{text}' is neither a number nor a range such as 0-63")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UserError(f"{what}: the range '{part.strip()}' is reversed; write {last}-{first}")
        if last - first >= MOST_SEEDS or len(found) + last - first >= MOST_SEEDS:
            raise UserError(f"{what}: '{text}' contains more than {MOST_SEEDS:,} numbers; use fewer at a time")
        found += range(first, last + 1)
    return found if repeats else list(dict.fromkeys(found))


def format_ranges(numbers: Sequence[int]) -> str:
    """Format ascending numbers for the parsers above: [0, 1, 2, 5] -> "0-2,5"; "" for none."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


@checked
def sample(
    generator: nn.Module | str | Path,
    n: int = 16,
    *,
    seed: int = 0,
    classes: str | int | Sequence[int] | None = None,
    truncation: float = 1.0,
    batch_size: int = 64,
    device: torch.device | str | None = None,
) -> Samples:
    """Generate ``n`` images, for the seeds ``seed``, ``seed + 1``, …; each image depends on its own seed alone.

    Args:
        generator: a generator, or anything that ``orthogan.load`` accepts, such as the name of a shipped model.
        classes: for a conditional generator: a class, or classes to cycle through, by number or name, such as
            ``"0-2,ship"`` (default: all classes).
        truncation: see ``orthogan.latent.truncate``.
        device: the generator is moved there (default: where it is).

    Raises:
        UserError: invalid arguments, or classes that the generator does not have.

    Example:
        >>> import orthogan
        >>> samples = orthogan.sample("sprites-sngan", 4, seed=0, truncation=0.7)
        >>> samples
        <4 samples, 32x32 px, gray, seeds 0-3>
        >>> samples.save("grid.png")
        [PosixPath('grid.png')]
    """
    from orthogan.models.open import as_loaded

    net, first, count = as_loaded(generator), integer("seed", seed), integer("n", n)
    if not 1 <= count <= MOST_SEEDS:
        raise UserError(f"n={count}: from 1 to {MOST_SEEDS:,} images")
    if first < 0:
        raise UserError(f"seed={first}: must be 0 or more")
    with unchanged_classes(net):
        if isinstance(classes, str):
            classes = choose_classes(net, classes, new=True)
        elif classes is not None and not isinstance(classes, Sequence | np.ndarray):
            classes = [classes]
        seeds = range(first, first + count)
        found = sample_images(net, seeds, classes, truncation, batch_size=batch_size, device=device)
        return replace(found, class_names=getattr(net, "class_names", ()))


@checked
def sample_images(
    generator: nn.Module,
    seeds: Sequence[int],
    classes: Sequence[int] | None = None,
    truncation: float = 1.0,
    batch_size: int = 64,
    device: torch.device | str | None = None,
) -> Samples:
    """Generate one image per seed; its latent and class depend on the seed alone.

    Args:
        seeds: random seeds.
        classes: for a conditional generator, seed s has the class ``classes[s % len(classes)]`` (default: all classes).
        truncation: see ``orthogan.latent.truncate``.
        batch_size: images per batch.
        device: the generator is moved there (default: where it is).

    Raises:
        UserError: there is no seed, or the generator does not have such a class.

    Example:
        >>> import orthogan
        >>> from orthogan.latent import sample_images
        >>> samples = sample_images(orthogan.load("sprites-sngan"), seeds=range(4), truncation=0.7)
        >>> samples.images.shape
        (4, 1, 32, 32)
    """
    if not seeds:
        raise UserError("no seeds: at least one is needed, such as 0-63")
    net = as_generator(generator)
    chosen = [sample_label(net, seed, classes) for seed in seeds]
    labels = [label for label in chosen if label is not None] or None
    z = sample_latents(net, seeds, truncation)
    return Samples(
        images=generate(net, z, labels, batch_size=batch_size, device=device),
        seeds=list(seeds),
        labels=labels,
        metadata={
            "software": f"orthogan {__version__}",
            "model_hash": model_hash(net),
            "truncation": f"{truncation:g}",
        },
    )


def check_place(out: str | os.PathLike[str], count: int) -> None:
    """Raise ``UserError`` unless ``save_samples`` can write ``count`` images to ``out``; check it before a long run."""
    target = some_path("out", out)
    if target.suffix.lower() == ".png":
        if count > MOST_IN_A_GRID:
            raise UserError(
                f"{target}: {count:,} images are too many for one grid; choose a folder (no suffix) instead"
            )
    elif target.suffix and not os.path.isdir(target):
        raise UserError(f"{target}: must be a .png file for one grid, or a folder (no suffix) for one PNG per seed")
    else:
        check_folder(target)


@checked
def save_samples(samples: Samples, out: str | os.PathLike[str], *, class_names: Sequence[str] = ()) -> list[Path]:
    """Write samples to one grid, or to one file per seed.

    The grid of a conditional generator has one class per row if there are at least four images per class on average,
    else a caption below each image. Files in a folder are called ``seed000012.png``, or ``seed000012-class03.png`` with
    classes, and have the size of the generator's images.

    Args:
        out: a ``.png`` file for a grid, or a folder (a path without suffix).
        class_names: names of the classes for the grid (default: those of the samples).

    Returns:
        The paths of the files.

    Raises:
        UserError: ``out`` has another suffix, or cannot be written.

    Example:
        >>> import orthogan
        >>> from orthogan.latent import sample_images, save_samples
        >>> samples = sample_images(orthogan.load("sprites-sngan"), seeds=range(4))
        >>> [path.name for path in save_samples(samples, "grid.png")]
        ['grid.png']
    """
    check_place(out, len(samples.seeds))
    target = Path(out)
    if target.suffix.lower() == ".png":
        shown = replace(samples, class_names=class_names or samples.class_names)
        return [save_png(shown.picture, target, _described(samples))]
    written: list[Path] = []
    kind = "latent" if "latents" in samples.metadata else "seed"
    digits = len(str(max(samples.labels, default=0))) if samples.labels else 0
    for index, (image, seed) in enumerate(zip(samples.images, samples.seeds, strict=True)):
        label = None if samples.labels is None else samples.labels[index]
        ending = "" if label is None else f"-class{label:0{max(2, digits)}d}"
        picture = to_picture(image)
        alone = Samples(image[None], [seed], None if label is None else [label], samples.metadata)
        written.append(save_png(picture, target / f"{kind}{seed:06d}{ending}.png", _described(alone)))
    return written


def _described(samples: Samples) -> dict[str, str]:
    about = {**samples.metadata}
    if "latents" not in about:
        about["seeds"] = ",".join(map(str, samples.seeds))
    if samples.labels is not None:
        about["classes"] = ",".join(map(str, samples.labels))
    return about
