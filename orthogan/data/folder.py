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

from orthogan.data.arrays import ArraySource
from orthogan.data.decode import Decoded, UnreadableImage, decode
from orthogan.data.file_source import BadFiles, FileSource
from orthogan.data.files import Entry, FileStore, is_image_name, open_store
from orthogan.data.folder_labels import DATASET_JSON, Labelling, labels_from_folders, labels_from_json
from orthogan.data.resize import in_threads
from orthogan.data.source import BadFile, ImageSource
from orthogan.errors import UserError

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
    image lies in one and there are at least two; else none. Folders that hold everything between them and the top
    are passed over. Hidden files and files without an image ending are ignored.

    A file that cannot be decoded: with ``bad_images="skip"`` it is named once in the log and left out (in memory)
    or replaced by the next good one (larger sets); more than the share ``bad_limit`` of all is an error, and so is
    the first with ``bad_images="error"``. Raises UserError, also when there are fewer than two images.
    """
    path = Path(path).expanduser()
    store = open_store(path)
    listing = store.entries()
    images = [entry for entry in listing if is_image_name(entry.name)]
    if len(images) < 2:
        raise UserError(_too_few(path, images, listing))
    names = [entry.name for entry in images]
    labelling = None
    if any(entry.name == DATASET_JSON for entry in listing):
        labelling = labels_from_json(store, names)
    if labelling is None:
        labelling = labels_from_folders(names, where=str(path))
    return open_files(path.stem or "folder", store, images, labelling, form, in_memory_limit=in_memory_limit)


def _too_few(path: Path, images: Sequence[Entry], listing: Sequence[Entry]) -> str:
    if images:
        return f"{path}: holds a single image, {images[0].name}; a set needs at least two"
    if not listing:
        return f"{path}: is empty; put image files or one sub-folder a class into it"
    return f"{path}: none of its {len(listing)} files has an image ending such as .png (one is {listing[0].name})"


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
        bad=BadFiles(str(store.path), len(entries), form.bad_images, form.bad_limit),
    )
    return streamed if streamed.nbytes > in_memory_limit else _decode_all(streamed)


def _decode_all(source: FileSource) -> ArraySource:
    """Every readable file of ``source`` in memory."""

    def attempt(entry: Entry) -> Decoded | BadFile:
        try:
            data = source.store.read(entry.name)
            return decode(data, resolution=source.resolution, channels=source.channels)
        except Exception as error:
            reason = str(error) if isinstance(error, UnreadableImage) else f"{type(error).__name__}: {error}"
            return BadFile(entry.name, reason)

    images = np.empty((len(source), source.channels, source.resolution, source.resolution), np.uint8)
    kept: list[int] = []
    animated = 0
    bar = tqdm(source.entries, desc=f"reading {source.name}", unit=" images", disable=None, leave=False)
    mean_size = sum(entry.size for entry in source.entries) / len(source)
    each = in_threads if mean_size > SMALL_FILE else map
    for number, result in enumerate(each(attempt, bar)):
        if isinstance(result, BadFile):
            source.bad.add([result])
            continue
        images[len(kept)] = result.array
        kept.append(number)
        animated += result.animated
    if len(kept) < 2:
        raise UserError(f"{source.store.path}: holds {len(kept)} readable images; a set needs at least two")
    if animated:
        log.warning("%s: %d files have several frames; the first of each is used", source.store.path, animated)
    return ArraySource(
        source.name,
        images[: len(kept)],
        labels=source.labels[kept],
        class_names=source.class_names,
        transform="centre crop, lanczos",
    )
