"""dSprites, Shapes3D and MPI3D as published, and observations of chosen factors from any source that knows them.

Cars3D and SmallNORB have formats of their own: ``orthogan.data.sources.cars3d`` and ``orthogan.data.sources.smallnorb``. No pickled
object is loaded: dSprites' ``metadata`` is never touched. All pictures take the way of ``orthogan.data.resize``.
"""  # noqa: E501

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from orthogan.data.resize import fit_arrays
from orthogan.data.source import ImageSource
from orthogan.data.sources.array_files import SHAPES3D_NAMES, Annotation
from orthogan.data.sources.arrays import ArraySource
from orthogan.data.sources.folder import IN_MEMORY_LIMIT, Form
from orthogan.data.sources.h5_source import H5Source, read_h5, read_h5_annotation
from orthogan.data.sprites import FACTOR_NAMES, FACTOR_SIZES, SHAPE_NAMES
from orthogan.errors import UserError
from orthogan.io.content_hash import ContentHash, hash_files
from orthogan.io.numpy_files import Npz
from orthogan.io.read import exists, parsing, printable, user_path

log = logging.getLogger("orthogan.data")

TRANSFORM = "centre crop, lanczos"
DSPRITES_FILE = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
SHAPES3D_SIZES = (10, 10, 10, 8, 4, 15)
MPI3D_FILES = "mpi3d_toy.npz, mpi3d_realistic.npz, mpi3d_real.npz or real3d_complicated_shapes_ordered.npz"
_MPI3D = "object_colour object_shape object_size camera_height background_colour horizontal_axis vertical_axis"
MPI3D_NAMES = tuple(_MPI3D.split(" "))
# The final release, and the complex shapes together with the release before it: the count tells which.
MPI3D_SIZES = {1_036_800: (6, 6, 2, 3, 3, 40, 40), 460_800: (4, 4, 2, 3, 3, 40, 40)}
ROWS = 1024  # pictures that are unpacked at a time


def open_dsprites(path: str | Path, form: Form, *, in_memory_limit: int = IN_MEMORY_LIMIT) -> ImageSource:
    """dSprites (Matthey et al. 2017): ``imgs`` uint8 (N, 64, 64) of 0 and 1, ``latents_classes`` integers (N, 6).

    The constant colour, column 0, is no factor. The class is the shape; pixels become 0 and 255. ``path``: the .npz.
    The published file is compressed and so unpacked into memory, 3 GB at 64 pixels; one saved again with
    ``numpy.savez`` is read from the disk where it is larger than ``in_memory_limit`` [bytes].
    Raises UserError naming the file and what was expected.
    """
    file = _file(path, DSPRITES_FILE)
    images = look_into(file, "imgs")
    with Npz(file) as archive:
        classes = archive.read(archive.key(["latents_classes"]))
    wanted = (images.shape[0], 6)
    if classes.shape != wanted or classes.dtype.kind not in "iu":
        raise UserError(f"{file}: 'latents_classes' is {classes.dtype} {classes.shape}, expected integers {wanted}")
    names, sizes = ("colour", *FACTOR_NAMES), (1, *FACTOR_SIZES)
    check_factors(file, classes, names, sizes)
    note = annotation(classes[:, 1:], names[1:], sizes[1:], label="shape", class_names=SHAPE_NAMES)
    return _open_npz("dsprites", images, form, note, in_memory_limit, binary=True)


