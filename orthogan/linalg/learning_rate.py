"""The step length that brings a weight nearest to orthogonality (Song, Sebe & Wang 2022)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def optimal_learning_rate(weight: Tensor, gradient: Tensor, form: Literal["vector", "matrix"] = "vector") -> Tensor:
    """eta* of the step W - eta G; infinite where no finite step is best.

    "vector", as published: with w, l the weight and gradient as vectors,
    eta* = (w.w)(l.w) / ((w.w)(l.l) + 2 (l.w)^2), which minimises (||w - eta l||^2)^2 to second order and so controls
    the norm of W only. "matrix": the second-order minimum of ||(W - eta G)(W - eta G)^T - I||_F^2 itself, on
    the smaller side of W: with A = W W^T - I, B = W G^T + G W^T, C = G G^T, eta* = <A, B> / (||B||_F^2 + 2 <A, C>).

    Args:
        weight, gradient: (m, n).

    Raises:
        ValueError: an unknown form.
    """
    if form == "vector":
        ww, lw, ll = (weight * weight).sum(), (gradient * weight).sum(), (gradient * gradient).sum()
        return _ratio(ww * lw, ww * ll + 2 * lw.square())
    if form != "matrix":
        raise ValueError(f"form {form!r}: choose vector or matrix")
    if weight.shape[0] > weight.shape[1]:
        weight, gradient = weight.mT, gradient.mT
    a = weight @ weight.mT - torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
    b = weight @ gradient.mT
    b = b + b.mT
    return _ratio((a * b).sum(), b.square().sum() + 2 * (a * (gradient @ gradient.mT)).sum())


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    tiny = torch.finfo(denominator.dtype).tiny
    return torch.where(denominator > tiny, numerator / denominator.clamp_min(tiny), torch.inf)
