"""Local data sets of the library ``datasets`` (Hugging Face): a ``save_to_disk`` folder, or parquet files.

Requires the extra ``orthogan[datasets]``. Nothing is downloaded: images must be stored in the files themselves.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from orthogan.config.base import Section
from orthogan.data.formats.image_files import open_files
from orthogan.data.formats.stores import Entry, FileStore
from orthogan.data.label_vectors import vector_annotation
from orthogan.data.source import Annotation, DataRequest, ImageSource
from orthogan.data.sources import DATA_SOURCES, DataSource
from orthogan.errors import UserError, install
from orthogan.io.hashing import ContentHash, hash_files
from orthogan.io.read import UnreadableFile, cache_folder, exists, parsing, printable, shown, user_path
from orthogan.registry import did_you_mean
from orthogan.words import counted

PARTS = ("train", "validation", "test")
LABEL_COLUMNS = ("label", "labels", "fine_label")
EXPECTED = "a data set of the library datasets"


class DatasetsOptions(Section):
    """The columns of the data set."""

    image: str | None = Field(default=None, description="column with the images; none = the only image column")
    label: str | None = Field(
        default=None,
        description=f"column with the classes; none = {', '.join(LABEL_COLUMNS)}, or the only class column",
    )


@DATA_SOURCES.register("datasets")
class Datasets(DataSource):
    """A local data set of Hugging Face's ``datasets``, with the images encoded in a column, in its order.

    ``path``: a folder written by ``save_to_disk`` (of a data set, or of several parts), a ``.parquet`` file, or a
    folder of them as on the Hub (``train-00000-of-00002.parquet``, also below ``data``). Images are decoded and resized
    like those of ``folder``, also with ``bad_images``. Classes are a column of class labels, integers or strings. Lists
    of numbers, of equal length, are vectors; lists of class labels, of any length, are vectors of 0 and 1.
    """

    path = "required"
    needs = "a folder written by datasets.Dataset.save_to_disk, a .parquet file, or a folder of .parquet files"
    splits = PARTS
    channels = (1, 2, 3, 4)
    rectangles = True
    options = DatasetsOptions

    def open(self, data: DataRequest) -> ImageSource:
        """Open the images of the column. Raises UserError naming the file or column and what is wrong."""
        options, path = DatasetsOptions(**data.options), user_path(data.path or "")
        table, files = _load(path, data.split)
        where = printable(path)
        if len(table) < 2:
            raise UserError(f"{where}: contains {counted(len(table), 'image')}; a data set needs at least two")
        column = _image_column(table, options.image, where)
        note = _labels(table, options.label, where)
        store = RowStore(path, table, column, files)
        return open_files(f"{printable(path.stem)}-{data.split}", store, store.entries(), note, data)


class RowStore(FileStore):
    """The encoded images in a column of a ``datasets.Dataset``, each named by its row."""

    def __init__(self, path: Path, table: Any, column: str, files: Sequence[Path]) -> None:
        from datasets import Image  # pyright: ignore[reportMissingImports]

        self.path, self.column, self.files = path, column, list(files)
        # decode=False: the library would open paths and addresses that a row names
        self.table = table.select_columns([column]).with_format(None).cast_column(column, Image(decode=False))

    def entries(self) -> list[Entry]:
        """All rows in order, each with the mean size of the rows."""
        size = self.table.data.nbytes // max(1, len(self.table))
        return [Entry(f"row {row}", size) for row in range(len(self.table))]

    def read(self, name: str) -> bytes:
        """The encoded image of a row. Raises UnreadableFile if its bytes are not in the data set."""
        value = self.table[int(name.removeprefix("row "))][self.column]
        if value is None or value["bytes"] is None:
            found = "no image" if value is None else f"only the path {shown(value['path'], 80)}, not the image itself"
            raise UnreadableFile(name, f"the column {self.column!r} holds {found}")
        return value["bytes"]

    def content_hash(self, names: Sequence[str]) -> str:
        """One hash of the files of the data set and the rows."""
        return ContentHash().text(self.column, *names, hash_files(self.files)).hexdigest()


def _load(path: Path, part: str) -> tuple[Any, list[Path]]:
    """Return the ``datasets.Dataset`` of a part, and the files that hold it."""
    where = printable(path)
    folder = exists(path, "folder")
    if not folder and not exists(path, "file"):
        raise UserError(f"{where}: there is no such file or folder; data.path must name {Datasets.needs}")
    try:
        from datasets import Dataset, DatasetDict, load_from_disk  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(f"data.source: 'datasets' needs the package datasets: {install('datasets')}") from error
    if folder and any(exists(path / name, "file") for name in ("dataset_dict.json", "state.json")):
        with parsing(path, EXPECTED):
            found = load_from_disk(str(path))
        if isinstance(found, DatasetDict):
            if part not in found:
                raise UserError(f"data.split: {where} has {', '.join(map(printable, found))}, not {part!r}")
            found = found[part]
        elif part != "train":
            raise UserError(f"data.split: {where} is a single data set, whose split is train, not {part!r}")
        return found, [Path(file["filename"]) for file in found.cache_files]
    files = _parquet_files(path, part) if folder else [path]
    if not folder and path.suffix.lower() != ".parquet":
        raise UserError(f"{where}: is not a .parquet file; data.path must name {Datasets.needs}")
    if not folder and part != "train":
        raise UserError(f"data.split: {where} is a single file, whose split is train, not {part!r}")
    with parsing(path, EXPECTED):
        from datasets import Features, concatenate_datasets  # pyright: ignore[reportMissingImports]
        from pyarrow import parquet  # pyright: ignore[reportMissingImports]

        tables = []
        for file in files:
            schema = parquet.read_schema(file)
            kept = cache_folder() / "datasets"
            tables.append(
                Dataset.from_parquet(
                    glob.escape(str(file)), cache_dir=str(kept), features=Features.from_arrow_schema(schema)
                )
            )
        return concatenate_datasets(tables), files


def _parquet_files(folder: Path, part: str) -> list[Path]:
    """Return the files of a part in a folder, or in its folder ``data``."""
    files = sorted(folder.glob("*.parquet")) or sorted((folder / "data").glob("*.parquet"))
    where = printable(folder)
    if not files:
        raise UserError(
            f"{where}: has neither .parquet files nor a data set of save_to_disk; data.path must name {Datasets.needs}"
        )
    parts = {name: [file for file in files if file.name.startswith((f"{name}-", f"{name}."))] for name in PARTS}
    found = [name for name in PARTS if parts[name]]
    if not found and part == "train":
        return files
    if part not in found:
        raise UserError(f"data.split: {where} has {', '.join(found) or 'train'}, not {part!r}")
    return parts[part]


def _image_column(table: Any, name: str | None, where: str) -> str:
    from datasets import Image  # pyright: ignore[reportMissingImports]

    def stored(feature: Any) -> bool:
        binary = getattr(feature, "dtype", None) in ("binary", "large_binary")
        return isinstance(feature, Image) or binary or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})

    suited = [column for column, feature in table.features.items() if stored(feature)]
    if name is None and len(suited) == 1:
        return suited[0]
    listed = f"its columns with images are {', '.join(map(printable, suited)) or 'none'}"
    if name is None:
        raise UserError(f"{where}: {listed}; set data.options.image to the column to use")
    if name not in suited:
        raise UserError(
            f"data.options.image: {where} has no image column {shown(name)}; {listed}{did_you_mean(name, suited)}"
        )
    return name


def _labels(table: Any, name: str | None, where: str) -> Annotation:
    """Return the classes of the column ``name``; if it is None, of the usual one, which may be missing or unusable."""
    from datasets import ClassLabel  # pyright: ignore[reportMissingImports]

    features = table.features
    if name is not None and name not in features:
        listed = ", ".join(map(printable, features))
        raise UserError(
            f"data.options.label: {where} has no column {shown(name)}; it has {listed}{did_you_mean(name, features)}"
        )
    classes = [column for column, feature in features.items() if isinstance(feature, ClassLabel)]
    column = name or next((c for c in LABEL_COLUMNS if c in features), classes[0] if len(classes) == 1 else None)
    if column is None:
        return Annotation(why_unlabeled="set data.options.label to the column of its classes")
    values, feature = table.with_format(None)[column][:], features[column]
    if isinstance(feature, ClassLabel) and all(type(v) is int and 0 <= v < len(feature.names) for v in values):
        return Annotation(np.array(values, np.int64), [printable(name) for name in feature.names])
    kinds = {type(value) for value in values}
    if not isinstance(feature, ClassLabel) and (kinds <= {int} or kinds <= {bool} or kinds <= {str}):
        levels = sorted(set(values))
        number = {value: index for index, value in enumerate(levels)}
        return Annotation(np.array([number[v] for v in values], np.int64), [printable(str(v)) for v in levels])
    try:
        if kinds <= {list} and values:
            return _vectors(values, feature)
    except UserError as error:
        raise UserError(f"{where}: the column {column!r}: {error}") from None
    problem = (
        f"the column {column!r} does not hold one label per image (a class label, an integer, a string, a list of "
        "numbers or a list of class labels)"
    )
    if name is not None:
        raise UserError(f"data.options.label: {where}: {problem}")
    return Annotation(why_unlabeled=problem)


def _vectors(values: Sequence[list[Any]], feature: Any) -> Annotation:
    """The annotation of lists of numbers, or of class labels if the feature holds them."""
    names = [printable(name) for name in getattr(getattr(feature, "feature", None), "names", None) or ()]
    if names:
        rows = np.zeros((len(values), len(names)), np.float32)
        for row, chosen in zip(rows, values, strict=True):
            if not all(type(label) is int and 0 <= label < len(names) for label in chosen):
                raise UserError(f"a list holds {shown(chosen)}, but the classes are 0 to {len(names) - 1}")
            row[chosen] = 1
        return vector_annotation(rows, names)
    try:
        return vector_annotation(np.array(values))
    except ValueError:
        raise UserError("the lists have different lengths") from None
