"""Shapes3D (Burgess & Kim 2018) as published."""

from __future__ import annotations

import numpy as np

from orthogan.data.factors import known_factors
from orthogan.data.formats.arrays import existing_file
from orthogan.data.source import DataRequest, ImageSource
from orthogan.data.sources import DATA_SOURCES, DataSource
from orthogan.errors import UserError

NAMES = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
SIZES = (10, 10, 10, 8, 4, 15)


@DATA_SOURCES.register("shapes3d")
class Shapes3D(DataSource):
    """Shapes3D: ``images`` uint8 (N, 64, 64, 3), ``labels`` float64 (N, 6) of the factors' values, in ``3dshapes.h5``.

    The values become classes by rank, so the file must have every value of every factor. The class is the shape.
    """

    path = "required"
    factors = True

    def open(self, data: DataRequest) -> ImageSource:
        """The images of the file. Raises UserError naming the file and what was expected."""
        from orthogan.data.formats.hdf5 import H5Source, h5_annotation, h5_array

        file = existing_file(data.path, "3dshapes.h5")
        images = h5_array(file, ("images",))
        values, wanted = h5_annotation(file, ("labels",), images.shape[0]), (images.shape[0], 6)
        if values is None or values.shape != wanted or values.dtype.kind != "f" or not np.isfinite(values).all():
            found = "missing" if values is None else f"{values.dtype} {values.shape}"
            raise UserError(f"{file}: 'labels' is {found}, expected finite float64 {wanted}")
        classes = np.empty(values.shape, np.int64)
        for k, (name, size) in enumerate(zip(NAMES, SIZES, strict=True)):
            classes[:, k] = _ranks(values[:, k])
            found = int(classes[:, k].max(initial=-1)) + 1
            if found != size:
                raise UserError(
                    f"{file}: column {k} of 'labels' ({name}) has {found} different values, expected {size}"
                )
        shapes = [f"shape {k}" for k in range(SIZES[4])]
        note = known_factors(classes, NAMES, SIZES, label="shape", class_names=shapes)
        return H5Source(images, data, note, name="shapes3d").kept()


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return the rank int64 (N,) of each distinct value; differences of a millionth of the range are ignored."""
    levels = np.unique(values)
    apart = np.diff(levels) > 1e-6 * np.ptp(levels) if len(levels) else np.zeros(0, bool)
    rank = np.concatenate([[0], np.cumsum(apart)])
    return rank[np.searchsorted(levels, values)]
