"""What the live page draws, saves and loads: pictures as functions of seed, class, truncation and offsets."""

from __future__ import annotations

import json
import math
import os
import tempfile
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from orthogan import __version__
from orthogan.drawing.grid import default_scale, magnify, save_png
from orthogan.errors import UserError
from orthogan.latent.directions import CHANGE, Directions
from orthogan.latent.explorer.state import ExplorerState, View, control_of, described, edits
from orthogan.latent.render import render
from orthogan.latent.render.picture import colours
from orthogan.latent.samples import format_ranges
from orthogan.latent.traverse import contact_sheet, traverse
from orthogan.models.generate import generate, model_hash, sample_label, sample_latents, truncate_in_space
from orthogan.models.generate import in_space as seen_from
from orthogan.models.protocol import Generator, as_generator
from orthogan.progress import progress_bar

EXPORT_SIDE = 256  # pixels: smaller pictures are magnified to at least this in a PNG
LOOP_STEPS = 21
HEAT_TOP = 128.0  # grey levels of the last colour of the map of differences
MEASURED_SEEDS = 16
MEASURED_IMAGES = 256  # about so many images may be drawn to see how strong directions without scores are
CHUNK = 16  # directions measured together


class Explorer:
    """One generator, drawn from by several threads at a time, its unedited pictures remembered.

    ``class_names``: in label order; missing ones become "class 3". Raises ``UserError`` for what is no generator.
    """

    def __init__(self, generator: nn.Module, *, class_names: Sequence[str] = ()) -> None:
        self.generator = as_generator(generator)
        self.hash = model_hash(generator)
        count = self.generator.num_classes
        self.class_names = [*class_names[:count], *(f"class {label}" for label in range(len(class_names), count))]
        self._one_at_a_time = threading.Lock()  # a net's mode is switched while it draws
        self._base = lru_cache(maxsize=64)(self._find_base)
        self._unedited = lru_cache(maxsize=64)(self._draw)

    def bench(self, directions: Directions) -> tuple[ExplorerState, list[str]]:
        """``directions`` ready for the page, they and a random one with the score "change", and warnings about them.

        Raises ``UserError`` for directions that do not fit the generator.
        """
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            directions.check(self.generator)
        found = self.measured(directions)
        return ExplorerState(found, control=self.measured(control_of(found))), [str(one.message) for one in caught]

    def measured(self, directions: Directions) -> Directions:
        """``directions`` with the score "change" where they lack it: grey levels that an offset of ±1 moves a pixel.

        Averaged over as many of 16 seeds as a start of the page has time for.
        """
        if CHANGE in directions.scores:
            return directions
        seeds = range(max(1, min(MEASURED_SEEDS, MEASURED_IMAGES // len(directions))))
        chunks = [list(range(at, min(at + CHUNK, len(directions)))) for at in range(0, len(directions), CHUNK)]
        change = np.zeros(len(directions))
        for dims in progress_bar(chunks, desc="strength of directions", leave=False, delay=1):
            with self._one_at_a_time, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # said once, by ``bench``
                sheet = contact_sheet(self.generator, directions, seeds=seeds, dims=dims, range=1, steps=3)
            for walk in sheet.traversals:
                change[dims] += [row[CHANGE] for row in walk.scores]
        return replace(directions, scores={**directions.scores, CHANGE: change / len(seeds)})

    def latent(self, bench: ExplorerState, view: View) -> np.ndarray:
        """(latent_dim,) float32 in the space of the directions: that of the seed, truncated, plus offsets times rows.

        Raises ``UserError`` for offsets that are not one finite number a row.
        """
        if view.offsets and len(view.offsets) != len(bench.rows):
            raise UserError(f"{len(view.offsets)} offsets for {len(bench.rows)} directions; reload the page")
        if not all(map(math.isfinite, view.offsets)):
            raise UserError("an offset is no finite number")
        z = self._base(bench.found.space, bench.found.layers, view.unedited)[1]
        for offset, row in zip(view.offsets, bench.rows, strict=False):
            if offset:  # so that one offset alone gives the very sum of ``traverse``
                z = z + offset * row
        return z.astype(np.float32)

    def image(self, bench: ExplorerState, view: View) -> np.ndarray:
        """uint8 (c, h, w): what ``traverse`` with ``batch_size=1`` draws at that offset, to the byte."""
        edited = any(view.offsets)
        view = view if edited else view.unedited
        draw = self._draw if edited else self._unedited
        return draw(bench.found.space, bench.found.layers, view, self.latent(bench, view).tobytes())

    def _draw(self, space: str, layers: Sequence[int], view: View, latent: bytes) -> np.ndarray:
        net, _ = self._base(space, layers, view.unedited)
        z = torch.from_numpy(np.frombuffer(latent, dtype=np.float32).copy())[None]
        with self._one_at_a_time:
            image = generate(net, z, [view.label] if net.num_classes and view.label is not None else None)[0]
        image.setflags(write=False)
        return image

    def _find_base(self, space: str, layers: Sequence[int], view: View) -> tuple[Generator, np.ndarray]:
        """The generator seen from ``space``, and the latent (latent_dim,) float64 there, before any edit."""
        net = seen_from(self.generator, space, y=view.label, layers=layers)
        with self._one_at_a_time:
            start = truncate_in_space(sample_latents(net, [view.seed]), view.truncation, space)[0]
        if layers:
            net = seen_from(self.generator, space, y=view.label, layers=layers, base=start)
        return net, start.double().numpy()

    def saved(self, bench: ExplorerState, view: View, name: str, note: str = "") -> ExplorerState:
        """``bench`` with the present offsets as one more direction: an offset of 1 along it is this whole edit.

        Its note says what it is made of. Raises ``UserError`` without a name, for a name in use, or no edit.
        """
        name = name.strip()
        if not name:
            raise UserError("give the new direction a name")
        if name in bench.names:
            raise UserError(f"there is a direction '{name}' already: choose another name")
        if not any(view.offsets):
            raise UserError("every offset is 0: move a slider first, then save the edit")
        made_of = "made of " + ", ".join(described(bench, view))
        moved = sum(offset * row for offset, row in zip(view.offsets, bench.rows, strict=True))
        matrix = np.asarray(moved, dtype=np.float32)[None]
        one = replace(bench.found, matrix=matrix, names=[name], notes=[note.strip() or made_of], scores={})
        return replace(bench, saved=(*bench.saved, self.measured(one)))

    def png(self, bench: ExplorerState, view: View) -> bytes:
        """The picture as a PNG, magnified by a whole number, its seed, edit and latent in the text chunks."""
        image = self.image(bench, view)
        scale = default_scale(image.shape[1], image.shape[2], EXPORT_SIDE)
        about = {
            "software": f"orthogan {__version__}",
            "model_hash": self.hash,
            "method": bench.found.method,
            "space": bench.found.space,
            "layer": bench.found.layer,
            "layers": format_ranges(bench.found.layers),
            "unit": bench.found.unit,
            "seed": str(view.seed),
            "class": "none" if view.label is None else str(view.label),
            "truncation": f"{view.truncation:g}",
            "offsets": json.dumps(edits(bench, view), ensure_ascii=False),
            "latent": json.dumps([float(value) for value in self.latent(bench, view)]),
            "scale": str(scale),
        }
        return _written("picture.png", lambda path: save_png(magnify(image, scale), path, about))

    def loop(self, bench: ExplorerState, index: int, view: View, extent: float) -> bytes:
        """An endless GIF of direction ``index`` from -extent to +extent, from the unedited base of ``in_space``."""
        with self._one_at_a_time, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            walk = traverse(
                self.generator,
                bench.row(index),
                range=extent,
                steps=LOOP_STEPS,
                seed=view.seed,
                y=view.label,
                truncation=view.truncation,
            )
        return _written("loop.gif", lambda path: render(walk, path))

    def file(self, bench: ExplorerState) -> bytes:
        """Found and saved directions as the bytes of a Directions file."""
        return _written("directions.safetensors", bench.directions().save)

    def first_label(self, seed: int) -> int | None:
        """The class that ``sample`` and ``traverse`` would give this seed."""
        return sample_label(self.generator, seed)

    def load(self, path: str | os.PathLike[str], bench: ExplorerState) -> tuple[ExplorerState, list[str]]:
        """A Directions file in place of the found ones; saved ones stay where they mean the same. Warnings with it.

        Raises ``UserError`` naming the file alone, without its folder, which is the server's affair.
        """
        try:
            fresh, told = self.bench(Directions.load(path))
        except UserError as error:
            raise UserError(str(error).replace(os.fspath(path), Path(path).name)) from error
        found = fresh.found
        kind = (found.latent_dim, found.space, found.layers, found.unit)
        kept = tuple(one for one in bench.saved if (one.latent_dim, one.space, one.layers, one.unit) == kind)
        if len(kept) < len(bench.saved):
            lost = len(bench.saved) - len(kept)
            told.append(f"{lost} saved directions live in another space, layers or unit and were left out")
        return replace(fresh, saved=kept), told


def difference(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Where the two differ, as a heat-map uint8 (3, h, w): the mean over channels, on one scale for all pictures."""
    return colours(np.abs(after.astype(np.float64) - before).mean(axis=0), HEAT_TOP)


def change(before: np.ndarray, after: np.ndarray) -> float:
    """The mean absolute change of a pixel in grey levels 0 … 255."""
    return float(np.abs(after.astype(np.int16) - before).mean())


def _written(name: str, write: Callable[[Path], object]) -> bytes:
    """The bytes of the file that ``write`` makes; nothing stays on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path)
        return path.read_bytes()
