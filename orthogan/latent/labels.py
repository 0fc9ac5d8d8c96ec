"""Labels of generated pictures: which latents they belong to, read from a table, folders of pictures, or seeds."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn

from orthogan.arguments import integers, is_whole_number
from orthogan.errors import UserError
from orthogan.io.read import describe_error, parsing, printable, read_regular, shown
from orthogan.models.generate import model_hash, sample_label, sample_latents
from orthogan.models.protocol import Generator
from orthogan.models.samples import parse_seeds
from orthogan.words import counted

LARGEST_TABLE = 100_000_000  # bytes
LARGEST_PICTURE = 50_000_000
MOST_WORDS = 32  # values of a column of words
SEED, CLASS = "seed", "class"  # columns of a table
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Spot:
    """Where one picture is: its seed, or the ``latent`` itself in ``space``; and its class."""

    seed: int = 0
    label: int | None = None
    truncation: float = 1.0
    latent: tuple[float, ...] | None = None
    space: str = "z"


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of n pictures of a generator.

    Args:
        spots: the latent, or the seed, of each picture.
        values: float64 (n, m), NaN where unknown: 0 and 1 for no and yes, or numbers.
        names: one per column.
        groups: the factor of each column (default: its name). The values of one factor, such as red, green and blue,
            are columns of one group.

    Raises:
        UserError: these do not match.

    Example:
        >>> from orthogan.latent import Labels
        >>> labels = Labels.from_seeds([0, 1, 2, 3], {"smile": [0, 1, 1, 0], "hair": ["long", "short", "long", ""]})
        >>> labels.names, labels.values.shape
        (('smile', 'hair: short'), (4, 2))
    """

    spots: Sequence[Spot]
    values: np.ndarray
    names: Sequence[str]
    groups: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "groups", tuple(self.groups) or self.names)
        if self.values.shape != (len(self.spots), len(self.names)) or len(self.groups) != len(self.names):
            raise UserError(
                f"labels of shape {self.values.shape} for {counted(len(self.spots), 'picture')} and "
                f"{counted(len(self.names), 'name')}"
            )
        if not len(self.names):
            raise UserError("labels: there is no column besides the seed; add one per attribute")

    @classmethod
    def from_seeds(
        cls, seeds: Sequence[int], columns: Mapping[str, Sequence[object]], classes: Sequence[int | None] | None = None
    ) -> Labels:
        """Labels of the pictures of ``seeds``: for each name in ``columns`` one value per seed.

        A column of numbers becomes one attribute: 0 and 1 are no and yes, other numbers are scaled to 0 to 1. A column
        of words becomes one attribute per word, or a single one for two words ("yes" or "true" in any case, or the
        second in alphabetical order). An empty or missing value is unknown. Raises ``UserError`` naming the column.
        """
        spots = [
            Spot(seed, None if classes is None else classes[at]) for at, seed in enumerate(integers("seed", seeds))
        ]
        names, groups, values = [], [], []
        for name, column in columns.items():
            if len(column) != len(spots):
                raise UserError(
                    f"{name}: {counted(len(column), 'label')} for {counted(len(spots), 'seed')}; one per seed is needed"
                )
            for attribute, numbers in _attributes(str(name), column):
                names.append(attribute)
                groups.append(str(name))
                values.append(numbers)
        return cls(spots, np.array(values).T.reshape(len(spots), len(names)), tuple(names), tuple(groups))

    @classmethod
    def from_table(cls, path: str | os.PathLike[str]) -> Labels:
        """Read a ``.csv`` file with the columns "seed", "class" (optional) and one per attribute; see ``from_seeds``.

        Raises ``UserError`` naming the file and line.
        """
        where = printable(path)
        try:
            text = read_regular(path, LARGEST_TABLE).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise UserError(f"{where}: not a table in UTF-8; save it as CSV UTF-8") from None
        with parsing(path, "a table with commas between its columns"):
            lines = csv.reader(io.StringIO(text, newline=None))
            rows = [row for row in lines if any(cell.strip() for cell in row)]
        head = [cell.strip() for cell in rows[0]] if rows else []
        if SEED not in head or len(set(head)) < len(head) or len(rows) < 2:
            raise UserError(
                f"{where}: expected a first line such as 'seed,smile,hair', with different names, then one line per "
                f"picture, with commas between the columns; the first line is '{printable(','.join(head))}'"
            )
        for number, row in enumerate(rows[1:], 2):
            if len(row) != len(head):
                raise UserError(
                    f"{where}: row {number} has {counted(len(row), 'value')}, expected {len(head)}, as in the first"
                )
            if not is_whole_number(seed := row[head.index(SEED)].strip()):
                raise UserError(
                    f"{where}: row {number}: the seed {shown(seed)} is not a whole number from 0 with at most 19 digits"
                )
        columns = {name: [row[at].strip() for row in rows[1:]] for at, name in enumerate(head)}
        classes = columns.pop(CLASS, None)
        if classes is not None and not all(map(is_whole_number, classes)):
            raise UserError(f"{where}: the column 'class' must contain class numbers")
        seeds = [int(cell) for cell in columns.pop(SEED)]
        try:
            return cls.from_seeds(seeds, columns, None if classes is None else [int(cell) for cell in classes])
        except UserError as error:
            raise UserError(f"{where}: {error}") from error

    @classmethod
    def from_groups(
        cls, first: str | os.PathLike[str], second: str | os.PathLike[str], generator: nn.Module, *, name: str = ""
    ) -> Labels:
        """Two groups of pictures: the ``first`` does not have the attribute ``name``, the ``second`` has it.

        Each is a folder of PNG files that ``orthogan sample --out FOLDER`` or the live page wrote (their metadata holds
        the seed, class and latent), or seeds such as "3,8,20-24". ``name``: by default that of the second folder.

        Raises ``UserError`` naming a file that another program or model wrote, or a picture in both groups.
        """
        groups = [read_group(group, generator) for group in (first, second)]
        if both := set(groups[0]) & set(groups[1]):
            raise UserError(f"{printable(first)} and {printable(second)}: seed {min(s.seed for s in both)} is in both")
        spots = [*groups[0], *groups[1]]
        values = np.array([0.0] * len(groups[0]) + [1.0] * len(groups[1]))[:, None]
        return cls(spots, values, (name.strip() or (Path(second).name if os.path.isdir(second) else "B"),))

    def latents(self, net: Generator) -> Tensor:
        """The latents (n, latent_dim) float32 in the space of ``net``, which may be a view (``in_space``).

        Raises ``UserError`` for a picture whose latent is not known in this space.
        """
        space = getattr(net, "axis", "z")
        found = []
        for spot in self.spots:
            if spot.latent is not None:
                if spot.space != space or len(spot.latent) != net.latent_dim:
                    raise UserError(
                        f"seed {spot.seed}: its picture has a latent of {counted(len(spot.latent), 'dimension')} in "
                        f"'{spot.space}', but directions are searched in '{space}', which has {net.latent_dim}; "
                        f"use --space {spot.space}"
                    )
                found.append(torch.tensor(spot.latent)[None])
            elif spot.truncation != 1 and space != "z":
                raise UserError(
                    f"seed {spot.seed}: made with truncation {spot.truncation:g}, so its latent in '{space}' is not "
                    "known; write the pictures without --truncation, or use --space z"
                )
            else:
                found.append(sample_latents(net, [spot.seed], spot.truncation))
        return torch.cat(found)

    def classes(self, net: Generator) -> list[int] | None:
        """The class of each picture; None for a generator without classes."""
        if not net.num_classes:
            return None
        return [
            int(sample_label(net, spot.seed, None if spot.label is None else [spot.label]) or 0) for spot in self.spots
        ]

    def select(self, wanted: Sequence[str]) -> Labels:
        """Only the columns called ``wanted``, by their names or their groups, in this order. Raises ``UserError``."""
        kept = choose_columns(self.names, self.groups, wanted)
        return Labels(
            self.spots, self.values[:, kept], [self.names[at] for at in kept], [self.groups[at] for at in kept]
        )


