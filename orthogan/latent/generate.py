"""Latents in, uint8 images out: the one way this room runs a generator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from orthogan.drawing.grid import as_pixels
from orthogan.errors import UserError
from orthogan.latent.truncation import truncate
from orthogan.latent.whole_numbers import whole_numbers
from orthogan.models.modes import eval_mode, get_device, need_numbers
from orthogan.models.protocol import as_generator


def generate(
    generator: nn.Module,
    z: torch.Tensor,
    labels: Sequence[int] | np.ndarray | None = None,
    *,
    batch_size: int = 64,
    device: torch.device | str | None = None,
) -> np.ndarray:
    """Images uint8 (n, c, h, w) of latents ``z`` (n, latent_dim) under ``labels`` (n,), in eval mode, no gradients.

    ``labels`` must be given for a conditional generator and None for an unconditional one. ``device``: the
    generator is moved there (default: where it is).
    Raises ``UserError`` for a batch size below 1, labels that do not fit, and output that is no image.
    """
    net = as_generator(generator)
    need_numbers(net)
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size}: at least 1")
    if (labels is not None) != (net.num_classes > 0):
        raise UserError(
            f"this generator has {net.num_classes} classes: "
            + ("give one class an image" if net.num_classes else "it takes no class; leave the class out")
        )
    if labels is not None:
        labels = whole_numbers("labels", labels)
        if len(labels) != len(z) or min(labels, default=0) < 0 or max(labels, default=0) >= net.num_classes:
            raise UserError(f"labels: give {len(z)}, one per latent, each from 0 to {net.num_classes - 1}")
    if device is not None:
        net.to(device)
    place = get_device(net)
    y = None if labels is None else torch.as_tensor(np.asarray(labels), dtype=torch.int64)
    parts: list[np.ndarray] = []
    with eval_mode(net):
        for start in np.arange(0, len(z), batch_size):
            part = slice(int(start), int(start) + batch_size)
            images = net(z[part].to(place)) if y is None else net(z[part].to(place), y[part].to(place))
            if not isinstance(images, torch.Tensor):
                raise UserError(
                    f"{type(net).__name__}: gives a {type(images).__name__}, not a tensor of images (n, c, h, w); wrap "
                    "it so that it returns the images alone"
                )
            parts.append(as_pixels(images))
    return np.concatenate(parts)


def sample_latents(generator: nn.Module, seeds: Sequence[int], truncation: float = 1.0) -> torch.Tensor:
    """(n, latent_dim) float32 CPU latents, one for each seed: a function of that seed (and truncation) alone."""
    net = as_generator(generator)
    with torch.no_grad():  # a user's own prior may run a net
        return truncate(torch.cat([net.sample_latent(1, seed=seed) for seed in seeds]), truncation)


def sample_label(generator: nn.Module, seed: int, classes: Sequence[int] | None = None) -> int | None:
    """The class that goes with ``seed``: ``classes[seed % len(classes)]`` (default all); None if unconditional.

    Consecutive seeds thus cycle through the classes, and a seed keeps its class whatever is made beside it.
    Raises ``UserError`` for classes of an unconditional generator, or out of range.
    """
    count = as_generator(generator).num_classes
    if count == 0:
        if classes is not None:
            raise UserError("this generator is unconditional: it has no classes to choose; leave the class out")
        return None
    chosen = list(np.arange(count)) if classes is None else list(classes)
    if not chosen:
        raise UserError("no class given: name at least one, or leave the classes out for all of them")
    chosen = whole_numbers("class", chosen)
    wrong = [label for label in chosen if not 0 <= label < count]
    if wrong:
        raise UserError(f"class {wrong[0]}: this generator has {count} classes, 0 to {count - 1}")
    return int(chosen[seed % len(chosen)])


def image_size(generator: nn.Module) -> tuple[int, int]:
    """Channels and side [pixels] of a generator's images: its own attributes, else read off one image.

    Raises ``UserError`` for images that are not square, and as ``generate``.
    """
    net = as_generator(generator)
    channels, side = getattr(net, "image_channels", None), getattr(net, "resolution", None)
    if isinstance(channels, int) and isinstance(side, int):
        return channels, side
    label = sample_label(net, 0)
    found = generate(net, sample_latents(net, [0]), None if label is None else [label]).shape
    if found[2] != found[3]:
        raise UserError(f"{type(net).__name__}: gives images of {found[3]}x{found[2]} pixels; they must be square")
    return found[1], found[2]
