"""Your own pictures: a folder or a zip of image files of any size and mode.

A small set is decoded when it is opened and lies in memory from then on; a large one is decoded as it is read.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from orthogan.data.files import Entry, FileStore, is_image_name, open_store
from orthogan.data.source import BadFile, ImageSource
from orthogan.data.sources.arrays import ArraySource
from orthogan.data.sources.file_source import BadFiles, FileSource
from orthogan.data.sources.folder_labels import Labelling, find_labels
from orthogan.errors import UserError
from orthogan.io.read import printable, user_path
from orthogan.io.threads import in_threads

log = logging.getLogger("orthogan.data")

IN_MEMORY_LIMIT = 1 << 30  # a set of at most so many bytes after resizing is decoded at once
SMALL_FILE = 20_000  # threads pay for files that are larger on average [bytes]


class Form(NamedTuple):
    """What every picture becomes, and what happens to those that cannot."""

    resolution: int
    channels: int
    bad_images: Literal["skip", "error"] = "skip"
    bad_limit: float = 0.01


def open_folder(path: str | Path, form: Form, *, in_memory_limit: int = IN_MEMORY_LIMIT) -> ImageSource:
    """The images in a folder or a zip file, in the order of their names.

    Classes: ``dataset.json`` (StyleGAN's layout) where there is one; else the first level of sub-folders, when every
    image lies in one and there are at least two, other than train, test and the like; else none, and
    ``why_unlabeled`` says why. Folders that hold everything between them and the top are passed over. Hidden files
    and files without an image ending are ignored.

    A file that cannot be decoded: with ``bad_images="skip"`` it is named once in the log and left out (in memory)
    or replaced by the next good one (larger sets); more than the share ``bad_limit`` of all is an error, and so is
    the first with ``bad_images="error"``. Raises UserError, also when there are fewer than two images.
    """
    path = user_path(path)
    store = open_store(path)
    listing = store.entries()
    images = [entry for entry in listing if is_image_name(entry.name)]
    if len(images) < 2:
        raise UserError(_too_few(path, images, listing))
    labelling = find_labels(store, listing, [entry.name for entry in images])
    name = printable(path.stem) or "folder"
    return open_files(name, store, images, labelling, form, in_memory_limit=in_memory_limit)


def _too_few(path: Path, images: Sequence[Entry], listing: Sequence[Entry]) -> str:
    where = printable(path)
    if images:
        return f"{where}: holds a single image, {printable(images[0].name)}; a set needs at least two"
    if not listing:
        return f"{where}: is empty; put image files or one sub-folder per class into it"
    example = printable(listing[0].name)
    return f"{where}: none of its {len(listing)} files has an image ending such as .png (one is {example})"


def open_files(
    name: str,
    store: FileStore,
    entries: Sequence[Entry],
    labelling: Labelling,
    form: Form,
    *,
    in_memory_limit: int = IN_MEMORY_LIMIT,
) -> ImageSource:
    """A source of the given files of a store: decoded now when that takes at most ``in_memory_limit`` bytes."""
    streamed = FileSource(
        name,
        store,
        entries,
        labelling,
        resolution=form.resolution,
        channels=form.channels,
        bad=BadFiles(printable(store.path), len(entries), form.bad_images, form.bad_limit),
    )
    return streamed if streamed.nbytes > in_memory_limit else _decode_all(streamed)


def _decode_all(source: FileSource) -> ArraySource:
    """Every readable file of ``source`` in memory."""

    images = np.empty((len(source), source.channels, source.resolution, source.resolution), np.uint8)
    kept: list[int] = []
    animated = 0
    bar = tqdm(source.entries, desc=f"reading {source.name}", unit=" images", disable=None, leave=False)
    mean_size = sum(entry.size for entry in source.entries) / len(source)
    each = in_threads if mean_size > SMALL_FILE else map
    for number, result in enumerate(each(source.attempt, bar)):
        if isinstance(result, BadFile):
            source.bad.add([result])
            continue
        images[len(kept)] = result.array
        kept.append(number)
        animated += result.animated
    where = source.bad.where
    if len(kept) < 2:
        raise UserError(f"{where}: holds {len(kept)} readable images; a set needs at least two")
    if animated:
        log.warning("%s: %d files have several frames; the first of each is used", where, animated)
    images, labels = images[: len(kept)], source.labels[kept]
    if all(images[i : i + 256].max() <= 1 for i in range(0, len(images), 256)):
        log.warning(
            "%s: every pixel is 0 or 1 of 255, so all pictures are black; are they masks of two classes?", where
        )
    lost = np.setdiff1d(np.arange(source.num_classes), labels)
    if len(lost):
        log.warning("%s: no readable image is left of the class %s", where, source.class_names[lost[0]])
    made = ArraySource(
        source.name, images, labels=labels, class_names=source.class_names, transform="centre crop, lanczos"
    )
    made.why_unlabeled = source.why_unlabeled
    return made
