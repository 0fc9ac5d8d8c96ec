"""Image sets stored as arrays: ``.npz`` like dSprites, ``.h5`` like 3dshapes, or plain ``images`` and ``labels``.

For a set that does not fit in memory, use an ``.npy`` file of images, which is read at the speed of the disk.

No pickled object is loaded: only the plain arrays of the dSprites file are read, not its ``metadata``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from orthogan.config.base import Section
from orthogan.data.formats.arrays import StoredSource, check_count, existing_file, npy_array, warn_of_zeros_and_ones
from orthogan.data.formats.levels import check_deep, check_unused, to_eight_bits
from orthogan.data.label_vectors import vector_annotation
from orthogan.data.resize import MOST_CHANNELS, TRANSFORM, check_images, is_deep
from orthogan.data.source import Annotation, ArraySource, DataRequest, ImageSource
from orthogan.data.sources import DATA_SOURCES, DataSource, shapes3d
from orthogan.errors import UserError
from orthogan.io.numpy_files import Npz, read_npy
from orthogan.io.read import exists, printable

log = logging.getLogger("orthogan.data")

MOST_FACTORS = 256  # columns of an annotation
IMAGE_KEYS = ("images", "imgs")
DSPRITES_NAMES = ("colour", "shape", "scale", "orientation", "x", "y")
LABEL_KEYS = ("latents_classes", "latents/classes", "latents_values", "latents/values", "labels")


class ArrayOptions(Section):
    """What only arrays have."""

    range: list[float] | None = Field(
        default=None,
        description="values of black and white of uint16 and float images, such as [-1, 1]; none = [0, 65535] for "
        "uint16, [0, 1] for floats",
    )

    labels: Literal["factors", "vectors"] = Field(
        default="factors",
        description="what two-dimensional labels (N, K) are: factors of the images, or the label vectors of a "
        "conditional model",
    )

    @field_validator("range")
    @classmethod
    def _two(cls, value: list[float] | None) -> list[float] | None:
        if value is not None and not (len(value) == 2 and value[0] < value[1]):
            raise ValueError(f"must be [black, white] with black < white, such as [0, 1] or [-1, 1], not {value}")
        return value


@DATA_SOURCES.register("array")
class Array(DataSource):
    """The images of an ``.npz`` or ``.h5`` file: key ``images`` or ``imgs``, (N, H, W) or (N, H, W, 1 to 16).

    Images are uint8, bool, uint16 or floats. uint16 from 0 to 65535 and floats from 0 to 1, or what ``options.range``
    says, are rounded to 8 bits (before they are resized); other values are an error with the smallest and the largest.

    It also reads an ``.npy`` file; its labels, if any, are in ``NAME.labels.npy`` beside ``NAME.npy``.

    With ``options.labels: vectors``, two-dimensional ``labels`` are the label vectors of a conditional model. Otherwise
    two-dimensional annotations (``latents_classes`` of dSprites, ``labels`` of 3dshapes) become integer factors,
    constant columns left out, and the column ``shape`` the class; one-dimensional ``labels`` become the class.
    Unusable annotations are logged, and ``why_unlabeled`` says what is wrong. If all pixels are 0 or 1, as in dSprites,
    they become 0 and 255, with a warning; for bool images, True becomes 255. An ``.npz`` is read into memory; a large
    ``.h5`` or ``.npy`` is read from the disk as needed.
    """

    path = "required"
    channels = tuple(range(1, MOST_CHANNELS + 1))
    rectangles = True
    options = ArrayOptions

    def open(self, data: DataRequest) -> ImageSource:
        """Open the images of the file. Raises UserError naming the file and what is missing."""
        path = existing_file(data.path, "an .npz, .npy or .h5 file")
        options = ArrayOptions(**data.options)
        kind, given, vectors = path.suffix.lower(), options.range, options.labels == "vectors"
        if kind == ".npz":
            return _open_npz(path, data, given, vectors)
        if kind in (".h5", ".hdf5"):
            from orthogan.data.formats.hdf5 import H5Source, h5_annotation, h5_array

            images = h5_array(path, IMAGE_KEYS)
            note = _annotated(
                path, lambda: h5_annotation(path, LABEL_KEYS, images.shape[0]), images.shape[0], vectors=vectors
            )
            source = H5Source(images, data, note, deep=True, value_range=given)
        elif kind == ".npy":
            images, beside = npy_array(path), path.with_suffix(".labels.npy")
            note = _annotated(
                beside,
                lambda: read_npy(beside) if exists(beside, "file") else None,
                images.shape[0],
                vectors=vectors,
            )
            source = StoredSource(images, data, note, deep=True, value_range=given)
        else:
            raise UserError(f"{printable(path)}: the source 'array' reads .npz, .npy and .h5 files")
        source.find_levels()
        return source.kept()


def _open_npz(path: Path, data: DataRequest, value_range: Sequence[float] | None, vectors: bool) -> ImageSource:
    with Npz(path) as archive:
        key = archive.key(IMAGE_KEYS)
        header = archive.header(key)
        check_images(header.shape, header.dtype, f"{path}: {key!r}", deep=True)
        check_count(path, header.shape[0])
        images = archive.read(key)
        label_key = next((key for key in LABEL_KEYS if key in archive.keys), None)
        note = _annotated(
            path, lambda: None if label_key is None else archive.read(label_key), len(images), vectors=vectors
        )
    if is_deep(images.dtype):
        check_deep([images], images.dtype, value_range, path)
        images = to_eight_bits(images, value_range, path)
    else:
        check_unused(value_range, path, images.dtype)
        if images.dtype == np.uint8 and images.size and images.max() <= 1:
            images = images * np.uint8(255)
            warn_of_zeros_and_ones(path)
    return ArraySource(printable(path.stem), data.fit(images, path), **note._asdict(), transform=TRANSFORM)


def _annotated(path: Path, read: Callable[[], np.ndarray | None], count: int, *, vectors: bool) -> Annotation:
    """Convert the result of ``read`` to an annotation; an unusable one is logged."""
    if vectors:
        return _label_vectors(path, read(), count)
    try:
        note = annotate(path, read(), count)
    except UserError as error:
        log.warning("%s; the set has no labels and no factors", error)
        return Annotation(why_unlabeled=str(error))
    if note.labels is not None:
        return note
    if note.factors is not None:
        why = (
            "its labels have shape (N, K), so they are factors; save one class number per image as 'labels', shape "
            "(N,), or set data.options.labels to vectors"
        )
    else:
        where = path.name if path.suffix == ".npy" else f"an array 'labels' in {path.name}"
        why = f"save class numbers of shape (N,) as {printable(where)}"
    return note._replace(why_unlabeled=why)


def _label_vectors(path: Path, values: np.ndarray | None, count: int) -> Annotation:
    """The annotation of labels (N, K) that are vectors. Raises UserError naming the file."""
    where = printable(path)
    if values is None:
        raise UserError(f"data.options.labels is vectors, but there are no labels in {where}; save them as 'labels'")
    if len(values) != count:
        raise UserError(f"{where}: {count} images but labels of shape {values.shape}")
    try:
        return vector_annotation(values)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def annotate(path: Path, values: np.ndarray | None, count: int) -> Annotation:
    """Turn a file's labels (N,) or factors (N, K), of any real type, into consecutive integer classes."""
    if values is None:
        return Annotation()
    where = printable(path)
    if values.ndim not in (1, 2) or len(values) != count or values.dtype.kind not in "biuf":
        raise UserError(f"{where}: {count} images but annotations {values.dtype} of shape {values.shape}")
    if values.ndim == 2 and not 1 <= values.shape[1] <= MOST_FACTORS:
        raise UserError(f"{where}: annotations must have 1 to {MOST_FACTORS} columns, not {values.shape[1]}")
    if not np.isfinite(values).all():
        raise UserError(f"{where}: its annotations contain NaN or infinite values")
    columns = values[:, None] if values.ndim == 1 else values
    levels, coded = [], np.empty(columns.shape, np.int64)
    for k in range(columns.shape[1]):
        unique, coded[:, k] = np.unique(columns[:, k], return_inverse=True)
        levels.append(unique)
    if values.ndim == 1:
        return Annotation(coded[:, 0], _class_names(levels[0].tolist()))
    names = _factor_names(columns.shape[1], [len(unique) for unique in levels])
    kept = [k for k, unique in enumerate(levels) if len(unique) > 1]
    labels, class_names = None, []
    if "shape" in names and names.index("shape") in kept:
        shape = names.index("shape")
        labels, class_names = coded[:, shape].copy(), [f"shape {k}" for k in range(len(levels[shape]))]
    return Annotation(labels, class_names, coded[:, kept], [names[k] for k in kept], [len(levels[k]) for k in kept])


def _class_names(values: Sequence[float]) -> list[str]:
    """Return a different name for every value."""
    names = [str(int(v)) if v == int(v) else f"{v:g}" for v in values]
    return names if len(set(names)) == len(names) else [repr(v) for v in values]


def _factor_names(count: int, sizes: list[int]) -> list[str]:
    if count != 6:
        return [f"factor {k}" for k in range(count)]
    # dSprites and 3dshapes both have six columns, and only dSprites has a constant first one.
    return list(DSPRITES_NAMES if sizes[0] == 1 else shapes3d.NAMES)
