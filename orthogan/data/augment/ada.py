"""Adaptive discriminator augmentation (Karras et al. 2020, "Training GANs with limited data"), pipeline "bgc".

Each image gets each of twelve changes with probability p: pixel blitting, general geometry and colour. The geometric
ones become one affine resampling, the colour ones one matrix. p follows a sign of overfitting, r_t = E[sign D(real)].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from orthogan.data.augment import matrices as m
from orthogan.data.augment.resample import affine
from orthogan.errors import UserError

# Strengths of the paper (appendix B): shares of the side, octaves, standard deviations.
SHIFT = 0.125  # both of the integer shift (uniform, +-) and of the fractional one (standard deviation)
SCALE_OCTAVES = 0.2
BRIGHTNESS = 0.2
CONTRAST_OCTAVES = 0.5
SATURATION_OCTAVES = 1.0

GEOMETRY = ("xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac")
COLOUR = ("brightness", "contrast", "lumaflip", "hue", "saturation")
OPERATIONS = (*GEOMETRY, *COLOUR)


class _Draws:
    """Random numbers for n images: every call takes as many from the generator, whatever p is."""

    def __init__(self, n: int, p: Tensor, dtype: torch.dtype, generator: torch.Generator) -> None:
        self.n, self.p, self.dtype, self.generator = n, p, dtype, generator

    def uniform(self) -> Tensor:
        return torch.rand(self.n, generator=self.generator, device=self.p.device, dtype=self.dtype)

    def normal(self) -> Tensor:
        return torch.randn(self.n, generator=self.generator, device=self.p.device, dtype=self.dtype)

    def gated(self, value: Tensor, neutral: float, p: Tensor | None = None) -> Tensor:
        """``value`` with probability p, else ``neutral``."""
        return torch.where(self.uniform() < (self.p if p is None else p), value, neutral)


class AdaptiveAugment:
    """Augmentation with an adaptive strength ``p``, a tensor that stays on the device.

    ``target``: the wanted r_t; ``images_to_one``: images in which p goes from 0 to 1; ``interval``: p is changed
    every so many calls of ``update``; ``ops``: which of ``OPERATIONS`` to use, names or one comma-separated text.

    Call: images float (n, 1 or 3, h, w) in [-1, 1] and a generator on their device, to the same shape and type.
    Twice differentiable in the images. An image that no change falls on is returned bit for bit.
    Raises UserError for unknown operations.
    """

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
            raise UserError(f"augment.ops: {', '.join(names)!r} must be a list out of {', '.join(OPERATIONS)}")
        self.ops = frozenset(names)
        self.target, self.images_to_one, self.interval = target, images_to_one, interval
        self.p = torch.zeros(())
        self._signs = torch.zeros(())  # sum of the signs reported since the last change
        self._calls = self._images = 0

    def update(self, sign_mean: Tensor, images: int) -> None:
        """Report r_t, the mean of sign D(real) over the last ``images`` real images of all processes.

        ``sign_mean`` must be the same on every process (reduce it before). Never waits for the device.
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
        """p and what was reported since it was last changed, as tensors."""
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

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        work = images.to(torch.promote_types(images.dtype, torch.float32))
        self.p = self.p.to(images.device)
        draws = _Draws(len(images), self.p, work.dtype, generator)
        # Autocast would run the filters in 16 bits, which leaves visible steps in the images.
        with torch.autocast(images.device.type, enabled=False):
            inverse = self._geometry(draws, *images.shape[2:])
            if inverse is not None:
                work = torch.where(_changed(inverse), affine(work, inverse), work)
            colour = self._colour(draws, images.shape[1])
            if colour is not None:
                work = torch.where(_changed(colour), recolour(work, colour), work)
        return work.to(images.dtype)

    def _geometry(self, d: _Draws, height: int, width: int) -> Tensor | None:
        """The map from output to input places (n, 3, 3), in pixels from the centre."""
        half = d.p.new_ones(()) - (1 - d.p).sqrt()  # of two rotations at least one happens with probability p

        def turn() -> Tensor:
            return m.rotate2d(d.gated((2 * d.uniform() - 1) * math.pi, 0.0, half))

        def shift(x: Tensor, y: Tensor) -> Tensor:
            return m.translate2d(x, y)

        def xint() -> Tensor:
            on = d.gated(torch.ones(d.n, dtype=d.dtype, device=d.p.device), 0.0)
            x, y = ((2 * d.uniform() - 1) * SHIFT * side for side in (width, height))
            return shift(on * x.round(), on * y.round())

        def xfrac() -> Tensor:
            on = d.gated(torch.ones(d.n, dtype=d.dtype, device=d.p.device), 0.0)
            x, y = (d.normal() * SHIFT * side for side in (width, height))
            return shift(on * x, on * y)

        def octaves() -> Tensor:
            return torch.exp2(d.gated(d.normal() * SCALE_OCTAVES, 0.0))

        def flipped() -> Tensor:
            sign = d.gated(1 - 2 * (2 * d.uniform()).floor(), 1.0)
            return m.scale2d(sign, torch.ones_like(sign))

        def isotropic() -> Tensor:
            factor = octaves()
            return m.scale2d(factor, factor)

        def anisotropic() -> Tensor:
            factor = octaves()
            return m.scale2d(factor, 1 / factor)

        # Rotations stand on both sides of the anisotropic scale, so that it acts in any direction. All of these
        # distributions are symmetric, so it does not matter that each matrix is used as its own inverse.
        steps: list[tuple[str, Callable[[], Tensor]]] = [
            ("xflip", flipped),
            ("rotate90", lambda: m.quarter_turns(d.gated((4 * d.uniform()).floor(), 0.0))),
            ("xint", xint),
            ("scale", isotropic),
            ("rotate", turn),
            ("aniso", anisotropic),
            ("rotate", turn),
            ("xfrac", xfrac),
        ]
        return _product([make() for name, make in steps if name in self.ops])

    def _colour(self, d: _Draws, channels: int) -> Tensor | None:
        """The colour map (n, 4, 4) on (r, g, b, 1)."""
        steps: list[tuple[str, Callable[[], Tensor]]] = [
            ("brightness", lambda: m.add_colour(d.gated(d.normal() * BRIGHTNESS, 0.0))),
            ("contrast", lambda: m.scale_colour(torch.exp2(d.gated(d.normal() * CONTRAST_OCTAVES, 0.0)))),
            ("lumaflip", lambda: m.flip_luma(d.gated((2 * d.uniform()).floor(), 0.0))),
        ]
        if channels > 1:
            steps += [
                ("hue", lambda: m.rotate_hue(d.gated((2 * d.uniform() - 1) * math.pi, 0.0))),
                ("saturation", lambda: m.saturate(torch.exp2(d.gated(d.normal() * SATURATION_OCTAVES, 0.0)))),
            ]
        # The first step comes first, so it stands on the right.
        return _product([make() for name, make in steps if name in self.ops][::-1])

    def __repr__(self) -> str:
        return f"AdaptiveAugment(target={self.target}, images_to_one={self.images_to_one}, p={float(self.p):.3f})"


def _product(factors: list[Tensor]) -> Tensor | None:
    if not factors:
        return None
    result = factors[0]
    for factor in factors[1:]:
        result = result @ factor
    return result


def _changed(matrices: Tensor) -> Tensor:
    """Which of the maps (n, k, k) are not the identity: bool (n, 1, 1, 1)."""
    identity = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    return (matrices != identity).flatten(1).any(1).view(-1, 1, 1, 1)


def recolour(images: Tensor, matrices: Tensor) -> Tensor:
    """Apply colour maps (n, 4, 4) to images (n, 3, h, w); a grey image goes through the mean of the channels."""
    if images.shape[1] == 3:
        colours = matrices[:, :3, :3] @ images.flatten(2) + matrices[:, :3, 3:]
        return colours.view_as(images)
    mean = matrices[:, :3].mean(1)
    return images * mean[:, :3].sum(1).view(-1, 1, 1, 1) + mean[:, 3].view(-1, 1, 1, 1)
