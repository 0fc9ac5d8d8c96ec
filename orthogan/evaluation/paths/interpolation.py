"""Paths between two latents: a straight line, and the arcs on which Gaussian or normalised latents lie."""

from __future__ import annotations

import torch
from torch import Tensor

_SMALL = 1e-6  # the sine of an angle below which an arc is a line


def lerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """a + t (b - a); ``a``, ``b`` (..., d), ``t`` (..., 1), which may leave [0, 1]."""
    return a + t * (b - a)


def slerp_any(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """(sin((1 - t) W) a + sin(t W) b) / sin(W), W the angle between a and b, whose lengths are kept at the ends.

    Shoemake's formula (1985) on vectors of any length, as White (2016, "Sampling generative networks") uses it: on
    the way between two Gaussian latents the length stays typical. Vectors in line with each other have no angle to
    go by: there it is ``lerp``. Shapes as of ``lerp``.
    """
    u, v = _unit(a), _unit(b)
    # Kahan's form of the angle, exact also where the cosine is close to 1
    angle = 2 * torch.atan2((u - v).norm(dim=-1, keepdim=True), (u + v).norm(dim=-1, keepdim=True))
    sine = angle.sin()
    line = sine < _SMALL
    safe = torch.where(line, torch.ones_like(sine), sine)
    arc = (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / safe
    return torch.where(line, lerp(a, b, t), arc)


def slerp_unit(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """The point of the unit sphere at the share ``t`` of the angle from a / |a| to b / |b| (StyleGAN). Shapes as above.

    For generators that divide their latent by its length; to others such short latents are strange.
    """
    return _unit(slerp_any(_unit(a), _unit(b), t))


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)
