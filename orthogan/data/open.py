"""From the words of a config to an image source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from orthogan.config.checks import FACTOR_FILES, NEEDS_PATH, ONE_PART
from orthogan.data.source import ImageSource, check_split
from orthogan.data.sources.array_files import open_array_file
from orthogan.data.sources.folder import Form, open_folder
from orthogan.data.sources.sprite_sources import open_sprites
from orthogan.errors import UserError
from orthogan.io.read import exists, user_path


@dataclass(frozen=True)
class Request:
    """The arguments of ``open_source``."""

    kind: str
    path: str | None
    split: str
    form: Form
    count: int | None
    seed: int
    root: str
    download: bool
    fixed: Mapping[str, str | int] | None


def _sprites(request: Request) -> ImageSource:
    return open_sprites(
        coloured=request.kind == "sprites-colour",
        resolution=request.form.resolution,
        channels=request.form.channels,
        count=request.count,
        seed=request.seed,
    )


def _faces(request: Request) -> ImageSource:
    from orthogan.data.sources.face_source import open_faces  # needs packages that few commands need

    check_split("faces", request.split, ("train", "test"))
    return open_faces(
        resolution=request.form.resolution,
        channels=request.form.channels,
        count=request.count,
        seed=request.seed,
        split=request.split,
        fixed=request.fixed,
    )


def _known(request: Request) -> ImageSource:
    from orthogan.data.sources import torchvision_sets as sets  # takes seconds to import, and few commands need it

    files: sets.Files = {"root": request.root, "split": request.split, "download": request.download}
    match request.kind:
        case "fashion-mnist":
            return sets.open_fashion_mnist(request.form, path=request.path, **files)
        case "stl10":
            return sets.open_stl10(request.form, **files)
        case "celeba":
            return sets.open_celeba(request.form, **files)
        case kind:
            return sets.open_cifar(kind, request.form, **files)


def _factors(request: Request) -> ImageSource:
    from orthogan.data.sources import (
        cars3d,
        factor_files,
        smallnorb,  # scipy takes its time
    )

    path = request.path or ""
    match request.kind:
        case "dsprites":
            return factor_files.open_dsprites(path, request.form)
        case "shapes3d":
            return factor_files.open_shapes3d(path, request.form)
        case "mpi3d":
            return factor_files.open_mpi3d(path, request.form)
        case "cars3d":
            return cars3d.open_cars3d(path, request.form)
        case _:
            return smallnorb.open_smallnorb(path, request.form, split=request.split)


OPENERS: dict[str, Callable[[Request], ImageSource]] = {
    "faces": _faces,
    "sprites": _sprites,
    "sprites-colour": _sprites,
    "fashion-mnist": _known,
    "cifar10": _known,
    "cifar100": _known,
    "stl10": _known,
    "celeba": _known,
    "folder": lambda request: open_folder(request.path or "", request.form),
    "array": lambda request: open_array_file(request.path or "", request.form),
    **dict.fromkeys(FACTOR_FILES, _factors),
}
TAKES_PATH = (*NEEDS_PATH, "fashion-mnist")


def open_source(
    kind: str,
    *,
    path: str | None = None,
    split: str = "train",
    resolution: int = 32,
    channels: int = 3,
    count: int | None = None,
    seed: int = 0,
    bad_images: Literal["skip", "error"] = "skip",
    bad_limit: float = 0.01,
    root: str = "data",
    download: bool = True,
    fixed: Mapping[str, str | int] | None = None,
) -> ImageSource:
    """Open a set of images by its kind, one of ``OPENERS``, or by its path.

    A path is that of a folder or zip of images, or of an .npz, .npy or .h5 file.

    - ``path``: the folder, zip, .npz or .h5 file of the kinds folder and array, the published files of dsprites,
      shapes3d, mpi3d, cars3d and smallnorb; for fashion-mnist a folder that holds its IDX files.
      ``root``: where torchvision keeps what it downloads; ``download``: whether it may.
    - ``split``: the part of the data set; sprites, folder and array have one part only, called train.
    - ``resolution`` [pixels], ``channels`` (1 gray, 3 RGB): what every image is brought to; 32 and 3 as in a config.
    - ``count``, ``seed``: sprites: size and random seed of a subset, None is the full grid; faces: how many to draw
      (default 50,000; 10,000 of the test part), and from which random seed.
    - ``fixed``: faces only, factors to hold at a value, such as ``{"glasses": "none"}``.
    - ``bad_images``, ``bad_limit``: what to do about unreadable files (``orthogan.data.sources.folder``).

    Raises UserError for anything that cannot be opened, saying which file or value is wrong and how to fix it.

    Example:
        >>> open_source("sprites", resolution=64, channels=1)[0]  # doctest: +SKIP
        >>> open_source("photos/", resolution=128)  # doctest: +SKIP
    """
    if kind not in OPENERS and path is None:
        kind, path = _by_path(kind)
    if kind not in OPENERS:
        raise UserError(f"data.source: {kind!r} is not a path, nor one of {', '.join(OPENERS)}")
    if channels not in (1, 3):
        raise UserError(f"data.channels: must be 1 or 3, not {channels}")
    if resolution < 1:
        raise UserError(f"data.resolution: must be at least 1, not {resolution}")
    if path is not None and kind not in TAKES_PATH:
        raise UserError(f"data.path: the source {kind!r} takes no path; its files lie under data.root")
    if path is None and kind in NEEDS_PATH:
        raise UserError(f"data.path: the source {kind!r} needs the path of your images")
    if count is not None and not kind.startswith(("sprites", "faces")):
        raise UserError(f"data.count: only sprites and faces are made in any number, not {kind!r}")
    if fixed and kind != "faces":
        raise UserError(f"data.fixed: only the factors of faces can be fixed, not those of {kind!r}")
    if kind in ONE_PART:
        check_split(kind, split, ("train",))
    form = Form(resolution, channels, bad_images, bad_limit)
    return OPENERS[kind](Request(kind, path, split, form, count, seed, root, download, fixed))


def _by_path(text: str) -> tuple[str, str | None]:
    """(kind, path) of a path that is given in place of a kind; the text itself where it is none."""
    path = user_path(text)
    if exists(path, "folder") or (exists(path, "file") and path.suffix.lower() == ".zip"):
        return "folder", text
    return ("array", text) if exists(path, "file") else (text, None)
