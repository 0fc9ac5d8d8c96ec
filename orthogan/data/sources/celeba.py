"""CelebA (Liu et al. 2015), downloaded by torchvision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from orthogan.config.base import Section
from orthogan.data.download import fetching
from orthogan.data.formats.image_files import open_files
from orthogan.data.formats.stores import Entry, FolderStore
from orthogan.data.label_vectors import vector_annotation
from orthogan.data.source import Annotation, DataRequest, ImageSource
from orthogan.data.sources import DATA_SOURCES, DataSource
from orthogan.errors import UserError
from orthogan.io.read import exists, read_regular, shown
from orthogan.registry import did_you_mean
from orthogan.words import counted

ATTRIBUTES = "list_attr_celeba.txt"
PARTS = {"train": "0", "valid": "1", "test": "2"}


class CelebAOptions(Section):
    """What only CelebA has."""

    attributes: list[str] = Field(
        default=[], description="attributes that are the label, such as [Smiling, Male]; none = no labels"
    )


@DATA_SOURCES.register("celeba")
class CelebA(DataSource):
    """CelebA, aligned and cropped (178 x 218): train (162,770), valid (19,867), test (19,962) or all.

    The central 178 x 178 square is resized. Large sets are decoded as needed. The labels are vectors of 0 and 1 of the
    attributes in ``options.attributes``; without it there are no labels.
    """

    downloads = True
    splits = (*PARTS, "all")
    unlabeled = splits
    labels_from = "attributes"
    options = CelebAOptions

    def open(self, data: DataRequest) -> ImageSource:
        """The images. Raises UserError that says which file to put where."""
        attributes = CelebAOptions(**data.options).attributes
        base = Path(data.root) / "celeba"
        folder, partition = base / "img_align_celeba", base / "list_eval_partition.txt"
        advice = (
            f"Put img_align_celeba.zip, unpacked, and list_eval_partition.txt into {base}, "
            "from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
        )
        if not (exists(folder, "folder") and exists(partition, "file")):
            if not data.download:
                raise UserError(f"celeba: {base} is incomplete, and data.download is false. {advice}")
            from torchvision import datasets  # takes seconds to import

            with fetching("celeba", advice, base):
                datasets.CelebA(data.root, split="all", download=True)
        text = read_regular(partition).decode("utf-8", "replace")
        lines = [line.split() for line in text.splitlines() if line.strip()]
        if any(len(line) != 2 for line in lines):
            raise UserError(f"{partition}: every line must hold a file name and 0, 1 or 2. {advice}")
        wanted = {name for name, part in lines if data.split == "all" or part == PARTS[data.split]}
        store = FolderStore(folder)
        entries: list[Entry] = [entry for entry in store.entries() if entry.name in wanted]
        if len(entries) != len(wanted):
            present = {entry.name for entry in entries}
            example = min(wanted - present)
            raise UserError(
                f"celeba: {folder} lacks {counted(len(wanted - present), 'image')}, such as {example}. {advice}"
            )
        note = Annotation(why_unlabeled="set data.options.attributes, for example to [Smiling, Male]")
        if attributes:
            note = vector_annotation(_attributes(base / ATTRIBUTES, entries, attributes), attributes)
        return open_files(f"celeba-{data.split}", store, entries, note, data)


def _attributes(file: Path, entries: Sequence[Entry], wanted: Sequence[str]) -> np.ndarray:
    """Read the attributes ``wanted`` of the images, 0 or 1 (N, K), from CelebA's table of -1 and 1."""
    lines = read_regular(file).decode("utf-8", "replace").splitlines()
    names = lines[1].split() if len(lines) > 1 else []
    for name in wanted:
        if name not in names:
            raise UserError(
                f"data.options.attributes: {file} has no attribute {shown(name)}{did_you_mean(name, names)}"
            )
    columns = [1 + names.index(name) for name in wanted]
    table = {row[0]: row for row in map(str.split, lines[2:]) if len(row) == len(names) + 1}
    missing = [entry.name for entry in entries if entry.name not in table]
    if missing:
        raise UserError(
            f"{file}: has no line of {counted(len(names), 'attribute')} for {counted(len(missing), 'image')}, such as "
            f"{missing[0]}"
        )
    return np.array([[table[entry.name][column] == "1" for column in columns] for entry in entries])
