"""Conversion of user-provided images to a source or a file of statistics for ``evaluate``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from orthogan.data import ArraySource, ImageSource, open_source
from orthogan.drawing.grid import MOST_CHANNELS, to_uint8
from orthogan.errors import UserError
from orthogan.evaluation.finite import IMAGES, Images, NotFinite, WrongRange
from orthogan.evaluation.images import BLOCK, check_images, latents
from orthogan.io.hashing import ContentHash
from orthogan.models.generate import image_size, model_hash
from orthogan.models.label_table import classes_at
from orthogan.models.modes import eval_mode, get_device
from orthogan.models.protocol import Generator, as_generator
from orthogan.models.samples import Samples

STATISTICS = (".safetensors", ".npz")
ENOUGH = 64  # images that show the range of a generator
ACCEPTED = (
    "an image source, a tensor or array (n, c, h, w), a Dataset, a DataLoader or another iterable of them, a generator"
)


def as_source(given: Any, who: str, *, like: Any = None, samples: int | None = None, seed: int = 0) -> ImageSource:
    """Convert ``given`` to a source; ``who``: name of the argument, for messages.

    Tensors and arrays must be uint8, or floats in [-1, 1], as returned by generators. Floats without a negative value
    are refused, because they are probably in [0, 1]. The items of a Dataset or DataLoader must be images (c, h, w),
    batches of them, PIL images, or tuples that begin with one; all of them are read into memory as uint8.

    Args:
        like: the generator or source that determines the size of images in a folder.
        samples: number of images to draw from a generator.
        seed: random seed of its latents and labels.

    Raises:
        TypeError: another type. UserError: images of another format or range.
    """
    if isinstance(given, ImageSource):
        return given
    if isinstance(given, str | Path):
        return _folder(Path(given), who, like)
    if isinstance(given, nn.Module):
        return GeneratedSource(as_generator(given), samples or 0, seed)
    if isinstance(given, Samples):
        given = given.images
    if isinstance(given, Tensor | np.ndarray):
        return _in_memory([given], who, f"{who} {type(given).__name__.lower()}", batches=True)
    if isinstance(given, Dataset | DataLoader) or (isinstance(given, Iterable) and not isinstance(given, dict)):
        batches = isinstance(given, DataLoader) and given.batch_size is not None
        return _in_memory(_parts(given, who), who, f"{who} {type(given).__name__}", batches=batches)
    raise TypeError(f"evaluate: {who} must be {ACCEPTED}, or the path of a folder; not {type(given).__name__}")


def reference_given(given: Any, like: Any, samples: int | None, seed: int) -> ImageSource | Path | None:
    """Convert a reference like ``as_source``; also accepts None or the path of a file of statistics."""
    if given is None or (isinstance(given, str | Path) and Path(given).suffix in STATISTICS):
        return None if given is None else Path(given)
    return as_source(given, "reference", like=like, samples=samples, seed=seed)


class GeneratedSource(ImageSource):
    """Images of a generator, drawn when read; equal to those of ``generate_images`` for a seed."""

    def __init__(self, net: Generator, count: int, seed: int) -> None:
        self.name = f"fakes of {type(net).__name__}"
        self.channels, self.resolution = image_size(net)
        self.net, self.count, self.seed = net, count, seed
        self.watch, self.seen = Images(net), 0

    def __len__(self) -> int:
        return self.count

    def fingerprint(self) -> str:
        """Changes with the weights, the number of images and the seed."""
        return ContentHash().text("fakes", model_hash(self.net), self.count, self.seed).hexdigest()

    @torch.no_grad()
    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return images and labels; raises ``NotFinite`` or ``WrongRange`` for images that cannot be measured."""
        place = get_device(self.net)
        blocks = {
            int(block): latents(self.net, int(block) * BLOCK, (int(block) + 1) * BLOCK, self.seed)
            for block in np.unique(indices // BLOCK)
        }
        z = torch.stack([blocks[int(i) // BLOCK][int(i) % BLOCK] for i in indices]).to(place)
        y = classes_at(self.net, torch.from_numpy(indices)).to(place) if self.net.num_classes else None
        with eval_mode(self.net):
            images = self.net(z) if y is None else self.net(z, y)
        check_images(images, len(indices), self.name)
        if not bool(images.isfinite().all()):
            raise NotFinite(IMAGES)
        self.watch.watch(images)
        self.seen += len(images)
        if self.seen >= min(self.count, ENOUGH) and (problem := self.watch.problem):
            raise WrongRange(problem)
        return to_uint8(images).cpu().numpy(), np.zeros(len(indices), np.int64)


def _folder(path: Path, who: str, like: Any) -> ImageSource:
    if not path.is_dir() and path.suffix.lower() != ".zip":
        raise UserError(f"{path}: {who} is neither a folder or .zip of images, nor statistics (.safetensors, .npz)")
    if like is None:
        raise TypeError(
            f"evaluate: {who} {str(path)!r}: the size at which to compare the images is not known; open images with "
            "orthogan.data.open_source('folder', path=..., resolution=..., channels=...), a model with orthogan.load"
        )
    channels, side = (like.channels, like.resolution) if isinstance(like, ImageSource) else image_size(like)
    return open_source("folder", path=str(path), resolution=side, channels=channels)


def _parts(given: Any, who: str) -> Iterator[Any]:
    """Yield the items of a Dataset, a DataLoader or another iterable."""
    if isinstance(given, Dataset) and not isinstance(given, IterableDataset):
        if not hasattr(given, "__len__"):
            raise TypeError(f"evaluate: {who} {type(given).__name__} has no length; wrap it in an IterableDataset")
        items: Any = given
        given = (items[i] for i in range(len(items)))
    for part in given:
        yield part[0] if isinstance(part, tuple | list) and part else part


def _in_memory(parts: Iterable[Any], who: str, name: str, *, batches: bool) -> ImageSource:
    """Convert images or batches of them to a source; ``batches``: no part can be a single image."""
    found = [_uint8(part, who, batches=batches) for part in parts]
    if not found:
        raise UserError(f"evaluate: {who} contains no images")
    if any(float_min is not None for _, float_min in found) and min(m for _, m in found if m is not None) >= 0:
        raise UserError(
            f"evaluate: {who} contains floats without a negative value, but images must be in [-1, 1]; if these are "
            "in [0, 1], pass 2 * x - 1 or uint8"
        )
    shapes = {images.shape[1:] for images, _ in found}
    if len(shapes) > 1:
        raise UserError(
            f"evaluate: {who} contains images of different sizes, such as {sorted(shapes)[:2]}; resize them"
        )
    return ArraySource(name, np.concatenate([images for images, _ in found]))


def _uint8(part: Any, who: str, *, batches: bool) -> tuple[np.ndarray, float | None]:
    """Convert an image or batch to uint8 (n, c, h, w); also returns the smallest value of floats."""
    if isinstance(part, Image.Image):
        part = np.array(part if part.mode in ("L", "RGB", "LA", "RGBA") else part.convert("RGB"))
        part = part[None] if part.ndim == 2 else part.transpose(2, 0, 1)
    if not isinstance(part, Tensor | np.ndarray):
        raise TypeError(f"evaluate: {who} must contain {ACCEPTED}; it contains a {type(part).__name__}")
    if isinstance(part, np.ndarray):
        if part.dtype.kind not in "fiub":
            raise UserError(f"evaluate: {who} has images of {part.dtype}; give uint8, or floats in [-1, 1]")
        part = np.ascontiguousarray(part)  # a flipped view has strides that no tensor can have
    images = torch.as_tensor(part).detach().to_dense().cpu()
    if images.ndim == 3 and batches:
        raise UserError(
            f"evaluate: {who} has images of shape {tuple(images.shape)}, not (n, c, h, w); gray images need an axis of "
            "one channel, such as x[:, None]"
        )
    images = images[None] if images.ndim == 3 else images
    few = images.ndim == 4 and (images.shape[1] <= 4 or images.shape[1] < min(images.shape[2:]))
    if not few or images.shape[1] > MOST_CHANNELS or 0 in images.shape:
        last = images.ndim == 4 and images.shape[3] in (1, 2, 3, 4)
        hint = "; the channels come second, so permute the axes" if last else ""
        raise UserError(f"evaluate: {who} has images of shape {tuple(images.shape)}, not (n, c, h, w){hint}")
    if images.dtype == torch.uint8:
        return images.numpy(), None
    if not images.is_floating_point():
        raise UserError(f"evaluate: {who} has images of {images.dtype}; give uint8, or floats in [-1, 1]")
    if not bool(images.isfinite().all()):
        raise NotFinite(f"evaluate: {who} contains NaN or infinite values")
    low, high = images.aminmax()
    if low < -1 or high > 1:
        raise UserError(
            f"evaluate: {who} has floats in [{low:.7g}, {high:.7g}]; float images must be in [-1, 1], and pixels "
            "from 0 to 255 must be uint8"
        )
    return to_uint8(images).numpy(), float(low)
