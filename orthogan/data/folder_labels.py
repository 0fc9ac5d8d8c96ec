"""The classes of a folder of images: from its sub-folders, or from StyleGAN's ``dataset.json``."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from orthogan.data.files import FileStore
from orthogan.errors import UserError

log = logging.getLogger("orthogan.data")

DATASET_JSON = "dataset.json"


class Labelling(NamedTuple):
    """``labels``: int64 (N,), zeros without classes. ``class_names``: one a class, empty without."""

    labels: np.ndarray
    class_names: list[str]


def unlabelled(count: int) -> Labelling:
    """No classes for ``count`` images."""
    return Labelling(np.zeros(count, np.int64), [])


def labels_from_folders(names: Sequence[str], *, where: str) -> Labelling:
    """Class = the first sub-folder in which the files differ; no classes when some files lie outside of all."""
    parts = [name.split("/") for name in names]
    depth = 0
    while all(len(p) > depth + 2 and p[depth] == parts[0][depth] for p in parts):
        depth += 1
    inside = [len(p) > depth + 1 for p in parts]
    if not any(inside):
        return unlabelled(len(names))
    if not all(inside):
        stray = names[inside.index(False)]
        log.warning("%s: images lie beside sub-folders (such as %s), so the set has no classes", where, stray)
        return unlabelled(len(names))
    folders = [p[depth] for p in parts]
    classes = sorted(set(folders))
    if len(classes) < 2:
        return unlabelled(len(names))
    number = {name: index for index, name in enumerate(classes)}
    return Labelling(np.array([number[folder] for folder in folders], np.int64), classes)


def labels_from_json(store: FileStore, names: Sequence[str]) -> Labelling | None:
    """Classes from ``{"labels": [[file name, class number], ...]}``; None where ``labels`` is null or missing.

    Raises UserError when the file is no such thing, leaves an image out, or holds other labels than whole numbers.
    """
    where = f"{store.path}/{DATASET_JSON}"
    try:
        content: Any = json.loads(store.read(DATASET_JSON))
        pairs = content.get("labels")
        if pairs is None:
            return None
        table = {str(name).replace("\\", "/"): label for name, label in pairs}
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f'{where}: expected {{"labels": [["file.png", 0], ...]}} ({error})') from error
    missing = [name for name in names if name not in table]
    if missing:
        raise UserError(f"{where}: has no label for {len(missing)} of {len(names)} images, such as {missing[0]}")
    labels = [table[name] for name in names]
    for name, label in zip(names, labels, strict=True):
        if type(label) is not int or label < 0:
            raise UserError(f"{where}: the label of {name} is {label!r}; only class numbers 0, 1, ... are supported")
    count = max(labels) + 1
    return Labelling(np.array(labels, np.int64), [str(k) for k in range(count)])
