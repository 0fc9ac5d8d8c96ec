"""Interpolation between two latents: along the line, or along the sphere on which normal latents lie."""

from __future__ import annotations

import torch
from torch import Tensor

_SMALL = 1e-6  # sine of the angle below which an arc is treated as a line


def lerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """a + t (b - a); ``a``, ``b`` (..., d), ``t`` (..., 1), which may leave [0, 1].

    Example:
        >>> import torch
        >>> lerp(torch.tensor([0.0, 2.0]), torch.tensor([4.0, 2.0]), torch.tensor([0.25]))
        tensor([1., 2.])
    """
    return a + t * (b - a)


def slerp_any(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """(sin((1 - t) W) a + sin(t W) b) / sin(W), W the angle between a and b, whose lengths are kept at the ends.

    Shoemake's formula (1985) on vectors of any length, as White (2016, "Sampling generative networks") uses it: the
    length between two Gaussian latents stays typical. For parallel vectors it is ``lerp``. Shapes as in ``lerp``.
    """
    first, second, line = _shares(a, b, t)
    return torch.where(line, lerp(a, b, t), first * a + second * b)


def slerp_unit(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """The point on the unit sphere at the fraction ``t`` of the angle from a / |a| to b / |b| (StyleGAN).

    For generators that normalize their latent; for others such short latents are unusual.
    """
    return _unit(slerp_any(_unit(a), _unit(b), t))


def slerp_even(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Direction as in ``slerp_unit``, at the length (1 - t) |a| + t |b|: angle and length both change evenly.

    The latents between two normal ones are as long as these (White 2016, arXiv:1609.04468); the mean of two would be
    shorter by the square root of two. ``lerp`` for parallel vectors, or if one is zero. Shapes as in ``lerp``.

    Example:
        >>> import torch
        >>> a, b = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 4.0])
        >>> slerp_even(a, b, torch.tensor([0.5])).norm().round(decimals=4)
        tensor(3.)
    """
    long, wide = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    first, second, line = _shares(a, b, t)
    across = first * a / long + second * b / wide
    return torch.where(line | (long == 0) | (wide == 0), lerp(a, b, t), ((1 - t) * long + t * wide) * across)


def between(a: Tensor, b: Tensor, t: float, *, sphere: bool) -> Tensor:
    """Return the latent at ``t`` from ``a`` to ``b`` (..., d), computed in float64: ``slerp_even`` or ``lerp``."""
    at = torch.tensor([t], dtype=torch.float64, device=a.device)
    return (slerp_even if sphere else lerp)(a.double(), b.double(), at).to(a.dtype)


def _shares(a: Tensor, b: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights of ``a`` and ``b`` on their arc, and whether they are parallel (..., 1)."""
    u, v = _unit(a), _unit(b)
    # Kahan's form of the angle, exact also where the cosine is close to 1
    angle = 2 * torch.atan2((u - v).norm(dim=-1, keepdim=True), (u + v).norm(dim=-1, keepdim=True))
    sine = angle.sin()
    line = sine < _SMALL
    safe = torch.where(line, torch.ones_like(sine), sine)
    return ((1 - t) * angle).sin() / safe, (t * angle).sin() / safe, line


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)
