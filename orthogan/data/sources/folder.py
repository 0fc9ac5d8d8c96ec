"""Your own images: a folder or zip of image files of any size and mode, with sub-folders as classes.

A small set is decoded into memory when it is opened; a large set is decoded as needed.
"""

from __future__ import annotations

import logging
import posixpath
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from orthogan.data.formats.image_files import open_files
from orthogan.data.formats.stores import Entry, FileStore, is_image_name, open_store, other_formats, split_name
from orthogan.data.label_vectors import vector_annotation
from orthogan.data.source import Annotation, DataRequest, ImageSource
from orthogan.data.sources import DATA_SOURCES, DataSource, open_request
from orthogan.errors import UserError
from orthogan.io.read import describe_error, exists, parse_json, printable, shown, user_path
from orthogan.words import counted

log = logging.getLogger("orthogan.data")

DATASET_JSON = "dataset.json"
LARGEST_JSON = 1 << 27  # enough for millions of images [bytes]
# If all sub-folders have one of these names, they are the splits of a data set, not its classes.
_PARTS = "train training val valid validation dev test testing eval evaluation holdout extra unlabeled"
PARTS = frozenset(_PARTS.split(" "))


@DATA_SOURCES.register("folder")
class Folder(DataSource):
    """A folder or .zip of images of any size and mode, in the order of their names.

    Labels come from ``dataset.json`` (StyleGAN's layout) if it exists: class numbers, or vectors; else classes come
    from the first level of sub-folders, if every image is in one and there are at least two, other than train, test and
    so on; else there are none, and ``why_unlabeled`` says why. Outer folders that contain everything are skipped.
    Hidden files and files without an image extension are ignored.

    With ``bad_images="skip"``, an unreadable file is named once in the log and omitted (in memory) or replaced by the
    next readable one (larger sets); more than the fraction ``bad_limit`` is an error. With ``bad_images="error"``, the
    first one is an error. Fewer than two images are also an error.
    """

    path = "required"
    channels = (1, 2, 3, 4)
    rectangles = True

    def open(self, data: DataRequest) -> ImageSource:
        """Open the images in the folder or zip file."""
        path = user_path(data.path or "")
        store = open_store(path)
        listing = store.entries()
        images = [entry for entry in listing if is_image_name(entry.name)]
        if len(images) < 2:
            raise UserError(_too_few(path, images, listing))
        if others := other_formats(entry.name for entry in listing):
            log.warning(
                "%s: images in formats that orthogan does not read are left out: %s; save them as PNG or JPEG to use "
                "them",
                printable(path),
                others,
            )
        note = find_labels(store, listing, [entry.name for entry in images])
        return open_files(printable(path.stem) or "folder", store, images, note, data)

    def open_held_out(self, data: DataRequest, test_split: str) -> ImageSource:
        """Open the folder test beside a folder called train."""
        path = user_path(data.path or "")
        if path.name == "train" and exists(path.with_name("test"), "folder"):
            return open_request(replace(data, path=str(path.with_name("test"))))
        return super().open_held_out(data, test_split)


def _too_few(path: Path, images: Sequence[Entry], listing: Sequence[Entry]) -> str:
    where = printable(path)
    others = other_formats(entry.name for entry in listing)
    advice = f"; it has images in formats that orthogan does not read: {others}; save them as PNG or JPEG"
    if images:
        name = printable(images[0].name)
        return f"{where}: contains a single image, {name}; a data set needs at least two{advice if others else ''}"
    if not listing:
        return f"{where}: is empty; put image files or one sub-folder per class into it"
    files = counted(len(listing), "file")
    if others:
        return f"{where}: none of its {files} can be read{advice}"
    example = printable(listing[0].name)
    return f"{where}: none of its {files} has an image extension such as .png (for example {example})"


def find_labels(store: FileStore, listing: Sequence[Entry], names: Sequence[str]) -> Annotation:
    """Find the classes of the images ``names`` in a store with the files ``listing``.

    They come from ``dataset.json`` at the top, or in the folders that contain everything; otherwise from the folders. A
    file that is damaged or does not match gives no classes, since many uses need none; ``why`` says what is wrong.
    """
    where = printable(store.path)
    parts = [split_name(name) for name in names]
    depth = _shared_depth(parts)
    tables = [split_name(entry.name) for entry in listing if split_name(entry.name)[-1] == DATASET_JSON]
    above = [table for table in tables if len(table) <= depth + 1 and table[:-1] == parts[0][: len(table) - 1]]
    if not above:
        if tables:
            log.warning("%s: %s is ignored, because there are images outside of its folder", where, "/".join(tables[0]))
        return _labels_from_folders(parts, depth, where=where)
    table = min(above, key=len)
    original = next(entry.name for entry in listing if split_name(entry.name) == table)
    inside = ["/".join(p[len(table) - 1 :]) for p in parts]
    try:
        return labels_from_json(_table(store, original), inside)
    except UserError as error:
        return Annotation(why_unlabeled=f"{where}/{'/'.join(table)}: {error}")


def _shared_depth(parts: Sequence[Sequence[str]]) -> int:
    """Return how many outer folders contain every file."""
    depth = 0
    while all(len(p) > depth + 1 and p[depth] == parts[0][depth] for p in parts):
        depth += 1
    return depth