def choose_columns(names: Sequence[str], groups: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Indices of the columns whose name or group is ``wanted``; all if it is empty. Raises ``UserError``."""
    kept: list[int] = []
    for word in wanted:
        found = [at for at, pair in enumerate(zip(names, groups, strict=True)) if word in pair]
        if not found:
            known = ", ".join(dict.fromkeys(groups))
            raise UserError(f"attributes: there is no '{printable(word)}'; available: {known}")
        kept += found
    return list(dict.fromkeys(kept)) if wanted else list(range(len(names)))


def read_group(group: str | os.PathLike[str], generator: nn.Module) -> list[Spot]:
    """The pictures of a folder, or of seeds such as "3,8,20-24". Raises ``UserError``."""
    if not os.path.isdir(group):
        text = os.fspath(group)
        if not all(map(is_whole_number, text.replace("-", ",").split(","))):
            raise UserError(f"{printable(text)}: neither a folder of pictures nor seeds such as 3,8,20-24")
        return [Spot(seed) for seed in parse_seeds(text)]
    files = sorted(path for path in Path(group).iterdir() if path.suffix.lower() == ".png")
    if not files:
        raise UserError(f"{printable(group)}: contains no .png file; write some with 'orthogan sample --out FOLDER'")
    actual = model_hash(generator)
    spots = [_read_spot(path, actual) for path in files]
    return list(dict.fromkeys(spots))


def _read_spot(path: Path, actual: str) -> Spot:
    where = printable(path)
    try:
        with Image.open(io.BytesIO(read_regular(path, LARGEST_PICTURE))) as image:
            about = {key: str(value) for key, value in image.info.items()}
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(f"{where}: not a PNG picture") from error
    except Exception as error:  # Pillow raises almost any type on damaged files
        raise UserError(f"{where}: cannot be read as a PNG picture ({describe_error(error)})") from error
    seed = about.get("seed", about.get("seeds", ""))
    if not is_whole_number(seed) or "steps" in about:  # a traversal names the seed of its middle column
        raise UserError(
            f"{where}: its metadata does not name one seed; use pictures that 'orthogan sample --out FOLDER' or the "
            "page of 'orthogan explore' wrote, one picture per file, and not edited or converted by another program"
        )
    if about.get("model_hash", actual) != actual:
        raise UserError(f"{where}: made by another model (hash {about['model_hash'][:12]}, this one has {actual[:12]})")
    changed = about.get("offsets", "[]") != "[]" or about.get("blend") or about.get("truncation", "1") != "1"
    if changed and about.get("layers"):
        raise UserError(
            f"{where}: only some layers of this picture were changed, so it has no single latent in "
            f"'{about.get('space', 'z')}'; mark pictures that directions of all layers changed, or pictures of seeds"
        )
    label = about.get("class", about.get("classes", "none"))
    try:
        latent = json.loads(about["latent"]) if "latent" in about and not about.get("layers") else None
        spot = Spot(
            int(seed),
            int(label) if label != "none" else None,
            float(about.get("truncation", 1)),
            None if latent is None else tuple(float(value) for value in latent),
            about.get("space", "z"),
        )
        if not all(abs(value) <= _LARGEST for value in spot.latent or ()):
            raise ValueError("its latent contains NaN or too large values")
        if not 0 <= spot.truncation <= 1:
            raise ValueError("its truncation is not from 0 to 1")
        if spot.label is not None and spot.label < 0:
            raise ValueError("its class is less than 0")
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"{where}: its metadata is damaged ({describe_error(error)})") from error
    return spot


def _attributes(name: str, column: Sequence[object]) -> list[tuple[str, np.ndarray]]:
    """The attributes of a column, each with its values (n,) float64."""
    cells = ["" if cell is None else str(cell).strip() for cell in column]
    words = sorted({cell for cell in cells if cell})
    try:
        numbers = np.array([float(cell) if cell else np.nan for cell in cells])
        if not np.isfinite(numbers[[bool(cell) for cell in cells]]).all():
            raise UserError(f"{name}: contains NaN or infinite values")
    except ValueError:
        numbers = None
    if len(words) < 2:
        raise UserError(f"{name}: has {'only one value' if words else 'no values'}; at least 2 are needed")
    if numbers is not None:
        low, high = np.nanmin(numbers), np.nanmax(numbers)
        if high / 2 - low / 2 > np.finfo(float).max / 2:
            raise UserError(f"{name}: its values from {low:g} to {high:g} are too far apart")
        return [(name, numbers if {low, high} == {0, 1} else (numbers - low) / (high - low))]
    if len(words) > MOST_WORDS:
        raise UserError(f"{name}: has {len(words)} different words; at most {MOST_WORDS} are possible")

    def against(word: str) -> np.ndarray:
        return np.array([np.nan if not cell else float(cell == word) for cell in cells])

    if {word.lower() for word in words} in ({"no", "yes"}, {"false", "true"}):  # also "Yes" beside "no"
        return [(name, np.array([np.nan if not cell else float(cell.lower() in ("yes", "true")) for cell in cells]))]
    return [(f"{name}: {word}", against(word)) for word in (words[1:] if len(words) == 2 else words)]
