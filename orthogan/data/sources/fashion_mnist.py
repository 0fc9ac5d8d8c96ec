"""Fashion-MNIST (Xiao et al. 2017), downloaded by torchvision."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from orthogan.data.download import fetching
from orthogan.data.formats.matrices import plain_or_gzipped, read_idx
from orthogan.data.source import ArraySource, DataRequest
from orthogan.data.sources import DATA_SOURCES, DataSource
from orthogan.errors import UserError
from orthogan.io.read import user_path

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}

PACKAGED = "/usr/share/datasets/fashion-mnist"  # where Debian's package dataset-fashion-mnist puts them


@DATA_SOURCES.register("fashion-mnist")
class FashionMNIST(DataSource):
    """Fashion-MNIST, 60,000 and 10,000 gray images of 10 classes.

    ``path``: a folder with the four IDX files, gzipped or not; by default torchvision's folder under ``root``, then
    that of Debian's package ``dataset-fashion-mnist``, then a download. At 32 pixels, the 28 x 28 images get a black
    border of 2 pixels; for other sizes they are resized.
    """

    path = "optional"
    downloads = True
    splits = ("train", "test")
    origin = "https://github.com/zalandoresearch/fashion-mnist (Xiao et al. 2017, arXiv:1708.07747)"
    license = "MIT"

    def open(self, data: DataRequest) -> ArraySource:
        """The images, in memory. Raises UserError that says which file to put where."""
        from torchvision import datasets  # takes seconds to import

        folder = user_path(data.path) if data.path else Path(data.root) / "FashionMNIST" / "raw"
        found = _files(folder, data.split)
        if None in found and not data.path:
            packaged = _files(Path(PACKAGED), data.split)
            found = found if None in packaged else packaged
        missing = [f"{stem}.gz" for stem, file in zip(FILES[data.split], found, strict=True) if file is None]
        advice = (
            f"Put {' and '.join(f'{s}.gz' for s in FILES[data.split])} into {folder}, from "
            "https://github.com/zalandoresearch/fashion-mnist or Debian's package dataset-fashion-mnist, "
            "or set data.path to the folder that holds them"
        )
        if missing and data.path:
            raise UserError(f"fashion-mnist: {folder} does not contain {' and '.join(missing)}. {advice}")
        if missing and not data.download:
            raise UserError(
                f"fashion-mnist: {folder} does not contain {' and '.join(missing)}, and data.download is false. "
                f"{advice}"
            )
        if missing:
            with fetching("fashion-mnist", advice, folder):
                datasets.FashionMNIST(data.root, train=data.split == "train", download=True)
            found = _files(folder, data.split)
        image_file, label_file = found
        if image_file is None or label_file is None:
            raise UserError(f"fashion-mnist: the download left {folder} incomplete. {advice}")
        images = read_idx(image_file)
        if images.ndim != 3:
            raise UserError(f"{image_file}: expected images (N, 28, 28), found an array of shape {images.shape}")
        name = f"fashion-mnist-{data.split}"
        if data.resolution == 32 and images.shape[1:] == (28, 28):
            images = np.pad(images, ((0, 0), (2, 2), (2, 2)))
            transform = "zero border 2"
        else:
            transform = "lanczos"
        return ArraySource(
            name,
            data.fit(images, name),
            labels=read_idx(label_file),
            class_names=datasets.FashionMNIST.classes,
            transform=transform,
        )


def _files(folder: Path, split: str) -> list[Path | None]:
    """The files of the images and of the labels in ``folder``, None for a missing one."""
    return [plain_or_gzipped(folder / stem) for stem in FILES[split]]
