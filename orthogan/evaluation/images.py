"""Batches of images to measure, from a generator or a source, divided among processes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from orthogan.data import ImageSource, permuted_index
from orthogan.distributed import share_of_rank
from orthogan.drawing.grid import MOST_CHANNELS, to_uint8
from orthogan.errors import UserError
from orthogan.evaluation.finite import Images
from orthogan.evaluation.precision import autocast
from orthogan.models.generate import truncate
from orthogan.models.label_table import classes_at
from orthogan.models.modes import eval_mode
from orthogan.models.protocol import Generator
from orthogan.rng import derive
from orthogan.rng import generator as seeded

BLOCK = 1024  # latents drawn together: image i depends on the seed and i alone, not on batch size or processes


def generate_images(
    generator: Generator,
    samples: int,
    *,
    seed: int,
    batch_size: int,
    truncation: float,
    device: torch.device,
    bf16: bool = False,
) -> Iterator[Tensor]:
    """Yield uint8 batches of this process's part of ``samples`` images; the caller sets eval mode.

    Classes of a conditional generator are equally frequent, in a random order that depends on the seed. Label vectors
    are as frequent as among the training images.
    ``bf16``: draw under autocast.

    Raises:
        UserError: the output is not an image, or, after the last batch, images of a process are not finite or those of
            all are not in [-1, 1] (``orthogan.evaluation.finite``).
    """
    first, last = share_of_rank(samples)
    finite = Images(generator)
    labels = None
    if generator.num_classes:
        labels = class_order(generator, samples, seed)[first:last].to(device)
    drawn = blocks(generator, first, last, seed)
    waiting: Tensor | None = None
    for start in range(first, last, batch_size):
        size = min(batch_size, last - start)
        while waiting is None or len(waiting) < size:
            more = truncate(next(drawn), truncation).to(device, non_blocking=True)
            waiting = more if waiting is None else torch.cat([waiting, more])
        z, waiting = waiting[:size], waiting[size:]
        y = None if labels is None else labels[start - first : start - first + size]
        with autocast(device, bf16):
            images = generator(z) if y is None else generator(z, y)
        check_images(images, size, type(generator).__name__)
        finite.watch(images)
        yield to_uint8(images)
    finite.check()


def class_order(generator: Generator, samples: int, seed: int) -> Tensor:
    """Return the classes (samples,) of generated images: as frequent as ``classes_at`` says, in a random order."""
    return classes_at(generator, torch.randperm(samples, generator=seeded("cpu", seed, "labels")))


@torch.no_grad()
def images_at(
    generator: Generator, numbers: np.ndarray, samples: int, *, seed: int, truncation: float, device: torch.device
) -> Tensor:
    """Draw images ``numbers`` of ``generate_images`` again: uint8 (n, c, h, w) on the CPU."""
    z = torch.cat([latents(generator, int(i), int(i) + 1, seed) for i in numbers])
    z = truncate(z, truncation).to(device)
    order = class_order(generator, samples, seed) if generator.num_classes else None
    with eval_mode(generator):
        images = generator(z) if order is None else generator(z, order[torch.from_numpy(numbers)].to(device))
    return to_uint8(images).cpu()


def resized(images: Tensor, side: int) -> Tensor:
    """uint8 (n, c, h, w) -> float (n, c, side, side) in [0, 255], by antialiased bicubic interpolation as in Pillow."""
    x = images.float()
    if x.shape[-2:] == (side, side):
        return x
    return functional.interpolate(x, (side, side), mode="bicubic", antialias=True)


def check_images(images: object, count: int, who: str) -> None:
    """Raise UserError unless the ``images`` returned by ``who`` are floats (count, c, h, w)."""
    if not isinstance(images, Tensor):
        raise UserError(f"{who}: returns a {type(images).__name__}, not a tensor of images (n, c, h, w)")
    if images.ndim != 4 or len(images) != count or images.shape[1] > MOST_CHANNELS or 0 in images.shape:
        raise UserError(
            f"{who}: returns shape {tuple(images.shape)} for {count} latents, not images ({count}, 1 to "
            f"{MOST_CHANNELS}, h, w)"
        )
    if not images.is_floating_point():
        raise UserError(f"{who}: returns images in {images.dtype}; a generator must return floats in [-1, 1]")


def rgb(images: Tensor) -> Tensor:
    """Convert images (n, c, h, w) to (n, 3, h, w), uint8 or floats in [-1, 1], which stay differentiable.

    Gray is repeated, alpha is composited on white, and of more than four channels the first three are used.
    """
    channels = images.shape[1]
    if channels in (2, 4) and images.is_floating_point():
        alpha = (images[:, -1:] + 1) / 2
        images = 1 + (images[:, :-1] - 1) * alpha
    elif channels in (2, 4):
        color, alpha = images[:, :-1].int(), images[:, -1:].int()
        images = ((color * alpha + 255 * (255 - alpha) + 127) // 255).to(torch.uint8)
    elif channels > 4:
        images = images[:, :3]
    return images if images.shape[1] == 3 else images.expand(-1, 3, -1, -1)


def real(source: ImageSource, samples: int | None, *, batch_size: int, seed: int = 0) -> Iterator[Tensor]:
    """Yield uint8 batches of this process's part of ``source``, or of a random subset of ``samples`` of its images."""
    order = subset(source, samples, seed)
    first, last = share_of_rank(len(order))
    for start in range(first, last, batch_size):
        images, _ = source.read(order[start : min(start + batch_size, last)])
        if images.dtype != np.uint8:
            raise UserError(f"{source.name}: returns images in {images.dtype}; a source must return uint8 (n, c, h, w)")
        yield torch.from_numpy(images)


def subset(source: ImageSource, samples: int | None, seed: int = 0) -> np.ndarray:
    """Return the ascending indices of all images, or of a random subset of ``samples``."""
    count = len(source) if samples is None else min(samples, len(source))
    return np.arange(len(source)) if count == len(source) else np.sort(permuted_index(seed, len(source), 0, count))


def labels_at(source: ImageSource, numbers: np.ndarray) -> np.ndarray:
    """Return the labels (n,) of images ``numbers``, without reading the images if the source holds its labels."""
    known = getattr(source, "labels", None)
    if isinstance(known, np.ndarray) and len(known) == len(source):
        return known[numbers]
    return np.concatenate([source.read(part)[1] for part in np.array_split(numbers, -(-len(numbers) // BLOCK))])


def latents(generator: Generator, start: int, stop: int, seed: int) -> Tensor:
    """Return latents ``start`` to ``stop`` of the evaluation with this seed: (stop - start, latent_dim)."""
    return torch.cat(list(blocks(generator, start, stop, seed)))


def blocks(generator: Generator, start: int, stop: int, seed: int) -> Iterator[Tensor]:
    """Yield the same latents in the pieces in which they are drawn."""
    for block in range(start // BLOCK, (stop - 1) // BLOCK + 1):
        z = generator.sample_latent(BLOCK, seed=derive(seed, "evaluation block", block))
        yield z[max(start - block * BLOCK, 0) : stop - block * BLOCK]
