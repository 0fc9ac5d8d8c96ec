"""One model on the live page: its pictures as functions of a view, its loops, and its files of directions."""

from __future__ import annotations

import copy
import json
import os
import tempfile
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from orthogan import __version__
from orthogan.drawing.grid import enlarge, save_png
from orthogan.errors import UserError
from orthogan.latent.directions import CHANGE, Directions
from orthogan.latent.discovery.boundary import boundaries
from orthogan.latent.explorer.opening import Picture
from orthogan.latent.explorer.state import Sliders, View, control_of
from orthogan.latent.interpolation import between
from orthogan.latent.latents import Latents
from orthogan.latent.render.loop import encode_loop
from orthogan.latent.render.picture import colours
from orthogan.latent.traverse import contact_sheet
from orthogan.latent.words import describe_effect
from orthogan.models.generate import generate, image_size, model_hash, sample_label, sample_latents, truncate_in_space
from orthogan.models.generate import in_space as seen_from
from orthogan.models.protocol import Generator, as_generator
from orthogan.models.samples import format_ranges
from orthogan.progress import progress_bar
from orthogan.size import sides

HEAT_TOP = 128.0  # gray levels of the last color of the map of differences
MEASURED_SEEDS = 16
MEASURED_IMAGES = 256  # directions times seeds that are drawn to see what each direction does
CHUNK = 16  # directions measured together
LOOP_FPS = 25
KEPT_PICTURES = 16  # opened on the page
MOST_CLASSES = 1000  # listed on the page


