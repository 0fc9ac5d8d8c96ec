"""The state of the live page: what one picture is made from, and the sliders that change it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from orthogan.arguments import is_whole_number
from orthogan.errors import UserError
from orthogan.latent.directions import Directions, random_control
from orthogan.latent.words import plain_name

CONTROL = "Random direction"
LARGEST_OFFSET = 100.0  # in the unit of the directions
LARGEST_SEED = 2**53 - 1  # of the whole numbers that a browser keeps exactly
CONTROL_SEED = 0
MOTIONS = ("direction", "edit", "blend")


@dataclass(frozen=True)
class View:
    """All that one picture depends on, besides the model and the sliders.

    Args:
        seed: of the latent.
        label: the class; None if the generator has none.
        truncation: from 0 to 1; 1 leaves the latent as it is.
        offsets: (row, offset) of every slider that is moved, by row.
        other: seed of a second latent to blend with.
        mix: how much of the second one, from 0 to 1.
        picture: key of an opened picture that takes the place of the seed; "" for none.
    """

    seed: int = 7
    label: int | None = None
    truncation: float = 1.0
    offsets: tuple[tuple[int, float], ...] = ()
    other: int | None = None
    mix: float = 0.0
    picture: str = ""

    @property
    def unedited(self) -> View:
        """The same with every slider at 0."""
        return replace(self, offsets=())

    def moved(self, row: int, offset: float) -> View:
        """The same with the slider ``row`` at ``offset``."""
        rest = [one for one in self.offsets if one[0] != row]
        return replace(self, offsets=tuple(sorted([*rest, (row, offset)] if offset else rest)))


@dataclass(frozen=True)
class Sliders:
    """A set of directions on the page: the found ones, and a random one for comparison in the last row.

    ``words``: a sentence for each row.
    """

    found: Directions
    control: Directions
    words: Sequence[str] = field(default=())

    @cached_property
    def rows(self) -> np.ndarray:
        """(k, latent_dim) float64; the last is the random one, as long as the found ones are on average."""
        return np.concatenate([self.found.matrix, self.control.matrix]).astype(np.float64)

    @cached_property
    def key(self) -> str:
        """Names this set in a link: 12 hex digits of a hash of its directions."""
        about = f"{self.found.space}\x1f{self.found.layers}\x1f{self.found.matrix.shape}".encode()
        return hashlib.sha256(about + self.found.matrix.tobytes()).hexdigest()[:12]

    def name(self, row: int) -> str:
        """What the page calls a row."""
        return plain_name(self.found.names[row]) if row < len(self.found) else CONTROL

    def check(self, view: View) -> None:
        """Raise ``UserError`` for a slider that does not exist."""
        wrong = [row for row, _ in view.offsets if not 0 <= row < len(self.rows)]
        if wrong:
            raise UserError(f"slider {wrong[0]} does not exist: there are {len(self.rows)}; reload the page")

    def renamed(self, names: Mapping[int, str], notes: Mapping[int, str]) -> Directions:
        """The found directions with other names and notes where some are given."""
        found = self.found
        for row in sorted({*names, *notes}):
            if not 0 <= row < len(found):
                raise UserError(f"direction {row}: there are {len(found)}; reload the page")
            found = found.renamed(row, names.get(row, found.names[row]), notes.get(row))
        return found

    def combined(self, offsets: Sequence[tuple[int, float]], name: str, note: str) -> Directions:
        """One direction that is a whole edit: an offset of 1 along it is all of ``offsets``.

        Raises:
            UserError: there are no offsets, they cancel, or the name is empty.
        """
        self.check(View(offsets=tuple(offsets)))
        if not name.strip():
            raise UserError("give the new direction a name")
        if not offsets:
            raise UserError(f"{name.strip()}: nothing is changed, so there is nothing to keep; move a slider first")
        matrix = sum(offset * self.rows[row] for row, offset in offsets)
        kept = np.asarray(matrix, dtype=np.float32)[None]
        return replace(self.found, matrix=kept, names=[name.strip()], notes=[note.strip()], scores={})


def control_of(found: Directions) -> Directions:
    """One random direction, as long as ``found`` are on average: what each of them has to beat."""
    length = float(np.linalg.norm(found.matrix.astype(np.float64), axis=1).mean())
    return Directions(
        length * random_control(found.latent_dim, 1, CONTROL_SEED).matrix,
        method="random",
        space=found.space,
        layers=found.layers,
        unit=found.unit,
        names=[CONTROL],
        seed=CONTROL_SEED,
    )


def motion(view: View, kind: str, count: int, *, row: int = 0, reach: float = 1.0) -> list[View]:
    """One period of a loop in ``count`` views, without a seam.

    "direction": slider ``row`` from 0 to ``reach``, to ``-reach`` and back, and all else as it is. "edit": all sliders
    from 0 to where they are and back. "blend": from the first picture to the second and back.

    Raises:
        UserError: an unknown kind, or nothing that could move.
    """
    turns = [2 * math.pi * index / count for index in range(count)]
    there_and_back = [round((1 - math.cos(turn)) / 2, 4) for turn in turns]
    if kind == "direction":
        return [view.moved(row, round(reach * math.sin(turn), 4) + 0.0) for turn in turns]
    if kind == "edit":
        if not view.offsets:
            raise UserError("nothing is changed yet: move a slider first")
        return [
            replace(view, offsets=tuple((row, part * offset) for row, offset in view.offsets if part))
            for part in there_and_back
        ]
    if kind == "blend":
        if view.other is None:
            raise UserError("choose a second picture to blend with first")
        return [replace(view, mix=part) for part in there_and_back]
    raise UserError(f"motion {kind!r}: choose one of {', '.join(MOTIONS)}")


def view_of(body: Mapping[str, Any]) -> View:
    """The view that the page asks for, checked, because it comes from a browser or a link.

    Raises:
        UserError: naming what is wrong.
    """
    label = body.get("label")
    if label is not None:
        label = whole("the class", label, 0, 2**31)
    offsets = body.get("offsets", {})
    if not isinstance(offsets, Mapping) or len(offsets) > 10_000:
        raise UserError("the offsets of the sliders are not readable; reload the page")
    moved = []
    for key, offset in offsets.items():
        row = whole("a slider", int(key) if isinstance(key, str) and is_whole_number(key) else key, 0, 2**31)
        if value := number("an offset", offset, -LARGEST_OFFSET, LARGEST_OFFSET):
            moved.append((row, value))
    mix = number("the blend", body.get("mix", 0), 0, 1)
    picture = body.get("picture")
    if picture is not None and not isinstance(picture, str):
        raise UserError("the opened picture is not readable; reload the page")
    other = body.get("other")
    return View(
        seed=whole("the seed", body.get("seed"), 0, LARGEST_SEED),
        label=label,
        truncation=number("the variety", body.get("truncation", 1), 0, 1),
        offsets=tuple(sorted(moved)),
        other=None if other is None else whole("the seed of the second picture", other, 0, LARGEST_SEED),
        mix=mix if other is not None else 0.0,
        picture=picture or "",
    )


def whole(what: str, value: object, least: int, most: int) -> int:
    """``value`` as a whole number. Raises ``UserError``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or abs(value) > 2**62:
        raise UserError(f"{what} must be a whole number from {least} to {most}")
    if value != int(value) or not least <= value <= most:
        raise UserError(f"{what} is {value:g}: it must be a whole number from {least} to {most}")
    return int(value)


def number(what: str, value: object, least: float, most: float) -> float:
    """``value`` as a number. Raises ``UserError``, for NaN too."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise UserError(f"{what} must be a number from {least:g} to {most:g}")
    return float(value)
