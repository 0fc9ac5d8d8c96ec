"""The polar factor of a matrix: the nearest matrix with orthonormal rows or columns."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from orthogan.linalg.decompositions import thin_svd
from orthogan.linalg.precision import (
    autocast_off,
    differentiates_again,
    magnitude,
    matrices,
    needs_plain,
    second_order,
    without_autocast,
)

PolarMethod = Literal["eigh", "svd", "newton_schulz", "polar_express"]
# Amsel et al. 2025, "The Polar Express": odd quintics, each optimal on the interval that the previous one leaves, for
# singular values in [1e-3, 1]; the last one is the limit of the sequence
POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
    (1.875, -1.25, 0.375),
)
SAFETY = 1.01
PLAIN_STEPS = 40  # enough for condition numbers up to about a million


class _Polar(torch.autograd.Function):
    """U V^T by SVD, with a backward pass that divides only by sums of singular values, never by their gaps."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        left, values, right = thin_svd(matrix)
        ctx.save_for_backward(matrix, left, values, right)
        return left @ right

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        matrix, left, values, right = ctx.saved_tensors
        if differentiates_again():
            return second_order(_plain, gradient, matrix)
        with without_autocast(gradient.device):
            return _polar_slope(left, values, right, gradient)


def _polar_slope(left: Tensor, values: Tensor, right: Tensor, gradient: Tensor) -> Tensor:
    """Return dL/dA of the polar factor of A = U S V^T from dL/d(U V^T)."""
    # singular directions of zero length have no unique factor: their gradient is bounded instead of infinite
    top = torch.where(values[..., :1] > 0, values[..., :1], 1.0)
    values = values.clamp_min(torch.finfo(values.dtype).eps * top * values.shape[-1])
    inner = left.mT @ gradient @ right.mT
    core = (inner - inner.mT) / (values.unsqueeze(-1) + values.unsqueeze(-2))
    found = left @ core @ right
    if left.shape[-2] > left.shape[-1]:
        out = gradient - left @ (left.mT @ gradient)
        found = found + ((out @ right.mT) / values.unsqueeze(-2)) @ right
    elif right.shape[-1] > right.shape[-2]:
        out = gradient - (gradient @ right.mT) @ right
        found = found + left @ ((left.mT @ out) / values.unsqueeze(-1))
    return found


def _plain(matrix: Tensor) -> Tensor:
    """Return the polar factor by Newton-Schulz with a fixed number of steps, which torch differentiates in any way."""
    wide = matrix.shape[-2] < matrix.shape[-1]
    x = matrix.mT if wide else matrix
    x = x / magnitude(x, -2, -1)
    x = x / _norm_bound(x.detach())
    for _ in range(PLAIN_STEPS):
        x = x - 0.5 * x @ (x.mT @ x - torch.eye(x.shape[-1], dtype=x.dtype, device=x.device))
    return x.mT if wide else x


def _norm_bound(x: Tensor) -> Tensor:
    """Return a bound on the spectral norm of (..., m, n), (..., 1, 1), which is above 0."""
    # sqrt(||X||_1 ||X||_inf) is often far below the Frobenius norm, and saves iterations
    bound = (x.abs().sum(-1).amax(-1) * x.abs().sum(-2).amax(-1)).sqrt()
    return torch.minimum(bound, x.flatten(-2).norm(dim=-1)).clamp_min(1e-30)[..., None, None]


@autocast_off
def polar_factor(matrix: Tensor) -> Tensor:
    """Return U V^T of the thin SVD of (..., m, n): Löwdin's symmetric orthogonalization.

    The gradient stays finite if singular values coincide, unlike that of ``torch.linalg.svd``. Second derivatives, and
    those of forward mode and ``torch.func``, need full rank. The computation uses at least float32.

    Example:
        >>> import torch
        >>> from orthogan.linalg import polar_factor
        >>> polar_factor(torch.tensor([[0.0, 5.0], [2.0, 0.0]])).round(decimals=3).abs()
        tensor([[0., 1.],
                [1., 0.]])
    """
    matrix = matrices(matrix)
    return _plain(matrix) if needs_plain(matrix) else _Polar.apply(matrix)  # pyright: ignore[reportReturnType]


@torch.library.custom_op("orthogan::newton_schulz", mutates_args=())
def newton_schulz(matrix: Tensor, tolerance: float = 1e-6, most: int = 100) -> Tensor:
    """Return the polar factor by X <- X (3 I - X^T X) / 2, iterated until ||X^T X - I||_F is below ``tolerance``.

    The iteration uses only matrix products and no decomposition. It waits for the device once per iteration. It has
    a backward pass for square matrices. For a matrix without full rank it does not converge and stops after ``most``
    iterations.

    Args:
        matrix: (..., m, n), at least float32.
    """
    wide = matrix.shape[-2] < matrix.shape[-1]
    x = matrix.mT if wide else matrix
    x = x / magnitude(x, -2, -1)
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    x = x / _norm_bound(x)
    for _ in range(most):
        error = x.mT @ x - eye
        x = x - 0.5 * (x @ error)
        # this step has already squared the measured error
        if float(error.flatten(-2).norm(dim=-1).amax()) <= tolerance**0.5:
            break
    return x.mT.contiguous() if wide else x.contiguous()


@newton_schulz.register_fake
def _(matrix: Tensor, tolerance: float = 1e-6, most: int = 100) -> Tensor:
    return torch.empty_like(matrix, memory_format=torch.contiguous_format)


