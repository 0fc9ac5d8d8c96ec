"""The state of the live page: what one picture is made from, and the directions being worked on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from orthogan.drawing.text import signed
from orthogan.errors import UserError
from orthogan.latent.directions import Directions, random_control

CONTROL = "random control"
LARGEST_OFFSET = 100  # in the unit of the directions, a latent standard deviation
CONTROL_SEED = 0


@dataclass(frozen=True)
class View:
    """All that one picture depends on, beside the directions.

    ``label``: the class, None if the generator has none. ``offsets``: one a row of ``Bench.rows``; () for none.
    """

    seed: int = 7
    label: int | None = None
    truncation: float = 1.0
    offsets: tuple[float, ...] = ()

    @property
    def unedited(self) -> View:
        """The same base with every offset 0."""
        return replace(self, offsets=())


@dataclass(frozen=True)
class ExplorerState:
    """The directions being worked on: those of a file, those saved on the page (one each), a random one as control."""

    found: Directions
    saved: tuple[Directions, ...] = ()
    control: Directions | None = None  # default: ``control_of(found)``, without scores

    @cached_property
    def every(self) -> tuple[Directions, ...]:
        """What has a slider, in the order of ``rows``: found, saved, control."""
        return (self.found, *self.saved, self.control or control_of(self.found))

    @cached_property
    def rows(self) -> np.ndarray:
        """(k, latent_dim) float64, the control (as long as the found ones on average) last."""
        return np.concatenate([part.matrix for part in self.every]).astype(np.float64)

    @property
    def names(self) -> list[str]:
        """One a row."""
        return [name for part in self.every for name in part.names]

    def row(self, index: int) -> Directions:
        """Row ``index`` alone. Raises ``UserError`` where there is none."""
        left = index
        for part in self.every:
            if 0 <= left < len(part):
                return part.select([left])
            left -= len(part)
        raise UserError(f"direction {index}: there are {len(self.rows)}; reload the page")

    def renamed(self, names: Sequence[str], notes: Sequence[str]) -> ExplorerState:
        """The same rows under other names and notes, one text a row (the control keeps its own).

        Raises ``UserError`` for another number of texts, or an empty name.
        """
        if not len(names) == len(notes) == len(self.rows):
            raise UserError(f"{len(names)} names for {len(self.rows)} directions; reload the page")
        if not all(str(name).strip() for name in names):
            raise UserError("a direction has no name: give it one")
        parts, first = [], 0
        for part in (self.found, *self.saved):
            last = first + len(part)
            parts.append(replace(part, names=[str(n).strip() for n in names[first:last]], notes=notes[first:last]))
            first = last
        return replace(self, found=parts[0], saved=tuple(parts[1:]))

    def directions(self) -> Directions:
        """Found and saved in one, for a file; the control is left out.

        Scores are those that all rows have; what only some have is told in their notes.
        """
        parts = [self.found, *self.saved]
        common = [key for key in self.found.scores if all(key in part.scores for part in parts)]
        notes: list[str] = []
        for part in parts:
            for index, note in enumerate(part.notes):
                told = [f"{key} {values[index]:.4g}" for key, values in part.scores.items() if key not in common]
                notes.append("; ".join([note, *told] if note else told))
        return replace(
            self.found,
            matrix=np.concatenate([part.matrix for part in parts]),
            names=[name for part in parts for name in part.names],
            notes=notes,
            scores={key: [value for part in parts for value in part.scores[key]] for key in common},
        )


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


def edits(bench: ExplorerState, view: View) -> list[tuple[str, float]]:
    """(name, offset) of every row that is moved, in order."""
    return [(name, offset) for name, offset in zip(bench.names, view.offsets, strict=False) if offset]


def described(bench: ExplorerState, view: View) -> list[str]:
    """``["smile +1.5", "direction 3 -2"]``."""
    moved = [(f"direction {name}" if name.isdecimal() else name, offset) for name, offset in edits(bench, view)]
    return [f"{name} {signed(offset)}" for name, offset in moved]


def view_of(state: Mapping[str, object], seed: float | None, label: int | None, truncation: float | None) -> View:
    """What the controls of the page say, checked: they come from a browser.

    ``state``: of the list of directions, with "offsets", one number a row. Raises ``UserError``.
    """
    offsets = state.get("offsets")
    if not isinstance(offsets, Sequence) or not all(isinstance(one, (int, float)) for one in offsets):
        raise UserError("the offsets are no list of numbers; reload the page")
    if not all(abs(one) <= LARGEST_OFFSET for one in offsets):  # not NaN either
        raise UserError(f"an offset is a number from -{LARGEST_OFFSET} to {LARGEST_OFFSET}")
    if seed is None or not 0 <= seed < 2**63 or seed != int(seed):
        raise UserError("the seed is a whole number, 0 or more")
    if truncation is None or not 0 <= truncation <= 1:
        raise UserError("the truncation is a number from 0 (always the mode) to 1 (the whole prior)")
    return View(int(seed), label, float(truncation), tuple(float(one) for one in offsets))


def reach_of(state: Mapping[str, object]) -> float:
    """How far the sliders reach, checked as in ``view_of``."""
    reach = state.get("reach")
    if not isinstance(reach, (int, float)) or not 0 < reach <= LARGEST_OFFSET:
        raise UserError(f"the sliders reach to a number above 0 and at most {LARGEST_OFFSET}; reload the page")
    return float(reach)
