"""Open an image source by the values of a config, or by a path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from orthogan.arguments import checked
from orthogan.data.source import IN_MEMORY_LIMIT, DataRequest, ImageSource
from orthogan.data.sources import DATA_SOURCES, open_request
from orthogan.errors import UserError
from orthogan.io.read import exists, shown, user_path
from orthogan.registry import did_you_mean

if TYPE_CHECKING:
    from orthogan.data.config import DataConfig


@checked
def open_source(
    kind: str,
    *,
    path: str | None = None,
    split: str = "train",
    resolution: int | Sequence[int] = 32,
    channels: int = 3,
    count: int | None = None,
    seed: int = 0,
    bad_images: Literal["skip", "error"] = "skip",
    bad_limit: float = 0.01,
    root: str = "data",
    download: bool = True,
    in_memory_limit: int = IN_MEMORY_LIMIT,
    **options: Any,
) -> ImageSource:
    """Open a set of images by the name of its source, or by its path.

    Args:
        kind: a name in ``DATA_SOURCES``; ``module:Name`` of your own ``DataSource``; or the path of a folder or zip of
            images, of an .npz, .npy, .h5 or .parquet file, or of a folder that ``datasets`` saved.
        path: the folder, zip, .npz or .h5 file for the sources folder and array; the published files for dsprites,
            shapes3d, mpi3d, cars3d and smallnorb; for fashion-mnist a folder with its IDX files.
        split: the part of the data set; sprites, folder and array only have one part, called train.
        resolution: height and width that images are resized to, or (height, width) [pixels].
        channels: 1 (gray) or 3 (RGB).
        count: sprites: size of a random subset, None is the full grid; faces and portraits: how many to draw (default
            50,000 and 10,000; 10,000 and 2,000 of the test part).
        seed: random seed for the selection of ``count`` images.
        bad_images, bad_limit: policy for unreadable files (``orthogan.data.sources.folder``).
        root: folder for downloads of torchvision.
        download: whether to download missing data.
        in_memory_limit: larger sets [bytes after resizing] are read from their files as needed, if possible.
        options: options of the source, such as ``fixed={"glasses": "none"}`` for faces, which keeps factors fixed.

    Raises:
        UserError: it cannot be opened; the message says which file or value is wrong and how to fix it.

    Example:
        >>> open_source("sprites", resolution=64, channels=1)[0]  # doctest: +SKIP
        >>> open_source("photos/", resolution=128)  # doctest: +SKIP
    """
    if path is None and ":" not in kind and kind not in DATA_SOURCES:
        kind, path = _by_path(kind)
    return open_request(
        DataRequest(
            source=kind,
            path=path,
            split=split,
            resolution=resolution,
            channels=channels,
            count=count,
            seed=seed,
            bad_images=bad_images,
            bad_limit=bad_limit,
            root=root,
            download=download,
            in_memory_limit=in_memory_limit,
            options=options,
        )
    )


def _by_path(text: str) -> tuple[str, str]:
    """Return (source, path) for a path that is given instead of a source."""
    path = user_path(text)
    saved = any(exists(path / name, "file") for name in ("state.json", "dataset_dict.json"))
    if saved or (exists(path, "file") and path.suffix.lower() == ".parquet"):
        return "datasets", text
    if exists(path, "folder") or (exists(path, "file") and path.suffix.lower() == ".zip"):
        return "folder", text
    if exists(path, "file"):
        return ("emoji" if path.suffix.lower() == ".tgz" else "array"), text
    near = did_you_mean(text, DATA_SOURCES)
    raise UserError(f"data.source: {shown(text)} is neither a path nor one of {', '.join(DATA_SOURCES)}{near}")


@checked
def open_configured(config: DataConfig, *, split: str | None = None) -> ImageSource:
    """Open the images that a config describes.

    Args:
        config: the section ``data`` of a config.
        split: another part of the same data set.

    Raises:
        UserError: as ``open_source``.

    Example:
        >>> from orthogan.config.schema import Config
        >>> from orthogan.data import open_configured
        >>> source = open_configured(Config(data={"source": "sprites", "channels": 1, "count": 100}).data)
        >>> len(source)
        100
    """
    return open_request(config.request(split))


@checked
def open_held_out(config: DataConfig) -> ImageSource:
    """Open real images that a GAN did not see in training, for metrics that must not reward memorization.

    This is the ``test_split`` of the data set of ``config``, at the same size. For a subset of the sprites, it is as
    many other sprites (or a few less). For a folder called train, it is the folder test beside it.

    Raises:
        UserError: there are none, or the GAN was trained on the test part.

    Example:
        >>> from orthogan.config.schema import Config
        >>> from orthogan.data import open_held_out
        >>> source = open_held_out(Config(data={"source": "sprites", "channels": 1, "count": 100}).data)
        >>> len(source) > 50
        True
    """
    data = config.request()
    return DATA_SOURCES.get(data.source, "data.source")().open_held_out(data, config.test_split)