@torch.library.custom_op("orthogan::newton_schulz_backward", mutates_args=())
def newton_schulz_backward(matrix: Tensor, factor: Tensor, gradient: Tensor, tolerance: float) -> Tensor:
    """Return Q X with H X + X H = Q^T G - G^T Q, H = Q^T A: the gradient of the polar factor Q of a square A.

    It uses only matrix products: the sign iteration on (H, right-hand side) solves the Lyapunov equation (Song et al.
    2022).
    """
    scale = magnitude(matrix, -2, -1)
    hermitian = factor.mT @ (matrix / scale)
    inner = factor.mT @ gradient
    size = hermitian.flatten(-2).norm(dim=-1)[..., None, None]
    size = torch.where(size > 0, size, 1.0)
    b, c = hermitian / size, (inner - inner.mT) / size
    eye = torch.eye(b.shape[-1], dtype=b.dtype, device=b.device)
    for _ in range(100):
        square = b @ b
        c = 0.5 * (c @ (3 * eye - square) - square @ c + b @ c @ b)
        b = 0.5 * b @ (3 * eye - square)
        if float((square - eye).flatten(-2).norm(dim=-1).amax()) <= tolerance**0.5:
            break
    return 0.5 * factor @ c / scale


@newton_schulz_backward.register_fake
def _(matrix: Tensor, factor: Tensor, gradient: Tensor, tolerance: float) -> Tensor:
    return torch.empty_like(factor)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    matrix, ctx.tolerance, _ = inputs
    if matrix.shape[-1] != matrix.shape[-2] and matrix.requires_grad:
        raise ValueError(f"newton_schulz is differentiable for square matrices only, not {tuple(matrix.shape)}")
    ctx.save_for_backward(matrix, output)


def _slope(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    matrix, factor = ctx.saved_tensors
    if differentiates_again():
        return second_order(_plain, gradient, matrix), None, None
    with without_autocast(gradient.device):
        return newton_schulz_backward(matrix, factor, gradient.contiguous(), ctx.tolerance), None, None


newton_schulz.register_autograd(_slope, setup_context=_remember)


@torch.no_grad()
def nearest_orthogonal(matrix: Tensor, method: PolarMethod = "eigh", rank_tolerance: float | None = None) -> Tensor:
    """Return the polar factor of ``matrix`` (..., m, n), for use on gradients: no graph, any rank, at least float32.

    Args:
        method: "eigh" of the smaller Gram matrix in float64 (exact, and fast if the smaller side is below about a
            thousand); "svd"; "newton_schulz" to tolerance; "polar_express" (Amsel et al. 2025: eight steps in
            bfloat16, singular values within about 1 %, fast on a GPU).
        rank_tolerance: "eigh" and "svd" only. Directions whose singular values are at most this fraction of the largest
            one are set to zero instead of being completed with arbitrary orthonormal vectors. None: only singular
            values that are zero up to rounding.

    Raises:
        ValueError: the method is unknown, or the matrix is complex or has no rows or no columns.

    Source: Song, Sebe & Wang 2022, arXiv:2207.02119.

    Example:
        >>> import torch
        >>> from orthogan.linalg import nearest_orthogonal
        >>> gradient = torch.tensor([[3.0, 0.0], [0.0, 0.1]])
        >>> nearest_orthogonal(gradient).round(decimals=3)
        tensor([[1., 0.],
                [0., 1.]])
    """
    x = matrices(matrix)
    dtype = x.dtype
    with without_autocast(matrix.device):
        if method == "polar_express":
            return _polar_express(x).to(dtype)
        if method == "newton_schulz":
            return newton_schulz(x)
        if method == "svd":
            left, values, right = thin_svd(x)
            floor = torch.finfo(dtype).eps * max(x.shape[-2:]) if rank_tolerance is None else rank_tolerance
            kept = (values > floor * values[..., :1]).to(dtype)
            return (left * kept.unsqueeze(-2)) @ right
        if method != "eigh":
            raise ValueError(f"method {method!r}: choose eigh, svd, newton_schulz or polar_express")
        return _by_gram(x, rank_tolerance).to(dtype)


def _by_gram(x: Tensor, rank_tolerance: float | None) -> Tensor:
    wide = x.shape[-2] <= x.shape[-1]
    # the Gram matrix squares the condition number, so it is computed in float64 for float32 input
    x = x.double() if x.device.type != "mps" else x
    # a common scale keeps the squares within the range of the number format
    x = x / x.abs().amax((-2, -1), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    values, vectors = torch.linalg.eigh(x @ x.mT if wide else x.mT @ x)
    floor = 1e-12 if rank_tolerance is None else max(rank_tolerance**2, 1e-12)
    kept = values > floor * values[..., -1:]
    inverse = torch.where(kept, values.clamp_min(torch.finfo(x.dtype).tiny).rsqrt(), 0.0)
    root = (vectors * inverse.unsqueeze(-2)) @ vectors.mT
    return root @ x if wide else x @ root


def _polar_express(x: Tensor) -> Tensor:
    wide = x.shape[-2] <= x.shape[-1]
    x = x / magnitude(x, -2, -1)
    x = (x if wide else x.mT).bfloat16() if x.dtype != torch.float64 else (x if wide else x.mT)
    x = x / (x.flatten(-2).norm(dim=-1) * 1.01).clamp_min(1e-7)[..., None, None]
    for a, b, c in POLAR_EXPRESS:
        # rounding must not push a value out of the interval, because the quintics diverge there
        a, b, c = a / SAFETY, b / SAFETY**3, c / SAFETY**5
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x if wide else x.mT
