"""CelebA (Liu et al. 2015), downloaded by torchvision."""

from __future__ import annotations

from pathlib import Path

from orthogan.data.download import fetching
from orthogan.data.formats.image_files import open_files
from orthogan.data.formats.stores import Entry, FolderStore
from orthogan.data.source import Annotation, DataRequest, ImageSource
from orthogan.data.sources import DATA_SOURCES, DataSource
from orthogan.errors import UserError
from orthogan.io.read import exists, read_regular

PARTS = {"train": "0", "valid": "1", "test": "2"}


@DATA_SOURCES.register("celeba")
class CelebA(DataSource):
    """CelebA, aligned and cropped (178 x 218): train (162,770), valid (19,867), test (19,962) or all; no classes.

    The central 178 x 178 square is resized. Large sets are decoded as needed.
    """

    downloads = True
    splits = (*PARTS, "all")
    unlabeled = splits

    def open(self, data: DataRequest) -> ImageSource:
        """The images. Raises UserError that says which file to put where."""
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
            raise UserError(f"celeba: {folder} lacks {len(wanted - present)} images, such as {example}. {advice}")
        return open_files(f"celeba-{data.split}", store, entries, Annotation(), data)
