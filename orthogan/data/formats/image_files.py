"""Image files, decoded as needed or all at once, and the policy for unreadable files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

import numpy as np

from orthogan.data.formats.decode import Decoded, UnreadableImage, decode
from orthogan.data.formats.stores import Entry, FileStore
from orthogan.data.resize import TRANSFORM
from orthogan.data.source import Annotation, ArraySource, BadFile, DataRequest, ImageSource
from orthogan.errors import UserError
from orthogan.io.hashing import ContentHash
from orthogan.io.read import UnreadableFile, describe_error, printable
from orthogan.io.threads import in_threads
from orthogan.progress import progress_bar
from orthogan.size import sides, size_key
from orthogan.words import counted

log = logging.getLogger("orthogan.data")

SMALL_FILE = 20_000  # threads are worthwhile if files are larger on average [bytes]


class BadFiles:
    """Counts the unreadable files of a set of ``total`` files and decides when there are too many.

    ``policy`` ``skip``: each file is named once in the log, and more than the fraction ``limit`` (0 to 1) of all files
    is a UserError; ``error``: the first file is a UserError.
    """

    def __init__(self, where: str, total: int, policy: Literal["skip", "error"], limit: float) -> None:
        if policy not in ("skip", "error"):
            raise UserError(f"data.bad_images: must be 'skip' or 'error', not {policy!r}")
        if not 0 <= limit <= 1:
            raise UserError(f"data.bad_limit: must be from 0 to 1, not {limit}")
        self.where, self.total, self.policy, self.limit = where, total, policy, limit
        self.allowed = int(limit * total + 1e-9) if policy == "skip" else 0
        self.seen: dict[str, str] = {}

    def add(self, files: Sequence[BadFile]) -> None:
        """Count unreadable files; raises UserError if the policy requires it."""
        for name, reason in files:
            if name in self.seen:
                continue
            self.seen[name] = reason = printable(reason)
            if self.policy == "error":
                raise UserError(
                    f"{self.where}: {printable(name)} cannot be read: {reason}. Repair or remove it, or set "
                    "data.bad_images to skip"
                )
            log.warning("%s: skipping %s: %s", self.where, printable(name), reason)
            if len(self.seen) > self.allowed:
                listed = "; ".join(f"{printable(n)} ({r})" for n, r in list(self.seen.items())[:10])
                raise UserError(
                    f"{self.where}: at least {len(self.seen)} of {self.total} files cannot be read, more than "
                    f"data.bad_limit = {self.limit:g} allows: {listed}. Repair or remove them, or raise "
                    "the limit, for example data.bad_limit=0.2"
                )


class FileSource(ImageSource):
    """Files of a store, decoded on every read.

    An unreadable file is replaced by the next readable one in the list, so that the image at an index depends on the
    files alone. In a worker process it is kept for ``take_bad``; elsewhere it is counted immediately. No process tries
    an unreadable file twice.
    """

    def __init__(
        self, name: str, store: FileStore, entries: Sequence[Entry], note: Annotation, data: DataRequest
    ) -> None:
        self.name, self.resolution, self.channels = name, data.resolution, data.channels
        self.store, self.entries = store, list(entries)
        self.bad = BadFiles(printable(store.path), len(entries), data.bad_images, data.bad_limit)
        self.annotate(note, len(entries))
        self._pending: list[BadFile] = []
        self._failed: dict[int, BadFile] = {}
        self._next: dict[int, int] = {}  # failed index -> where to look for its replacement

    def __len__(self) -> int:
        return len(self.entries)

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the images at ``indices`` and their labels; unreadable files are counted, or kept for ``take_bad``."""
        from torch.utils.data import get_worker_info  # torch takes a second to import, and a config names this class

        # Channels last in memory, as decoders return them.
        images = np.empty((len(indices), *sides(self.resolution), self.channels), np.uint8)
        images = images.transpose(0, 3, 1, 2)
        labels = np.empty(len(indices), np.int64)
        for row, index in enumerate(indices):
            images[row], labels[row] = self._first_good(int(index))
        if get_worker_info() is None:
            self.report_bad(self.take_bad())
        return images, labels

    def _first_good(self, index: int) -> tuple[np.ndarray, int]:
        while len(self._failed) <= min(self.bad.allowed, len(self.entries) - 1):
            place = self._replacement(index)
            result = self.attempt(self.entries[place])
            if isinstance(result, Decoded):
                return result.array, int(self.labels[place])
            self._failed[place] = result
            self._next[place] = (place + 1) % len(self.entries)
            self._pending.append(result)
        # More than allowed in total, or all of them: the main process would stop anyway.
        self._pending = []
        self.bad.add(list(self._failed.values()))
        name, reason = self._failed[index]
        raise UserError(
            f"{self.bad.where}: none of its {counted(len(self.entries), 'file')} can be read, such as "
            f"{printable(name)} ({reason})"
        )

    def _replacement(self, index: int) -> int:
        """Return the next index from ``index`` on that has not failed, and shorten the path for the next search."""
        passed = []
        while index in self._next:
            passed.append(index)
            index = self._next[index]
        self._next.update(dict.fromkeys(passed, index))
        return index

    def attempt(self, entry: Entry) -> Decoded | BadFile:
        """Decode one file, or return why it failed. Raises UserError if the store itself cannot be read."""
        try:
            return decode(self.store.read(entry.name), resolution=self.resolution, channels=self.channels)
        except (UnreadableImage, UnreadableFile) as error:
            return BadFile(entry.name, error.reason if isinstance(error, UnreadableFile) else str(error))
        except UserError:
            raise
        except Exception as error:  # a damaged archive member can raise almost any type
            return BadFile(entry.name, f"damaged or incomplete ({describe_error(error)})")

    def take_bad(self) -> list[BadFile]:
        """Return and forget the files found unreadable since the last call."""
        taken, self._pending = self._pending, []
        return taken

    def report_bad(self, files: Sequence[BadFile]) -> None:
        """Count ``files`` that a worker process could not read; too many raise an error."""
        self.bad.add(files)

    def fingerprint(self) -> str:
        """Return a hash of the content of the files, their names, the labels and the transform."""
        digest = ContentHash().text(TRANSFORM, size_key(self.resolution), self.channels, *self.class_names)
        if self.label_vectors is not None:
            digest.array(self.label_vectors)
        names = [entry.name for entry in self.entries]
        return digest.text(*names, self.store.content_hash(names)).array(self.labels).hexdigest()


