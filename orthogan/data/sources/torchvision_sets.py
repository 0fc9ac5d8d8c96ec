"""The well-known data sets: fetched and checked by torchvision, held as arrays (or streamed files for CelebA)."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torchvision.datasets.utils as downloads
from torchvision import datasets

from orthogan.data.files import Entry, FolderStore
from orthogan.data.resize import fit_arrays
from orthogan.data.source import ImageSource, check_split
from orthogan.data.sources.arrays import ArraySource
from orthogan.data.sources.folder import Form, open_files
from orthogan.data.sources.folder_labels import unlabelled
from orthogan.data.sources.idx import find_idx, read_idx
from orthogan.errors import UserError
from orthogan.io.pickles import array, read_pickle
from orthogan.io.read import describe_error, exists, read_regular, user_path

NETWORK_TIMEOUT = 15.0  # without an answer for so long the network counts as absent [s]

FASHION_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
CIFAR_SETS = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}
STL10_CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
CELEBA_PARTS = {"train": "0", "valid": "1", "test": "2"}


class Files(TypedDict):
    """Where the files of a set lie (``root``), which part of it is wanted and whether it may be downloaded."""

    root: str
    split: str
    download: bool


@contextmanager
def _fetching(kind: str, advice: str, folder: Path) -> Iterator[None]:
    """Turn whatever goes wrong in a download, soon, into a UserError that ends with ``advice``.

    Where it fails, empty folders that it has made for ``folder`` are removed.
    """
    made = next((place for place in (*reversed(folder.parents), folder) if not exists(place, "folder")), None)
    done = False
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT)
    try:
        yield
        done = True
    except UserError:
        raise
    except Exception as error:  # urllib, tarfile, hash checks and gdown share no base class
        raise UserError(f"{kind}: not found and not downloaded ({describe_error(error)}). {advice}") from error
    finally:
        socket.setdefaulttimeout(before)
        if made is not None and not done:
            for place, _, _ in os.walk(made, topdown=False):
                with suppress(OSError):
                    os.rmdir(place)


def open_fashion_mnist(form: Form, *, path: str | None, root: str, split: str, download: bool) -> ImageSource:
    """Fashion-MNIST, 60,000 and 10,000 grey images of 10 classes.

    ``path``: a folder that holds the four IDX files, gzipped or not (Debian's package ``dataset-fashion-mnist``
    installs one); without it torchvision's folder under ``root``. At 32 pixels the 28 x 28 images get a black
    border of 2; any other size is resized.
    """
    check_split("fashion-mnist", split, ("train", "test"))
    folder = user_path(path) if path else Path(root) / "FashionMNIST" / "raw"
    found = [find_idx(folder, stem) for stem in FASHION_FILES[split]]
    missing = [f"{stem}.gz" for stem, file in zip(FASHION_FILES[split], found, strict=True) if file is None]
    advice = (
        f"Put {' and '.join(f'{s}.gz' for s in FASHION_FILES[split])} into {folder}, from "
        "https://github.com/zalandoresearch/fashion-mnist or Debian's package dataset-fashion-mnist, "
        "or name the folder that holds them in data.path"
    )
    if missing and path:
        raise UserError(f"fashion-mnist: {folder} lacks {' and '.join(missing)}. {advice}")
    if missing and not download:
        raise UserError(f"fashion-mnist: {folder} lacks {' and '.join(missing)} and data.download is off. {advice}")
    if missing:
        with _fetching("fashion-mnist", advice, folder):
            datasets.FashionMNIST(root, train=split == "train", download=True)
        found = [find_idx(folder, stem) for stem in FASHION_FILES[split]]
    image_file, label_file = found
    if image_file is None or label_file is None:
        raise UserError(f"fashion-mnist: the download left {folder} incomplete. {advice}")
    images = read_idx(image_file)
    if images.ndim != 3:
        raise UserError(f"{image_file}: expected images (N, 28, 28), found an array of shape {images.shape}")
    name = f"fashion-mnist-{split}"
    if form.resolution == 32 and images.shape[1:] == (28, 28):
        images = np.pad(images, ((0, 0), (2, 2), (2, 2)))
        transform = "zero border 2"
    else:
        transform = "lanczos"
    return ArraySource(
        name,
        fit_arrays(images, resolution=form.resolution, channels=form.channels, name=name),
        labels=read_idx(label_file),
        class_names=datasets.FashionMNIST.classes,
        transform=transform,
    )


def open_cifar(kind: str, form: Form, *, root: str, split: str, download: bool) -> ImageSource:
    """CIFAR-10 or CIFAR-100 (its 100 fine classes): 50,000 and 10,000 RGB images of 32 x 32."""
    check_split(kind, split, ("train", "test"))
    dataset = CIFAR_SETS[kind]
    folder, archive = Path(root) / dataset.base_folder, Path(root) / dataset.filename
    advice = f"Put {dataset.filename} from {dataset.url} into {Path(root)}"
    meta: dict[str, str] = dataset.meta
    files = [*dataset.train_list, *dataset.test_list, [meta["filename"], meta["md5"]]]

    def damaged() -> list[str]:
        return [name for name, md5 in files if not datasets.cifar.check_integrity(str(folder / name), md5)]

    if wrong := damaged():
        with _fetching(kind, advice, Path(root)):
            # an archive that lies there needs no network, only unpacking
            if not (download or datasets.cifar.check_integrity(str(archive), dataset.tgz_md5)):
                raise UserError(f"{kind}: {folder} lacks a whole {wrong[0]} and data.download is off. {advice}")
            downloads.download_and_extract_archive(dataset.url, root, filename=dataset.filename, md5=dataset.tgz_md5)
        wrong = damaged()
    if wrong:
        raise UserError(f"{kind}: {folder / wrong[0]} is missing or damaged. {advice}")
    parts = dataset.train_list if split == "train" else dataset.test_list
    batches = [_cifar_batch(folder / name) for name, _ in parts]
    names = _entry(folder / meta["filename"], meta["key"])
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise UserError(f"{folder / meta['filename']}: {meta['key']} must be a list of names")
    pixels = np.concatenate([batch[0] for batch in batches]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    images = fit_arrays(pixels, resolution=form.resolution, channels=form.channels, name=kind)
    labels = np.concatenate([batch[1] for batch in batches])
    if labels.size and not 0 <= labels.min() <= labels.max() < len(names):
        raise UserError(f"{folder}: its labels go from {labels.min()} to {labels.max()}, for {len(names)} classes")
    return ArraySource(
        f"{kind}-{split}", np.ascontiguousarray(images), labels=labels, class_names=names, transform="lanczos"
    )


def _cifar_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(pixels (n, 3072) uint8, labels (n,)) of one of the pickles, which are read without running them."""
    pixels, labels = array(_entry(path, "data"), path), _entry(path, "labels", "fine_labels")
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3 * 32 * 32:
        raise UserError(f"{path}: data must be (n, 3072) of uint8, not {pixels.shape} of {pixels.dtype}")
    if not (isinstance(labels, list) and all(type(label) is int and abs(label) < 2**31 for label in labels)):
        raise UserError(f"{path}: labels must be a list of numbers")
    if len(labels) != len(pixels):
        raise UserError(f"{path}: {len(labels)} labels for {len(pixels)} images")
    return pixels, np.array(labels, np.int64)


