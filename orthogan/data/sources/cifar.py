"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), downloaded and checked by torchvision; their pickles are never executed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from orthogan.data.download import fetching
from orthogan.data.source import ArraySource, DataRequest
from orthogan.data.sources import DATA_SOURCES, DataSource
from orthogan.errors import UserError
from orthogan.io.pickles import array, read_pickle
from orthogan.io.read import read_regular
from orthogan.words import counted


@DATA_SOURCES.register("cifar10")
class CIFAR10(DataSource):
    """50,000 and 10,000 RGB images of 32 x 32 in 10 classes."""

    downloads = True
    splits = ("train", "test")
    dataset = "CIFAR10"  # its class in torchvision
    origin = "https://www.cs.toronto.edu/~kriz/cifar.html (Krizhevsky 2009)"
    license = "not stated by its authors"

    def open(self, data: DataRequest) -> ArraySource:
        """The images, in memory. Raises UserError that says which file to put where."""
        import torchvision.datasets.utils as downloads  # takes seconds to import
        from torchvision import datasets

        kind = data.source
        dataset = getattr(datasets, self.dataset)
        folder, archive = Path(data.root) / dataset.base_folder, Path(data.root) / dataset.filename
        advice = f"Put {dataset.filename} from {dataset.url} into {Path(data.root)}"
        meta: dict[str, str] = dataset.meta
        files = [*dataset.train_list, *dataset.test_list, [meta["filename"], meta["md5"]]]

        def damaged() -> list[str]:
            return [name for name, md5 in files if not datasets.cifar.check_integrity(str(folder / name), md5)]

        if wrong := damaged():
            with fetching(kind, advice, Path(data.root)):
                # an archive that is already there only needs unpacking, no network
                if not (data.download or datasets.cifar.check_integrity(str(archive), dataset.tgz_md5)):
                    raise UserError(
                        f"{kind}: {wrong[0]} is missing or damaged in {folder}, and data.download is false. {advice}"
                    )
                downloads.download_and_extract_archive(
                    dataset.url, data.root, filename=dataset.filename, md5=dataset.tgz_md5
                )
            wrong = damaged()
        if wrong:
            raise UserError(f"{kind}: {folder / wrong[0]} is missing or damaged. {advice}")
        parts = dataset.train_list if data.split == "train" else dataset.test_list
        batches = [_cifar_batch(folder / name) for name, _ in parts]
        names = _entry(folder / meta["filename"], meta["key"])
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise UserError(f"{folder / meta['filename']}: {meta['key']} must be a list of names")
        pixels = np.concatenate([batch[0] for batch in batches]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        images = data.fit(pixels, kind)
        labels = np.concatenate([batch[1] for batch in batches])
        if labels.size and not 0 <= labels.min() <= labels.max() < len(names):
            raise UserError(
                f"{folder}: labels range from {labels.min()} to {labels.max()}, but there are {len(names)} classes"
            )
        return ArraySource(
            f"{kind}-{data.split}", np.ascontiguousarray(images), labels=labels, class_names=names, transform="lanczos"
        )


@DATA_SOURCES.register("cifar100")
class CIFAR100(CIFAR10):
    """Like CIFAR-10, with 100 (fine) classes."""

    dataset = "CIFAR100"


def _cifar_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read (pixels (n, 3072) uint8, labels (n,)) from a pickle without executing it."""
    pixels, labels = array(_entry(path, "data"), path), _entry(path, "labels", "fine_labels")
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3 * 32 * 32:
        raise UserError(f"{path}: data must be (n, 3072) of uint8, not {pixels.shape} of {pixels.dtype}")
    if not (isinstance(labels, list) and all(type(label) is int and abs(label) < 2**31 for label in labels)):
        raise UserError(f"{path}: labels must be a list of numbers")
    if len(labels) != len(pixels):
        raise UserError(f"{path}: {counted(len(labels), 'label')} for {counted(len(pixels), 'image')}")
    return pixels, np.array(labels, np.int64)


def _entry(path: Path, *keys: str) -> Any:
    """Return the entry of a CIFAR pickle under the first of ``keys`` that it has."""
    content = read_pickle(read_regular(path), path)
    for key in keys:
        if isinstance(content, dict) and key in content:
            return content[key]
    raise UserError(f"{path}: has no {' or '.join(keys)}")