class Explorer:
    """One generator, which several threads may draw from; its unedited pictures are kept.

    Args:
        generator: see ``orthogan.Generator``.
        class_names: in label order; missing ones become "class 3".
        latents: pictures to start from, such as projected ones.

    Raises:
        UserError: this is not a generator, or the latents do not fit it.
    """

    def __init__(
        self, generator: nn.Module, *, class_names: Sequence[str] = (), latents: Latents | None = None
    ) -> None:
        self.generator = as_generator(generator)
        self.hash = model_hash(generator)
        self.height, self.side = sides(image_size(self.generator)[1])
        count = min(self.generator.num_classes, MOST_CLASSES)
        self.class_names = [*class_names[:count], *(f"class {label}" for label in range(len(class_names), count))]
        self._one_at_a_time = threading.Lock()  # a net's mode is switched while it draws
        self._view_from = lru_cache(maxsize=64)(self._seen)
        self._base = lru_cache(maxsize=256)(self._find_base)
        self._unedited = lru_cache(maxsize=64)(self._draw)
        self.given: dict[str, Picture] = {}
        self._pictures: OrderedDict[str, Picture] = OrderedDict()
        if latents is not None:
            latents.check(generator)
            for index, image in enumerate(latents.images(generator)):
                one = Picture(latents.select([index]), image)
                self.given[one.key] = one

    def add(self, picture: Picture) -> None:
        """Keep an opened picture, and forget the oldest one if there are too many."""
        self._pictures[picture.key] = picture
        self._pictures.move_to_end(picture.key)
        if len(self._pictures) > KEPT_PICTURES:
            self._pictures.popitem(last=False)

    def picture(self, key: str) -> Picture:
        """Return an opened picture. Raises ``UserError`` if it is not here."""
        found = self.given.get(key) or self._pictures.get(key)
        if found is None:
            raise UserError("this picture is not open here anymore: open its file again")
        return found

    def twin(self) -> Generator:
        """Return a copy of the generator, with which another thread can work while this one draws."""
        with self._one_at_a_time:
            return copy.deepcopy(self.generator)

    def sliders(self, directions: Directions, where: str = "these directions") -> tuple[Sliders, list[str]]:
        """``directions`` and a random one ready for the page, each with a sentence; and warnings about them.

        ``where`` names them in messages.

        Raises ``UserError`` for directions that do not fit the generator.
        """
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            directions.check(self.generator, where=where)
        control, last = self.measured(control_of(directions))
        found, words = self.measured(directions)
        return Sliders(found, control, (*words, *last)), [str(one.message) for one in caught]

    def measured(self, directions: Directions) -> tuple[Directions, list[str]]:
        """``directions`` with the score "change" where they lack it, and a sentence about what each of them does.

        The score is the mean absolute change of a pixel [gray levels of 255] at an offset of ±1. Both are averages
        over 16 seeds, or over fewer if there are many directions.
        """
        seeds = range(max(1, min(MEASURED_SEEDS, MEASURED_IMAGES // len(directions))))
        chunks = [list(range(at, min(at + CHUNK, len(directions)))) for at in range(0, len(directions), CHUNK)]
        change, words = np.zeros(len(directions)), []
        for dims in progress_bar(chunks, desc="measuring directions", leave=False, delay=1):
            with self._one_at_a_time, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # ``sliders`` reports them once
                sheet = contact_sheet(self.generator, directions, seeds=seeds, dims=dims, range=1, steps=3)
            for walk in sheet.traversals:
                change[dims] += [row[CHANGE] for row in walk.scores]
            frames = np.stack([walk.frames for walk in sheet.traversals])  # (seeds, dims, 3, c, h, w)
            words += [describe_effect(*frames[:, place].swapaxes(0, 1)) for place in range(len(dims))]
        if CHANGE not in directions.scores:
            directions = replace(directions, scores={**directions.scores, CHANGE: change / len(seeds)})
        return directions, words

    def latent(self, sliders: Sliders, view: View) -> np.ndarray:
        """(latent_dim,) float32 in the space of the directions: the blended latent of the seeds, plus the offsets.

        Raises ``UserError`` for a slider or class that does not exist.
        """
        sliders.check(view)
        count = self.generator.num_classes
        if (view.label is None) != (count == 0) or (view.label or 0) >= max(1, count):
            raise UserError(f"class {view.label}: this model has {count} classes")
        _, z, moving = self._base(sliders.found.space, sliders.found.layers, view.unedited)
        for row, offset in view.offsets:
            z = z + offset * (moving * sliders.rows[row]).reshape(-1)
        return z.astype(np.float32)

    def image(self, sliders: Sliders, view: View) -> np.ndarray:
        """uint8 (c, h, w): byte for byte what ``traverse`` with ``batch_size=1`` draws at that offset."""
        draw = self._draw if view.offsets else self._unedited
        return draw(sliders.found.space, sliders.found.layers, view, self.latent(sliders, view).tobytes())

    def images(self, sliders: Sliders, views: Sequence[View]) -> list[np.ndarray]:
        """As ``image`` for each view, drawn in batches, so equal to it up to rounding."""
        layers, space = sliders.found.layers, sliders.found.space
        if layers:  # the net itself depends on the base
            return [self.image(sliders, view) for view in views]
        found: list[np.ndarray] = [np.empty(0)] * len(views)
        for label, picture in {(view.label, view.picture) for view in views}:
            places = [place for place, view in enumerate(views) if (view.label, view.picture) == (label, picture)]
            z = torch.from_numpy(np.stack([self.latent(sliders, views[place]) for place in places]))
            net = self._base(space, (), views[places[0]].unedited)[0]
            with self._one_at_a_time:
                drawn = generate(net, z, [label] * len(places) if net.num_classes and label is not None else None)
            for place, image in zip(places, drawn, strict=True):
                found[place] = image
        return found

    def _draw(self, space: str, layers: Sequence[int], view: View, latent: bytes) -> np.ndarray:
        net = self._base(space, layers, view.unedited)[0]
        z = torch.from_numpy(np.frombuffer(latent, dtype=np.float32).copy())[None]
        with self._one_at_a_time:
            image = generate(net, z, [view.label] if net.num_classes and view.label is not None else None)[0]
        image.setflags(write=False)
        return image

    def _seen(self, space: str, layers: Sequence[int], label: int | None) -> Generator:
        return seen_from(self.generator, space, y=label, layers=layers)

    def _find_base(self, space: str, layers: Sequence[int], view: View) -> tuple[Generator, np.ndarray, np.ndarray]:
        """The generator seen from ``space``, the latent (latent_dim,) float64 there before any edit, and what moves.

        The last is (r, d): a direction (d,) moves the latent by their product, flattened. r is 1 except for an opened
        picture in w+, where it is the number of rows, and only those of ``layers`` are 1.
        """
        net, whole_net = self._view_from(space, layers, view.label), self.generator
        moving = np.ones((1, net.latent_dim))
        seeds = [view.seed] if view.other is None else [view.seed, view.other]
        first: list[torch.Tensor] = []
        if view.picture:
            latents = self.picture(view.picture).latents
            if view.label is not None:
                latents = replace(latents, labels=[view.label])
            along = Directions(moving, method="all", space=space, layers=layers)
            with self._one_at_a_time:
                net, base, rows = latents.base(self.generator, 0, along)
            first, seeds, whole_net = [base], seeds[1:], latents.dressed(self.generator, 0)
            if rows.shape[1] != moving.shape[1]:
                space, layers, moving = latents.space, (), rows.reshape(-1, moving.shape[1])
        with self._one_at_a_time:
            drawn = list(sample_latents(net, seeds)) if seeds else []
            ends = truncate_in_space(torch.stack([*first, *drawn]), view.truncation, space)
        start = ends[0] if view.other is None else between(ends[0], ends[1], view.mix, sphere=space == "z")
        if layers:
            net = seen_from(whole_net, space, y=view.label, layers=layers, base=start)
        return net, start.double().numpy(), moving

    def png(self, sliders: Sliders, view: View, side: int, smooth: bool) -> bytes:
        """The picture as a PNG, ``side`` pixels wide; its seed, edit and latent are in the text chunks."""
        about = self._about(sliders, view) | {
            "latent": json.dumps([float(value) for value in self.latent(sliders, view)]),
        }
        picture = enlarge(self.image(sliders, view), side, smooth=smooth)
        return _written("picture.png", lambda path: save_png(picture, path, about))

    def loop(
        self, sliders: Sliders, views: Sequence[View], side: int, smooth: bool, suffix: str, about: Mapping[str, str]
    ) -> bytes:
        """An endless loop of ``views`` without captions as ``.gif``, ``.webp`` or ``.mp4``, ``side`` pixels wide."""
        images, order = self.frames(sliders, views)
        metadata = self._about(sliders, views[0]) | dict(about)
        return encode_loop(images, order, suffix, side=side, smooth=smooth, fps=LOOP_FPS, about=metadata)

    def frames(self, sliders: Sliders, views: Sequence[View]) -> tuple[list[np.ndarray], list[int]]:
        """The pictures that differ among ``views``, and for each view the place of its picture."""
        different = list(dict.fromkeys(views))
        place = {view: index for index, view in enumerate(different)}
        return self.images(sliders, different), [place[view] for view in views]

    def _about(self, sliders: Sliders, view: View) -> dict[str, str]:
        found = sliders.found
        names = [*found.names, *sliders.control.names]
        return {
            "software": f"orthogan {__version__}",
            "model_hash": self.hash,
            "method": found.method,
            "space": found.space,
            "layer": found.layer,
            "layers": format_ranges(found.layers),
            "unit": found.unit,
            **({"picture": self.picture(view.picture).name} if view.picture else {"seed": str(view.seed)}),
            "class": "none" if view.label is None else str(view.label),
            "truncation": f"{view.truncation:g}",
            "offsets": json.dumps([[names[row], offset] for row, offset in view.offsets], ensure_ascii=False),
            "blend": "" if view.other is None else f"{view.mix:g} of seed {view.other}",
        }

    def file(self, sliders: Sliders, body: Mapping[str, Any]) -> bytes:
        """A Directions file of the found directions under their names on the page, and of those kept there.

        ``body``: from the page: "names" and "notes" by row, and "saved": a list of {name, note, offsets}.
        """
        texts = [{int(row): str(text) for row, text in dict(body.get(key, {})).items()} for key in ("names", "notes")]
        parts = [sliders.renamed(*texts)]
        for one in body.get("saved", []):
            offsets = [(int(row), float(offset)) for row, offset in dict(one["offsets"]).items()]
            kept = sliders.combined(sorted(offsets), str(one["name"]), str(one.get("note", "")))
            parts.append(self.measured(kept)[0])
        return _written("directions.safetensors", _joined(parts).save)

    def mark(self, sliders: Sliders, first: Sequence[View], second: Sequence[View], name: str) -> Sliders:
        """``sliders`` with one more: the direction from the pictures of ``first`` to those of ``second``, the last one.

        It is found as by ``orthogan.latent.discovery.marked``, and as long as the others are on average.

        Raises ``UserError`` for fewer than two pictures in a group, or a name that is empty or taken.
        """
        found, name = sliders.found, name.strip()
        if any(view.picture for view in (*first, *second)):
            raise UserError("mark pictures of seeds, not opened ones")
        if not name:
            raise UserError("give the new direction a name")
        if name in {sliders.name(row) for row in range(len(sliders.rows))}:
            raise UserError(f"there is a slider '{name}' already: choose another name")
        latents = np.stack([self.latent(sliders, view) for view in (*first, *second)])
        values = np.array([0.0] * len(first) + [1.0] * len(second))[:, None]
        made = boundaries(self.generator, latents, values, [name], [name], method="marked")
        length = float(np.linalg.norm(found.matrix.astype(np.float64), axis=1).mean())
        note = f"Marked: {len(first)} pictures without it, {len(second)} with it"
        added, words = self.measured(replace(found, matrix=length * made.matrix, names=[name], notes=[note], scores={}))
        joined = replace(
            found,
            matrix=np.concatenate([found.matrix, added.matrix]),
            names=[*found.names, name],
            notes=[*found.notes, note],
            scores={CHANGE: [*found.scores[CHANGE], *added.scores[CHANGE]]},  # the other scores are not known for it
        )
        return Sliders(joined, sliders.control, (*sliders.words[:-1], *words, sliders.words[-1]))

    def first_label(self, seed: int) -> int | None:
        """The class that ``sample`` and ``traverse`` would give this seed, or another one if the page lacks it."""
        label = sample_label(self.generator, seed)
        return None if label is None else label % MOST_CLASSES

    def load(self, name: str, data: bytes) -> tuple[Sliders, list[str]]:
        """The sliders of a Directions file, and warnings.

        Raises ``UserError`` naming the file as the user knows it.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "directions.safetensors"
            path.write_bytes(data)
            try:
                return self.sliders(Directions.load(path), name)
            except UserError as error:
                raise UserError(str(error).replace(os.fspath(path), name)) from error


def _joined(parts: Sequence[Directions]) -> Directions:
    """All in one. Scores are those that all rows have; what only some have is in their notes."""
    common = [key for key in parts[0].scores if all(key in part.scores for part in parts)]
    notes: list[str] = []
    for part in parts:
        for index, note in enumerate(part.notes):
            extra = [f"{key} {values[index]:.4g}" for key, values in part.scores.items() if key not in common]
            notes.append("; ".join([note, *extra] if note else extra))
    return replace(
        parts[0],
        matrix=np.concatenate([part.matrix for part in parts]),
        names=[name for part in parts for name in part.names],
        notes=notes,
        scores={key: [value for part in parts for value in part.scores[key]] for key in common},
    )


def difference(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Where the two differ, as a heat-map uint8 (3, h, w): the mean over channels, on one scale for all pictures."""
    return colours(np.abs(after.astype(np.float64) - before).mean(axis=0), HEAT_TOP)


def _written(name: str, write: Callable[[Path], object]) -> bytes:
    """The bytes of the file that ``write`` makes; nothing stays on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path)
        return path.read_bytes()