def _entry(path: Path, *keys: str) -> Any:
    """What one of the CIFAR pickles holds under the first of ``keys`` that it has."""
    content = read_pickle(read_regular(path), path)
    for key in keys:
        if isinstance(content, dict) and key in content:
            return content[key]
    raise UserError(f"{path}: has no {' or '.join(keys)}")


def open_stl10(form: Form, *, root: str, split: str, download: bool) -> ImageSource:
    """STL-10, 96 x 96 RGB: train (5,000) and test (8,000) with 10 classes; unlabeled (100,000), train+unlabeled."""
    check_split("stl10", split, ("train", "test", "unlabeled", "train+unlabeled"))
    archive = Path(root) / datasets.STL10.filename
    advice = f"Put {datasets.STL10.filename} (2.6 GB) from {datasets.STL10.url} into {Path(root)}"
    with _fetching("stl10", advice, Path(root)):
        # an archive that lies there needs no network, only unpacking
        here = downloads.check_integrity(str(archive), datasets.STL10.tgz_md5)
        data = datasets.STL10(root, split=split, download=download or here)
    labelled = "unlabeled" not in split
    images = fit_arrays(
        data.data.transpose(0, 2, 3, 1), resolution=form.resolution, channels=form.channels, name="stl10"
    )
    return ArraySource(
        f"stl10-{split}",
        images,
        labels=data.labels if labelled else None,
        class_names=STL10_CLASSES if labelled else (),
        transform="lanczos",
    )


def open_celeba(form: Form, *, root: str, split: str, download: bool) -> ImageSource:
    """CelebA, aligned and cropped (178 x 218): train (162,770), valid (19,867), test (19,962) or all; no classes.

    The central 178 x 178 square is resized. Sets of more than 1 GiB are decoded as they are read.
    """
    check_split("celeba", split, (*CELEBA_PARTS, "all"))
    base = Path(root) / "celeba"
    folder, partition = base / "img_align_celeba", base / "list_eval_partition.txt"
    advice = (
        f"Put img_align_celeba.zip, unpacked, and list_eval_partition.txt into {base}, "
        "from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
    )
    if not (exists(folder, "folder") and exists(partition, "file")):
        if not download:
            raise UserError(f"celeba: {base} is incomplete and data.download is off. {advice}")
        with _fetching("celeba", advice, base):
            datasets.CelebA(root, split="all", download=True)
    text = read_regular(partition).decode("utf-8", "replace")
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if any(len(line) != 2 for line in lines):
        raise UserError(f"{partition}: every line must hold a file name and 0, 1 or 2. {advice}")
    wanted = {name for name, part in lines if split == "all" or part == CELEBA_PARTS[split]}
    store = FolderStore(folder)
    entries: list[Entry] = [entry for entry in store.entries() if entry.name in wanted]
    if len(entries) != len(wanted):
        present = {entry.name for entry in entries}
        example = min(wanted - present)
        raise UserError(f"celeba: {folder} lacks {len(wanted - present)} images, such as {example}. {advice}")
    return open_files(f"celeba-{split}", store, entries, unlabelled(len(entries)), form)
