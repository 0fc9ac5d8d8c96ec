"""Adaptive discriminator augmentation (Karras et al. 2020, "Training GANs with limited data"), pipeline "bgc".

Each of twelve changes (pixel blitting, general geometry and color) is applied to each image with probability p. The
geometric changes become one affine resampling, the color changes one matrix. p follows an overfitting signal, r_t =
E[sign D(real)].

Random numbers are drawn separately: ``apply`` is a pure function of tensors, which can be compiled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from orthogan.config.base import Fraction, PositiveInt
from orthogan.data.augment import Augmentation, count_colors
from orthogan.data.augment import matrices as m
from orthogan.data.augment.resample import affine
from orthogan.data.config import AUGMENTATIONS, AugmentConfig
from orthogan.errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator

# Strengths of the paper (appendix B): shares of the side, octaves, standard deviations.
SHIFT = 0.125  # both of the integer shift (uniform, +-) and of the fractional one (standard deviation)
SCALE_OCTAVES = 0.2
BRIGHTNESS = 0.2
CONTRAST_OCTAVES = 0.5
SATURATION_OCTAVES = 1.0

Matrix = Callable[..., Tensor]


class _Change(NamedTuple):
    """A kind of change: one matrix per image, from the strength p and random numbers (n,), the last for the coin flip.

    ``drawn`` has one letter per random number, in order: u for uniform in [0, 1), n for normal. ``matrix(p, side,
    *numbers)``; ``side``: (height, width) of the images.
    """

    drawn: str
    matrix: Matrix


def _gated(value: Tensor, neutral: float, coin: Tensor, p: Tensor) -> Tensor:
    """``value`` with probability p, else ``neutral``."""
    return torch.where(coin < p, value, neutral)


def _angle(number: Tensor) -> Tensor:
    return (2 * number - 1) * math.pi


def _flip(p: Tensor, side: Sequence[int], number: Tensor, coin: Tensor) -> Tensor:
    sign = _gated(1 - 2 * (2 * number).floor(), 1.0, coin, p)
    return m.scale2d(sign, torch.ones_like(sign))


def _quarter(p: Tensor, side: Sequence[int], number: Tensor, coin: Tensor) -> Tensor:
    return m.quarter_turns(_gated((4 * number).floor(), 0.0, coin, p))


def _whole_shift(p: Tensor, side: Sequence[int], coin: Tensor, x: Tensor, y: Tensor) -> Tensor:
    on = _gated(torch.ones_like(coin), 0.0, coin, p)
    right, down = ((2 * number - 1) * SHIFT * length for number, length in ((x, side[1]), (y, side[0])))
    return m.translate2d(on * right.round(), on * down.round())


def _shift(p: Tensor, side: Sequence[int], coin: Tensor, x: Tensor, y: Tensor) -> Tensor:
    on = _gated(torch.ones_like(coin), 0.0, coin, p)
    return m.translate2d(on * (x * SHIFT * side[1]), on * (y * SHIFT * side[0]))


def _octaves(p: Tensor, number: Tensor, coin: Tensor, width: float) -> Tensor:
    return torch.exp2(_gated(number * width, 0.0, coin, p))


def _scale(p: Tensor, side: Sequence[int], number: Tensor, coin: Tensor) -> Tensor:
    factor = _octaves(p, number, coin, SCALE_OCTAVES)
    return m.scale2d(factor, factor)


def _stretch(p: Tensor, side: Sequence[int], number: Tensor, coin: Tensor) -> Tensor:
    factor = _octaves(p, number, coin, SCALE_OCTAVES)
    return m.scale2d(factor, 1 / factor)


def _turn(p: Tensor, side: Sequence[int], number: Tensor, coin: Tensor) -> Tensor:
    half = 1 - (1 - p).sqrt()  # of two rotations at least one happens with probability p
    return m.rotate2d(_gated(_angle(number), 0.0, coin, half))


def _brightness(p: Tensor, side: Sequence[int], number: Tensor, coin: Tensor) -> Tensor:
    return m.add_colour(_gated(number * BRIGHTNESS, 0.0, coin, p))


def _contrast(p: Tensor, side: Sequence[int], number: Tensor, coin: Tensor) -> Tensor:
    return m.scale_colour(_octaves(p, number, coin, CONTRAST_OCTAVES))


def _luma(p: Tensor, side: Sequence[int], number: Tensor, coin: Tensor) -> Tensor:
    return m.flip_luma(_gated((2 * number).floor(), 0.0, coin, p))


def _hue(p: Tensor, side: Sequence[int], number: Tensor, coin: Tensor) -> Tensor:
    return m.rotate_hue(_gated(_angle(number), 0.0, coin, p))


def _saturation(p: Tensor, side: Sequence[int], number: Tensor, coin: Tensor) -> Tensor:
    return m.saturate(_octaves(p, number, coin, SATURATION_OCTAVES))


CHANGES = {
    "xflip": _Change("uu", _flip),
    "rotate90": _Change("uu", _quarter),
    "xint": _Change("uuu", _whole_shift),
    "scale": _Change("nu", _scale),
    "rotate": _Change("uu", _turn),
    "aniso": _Change("nu", _stretch),
    "xfrac": _Change("unn", _shift),
    "brightness": _Change("nu", _brightness),
    "contrast": _Change("nu", _contrast),
    "lumaflip": _Change("uu", _luma),
    "hue": _Change("uu", _hue),
    "saturation": _Change("nu", _saturation),
}
GEOMETRY = ("xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac")
COLOUR = ("brightness", "contrast", "lumaflip", "hue", "saturation")
OPERATIONS = (*GEOMETRY, *COLOUR)
# Rotations stand on both sides of the anisotropic scale, so that it acts in any direction. All of these
# distributions are symmetric, so it does not matter that each matrix is used as its own inverse.
_GEOMETRY_ORDER = ("xflip", "rotate90", "xint", "scale", "rotate", "aniso", "rotate", "xfrac")
_OF_COLOURED = ("hue", "saturation")  # a gray image has neither


class AdaptiveAugmentConfig(AugmentConfig):
    """Options of adaptive augmentation."""

    kind: str = "ada"
    target: Fraction = Field(default=0.6, description="target value of E[sign D(real)]")
    images_to_one: PositiveInt = Field(
        default=500_000, description="number of images in which p can go from 0 to 1 [images]"
    )
    interval: PositiveInt = Field(default=4, description="adjust p every N steps [steps]")


@AUGMENTATIONS.register("ada")
class AdaptiveAugment(Augmentation):
    """Augmentation with an adaptive strength ``p``, a tensor that stays on the device.

    Call it with images, float (n, c, h, w) in [-1, 1], and a generator on their device; the result has the same
    shape and type. It is twice differentiable with respect to the images. An image that gets no change is returned bit
    for bit.

    Args:
        target: the desired value of E[sign D(real)], which is r_t in the paper.
        images_to_one: number of images in which p can go from 0 to 1.
        interval: p changes every ``interval`` calls of ``update``.
        ops: which of ``OPERATIONS`` to use, as names or one comma-separated string.

    Raises:
        UserError: an operation is unknown.

    Source: Karras et al. 2020, arXiv:2006.06676.

    Example:
        >>> import torch
        >>> from orthogan.data import AdaptiveAugment
        >>> augment = AdaptiveAugment(target=0.6)
        >>> images = torch.zeros(4, 3, 16, 16)
        >>> torch.equal(augment(images, torch.Generator()), images)  # its strength p begins at 0
        True
    """

    config = AdaptiveAugmentConfig

    def __init__(
        self,
        target: float = 0.6,
        images_to_one: int = 500_000,
        interval: int = 4,
        ops: str | Sequence[str] = OPERATIONS,
    ) -> None:
        names = [name.strip() for name in ops.split(",")] if isinstance(ops, str) else list(ops)
        unknown = [name for name in names if name not in OPERATIONS]
        if unknown or not names:
            raise UserError(f"augment.ops: {', '.join(names)!r} must be a list of names from {', '.join(OPERATIONS)}")
        self.ops = frozenset(names)
        self.target, self.images_to_one, self.interval = target, images_to_one, interval
        self.p = torch.zeros(())
        self._signs = torch.zeros(())  # sum of the signs reported since the last change
        self._calls = self._images = 0
        self._seen: list[Tensor] = []  # signs of this step's D updates; cleared after the step

    def observe(self, real_sign: Tensor) -> None:
        """Record E[sign D(real)] of a D update, without leaving the device."""
        self._seen.append(real_sign)

    def finish_step(self, images: int, accelerator: Accelerator) -> None:
        """Report the mean sign of the step over all processes; p changes every ``interval`` steps."""
        mean = accelerator.reduce(torch.stack(self._seen).mean(), "mean")
        assert isinstance(mean, Tensor)
        self.update(mean, images)
        self._seen.clear()

    def scalars(self) -> dict[str, float]:
        """Return the current probability."""
        return {"augment/p": float(self.p)}

    def update(self, sign_mean: Tensor, images: int) -> None:
        """Report r_t, the mean of sign D(real) over the last ``images`` real images of all processes.

        ``sign_mean`` must be the same on every process (reduce it before). Does not synchronize with the device.
        """
        signs = sign_mean.detach().to(torch.float32).reshape(())
        self.p, self._signs = self.p.to(signs.device), self._signs.to(signs.device) + signs
        self._calls += 1
        self._images += images
        if self._calls < self.interval:
            return
        step = self._images / self.images_to_one
        direction = torch.sign(self._signs / self._calls - self.target)
        self.p = (self.p + direction * step).clamp(0.0, 1.0)
        self._signs = torch.zeros_like(self._signs)
        self._calls = self._images = 0

    def state_dict(self) -> dict[str, Tensor]:
        """Return p and everything reported since its last change, as tensors."""
        return {
            "p": self.p.clone(),
            "signs": self._signs.clone(),
            "calls": torch.tensor(self._calls),
            "images": torch.tensor(self._images),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from ``state_dict()``. Raises KeyError when one of its entries is missing."""
        self.p, self._signs = state["p"].clone().reshape(()), state["signs"].clone().reshape(())
        self._calls, self._images = int(state["calls"]), int(state["images"])

    def draw(
        self, n: int, shape: Sequence[int], generator: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, Tensor]:
        """Draw what ``apply`` needs for n images of ``shape`` (c, h, w): p () and the numbers (k, n) of all changes.

        They are on the generator's device. The number of draws does not depend on p. ``dtype``: float32, or float64 for
        float64 images.
        """
        self.p = self.p.to(generator.device)
        geometry, colour = self._steps(shape[0])
        kinds = "".join(CHANGES[name].drawn for name in geometry + colour)
        numbers = torch.empty(len(kinds), n, device=generator.device, dtype=dtype)
        for row, kind in zip(numbers, kinds, strict=True):
            _ = row.uniform_(generator=generator) if kind == "u" else row.normal_(generator=generator)
        return self.p, numbers

    def apply(self, images: Tensor, drawn: tuple[Tensor, ...]) -> Tensor:
        """Apply the changes to ``images``: a pure function, twice differentiable with respect to the images."""
        p, numbers = drawn
        work = images.to(torch.promote_types(images.dtype, torch.float32))
        geometry, colour = self._steps(images.shape[1])
        rows = iter(numbers.unbind())
        # Autocast would run the filters in 16 bits, which leaves visible steps in the images.
        with torch.autocast(images.device.type, enabled=False):
            matrices: list[Tensor] = []
            for name in geometry + colour:
                mine = [next(rows) for _ in CHANGES[name].drawn]
                matrices.append(CHANGES[name].matrix(p, images.shape[2:], *mine))
            if geometry:  # from output to input places (n, 3, 3), in pixels from the center
                inverse = _product(matrices[: len(geometry)])
                work = torch.where(_changed(inverse), affine(work, inverse), work)
            if colour:  # (n, 4, 4) on (r, g, b, 1); the first step comes first, so it stands on the right
                mixed = _product(matrices[len(geometry) :][::-1])
                work = torch.where(_changed(mixed), recolour(work, mixed), work)
        return work.to(images.dtype)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw random numbers for ``images`` (n, c, h, w) and apply them."""
        dtype = torch.promote_types(images.dtype, torch.float32)
        return self.apply(images, self.draw(len(images), images.shape[1:], generator, dtype))

    def _steps(self, channels: int) -> tuple[list[str], list[str]]:
        """The geometric and color changes in the order in which they are drawn."""
        geometry = [name for name in _GEOMETRY_ORDER if name in self.ops]
        colour = [
            name for name in COLOUR if name in self.ops and (count_colors(channels) > 1 or name not in _OF_COLOURED)
        ]
        return geometry, colour

    def __repr__(self) -> str:
        return f"AdaptiveAugment(target={self.target}, images_to_one={self.images_to_one}, p={float(self.p):.3f})"


def _product(factors: list[Tensor]) -> Tensor:
    result = factors[0]
    for factor in factors[1:]:
        result = result @ factor
    return result


def _changed(matrices: Tensor) -> Tensor:
    """Which of the maps (n, k, k) are not the identity: bool (n, 1, 1, 1)."""
    identity = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    return (matrices != identity).flatten(1).any(1).view(-1, 1, 1, 1)


def recolour(images: Tensor, matrices: Tensor) -> Tensor:
    """Apply color maps (n, 4, 4) to images (n, 3, h, w); grayscale images use the mean over the channels.

    The last of 2 or 4 channels is alpha and stays as it is.
    """
    if (colors := count_colors(images.shape[1])) < images.shape[1]:
        return torch.cat([recolour(images[:, :colors], matrices), images[:, colors:]], 1)
    if images.shape[1] == 3:
        colours = matrices[:, :3, :3] @ images.flatten(2) + matrices[:, :3, 3:]
        return colours.view_as(images)
    mean = matrices[:, :3].mean(1)
    return images * mean[:, :3].sum(1).view(-1, 1, 1, 1) + mean[:, 3].view(-1, 1, 1, 1)
