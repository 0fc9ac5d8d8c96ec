"""Common corruptions of images (Hendrycks & Dietterich 2019), each in five severities.

No maintained library supports small images: imagecorruptions, the published one, uses constants for large photographs
and fails with current scikit-image. This is our own implementation with the constants of CIFAR-10-C
(hendrycks/robustness, make_cifar_c.py), with at least one corruption of each family: noise, blur, weather, digital.
The results differ from the published images: other random numbers, rounding instead of truncation, and mirrored
borders for blurs. Lengths scale with the side of the image, relative to 32 pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.data.source import ImageSource
from orthogan.data.views import View
from orthogan.distributed import hide_progress
from orthogan.errors import UserError
from orthogan.evaluation.metric import Inputs, register
from orthogan.evaluation.robustness.accuracy import ClassifierMetric, Robustness, accuracy, protocol_of
from orthogan.io.hashing import ContentHash
from orthogan.models.modes import get_device
from orthogan.progress import progress_bar
from orthogan.rng import generator

SEVERITIES = (1, 2, 3, 4, 5)
LEVELS: dict[str, tuple[float, ...]] = {
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),  # standard deviation
    "shot_noise": (500, 250, 100, 75, 50),  # photons per white pixel
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),  # fraction of the values that become black or white
    "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1.0),  # standard deviation [pixels of 32]
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),  # added to the largest channel; hue and saturation stay
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),  # factor on the difference from the mean of the channel
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),  # cells along a side, as a fraction of the pixels
    "jpeg": (80, 65, 58, 50, 40),  # quality
}
CORRUPTIONS = tuple(LEVELS)
SIDE = 32  # side in pixels for which the constants are defined


@register("corruptions")
class CorruptionMetric(ClassifierMetric):
    """The mean accuracy over all corruptions and severities."""

    def compute(self, inputs: Inputs) -> list[Robustness]:
        """See ``corruption_accuracy``."""
        options = inputs.pick("samples", "batch_size", "seed", "progress", "info")
        return [corruption_accuracy(inputs.classifier, inputs.test, **options)]


def corruption_accuracy(
    net: nn.Module,
    source: ImageSource,
    *,
    names: Sequence[str] = CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES,
    samples: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
    info: Mapping[str, str] | None = None,
) -> Robustness:
    """Compute the mean accuracy over ``names`` and ``severities`` with equal weights; ``parts`` contains all of them.

    Parts: ``clean``, the mean of each corruption by its name, and ``NAME/SEVERITY``. Arguments and errors as of
    ``evaluate_classifier``; names and severities as of ``corrupt``.
    """
    began = time.monotonic()
    if not names or not severities:
        raise UserError("corruptions: name at least one corruption and one severity")
    views = {(name, severity): Corrupted(source, name, severity, seed) for name in names for severity in severities}
    options: dict[str, Any] = {"samples": samples, "batch_size": batch_size, "seed": seed, "device": get_device(net)}
    clean, _, count = accuracy(net, source, **options)
    values = {
        key: accuracy(net, view, **options)[0]
        for key, view in progress_bar(views.items(), "corruptions", unit="set", disable=hide_progress(progress))
    }
    means = {name: float(np.mean([values[name, severity] for severity in severities])) for name in names}
    parts = {"clean": clean, **means, **{f"{name}/{severity}": v for (name, severity), v in values.items()}}
    about = {"corruptions": set_of_corruptions(), "severities": list(severities)}
    protocol = protocol_of(net, source, count, seed, about, info, began)
    return Robustness("corruptions", float(np.mean(list(means.values()))), "none", None, parts, protocol)


def set_of_corruptions() -> str:
    """Describe the corruptions for protocols."""
    import torchvision

    return f"orthogan's own, constants of CIFAR-10-C; blur and jpeg of torchvision {torchvision.__version__}"


def corrupt(images: Tensor, name: str, severity: int, *, indices: Sequence[int], seed: int = 0) -> Tensor:
    """Corrupt images uint8 (n, 1 or 3, h, w) on the CPU.

    The randomness of an image depends on ``seed``, ``name``, ``severity`` and its index in ``indices`` (n,), not on
    other images.

    Raises:
        UserError: unknown corruption or severity.
    """
    level = _level(name, severity)
    if name == "jpeg":
        from torchvision.transforms.v2.functional import jpeg  # slow to import

        return jpeg(images, quality=int(level))
    chances = (generator("cpu", seed, "corruption", name, severity, int(index)) for index in indices)
    floats = images.to(torch.float32) / 255
    if name in NOISES:
        draws = zip(floats, chances, strict=True)
        floats = torch.stack([NOISES[name](image, level, chance) for image, chance in draws])
    else:
        floats = CHANGES[name](floats, level)
    return floats.clamp(0, 1).mul(255).round().to(torch.uint8)


class Corrupted(View):
    """The images of ``source`` under one corruption; arguments and errors as in ``corrupt``."""

    def __init__(self, source: ImageSource, name: str, severity: int, seed: int = 0) -> None:
        _level(name, severity)
        super().__init__(source, f"{source.name}, {name} {severity}")
        self.corruption, self.severity, self.seed = name, severity, seed
        self.in_memory = False  # reading computes something

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return corrupted images at ``indices``, and their labels."""
        images, labels = self.source.read(indices)
        pixels = torch.from_numpy(np.ascontiguousarray(images))
        return corrupt(pixels, self.corruption, self.severity, indices=indices.tolist(), seed=self.seed).numpy(), labels

    @property
    def factors(self) -> np.ndarray | None:
        """Return the factors of the uncorrupted images, or None."""
        return self.source.factors

    def fingerprint(self) -> str:
        """Return a hash of the images, the corruption, its severity and the random seed."""
        made = (self.source.fingerprint(), set_of_corruptions(), self.corruption, self.severity, self.seed)
        return ContentHash().text(*made).hexdigest()


