"""Traversals: one or several base images, moved along each direction, with the same offsets in all rows."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import nn

from orthogan import __version__
from orthogan.arguments import checked, integer, integers
from orthogan.drawing.notebook import png
from orthogan.errors import UserError
from orthogan.latent.directions import CHANGE, Directions, random_control
from orthogan.latent.discovery.methods import find_directions
from orthogan.latent.latents import Latents
from orthogan.models.generate import generate, in_space, model_hash, sample_label, sample_latents, truncate_in_space
from orthogan.models.protocol import Generator, as_generator
from orthogan.models.samples import format_ranges
from orthogan.progress import progress_bar

if TYPE_CHECKING:
    from orthogan.latent.discovery.discover import Discovery

Walk = Literal["line", "sphere"]
WALKS: tuple[Walk, ...] = get_args(Walk)
_PARALLEL = 1e-6  # sine of an angle that counts as zero


def path(start: np.ndarray, rows: np.ndarray, walk: Walk, centred: bool) -> Callable[[float], np.ndarray]:
    """offset -> latents (k, dim) float64, one for each direction of ``rows`` (k, dim), from ``start`` (dim,).

    "line": ``z + offset * d``.

    "sphere" (Spingarn-Eliezer, Banner & Michaeli 2021, "GAN Steerability without optimization", great circle):
    ``cos(a) z + sin(a) |z| t``, where t is the unit vector along the part of d at right angles to z, and
    ``a = offset * |d| / |z|``. The length |z| is constant, offset * |d| is the length of the arc, and the first step is
    along t: the step of the line without its change of length. A full turn takes 2 pi |z| / |d|.

    ``centred``: z without its component along d, ``z - <z, d> d / |d|^2``, so that the offset is the coordinate along
    d; on the sphere rescaled to the length of ``start``, so that the coordinate is |z| sin(a).

    Raises ``UserError`` for an unknown walk, and on the sphere if there is no circle: z is zero, or along d.
    """
    if walk not in WALKS:
        raise UserError(f"walk='{walk}': choose {' or '.join(WALKS)}")
    squares = (rows**2).sum(axis=1, keepdims=True)
    origins = np.broadcast_to(start, rows.shape)
    if centred:
        origins = start - (rows @ start)[:, None] / squares * rows
    if walk == "line":
        return lambda offset: origins + offset * rows

    radius = float(np.linalg.norm(start))
    if radius == 0:
        raise UserError(
            "walk='sphere' from the mode of the prior: its length is zero; use walk='line', or another base"
        )
    units = rows / np.sqrt(squares)
    across = units - (units @ start)[:, None] / radius**2 * start
    sines = np.linalg.norm(across, axis=1, keepdims=True)
    if (sines < _PARALLEL).any():
        raise UserError(
            f"walk='sphere': direction {int((sines < _PARALLEL).argmax())} is parallel to the base latent, so there "
            "is no circle through both; use walk='line', or another seed"
        )
    tangents = units if centred else across / sines
    if centred:
        origins = origins / sines
    angles = np.sqrt(squares) / radius

    def circle(offset: float) -> np.ndarray:
        return np.cos(offset * angles) * origins + np.sin(offset * angles) * radius * tangents

    return circle


MOST_STEPS = 1001
MOST_IMAGES = 200_000  # limit for seeds x directions x steps


@dataclass(frozen=True, repr=False)
class Traversal:
    """Images along directions; in a notebook, it shows itself as a page with sliders.

    Attributes:
        frames: uint8 (rows, steps, c, h, w); the middle column, ``steps // 2``, has offset 0.
        offsets: float64 (steps,), the multiples of a direction that are added, in ``unit``.
        names: one string per row.
        scores: for each row its scores by name. Every row has "change", the mean absolute difference of its two ends
            from its center, in gray levels 0 to 255.
        notes: one string per row.
        is_control: bool (rows,), whether the row is along a random direction; these rows are last.
        unit: unit of the offsets.
        metadata: where the images come from, as strings.

    Example:
        >>> import orthogan
        >>> walk = orthogan.traverse(orthogan.load("sprites-sngan"), dims=[0], steps=3, control=1)
        >>> walk.offsets.tolist(), walk.is_control.tolist()
        ([-3.0, 0.0, 3.0], [False, True])
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

    def __repr__(self) -> str:
        rows, steps, _, height, width = self.frames.shape
        random = f" ({self.is_control.sum()} random)" if self.is_control.any() else ""
        seed, method = self.metadata.get("seed", "?"), self.metadata.get("method", "?")
        return f"<traversal of {rows} directions{random} in {steps} steps, {width}x{height} px, {method}, seed {seed}>"

    def _repr_html_(self) -> str:
        from orthogan.latent.render.html import render_frame  # it draws traversals

        return render_frame(self)

    def _repr_png_(self) -> bytes:
        from orthogan.latent.render.picture import render_grid

        return png(render_grid(self))

    def save(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write the traversal; the suffix chooses the format. Arguments are those of ``orthogan.render``."""
        from orthogan.latent.render import render

        return render(self, path, **options)


@checked
def traverse(
    generator: nn.Module | str | Path,
    directions: Directions | Discovery | None = None,
    *,
    method: str | None = None,
    dims: Literal["all"] | Sequence[int] = "all",
    range: float = 3.0,
    steps: int = 11,
    seed: int = 7,
    y: int | None = None,
    truncation: float = 1.0,
    base: Literal["sample", "zero"] = "sample",
    centred: bool = False,
    walk: Walk = "line",
    control: int = 0,
    latents: Latents | None = None,
    batch_size: int = 64,
    device: torch.device | str | None = None,
) -> Traversal:
    """Generate frames along directions of the latent space, with offsets from -range to +range.

    The walk is in the space and layers of the directions; all other layers keep the base latent.

    Args:
        generator: a generator, or anything that ``orthogan.load`` accepts.
        directions: ``Directions``, or the result of ``orthogan.discover``; by default those of ``method``.
        method: names of direction methods, see ``orthogan.latent.discovery.find_directions`` (default: native).
        dims: indices of the directions to show, in this order.
        range: largest offset, in units of the directions.
        steps: number of images per row, odd and at least 3, so that the middle one is the base image.
        seed: random seed of the base latent.
        y: class of a conditional generator (default: ``seed`` modulo the number of classes).
        truncation: truncation of the base latent, from 0 to 1: in z as ``truncate``, in W as StyleGAN's psi. The walk
            itself is not truncated.
        base: "sample" starts from the latent of ``seed``, "zero" from the mean of the latents.
        centred: first remove the component of the base along each direction, so that an offset is the coordinate along
            the direction instead of being added to it. The middle column then differs between rows.
        walk: "line": z + offset * d. "sphere", in z only: a great circle, which keeps the length of the base. Formulas:
            ``orthogan.latent.traverse.path``.
        control: number of additional rows along random orthonormal directions, with the mean length of the others.
        latents: start from the first of these latents, such as that of a projected picture, instead of from ``seed``.
        batch_size: images per batch.
        device: the generator is moved there (default: where it is).

    Returns:
        The traversal: frames uint8 (rows, steps, c, h, w) with their names, scores and metadata.

    Raises:
        UserError: an argument does not match the generator or another argument.

    Example:
        >>> import orthogan
        >>> generator = orthogan.load("sprites-sngan")
        >>> walk = orthogan.traverse(generator, method="sefa", dims=[0, 1], steps=5)
        >>> walk.frames.shape  # rows, steps, channels, height, width
        (2, 5, 1, 32, 32)
        >>> walk
        <traversal of 2 directions in 5 steps, 32x32 px, sefa, seed 7>
        >>> walk.save("walk.html")  # one file with sliders; also .png, .gif, .webp and .mp4
        PosixPath('walk.html')
    """
    from orthogan.models.open import as_loaded  # only this function opens files

    if directions is not None and method is not None:
        raise UserError("directions and method: pass only one of them")
    generator = as_loaded(generator)
    if directions is None:
        directions = find_directions(generator, method or "native", y=y)
    sheet = contact_sheet(
        generator,
        directions,
        seeds=[seed],
        latents=None if latents is None else latents.select([0]),
        dims=dims,
        range=range,
        steps=steps,
        y=y,
        truncation=truncation,
        base=base,
        centred=centred,
        walk=walk,
        control=control,
        batch_size=batch_size,
        device=device,
    )
    return sheet.traversals[0]


@dataclass(frozen=True, repr=False)
class ContactSheet:
    """Traversals of several base images along the same directions, with the same offsets and unit.

    Attributes:
        seeds: random seeds of the base images, or names of the latents that they start from.
        traversals: one for each of ``seeds``.

    Example:
        >>> import orthogan
        >>> from orthogan.latent import contact_sheet
        >>> generator = orthogan.load("sprites-sngan")
        >>> axes = orthogan.native_directions(generator)
        >>> sheet = contact_sheet(generator, axes, seeds=[0, 1], dims=[0], steps=3)
        >>> sheet.seeds, len(sheet.traversals)
        ([0, 1], 2)
    """

    seeds: Sequence[int | str]
    traversals: Sequence[Traversal]

    @property
    def metadata(self) -> dict[str, str]:
        """Return the provenance of the traversals as strings, with all "seeds" and "classes"."""
        about = [one.metadata for one in self.traversals]
        classes = [one["class"] for one in about]
        shared = {key: value for key, value in about[0].items() if key not in ("seed", "latent", "class")}
        alike = len(set(classes)) == 1
        return {**shared, "seeds": ",".join(map(str, self.seeds)), "class": classes[0] if alike else ",".join(classes)}

    @property
    def starts(self) -> str:
        """What the traversals start from: "seed" or "latent"."""
        return "latent" if "latent" in self.traversals[0].metadata else "seed"

    def __len__(self) -> int:
        return len(self.traversals)

    def __repr__(self) -> str:
        return f"<contact sheet of {', '.join(map(str, self.seeds))}: {self.traversals[0]!r}>"

    def _repr_png_(self) -> bytes:
        from orthogan.latent.render.picture import render_sheet

        return png(render_sheet(self))


@checked
def contact_sheet(
    generator: nn.Module,
    directions: Directions | Discovery,
    *,
    seeds: Sequence[int],
    dims: Literal["all"] | Sequence[int] = "all",
    range: float = 3.0,
    steps: int = 7,
    y: int | None = None,
    truncation: float = 1.0,
    base: Literal["sample", "zero"] = "sample",
    centred: bool = False,
    walk: Walk = "line",
    control: int = 0,
    latents: Latents | None = None,
    batch_size: int = 64,
    device: torch.device | str | None = None,
) -> ContactSheet:
    """Traverse the same directions from several base images; the random control directions are the same for all.

    All arguments but these are those of ``traverse``.

    Args:
        seeds: random seeds of the base images.
        y: one class for all seeds of a conditional generator (default: each seed has its own, as in ``traverse``).
        latents: start from each of these latents instead of from the seeds; their names then replace the seeds.

    Raises:
        UserError: there is no seed, or an argument does not match the generator or another argument.
        TypeError: ``directions`` has another type.

    Example:
        >>> import orthogan
        >>> from orthogan.latent import contact_sheet
        >>> generator = orthogan.load("sprites-sngan")
        >>> directions = orthogan.first_layer_directions(generator)
        >>> sheet = contact_sheet(generator, directions, seeds=[0, 1], dims=[0], steps=3)
        >>> orthogan.render(sheet, "sheet.png").name
        'sheet.png'
    """
    if not len(seeds):
        raise UserError("no seeds: a contact sheet needs at least one, such as 0-4")
    directions = _as_directions(directions)
    net = as_generator(generator)
    directions.check(net)
    seeds = integers("seed", seeds)
    if latents is not None:
        latents.check(net)
        if y is not None or base != "sample":
            raise UserError("latents already set the class and the base: omit y and base")
    steps, control = integer("steps", steps), integer("control", control)
    offsets = column_offsets(range, steps)
    if base not in ("sample", "zero"):
        raise UserError(f"base='{base}': 'sample' (the latent of the seed) or 'zero' (the mean of the latents)")
    if walk == "sphere" and directions.space != "z":
        raise UserError(
            f"walk='sphere' in space '{directions.space}': only latents of z lie near a sphere; use walk='line'"
        )
    if control < 0:
        raise UserError(f"control={control}: must be a number of rows, 0 or more")
    indices = None if isinstance(dims, str) and dims == "all" else integers("dims", dims)
    chosen = directions if indices is None else directions.select(indices)
    rows = chosen.matrix.astype(np.float64)
    random = random_control(directions.latent_dim, control, seeds[0]) if control else None
    if random is not None:
        length = float(np.linalg.norm(rows, axis=1).mean())
        rows = np.concatenate([rows, length * random.matrix.astype(np.float64)])
    if (count := len(seeds if latents is None else latents) * len(rows) * steps) > MOST_IMAGES:
        raise UserError(f"{count:,} images exceed the limit of {MOST_IMAGES:,}; use fewer seeds, steps or directions")
    described = {
        "software": f"orthogan {__version__}",
        "model_hash": model_hash(net),
        "method": chosen.method,
        "space": chosen.space,
        "layer": chosen.layer,
        "layers": format_ranges(chosen.layers),
        "unit": chosen.unit,
        "directions_model_hash": chosen.model_hash,
        "directions_seed": str(chosen.seed),
        "dims": "all" if indices is None else ",".join(map(str, indices)),
        "range": f"{range:g}",
        "steps": str(steps),
        "truncation": f"{truncation:g}",
        "base": base,
        "centred": str(bool(centred)).lower(),
        "walk": walk,
        "control": str(control),
    }

    found = []
    starts = seeds if latents is None else np.arange(len(latents)).tolist()
    for seed in progress_bar(starts, desc="traversals", unit="seed", disable=len(starts) < 2, leave=False):
        if latents is not None:
            label = latents.label(seed)
            seen, start, along = latents.base(net, seed, replace(chosen, matrix=rows, names=(), notes=(), scores={}))
            start = truncate_in_space(start, truncation, latents.space)
        else:
            label = sample_label(net, seed, None if y is None else [y])
            seen, start = _start(net, chosen, seed, label, truncation, base)
            along = rows
        at = path(start.double().numpy(), along, walk, centred)
        frames = _frames(seen, at, offsets, label if seen.num_classes else None, centred, batch_size, device)
        change = np.abs(frames[:, [0, -1]].astype(np.int16) - frames[:, [steps // 2]]).mean(axis=(1, 2, 3, 4))
        scores = [{key: values[i] for key, values in chosen.scores.items()} for i, _ in enumerate(chosen.names)]
        scores += [{} for _ in np.arange(control)]
        found.append(
            Traversal(
                frames=frames,
                offsets=offsets,
                names=[*chosen.names, *(random.names if random else ())],
                notes=[*chosen.notes, *[""] * control],
                scores=[{**row, CHANGE: float(moved)} for row, moved in zip(scores, change, strict=True)],
                is_control=np.arange(len(rows)) >= len(chosen),
                unit=chosen.unit,
                metadata={
                    **described,
                    **({"seed": str(seed)} if latents is None else {"latent": str(latents.names[seed])}),
                    "class": "none" if label is None else str(label),
                },
            )
        )
    return ContactSheet(seeds if latents is None else list(latents.names), found)


def _as_directions(given: object) -> Directions:
    """Return ``Directions``, also those of a ``Discovery``. Raises ``TypeError``."""
    found = getattr(given, "directions", given)
    if isinstance(found, Directions):
        return found
    raise TypeError(
        f"directions: expected orthogan.Directions, not {type(given).__name__}; Directions.load reads a file, "
        "Directions(matrix, method='mine') takes a matrix with one direction per row"
    )


def _start(
    net: Generator, chosen: Directions, seed: int, label: int | None, truncation: float, base: str
) -> tuple[Generator, torch.Tensor]:
    """Return the view of the generator in the space of the directions, and the base latent (latent_dim,) there."""
    seen = in_space(net, chosen.space, y=label, layers=chosen.layers)
    start = truncate_in_space(sample_latents(seen, [seed]), truncation, chosen.space)[0]
    if base == "zero":
        start = torch.zeros_like(start)
    if chosen.layers:
        seen = in_space(net, chosen.space, y=label, layers=chosen.layers, base=start)
    return seen, start


def column_offsets(extent: float, steps: int) -> np.ndarray:
    """Return offsets (steps,) float64 from -extent to +extent, exactly 0 in the middle and exactly symmetric.

    Raises ``UserError`` for an even or too small ``steps`` (naming the nearest odd one) or an invalid ``extent``.
    """
    if steps < 3 or steps % 2 == 0:
        raise UserError(
            f"steps={steps}: must be odd and at least 3, so that the middle column is the unchanged image; "
            f"the nearest is {max(3, steps + 1)}"
        )
    if steps > MOST_STEPS:
        raise UserError(f"steps={steps}: must be at most {MOST_STEPS}")
    if not (math.isfinite(extent) and extent > 0):
        raise UserError(f"range={extent}: must be a positive finite number")
    half = steps // 2
    return np.arange(-half, half + 1) * (extent / half)


def _frames(
    seen: Generator,
    at: Callable[[float], np.ndarray],
    offsets: np.ndarray,
    label: int | None,
    centred: bool,
    batch_size: int,
    device: torch.device | str | None,
) -> np.ndarray:
    """Return uint8 (rows, steps, c, h, w): the images of ``at(offset)`` (rows, dim) for each offset."""

    def images(z: np.ndarray) -> np.ndarray:
        labels = None if label is None else np.full(len(z), label)
        return generate(seen, torch.from_numpy(z.astype(np.float32)), labels, batch_size=batch_size, device=device)

    origins = at(0.0)
    # The same base image for every row, regardless of rounding that depends on its position in a batch.
    middle = images(origins) if centred else images(origins[:1]).repeat(len(origins), axis=0)
    latents = np.stack([at(float(offset)) for offset in offsets if offset != 0], axis=1)
    moved = images(latents.reshape(-1, latents.shape[-1])).reshape(*latents.shape[:2], *middle.shape[1:])
    half = len(offsets) // 2
    return np.concatenate([moved[:, :half], middle[:, None], moved[:, half:]], axis=1)