def open_files(
    name: str, store: FileStore, entries: Sequence[Entry], note: Annotation, data: DataRequest
) -> ImageSource:
    """Open the given files of a store, decoded now if that takes at most ``data.in_memory_limit`` bytes."""
    streamed = FileSource(name, store, entries, note, data)
    return streamed if streamed.nbytes > data.in_memory_limit else _decode_all(streamed)


def _decode_all(source: FileSource) -> ArraySource:
    """Decode every readable file of ``source`` into memory."""
    images = np.empty((len(source), source.channels, *sides(source.resolution)), np.uint8)
    kept: list[int] = []
    animated = 0
    bar = progress_bar(source.entries, desc=f"reading {source.name}", unit=" images", leave=False)
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
        raise UserError(f"{where}: contains {len(kept)} readable images; a data set needs at least two")
    if animated:
        have = "file has" if animated == 1 else "files have"
        log.warning("%s: %d %s several frames; the first of each is used", where, animated, have)
    images, labels = images[: len(kept)], source.labels[kept]
    if all(images[i : i + 256].max() <= 1 for i in range(0, len(images), 256)):
        log.warning(
            "%s: every pixel is 0 or 1 of 255, so all images are black; are they masks with two classes?", where
        )
    lost = np.setdiff1d(np.arange(source.num_classes), labels)
    if len(lost) and source.label_vectors is None:
        log.warning("%s: the class %s has no readable image", where, source.class_names[lost[0]])
    note = Annotation(
        labels,
        source.class_names,
        why_unlabeled=source.why_unlabeled,
        label_vectors=source.label_vectors,
        label_names=source.label_names,
    )
    return ArraySource(source.name, images, **note._asdict(), transform=TRANSFORM)
