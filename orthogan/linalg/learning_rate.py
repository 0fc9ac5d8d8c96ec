"""The step size that brings a weight closest to orthogonality (Song, Sebe & Wang 2022)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from orthogan.linalg.precision import autocast_off, magnitude, matrices


@autocast_off
def optimal_learning_rate(
    weight: Tensor, gradient: Tensor, form: Literal["vector", "matrix"] = "vector", *, block_diagonal: bool = False
) -> Tensor:
    """Return eta* of the step W - eta G for each matrix (...), or infinity if no finite step is optimal.

    "vector" is the published form. With the weight w and the gradient l as vectors,
    eta* = (w.w)(l.w) / ((w.w)(l.l) + 2 (l.w)^2). It minimizes (||w - eta l||^2)^2 to second order and therefore
    controls only the norm of W. "matrix" is the second-order minimum of ||(W - eta G)(W - eta G)^T - I||_F^2 itself, on
    the smaller side of W: with A = W W^T - I, B = W G^T + G W^T, C = G G^T, eta* = <A, B> / (||B||_F^2 + 2 <A, C>).

    Args:
        weight, gradient: (..., m, n).
        block_diagonal: the matrices are the blocks of one block-diagonal matrix, which has one eta*, 0-d.

    Raises:
        ValueError: the form is unknown.

    Source: Song, Sebe & Wang 2022, arXiv:2207.02119.

    Example:
        >>> import torch
        >>> from orthogan.linalg import optimal_learning_rate
        >>> weight = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> float(optimal_learning_rate(weight, weight)) > 0
        True
    """
    weight, gradient = matrices(weight), matrices(gradient)
    over = tuple(range(-weight.dim(), 0)) if block_diagonal else (-2, -1)
    length, size = magnitude(gradient, *over), magnitude(weight, *over)
    gradient = gradient / length
    if form == "vector":
        weight = weight / size
        ww, lw, ll = ((a * b).sum(over) for a, b in ((weight, weight), (gradient, weight), (gradient, gradient)))
        found = _ratio(ww * lw, ww * ll + 2 * lw.square())
        return found * (size / length).reshape(found.shape)
    if form != "matrix":
        raise ValueError(f"form {form!r}: choose vector or matrix")
    size = size.clamp_min(1.0)  # a small weight is small relative to the identity
    weight = weight / size
    if weight.shape[-2] > weight.shape[-1]:
        weight, gradient = weight.mT, gradient.mT
    eye = torch.eye(weight.shape[-2], dtype=weight.dtype, device=weight.device)
    a = weight @ weight.mT - eye / size / size
    b = weight @ gradient.mT
    b = b + b.mT
    found = _ratio((a * b).sum(over), b.square().sum(over) + 2 * (a * (gradient @ gradient.mT)).sum(over))
    return found * (size / length).reshape(found.shape)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    tiny = torch.finfo(denominator.dtype).tiny
    return torch.where(denominator > tiny, numerator / denominator.clamp_min(tiny), torch.inf)