def _labels_from_folders(parts: Sequence[Sequence[str]], depth: int, *, where: str) -> Annotation:
    """Take the first sub-folder in which files differ as class; no classes if some files are outside of sub-folders."""
    advice = "put each class in a sub-folder"
    inside = [len(p) > depth + 1 for p in parts]
    if not any(inside):
        return Annotation(why_unlabeled=advice)
    if not all(inside):
        stray = printable("/".join(parts[inside.index(False)]))
        log.warning("%s: there are images beside sub-folders (such as %s), so the set has no classes", where, stray)
        return Annotation(why_unlabeled=f"images such as {stray} are beside the sub-folders; {advice}")
    folders = [p[depth] for p in parts]
    classes = sorted(set(folders))
    if PARTS.issuperset(name.lower() for name in classes):
        listed = ", ".join(classes)
        log.warning("%s: %s look like the splits of a data set; all their images are used together", where, listed)
        return Annotation(
            why_unlabeled=f"its sub-folders {listed} look like the splits of a data set; set data.path to one of them"
        )
    alike = [names for names in _alike(classes).values() if len(names) > 1]
    if alike:
        log.warning(
            "%s: classes whose names differ only in case or encoding: %s", where, printable(", ".join(alike[0]))
        )
    number = {name: index for index, name in enumerate(classes)}
    return Annotation(np.array([number[folder] for folder in folders], np.int64), [printable(name) for name in classes])


def _alike(names: Iterable[str]) -> dict[str, list[str]]:
    """Group names that are equal to file systems that ignore case and the encoding of accents."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(name)
    return groups


def _table(store: FileStore, name: str) -> Any:
    """Read ``labels`` of the file ``name``. Raises UserError with a message without the name of the file."""
    try:
        data = store.read(name)
    except Exception as error:  # a damaged archive can raise almost any type
        raise UserError(f"cannot be read ({getattr(error, 'reason', describe_error(error))})") from error
    if len(data) > LARGEST_JSON:
        raise UserError(f"is larger than {LARGEST_JSON >> 20} MiB")
    content = parse_json(data, DATASET_JSON)
    if not isinstance(content, dict):
        raise UserError('expected {"labels": [["file.png", 0], ...]}')
    return content.get("labels")


def labels_from_json(pairs: Any, names: Sequence[str]) -> Annotation:
    """Read the labels of the files ``names`` from StyleGAN's ``[[file name, label], ...]``; null: no labels.

    A label is the number of a class, or a list of numbers of equal length for all files: a vector. Numbers without an
    image are not classes; a class is named by its number. Names are compared with case first, then without. Raises
    UserError if the list is invalid, omits a file, or has two labels for one file.
    """
    if pairs is None:
        return Annotation(why_unlabeled=f"the labels in its {DATASET_JSON} are null; write class numbers there")
    if not isinstance(pairs, list) or not all(isinstance(p, list) and len(p) == 2 for p in pairs):
        raise UserError('expected {"labels": [["file.png", 0], ...]}')
    table: dict[str, Any] = {}
    for name, label in pairs:
        key = posixpath.normpath("/".join(split_name(str(name))))
        if key in table and table[key] != label:
            raise UserError(f"{printable(key)} has two labels, {table[key]!r} and {label!r}; keep one")
        table[key] = label
    if any(name not in table for name in names):
        written = {alike: found[0] for alike, found in _alike(table).items() if len(found) == 1}
        only = {found[0]: alike for alike, found in _alike(names).items() if len(found) == 1}
        table |= {name: table[written[only[name]]] for name in only if name not in table and only[name] in written}
    missing = [name for name in names if name not in table]
    if missing:
        raise UserError(f"has no label for {len(missing)} of {len(names)} images, such as {printable(missing[0])}")
    labels = [table[name] for name in names]
    if isinstance(labels[0], list):
        return _label_vectors(labels, names)
    for name, label in zip(names, labels, strict=True):
        if type(label) is not int or label < 0:
            raise UserError(
                f"the label of {printable(name)} is {printable(shown(label, 40))}; a label must be a class number "
                "(0, 1, ...), or for all files a list of numbers"
            )
    numbers = sorted(set(labels))
    number = {label: index for index, label in enumerate(numbers)}
    return Annotation(np.array([number[label] for label in labels], np.int64), [str(label) for label in numbers])


def _label_vectors(labels: Sequence[Any], names: Sequence[str]) -> Annotation:
    """The annotation of labels that are lists of numbers. Raises UserError naming the first other label."""
    for name, label in zip(names, labels, strict=True):
        if not (
            isinstance(label, list)
            and len(label) == len(labels[0])
            and all(isinstance(value, int | float) for value in label)
        ):
            raise UserError(
                f"the label of {printable(name)} is {printable(shown(label, 40))}; all labels must be lists of "
                f"{counted(len(labels[0]), 'number')}, like that of {printable(names[0])}"
            )
    try:
        values = np.array(labels, np.float64)
    except OverflowError:
        raise UserError("a label contains an integer that is too large for a float") from None
    return vector_annotation(values)
