"""dSprites (Matthey et al. 2017) as published; no pickled object is loaded, so its ``metadata`` is never read."""

from __future__ import annotations

from orthogan.data.factors import check_factors, known_factors
from orthogan.data.formats.arrays import existing_file, npz_array, open_npz
from orthogan.data.source import DataRequest, ImageSource
from orthogan.data.sources import DATA_SOURCES, DataSource
from orthogan.data.sprites import FACTOR_NAMES, FACTOR_SIZES, SHAPE_NAMES
from orthogan.errors import UserError
from orthogan.io.numpy_files import Npz

FILE = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"


@DATA_SOURCES.register("dsprites")
class DSprites(DataSource):
    """dSprites: ``imgs`` uint8 (N, 64, 64) of 0 and 1, ``latents_classes`` integers (N, 6), in an .npz.

    The constant color, column 0, is not a factor. The class is the shape; pixels become 0 and 255. The published file
    is compressed and is unpacked into memory, 3 GB at 64 pixels; a large file saved again with ``numpy.savez`` is read
    from disk as needed.
    """

    path = "required"
    factors = True

    def open(self, data: DataRequest) -> ImageSource:
        """The images of the file. Raises UserError naming the file and what was expected."""
        file = existing_file(data.path, FILE)
        images = npz_array(file, "imgs")
        with Npz(file) as archive:
            classes = archive.read(archive.key(["latents_classes"]))
        wanted = (images.shape[0], 6)
        if classes.shape != wanted or classes.dtype.kind not in "iu":
            raise UserError(f"{file}: 'latents_classes' is {classes.dtype} {classes.shape}, expected integers {wanted}")
        check_factors(file, classes, ("colour", *FACTOR_NAMES), (1, *FACTOR_SIZES))
        note = known_factors(classes[:, 1:], FACTOR_NAMES, FACTOR_SIZES, label="shape", class_names=SHAPE_NAMES)
        return open_npz(images, data, note, name="dsprites", binary=True)
