"""Traversals: one base image walked along each direction, all rows at one scale of offsets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import nn

from orthogan import __version__
from orthogan.errors import UserError
from orthogan.latent.directions import Directions, random_control
from orthogan.latent.generate import class_of, generate, latents_of
from orthogan.latent.identity import model_hash

CHANGE = "change"


@dataclass(frozen=True)
class Traversal:
    """What a traversal picture, animation or page is drawn from.

    ``frames``: uint8 (rows, steps, c, h, w), the centre column ``steps // 2`` at offset 0.
    ``offsets``: (steps,) float64, the multiples of a direction added, in ``unit``.
    ``names``, ``notes``: one text a row. ``scores``: for each row its scores, name -> value; each row, controls
    too, has "change": the mean absolute difference of its two ends from its centre, in grey levels 0 … 255.
    ``is_control``: (rows,) bool, rows along random directions, always last.
    ``metadata``: provenance as texts.
    """

    frames: np.ndarray
    offsets: np.ndarray
    names: Sequence[str]
    scores: Sequence[dict[str, float]]
    notes: Sequence[str]
    is_control: np.ndarray
    unit: str
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def centre(self) -> int:
        """The column of the base image."""
        return len(self.offsets) // 2

    def __len__(self) -> int:
        return len(self.frames)


def traverse(
    generator: nn.Module,
    directions: Directions,
    *,
    dims: Literal["all"] | Sequence[int] = "all",
    range: float = 3.0,
    steps: int = 11,
    seed: int = 7,
    y: int | None = None,
    truncation: float = 1.0,
    base: Literal["sample", "zero"] = "sample",
    centred: bool = False,
    control: int = 0,
    batch_size: int = 64,
    device: torch.device | str | None = None,
) -> Traversal:
    """Frames at ``z + offset * d`` for each chosen direction d, offsets from -range to +range in ``steps`` columns.

    ``dims``: which rows of ``directions``, in that order. ``steps``: odd, at least 3, so that the middle column is
    the base image itself. The base z is the latent of ``seed`` after ``truncate(z, truncation)`` (the walk itself
    is not truncated), or the mode of the prior with ``base="zero"``. ``centred`` first removes the base's own
    component along each direction, z - <z, d> d / |d|^2, so that an offset is the coordinate along d and no longer
    added to it; the centre column then differs from row to row.
    ``y``: the class of a conditional generator (default ``seed`` modulo their number). ``control``: so many rows
    along random orthonormal directions, of the same mean length as the chosen ones, below them.

    Raises ``UserError`` for arguments that do not fit the generator or each other.
    """
    directions.check(generator)
    offsets = column_offsets(range, steps)
    if base not in ("sample", "zero"):
        raise UserError(f"base='{base}': 'sample' (the latent of the seed) or 'zero' (the mode of the prior)")
    if control < 0:
        raise UserError(f"control={control}: a number of rows, 0 or more")
    chosen = directions if dims == "all" else directions.select(_indices(dims))
    rows = chosen.matrix.astype(np.float64)
    if control:
        length = float(np.linalg.norm(rows, axis=1).mean())
        random = random_control(directions.latent_dim, control, seed)
        rows = np.concatenate([rows, length * random.matrix.astype(np.float64)])
    else:
        random = None

    label = class_of(generator, seed, None if y is None else [y])
    start = latents_of(generator, [seed], truncation)[0].double().numpy()
    if base == "zero":
        start = np.zeros_like(start)
    frames = _walk(generator, start, rows, offsets, label, centred, batch_size, device)

    change = np.abs(frames[:, [0, -1]].astype(np.int16) - frames[:, [steps // 2]]).mean(axis=(1, 2, 3, 4))
    scores = [{key: values[i] for key, values in chosen.scores.items()} for i, _ in enumerate(chosen.names)]
    scores += [{} for _ in np.arange(control)]
    return Traversal(
        frames=frames,
        offsets=offsets,
        names=[*chosen.names, *(random.names if random else ())],
        notes=[*chosen.notes, *[""] * control],
        scores=[{**row, CHANGE: float(moved)} for row, moved in zip(scores, change, strict=True)],
        is_control=np.arange(len(rows)) >= len(chosen),
        unit=chosen.unit,
        metadata={
            "software": f"orthogan {__version__}",
            "model_hash": model_hash(generator),
            "method": chosen.method,
            "space": chosen.space,
            "layer": chosen.layer,
            "unit": chosen.unit,
            "directions_model_hash": chosen.model_hash,
            "directions_seed": str(chosen.seed),
            "dims": "all" if dims == "all" else ",".join(map(str, _indices(dims))),
            "range": f"{range:g}",
            "steps": str(steps),
            "seed": str(seed),
            "class": "none" if label is None else str(label),
            "truncation": f"{truncation:g}",
            "base": base,
            "centred": str(bool(centred)).lower(),
            "control": str(control),
        },
    )


def column_offsets(extent: float, steps: int) -> np.ndarray:
    """(steps,) float64 from -extent to +extent, exactly 0 in the middle and exactly symmetric.

    Raises ``UserError`` for an even or too small ``steps`` (naming the nearest odd one) or a useless ``extent``.
    """
    if steps < 3 or steps % 2 == 0:
        raise UserError(
            f"steps={steps}: must be odd and at least 3, so that the middle column is the unchanged image; "
            f"the nearest is {max(3, steps + 1)}"
        )
    if not (math.isfinite(extent) and extent > 0):
        raise UserError(f"range={extent}: a positive finite number")
    half = steps // 2
    return np.arange(-half, half + 1) * (extent / half)


def _walk(
    generator: nn.Module,
    start: np.ndarray,
    rows: np.ndarray,
    offsets: np.ndarray,
    label: int | None,
    centred: bool,
    batch_size: int,
    device: torch.device | str | None,
) -> np.ndarray:
    """uint8 (rows, steps, c, h, w)."""

    def images(z: np.ndarray) -> np.ndarray:
        labels = None if label is None else np.full(len(z), label)
        return generate(generator, torch.from_numpy(z.astype(np.float32)), labels, batch_size=batch_size, device=device)

    origins = np.broadcast_to(start, rows.shape)
    if centred:
        along = (rows @ start) / (rows**2).sum(axis=1)
        origins = start - along[:, None] * rows
        middle = images(origins)
    else:
        # One base image for every row: the same bytes, whatever rounding its place in a batch would bring.
        middle = images(start[None]).repeat(len(rows), axis=0)
    moving = offsets[offsets != 0]
    latents = origins[:, None] + moving[None, :, None] * rows[:, None]
    moved = images(latents.reshape(-1, latents.shape[-1])).reshape(len(rows), len(moving), *middle.shape[1:])
    half = len(moving) // 2
    return np.concatenate([moved[:, :half], middle[:, None], moved[:, half:]], axis=1)


def _indices(dims: Literal["all"] | Sequence[int]) -> list[int]:
    if isinstance(dims, str):
        raise UserError(f"dims='{dims}': 'all' or a list of direction numbers")
    return [int(index) for index in dims]