def open_shapes3d(path: str | Path, form: Form, *, in_memory_limit: int = IN_MEMORY_LIMIT) -> ImageSource:
    """Shapes3D (Burgess & Kim 2018): ``images`` uint8 (N, 64, 64, 3), ``labels`` float64 (N, 6) of the factors' values.

    The values become classes by rank, so the file must have every value of every factor. The class is the shape.
    ``path``: ``3dshapes.h5``. More than ``in_memory_limit`` bytes are read from the disk as needed.
    Raises UserError naming the file and what was expected.
    """
    file = _file(path, "3dshapes.h5")
    contents = read_h5(file, ("images",))
    values, wanted = read_h5_annotation(file, ("labels",), contents.shape[0]), (contents.shape[0], 6)
    if values is None or values.shape != wanted or values.dtype.kind != "f" or not np.isfinite(values).all():
        found = "missing" if values is None else f"{values.dtype} {values.shape}"
        raise UserError(f"{file}: 'labels' is {found}, expected finite float64 {wanted}")
    classes = np.empty(values.shape, np.int64)
    for k, (name, size) in enumerate(zip(SHAPES3D_NAMES, SHAPES3D_SIZES, strict=True)):
        classes[:, k] = _ranks(values[:, k])
        found = int(classes[:, k].max(initial=-1)) + 1
        if found != size:
            raise UserError(f"{file}: column {k} of 'labels' ({name}) has {found} different values, expected {size}")
    shapes = [f"shape {k}" for k in range(SHAPES3D_SIZES[4])]
    note = annotation(classes, SHAPES3D_NAMES, SHAPES3D_SIZES, label="shape", class_names=shapes)
    source = H5Source(file, contents, form.resolution, form.channels, note._asdict())
    source.name = "shapes3d"
    if source.nbytes > in_memory_limit:
        return source
    images = np.concatenate([source.read(indices)[0] for indices in source.pieces()])
    return ArraySource("shapes3d", images, **note._asdict(), transform=TRANSFORM)


def open_mpi3d(path: str | Path, form: Form, *, in_memory_limit: int = IN_MEMORY_LIMIT) -> ImageSource:
    """MPI3D toy, realistic, real or complex (Gondal et al. 2019): ``images`` uint8 (N, 64, 64, 3) and nothing else.

    The place in the file says the factors, the last one running fastest; N says how many colours and shapes there
    are. The class is the object's shape. ``path``: the .npz. An uncompressed file is read from the disk
    where it is larger than ``in_memory_limit`` [bytes], a compressed one always into memory.
    Raises UserError naming the file and what was expected.
    """
    file = _file(path, MPI3D_FILES)
    images = look_into(file, "images")
    sizes = MPI3D_SIZES.get(images.shape[0])
    if sizes is None:
        known = " or ".join(f"{count:,} = {' x '.join(map(str, sizes))}" for count, sizes in MPI3D_SIZES.items())
        raise UserError(f"{file}: 'images' holds {images.shape[0]:,} pictures, expected {known}")
    shapes = [f"object_shape {k}" for k in range(sizes[1])]
    note = annotation(full_grid(sizes), MPI3D_NAMES, sizes, label="object_shape", class_names=shapes)
    return _open_npz(file.stem, images, form, note, in_memory_limit, binary=False)


