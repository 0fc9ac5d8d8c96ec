"""Two sets of images, or a generator and images, compared in one call."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from orthogan.data import DATA_SOURCES, ImageSource, open_source
from orthogan.data.formats.stores import is_image_name, open_store
from orthogan.errors import UserError
from orthogan.evaluation.given import STATISTICS, as_source
from orthogan.evaluation.measure import evaluate
from orthogan.evaluation.result import MetricResult
from orthogan.io.read import user_path
from orthogan.models.generate import image_size
from orthogan.models.open import holds_images, load_generator
from orthogan.models.protocol import Generator


def fid(a: Any, b: Any, *, resolution: int | None = None, samples: int | None = 50_000, **options: Any) -> MetricResult:
    """Compute the FID of ``a`` and ``b``; without the weights of Inception, the same distance of other features.

    Args:
        a: a generator, or anything that ``orthogan.load`` accepts; or images: a folder or .zip, a name in
            ``DATA_SOURCES`` such as "cifar10", a tensor or array (n, c, h, w) of uint8 or of floats in [-1, 1], a
            Dataset, a DataLoader, an image source, or the result of ``orthogan.sample``.
        b: the same, or a file of reference statistics.
        resolution: size to which images of a folder or data set are resized [pixels]; by default that of the other
            side, or the shorter side of the first picture if both are folders.
        samples: number of images drawn from a generator, and the most images taken from ``a``.
        options: further arguments of ``orthogan.evaluate``, such as ``extractor="efficientnet-lite0"`` or ``device``.

    Raises:
        UserError, TypeError: as ``orthogan.evaluate``.

    Example:
        >>> import orthogan
        >>> fakes = orthogan.sample("sprites-sngan", 64)
        >>> reals = orthogan.open_source("sprites", count=64, channels=1)
        >>> orthogan.fid(fakes, reals, extractor="efficientnet-lite0")  # doctest: +ELLIPSIS
        <FD[efficientnet-lite0] ..., 64 samples, sprites-64, 64 images of 32 px reference>
    """
    sides = [_opened(side, who) for side, who in ((a, "a"), (b, "b"))]
    for place, side in enumerate(sides):
        if isinstance(side, str) and Path(side).suffix not in STATISTICS:
            sides[place] = _read(side, resolution, sides[1 - place])
    (result,) = evaluate(sides[0], sides[1], metrics="fid", samples=samples, **options)
    return result


def _opened(side: Any, who: str) -> Any:
    """Return a generator or a source; a str for images whose size is not known yet, and for statistics.

    Raises ``TypeError`` or ``UserError`` for other objects, and for statistics in place of ``a``.
    """
    if not isinstance(side, str | Path):
        return side if isinstance(side, Generator) or hasattr(side, "latent_dim") else as_source(side, who)
    text = str(side)
    if text in DATA_SOURCES or holds_images(text):
        return text
    if Path(text).suffix == ".npz" or (Path(text).suffix == ".safetensors" and who == "b" and not _is_model(text)):
        if who == "a":
            raise UserError(f"{text}: statistics have no images; give them as the second argument")
        return text
    return load_generator(text)


def _is_model(file: str) -> bool:
    from orthogan.models.open import open_model

    return open_model(file).kind == "generator"


def _read(text: str, resolution: int | None, other: Any) -> ImageSource:
    """Open a folder, a .zip or a data set at ``resolution``, or else at the size of ``other``."""
    channels, side = 3, resolution
    if not isinstance(other, str):
        channels, own = (other.channels, other.resolution) if isinstance(other, ImageSource) else image_size(other)
        side = side or own
    elif side is None and holds_images(text):
        side = _first_size(text)
    return open_source(text, resolution=side or 32, channels=channels)


def _first_size(folder: str) -> int:
    """Return the shorter side of the first picture that can be read [pixels]; opening the folder reports the others."""
    store = open_store(user_path(folder))
    for entry in store.entries():
        if is_image_name(entry.name):
            with suppress(Exception):  # a damaged picture can raise many kinds of error
                return min(Image.open(io.BytesIO(store.read(entry.name))).size)
    return 32
