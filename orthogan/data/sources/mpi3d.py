"""MPI3D (Gondal et al. 2019) as published."""

from __future__ import annotations

from orthogan.data.factors import full_grid, known_factors
from orthogan.data.formats.arrays import existing_file, npz_array, open_npz
from orthogan.data.source import DataRequest, ImageSource
from orthogan.data.sources import DATA_SOURCES, DataSource
from orthogan.errors import UserError

FILES = "mpi3d_toy.npz, mpi3d_realistic.npz, mpi3d_real.npz or real3d_complicated_shapes_ordered.npz"
_NAMES = "object_colour object_shape object_size camera_height background_colour horizontal_axis vertical_axis"
NAMES = tuple(_NAMES.split(" "))
# The final release, and the complex shapes with the release before it; the number of images tells which.
SIZES = {1_036_800: (6, 6, 2, 3, 3, 40, 40), 460_800: (4, 4, 2, 3, 3, 40, 40)}


@DATA_SOURCES.register("mpi3d")
class MPI3D(DataSource):
    """MPI3D toy, realistic, real or complex: ``images`` uint8 (N, 64, 64, 3) in an .npz.

    The index in the file determines the factors, the last one varying fastest; N determines the number of colors and
    shapes. The class is the shape of the object. A large uncompressed file is read from disk as needed; a compressed
    file is always read into memory.
    """

    path = "required"
    factors = True

    def open(self, data: DataRequest) -> ImageSource:
        """The images of the file. Raises UserError naming the file and what was expected."""
        file = existing_file(data.path, FILES)
        images = npz_array(file, "images")
        sizes = SIZES.get(images.shape[0])
        if sizes is None:
            known = " or ".join(f"{count:,} = {' x '.join(map(str, sizes))}" for count, sizes in SIZES.items())
            raise UserError(f"{file}: 'images' holds {images.shape[0]:,} pictures, expected {known}")
        shapes = [f"object_shape {k}" for k in range(sizes[1])]
        note = known_factors(full_grid(sizes), NAMES, sizes, label="object_shape", class_names=shapes)
        return open_npz(images, data, note, name=file.stem, binary=False)
