"""Image sets stored as arrays: ``.npz`` as dSprites is, ``.h5`` as 3dshapes is, or plain ``images`` and ``labels``.

A set that does not fit in memory is best an ``.npy`` file of bare images, which is read at the speed of the disk.

No pickled object is ever loaded: of dSprites' file only the plain arrays are read, not its ``metadata``.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from orthogan.data.arrays import ArraySource
from orthogan.data.folder import IN_MEMORY_LIMIT, Form
from orthogan.data.h5_source import H5Source, read_h5
from orthogan.data.npy_source import NpySource, open_rows
from orthogan.data.resize import fit_arrays
from orthogan.data.source import ImageSource
from orthogan.data.stored_source import StoredSource
from orthogan.errors import UserError

IMAGE_KEYS = ("images", "imgs")
DSPRITES_NAMES = ("colour", "shape", "scale", "orientation", "x", "y")
SHAPES3D_NAMES = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
LABEL_KEYS = ("latents_classes", "latents/classes", "latents_values", "latents/values", "labels")


class Annotation(NamedTuple):
    """What a file says about its images, in the words of ``ImageSource``."""

    labels: np.ndarray | None
    class_names: list[str]
    factors: np.ndarray | None
    factor_names: list[str]
    factor_sizes: list[int]


def open_array_file(path: str | Path, form: Form, *, in_memory_limit: int = IN_MEMORY_LIMIT) -> ImageSource:
    """The images of an ``.npz`` or ``.h5`` file: key ``images`` or ``imgs``, uint8 (N, H, W) or (N, H, W, 1 or 3).

    Or those of an ``.npy`` file, whose labels are in ``NAME.labels.npy`` beside ``NAME.npy``, if there are any.

    Two-dimensional annotations (``latents_classes`` of dSprites, ``labels`` of 3dshapes) become integer factors,
    constant columns left out, and the column ``shape`` the class; one-dimensional ``labels`` become the class.
    dSprites' pixels 0 and 1 become 0 and 255. An ``.npz`` is read into memory; an ``.h5`` or ``.npy`` of more than
    ``in_memory_limit`` bytes is read from the disk as needed. Raises UserError naming the file and what it lacks.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; data.path must name an .npz, .npy or .h5 file")
    if path.suffix.lower() == ".npz":
        return _open_npz(path, form)
    if path.suffix.lower() in (".h5", ".hdf5"):
        return _open_h5(path, form, in_memory_limit)
    if path.suffix.lower() == ".npy":
        return _open_npy(path, form, in_memory_limit)
    raise UserError(f"{path}: the source 'array' reads .npz, .npy and .h5 files")


def _key(path: Path, keys: Sequence[str], wanted: Sequence[str]) -> str:
    for key in wanted:
        if key in keys:
            return key
    raise UserError(f"{path}: has no array {' or '.join(map(repr, wanted))}; it holds {', '.join(sorted(keys))}")


def _open_npz(path: Path, form: Form) -> ImageSource:
    try:
        with np.load(path, allow_pickle=False) as archive:
            images = archive[_key(path, archive.files, IMAGE_KEYS)]
            label_key = next((key for key in LABEL_KEYS if key in archive.files), None)
            annotation = None if label_key is None else archive[label_key]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot be read ({error}); it must hold plain arrays, no pickled objects") from error
    if images.dtype == np.bool_:
        images = images.view(np.uint8)
    # The classic mistake with dSprites is to divide its zeros and ones by 255.
    if images.dtype == np.uint8 and images.size and images.max() <= 1:
        images *= np.uint8(255)
    note = annotate(path, annotation, len(images))
    return ArraySource(
        path.stem,
        fit_arrays(images, resolution=form.resolution, channels=form.channels, name=str(path)),
        **note._asdict(),
        transform="centre crop, lanczos",
    )


def _open_h5(path: Path, form: Form, in_memory_limit: int) -> ImageSource:
    contents = read_h5(path, IMAGE_KEYS, LABEL_KEYS)
    note = annotate(path, contents.annotation, contents.length)._asdict()
    return _kept(H5Source(path, contents, form.resolution, form.channels, note), note, in_memory_limit)


def _open_npy(path: Path, form: Form, in_memory_limit: int) -> ImageSource:
    beside = path.with_suffix(".labels.npy")
    try:
        values = np.load(beside, allow_pickle=False) if beside.is_file() else None
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{beside}: cannot be read ({error}); it must hold one plain array") from error
    rows, _ = open_rows(path)
    note = annotate(beside, values, len(rows))._asdict()
    return _kept(NpySource(path, form.resolution, form.channels, note), note, in_memory_limit)


def _kept(source: StoredSource, note: dict[str, Any], in_memory_limit: int) -> ImageSource:
    """``source`` itself, or its images in memory where they take at most ``in_memory_limit`` bytes."""
    if source.nbytes > in_memory_limit:
        return source
    pieces = [source.read(np.arange(i, min(i + 1024, len(source))))[0] for i in range(0, len(source), 1024)]
    return ArraySource(source.name, np.concatenate(pieces), **note, transform="centre crop, lanczos")


def annotate(path: Path, values: np.ndarray | None, count: int) -> Annotation:
    """Turn a file's labels (N,) or factors (N, K), of any real type, into consecutive integer classes."""
    if values is None:
        return Annotation(None, [], None, [], [])
    if values.ndim not in (1, 2) or len(values) != count or not np.issubdtype(values.dtype, np.number):
        raise UserError(f"{path}: {count} images but annotations {values.dtype} of shape {values.shape}")
    columns = values[:, None] if values.ndim == 1 else values
    levels, coded = [], np.empty(columns.shape, np.int64)
    for k in range(columns.shape[1]):
        unique, coded[:, k] = np.unique(columns[:, k], return_inverse=True)
        levels.append(unique)
    if values.ndim == 1:
        return Annotation(coded[:, 0], [f"{v:g}" for v in levels[0]], None, [], [])
    names = _factor_names(columns.shape[1], [len(unique) for unique in levels])
    kept = [k for k, unique in enumerate(levels) if len(unique) > 1]
    labels, class_names = None, []
    if "shape" in names and names.index("shape") in kept:
        shape = names.index("shape")
        labels, class_names = coded[:, shape].copy(), [f"shape {k}" for k in range(len(levels[shape]))]
    return Annotation(labels, class_names, coded[:, kept], [names[k] for k in kept], [len(levels[k]) for k in kept])


def _factor_names(count: int, sizes: list[int]) -> list[str]:
    if count != 6:
        return [f"factor {k}" for k in range(count)]
    # dSprites and 3dshapes both have six columns, and only dSprites has a constant first one.
    return list(DSPRITES_NAMES if sizes[0] == 1 else SHAPES3D_NAMES)