def _level(name: str, severity: int) -> float:
    if name not in LEVELS:
        raise UserError(f"corruption {name!r}: choose one of {', '.join(LEVELS)}")
    if severity not in SEVERITIES:
        raise UserError(f"severity {severity} of {name}: choose 1 to {len(SEVERITIES)}")
    return LEVELS[name][severity - 1]


def _gaussian(image: Tensor, level: float, chance: torch.Generator) -> Tensor:
    return image + level * torch.randn(image.shape, generator=chance)


def _shot(image: Tensor, level: float, chance: torch.Generator) -> Tensor:
    return torch.poisson(image * level, generator=chance) / level


def _impulse(image: Tensor, level: float, chance: torch.Generator) -> Tensor:
    """Change each value of each channel independently, to black or white with equal probability."""
    drawn = torch.rand(image.shape, generator=chance)
    return torch.where(drawn < level, (drawn < level / 2).to(image), image)


def _blur(images: Tensor, level: float) -> Tensor:
    from torchvision.transforms.v2.functional import gaussian_blur

    sigma = level * images.shape[-1] / SIDE
    radius = int(4 * sigma + 0.5)  # truncation of a Gaussian in scipy and scikit-image
    return gaussian_blur(images, [2 * radius + 1] * 2, [sigma] * 2)


def _brightness(images: Tensor, level: float) -> Tensor:
    """Add ``level`` to the value of HSV: hue and saturation stay, so all channels scale equally; black becomes gray."""
    value = images.amax(1, keepdim=True)
    brighter = (value + level).clamp(max=1)
    return torch.where(value > 0, images * (brighter / torch.where(value > 0, value, 1.0)), brighter)


def _contrast(images: Tensor, level: float) -> Tensor:
    means = images.mean((2, 3), keepdim=True)
    return (images - means) * level + means


def _pixelate(images: Tensor, level: float) -> Tensor:
    side = images.shape[-1]
    box = _box(side, max(1, int(side * level)))
    return functional.interpolate(box @ images @ box.mT, size=images.shape[-2:], mode="nearest-exact")


def _box(pixels: int, cells: int) -> Tensor:
    """Return (cells, pixels): each cell is the mean of the pixels whose centers are in it, like Pillow's BOX."""
    centres = (torch.arange(pixels) + 0.5) * cells / pixels  # in cells
    distance = centres - (torch.arange(cells)[:, None] + 0.5)
    inside = ((distance > -0.5) & (distance <= 0.5)).float()
    return inside / inside.sum(1, keepdim=True)


NOISES: dict[str, Callable[[Tensor, float, torch.Generator], Tensor]] = {
    "gaussian_noise": _gaussian,
    "shot_noise": _shot,
    "impulse_noise": _impulse,
}
CHANGES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "gaussian_blur": _blur,
    "brightness": _brightness,
    "contrast": _contrast,
    "pixelate": _pixelate,
}