class FactorGrid:
    """A source whose factors are known, as the ``LabelledSource`` of ``factor_vae`` and ``beta_vae``.

    Args:
        source: an image source with ``factors`` (N, K); no combination may occur twice.
        occurring: number only the values that occur, so that SmallNORB's five training instances, 4 6 7 8 9, are
            0 to 4 and its grid has no holes. ``values[k][j]`` is the source's class of value j of factor k.

    A full grid in the order of its factors needs arithmetic only; any other one a sorted table of N keys.
    Raises ValueError: the source knows no factors, or one of the combinations is there twice.
    """

    def __init__(self, source: ImageSource, *, occurring: bool = False) -> None:
        factors = source.factors
        if factors is None or not len(source.factor_sizes):
            raise ValueError(f"{source.name}: its factors are not known; FactorGrid needs a source with factors (N, K)")
        self.source, self.occurring = source, occurring
        self.factor_names = tuple(source.factor_names)
        if occurring:
            self.values = tuple(np.unique(column) for column in factors.T)
            factors = np.stack([np.searchsorted(v, c) for v, c in zip(self.values, factors.T, strict=True)], axis=1)
        else:
            self.values = tuple(np.arange(size) for size in source.factor_sizes)
        self.factor_sizes: tuple[int, ...] = tuple(len(v) for v in self.values)
        self.combinations = int(np.prod([int(size) for size in self.factor_sizes], dtype=object))
        pieces = range(0, len(factors), 1 << 20)  # the table of the coloured sprites has 35 million rows
        keys = np.concatenate([self._keys(factors[i : i + (1 << 20)]) for i in pieces])
        self._table: tuple[np.ndarray, np.ndarray] | None = None  # sorted keys and their rows
        if len(keys) == self.combinations and (keys == np.arange(len(keys))).all():
            return
        rows = np.argsort(keys, kind="stable")
        ordered = keys[rows]
        self._table = ordered, rows
        double = np.flatnonzero(ordered[1:] == ordered[:-1])
        if len(double):
            first, second = rows[double[0]], rows[double[0] + 1]
            raise ValueError(
                f"{source.name}: images {first} and {second} have the same factors, {self._words(factors[first])}; "
                "FactorGrid needs factors that tell the images apart"
            )

    def rows(self, factors: np.ndarray) -> np.ndarray:
        """Where in the source the images of factors (n, K) are: int64 (n,).

        Raises ValueError: another shape, a value out of range, or a combination that no image has.
        """
        keys = self._keys(factors)
        if self._table is None:
            return keys
        ordered, rows = self._table
        place = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
        absent = np.flatnonzero(ordered[place] != keys)
        if len(absent):
            remedy = "" if self.occurring else "; FactorGrid(source, occurring=True) numbers only values that occur"
            raise ValueError(
                f"{self.source.name}: no image has {self._words(factors[absent[0]])}: {len(self.source):,} of "
                f"{self.combinations:,} combinations exist{remedy}"
            )
        return rows[place]

    def sample(self, factors: np.ndarray, /) -> np.ndarray:
        """Images uint8 (n, channels, resolution, resolution) of factors (n, K); errors as ``rows``."""
        return self.source.read(self.rows(factors))[0]

    def _keys(self, factors: np.ndarray) -> np.ndarray:
        if factors.ndim != 2 or factors.shape[1] != len(self.factor_sizes) or factors.dtype.kind not in "iu":
            raise ValueError(
                f"{self.source.name}: factors must be integers (n, {len(self.factor_sizes)}), "
                f"not {factors.dtype} of shape {factors.shape}"
            )
        wrong = np.argwhere((factors < 0) | (factors >= np.array(self.factor_sizes)))
        if len(wrong):
            row, k = wrong[0]
            raise ValueError(
                f"{self.source.name}: {self.factor_names[k]}={factors[row, k]}: must be 0 to {self.factor_sizes[k] - 1}"
            )
        return np.asarray(np.ravel_multi_index(tuple(factors.astype(np.int64).T), self.factor_sizes))

    def _words(self, factors: np.ndarray) -> str:
        return ", ".join(f"{name}={value}" for name, value in zip(self.factor_names, factors, strict=True))


class StoredImages(NamedTuple):
    """An array of pictures in an .npz: its shape, and where its bytes start in the file, None if compressed."""

    path: Path
    key: str
    shape: tuple[int, ...]
    offset: int | None


class NpzSource(ImageSource):
    """The pictures of an uncompressed .npz, mapped and read as they are needed; every process maps its own.

    ``binary``: pixels are 0 and 1 and become 0 and 255.
    """

    def __init__(self, name: str, images: StoredImages, form: Form, note: Annotation, *, binary: bool) -> None:
        self.name, self.images, self.form, self.binary = name, images, form, binary
        self.resolution, self.channels = form.resolution, form.channels
        self.class_names, self.num_classes = note.class_names, len(note.class_names)
        self.factor_names, self.factor_sizes = note.factor_names, note.factor_sizes
        self._factors = note.factors
        self.labels = np.zeros(len(self), np.int64) if note.labels is None else note.labels
        self._map: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_map": None}

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def factors(self) -> np.ndarray | None:
        return self._factors

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._map is None:
            file, _, shape, offset = self.images
            self._map = np.memmap(file, np.uint8, "r", offset=offset or 0, shape=shape)
        return _fitted(self._map[indices], self.form, self.binary, self.images.path), self.labels[indices]

    def fingerprint(self) -> str:
        """Hash of the file's content, the factors and the transform."""
        digest = ContentHash().text(TRANSFORM, self.resolution, self.channels, *self.class_names)
        digest.text(self.images.key, hash_files([self.images.path])).array(self.labels)
        if self._factors is not None:
            digest.array(self._factors)
        return digest.hexdigest()


def _file(path: str | Path, published: str) -> Path:
    path = user_path(path)
    if not exists(path, "file"):
        what = "this is not a regular file" if path.exists() else "there is no such file"
        raise UserError(f"{printable(path)}: {what}; data.path must name {published}")
    return path


def check_factors(file: Path, factors: np.ndarray, names: Sequence[str], sizes: Sequence[int]) -> None:
    """Raises UserError naming the column of ``factors`` (N, K) that leaves 0 ... size - 1."""
    for k, (name, size) in enumerate(zip(names, sizes, strict=True)):
        low, high = factors[:, k].min(), factors[:, k].max()
        if low < 0 or high >= size:
            raise UserError(f"{file}: {name} (column {k}) runs from {low} to {high}, expected 0 to {size - 1}")


def annotation(
    factors: np.ndarray, names: Sequence[str], sizes: Sequence[int], *, label: str, class_names: Sequence[str]
) -> Annotation:
    """Factors (N, K), of which the one called ``label`` is the class too."""
    factors = factors.astype(np.int64)
    return Annotation(factors[:, names.index(label)].copy(), list(class_names), factors, list(names), list(sizes))


def full_grid(sizes: Sequence[int]) -> np.ndarray:
    """Every combination int64 (prod(sizes), K), the last factor running fastest."""
    return np.indices(tuple(sizes), np.int64).reshape(len(sizes), -1).T


def _ranks(values: np.ndarray) -> np.ndarray:
    """The place int64 (N,) of each value among the different ones; a millionth of their range makes no difference."""
    levels = np.unique(values)
    apart = np.diff(levels) > 1e-6 * np.ptp(levels) if len(levels) else np.zeros(0, bool)
    rank = np.concatenate([[0], np.cumsum(apart)])
    return rank[np.searchsorted(levels, values)]


def look_into(path: Path, key: str) -> StoredImages:
    """Find the pictures ``key`` of an .npz without unpacking them. Raises UserError: none, or not uint8."""
    with Npz(path) as archive:
        header = archive.header(archive.key([key]))
        offset = archive.offset(key)
    shape, dtype = header.shape, header.dtype
    if dtype != np.uint8 or len(shape) < 3 or math.prod(shape) < 1:
        raise UserError(
            f"{printable(path)}: {key!r} is {dtype} {shape}, expected uint8 pictures (N, H, W) or (N, H, W, 3)"
        )
    if header.fortran:
        raise UserError(f"{printable(path)}: {key!r} is stored column by column; save numpy.ascontiguousarray of it")
    return StoredImages(path, key, shape, offset)


def _pieces(images: StoredImages) -> Iterator[np.ndarray]:
    """The pictures in order, some at a time, so that a large compressed array is never held as it is stored."""
    bounds = [*range(0, images.shape[0], ROWS), images.shape[0]]
    each = math.prod(images.shape[1:])
    with Npz(images.path) as archive:
        member, _ = archive.open(images.key)
        with member, parsing(f"{images.path}: {images.key!r}", "an array of pictures"):
            for start, stop in pairwise(bounds):
                piece = np.frombuffer(member.read(each * (stop - start)), np.uint8)
                yield piece.reshape(stop - start, *images.shape[1:])
            member.read(1)  # at the end the check sum is compared


def _fitted(stored: np.ndarray, form: Form, binary: bool, path: Path) -> np.ndarray:
    if binary:
        if stored.max(initial=0) > 1:
            raise UserError(f"{path}: has pixels up to {stored.max()}, expected 0 and 1 as dSprites is published")
        stored = stored * np.uint8(255)  # not / 255, the classic mistake
    return fit_arrays(stored, resolution=form.resolution, channels=form.channels, name=str(path))


def _open_npz(
    name: str, images: StoredImages, form: Form, note: Annotation, in_memory_limit: int, *, binary: bool
) -> ImageSource:
    source = NpzSource(name, images, form, note, binary=binary)
    if source.nbytes > in_memory_limit and images.offset is not None:
        return source
    if source.nbytes > in_memory_limit:
        log.warning("%s: compressed, so all of it is held in memory; numpy.savez makes one read as needed", images.path)
    fitted = np.empty((len(source), form.channels, form.resolution, form.resolution), np.uint8)
    for k, piece in enumerate(_pieces(images)):
        fitted[k * ROWS : k * ROWS + len(piece)] = _fitted(piece, form, binary, images.path)
    return ArraySource(name, fitted, **note._asdict(), transform=TRANSFORM)
