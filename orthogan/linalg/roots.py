"""Square roots and inverse square roots of symmetric positive semi-definite matrices, with stable gradients.

All functions take (..., n, n) in at least float32, symmetrize it, and return NaN for a matrix that is not finite.
"""

from __future__ import annotations

import math
from math import comb
from typing import Any, Literal

import torch
from torch import Tensor

from orthogan.linalg.decompositions import eigh
from orthogan.linalg.precision import at_least_float32, differentiates_again, magnitude, matrices, without_autocast

SqrtMethod = Literal["eigh", "pade", "taylor", "newton_schulz", "eigh_autograd"]
InverseMethod = Literal["eigh", "newton_schulz", "pade", "eigh_autograd"]
DEGREE = 100  # degree of the geometric series in the published Taylor gradient
# (1+s)^11 +- (1-s)^11 in z = s^2: their quotient is the [5,5] Pade approximant of sqrt(z) about z = 1
NUMERATOR = tuple(comb(11, 2 * j) for j in range(6))
DENOMINATOR = tuple(comb(11, 2 * j + 1) for j in range(6))
# the approximant of the root keeps values above 1/11, so this many steps converge for n up to a few hundred
LYAPUNOV_ITERATIONS = 12


def matrix_sqrt(matrix: Tensor, method: SqrtMethod = "eigh", *, iterations: int = 5) -> Tensor:
    """Return S^(1/2) of ``matrix`` (..., n, n).

    Args:
        method: "eigh" is exact. Its gradient has no eigen-gap, 1 / (sqrt l_i + sqrt l_j), and is differentiable any
            number of times. "pade" and "taylor" have the same forward pass and the gradients of Song et al. 2021, "Why
            approximate matrix square root outperforms accurate SVD", and are differentiable once. In the gap
            1 / (l_i - l_j) = 1/l_i * 1/(1 - x), x = l_j/l_i, they replace 1/(1 - x) by its [50,50] Pade approximant or
            its series to degree 100. Both agree with "eigh" for separate eigenvalues and give no gradient between equal
            ones. "newton_schulz" is the coupled iteration (Li et al. 2018, iSQRT-COV) with autograd's gradient.
            "eigh_autograd" is the baseline of the papers: the exact root with the gradient of ``torch.linalg.eigh``,
            which divides by eigen-gaps, and is wrong where eigenvalues are equal or nearly equal. Elements of it that
            are not finite become 0.
        iterations: for "newton_schulz" only.

    The gradient of vanishing eigenvalues is bounded as if they were at rounding level, eps * l_max.

    Raises:
        ValueError: the method is unknown, iterations is below one, or the matrix is not square.

    Source: Song, Sebe & Wang 2022, arXiv:2201.08663.

    Example:
        >>> import torch
        >>> from orthogan.linalg import matrix_sqrt
        >>> covariance = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
        >>> root = matrix_sqrt(covariance)
        >>> torch.allclose(root @ root, covariance, atol=1e-5)
        True
    """
    matrix = matrices(matrix, square=True)
    with without_autocast(matrix.device):
        s, size = _scaled(_symmetric(matrix))
        if method == "eigh":
            return _Roots.apply(s, None)[0] * size  # pyright: ignore[reportOptionalSubscript]
        if method in ("pade", "taylor"):
            return _GapRoot.apply(s, method) * size  # pyright: ignore[reportReturnType, reportOptionalOperand]
        if method == "newton_schulz":
            return _newton_schulz(s, iterations)[0] * size
        if method == "eigh_autograd":
            values, vectors = _decompose(_FiniteGradient.apply(s))
            return _compose(vectors, _raised(values).sqrt()) * size
    raise ValueError(f"method {method!r}: choose eigh, pade, taylor, newton_schulz or eigh_autograd")


def inverse_sqrt(matrix: Tensor, method: InverseMethod = "eigh", *, iterations: int = 5, shift: float = 0.0) -> Tensor:
    """Return (S + shift I)^(-1/2) of ``matrix`` (..., n, n).

    Args:
        method: "eigh" is exact, with the gradient -1 / (sqrt(l_i l_j) (sqrt l_i + sqrt l_j)), differentiable any
            number of times. It adds the shift to the eigenvalues, so that the shift is not lost to rounding next to a
            large l_max. "newton_schulz" is the coupled iteration with autograd's gradient. "pade" is the [5,5]
            approximant after division by the Frobenius norm (Song et al. 2022, fast differentiable matrix square root),
            with the gradient of the exact root by the iterative Lyapunov solver. Both of these are smooth
            approximations: they raise small eigenvalues less than the exact inverse root does, "pade" to
            11 / sqrt(||S||_F). "eigh_autograd" is the baseline of the papers, see ``matrix_sqrt``.
        iterations: for "newton_schulz" only.
        shift: 0 or more. With 0, eigenvalues below eps * l_max are replaced by eps * l_max.

    Raises:
        ValueError: the method is unknown, iterations is below one, the shift is negative, or the matrix is not square.

    Source: Song, Sebe & Wang 2022, arXiv:2201.08663.

    Example:
        >>> import torch
        >>> from orthogan.linalg import inverse_sqrt
        >>> inverse_sqrt(torch.diag(torch.tensor([4.0, 16.0])))
        tensor([[0.5000, 0.0000],
                [0.0000, 0.2500]])
    """
    if shift < 0:
        raise ValueError(f"shift is {shift}: must be 0 or more")
    matrix = matrices(matrix, square=True)
    with without_autocast(matrix.device):
        s, size = _scaled(_symmetric(matrix), shift)
        shifts = shift / size.square()
        if method == "eigh":
            return _Roots.apply(s, shifts if shift else None)[1] / size  # pyright: ignore[reportOptionalSubscript]
        shifted = s + shifts * torch.eye(s.shape[-1], dtype=s.dtype, device=s.device)
        if method == "newton_schulz":
            return _newton_schulz(shifted, iterations)[1] / size
        if method == "pade":
            return _PadeRoots.apply(shifted)[1] / size  # pyright: ignore[reportOptionalSubscript]
        if method == "eigh_autograd":
            values, vectors = _decompose(_FiniteGradient.apply(s))
            values = values + shifts.squeeze(-1) if shift else _raised(values)
            return _compose(vectors, values.rsqrt()) / size
    raise ValueError(f"method {method!r}: choose eigh, newton_schulz, pade or eigh_autograd")


@torch.no_grad()
def condition_numbers(matrix: Tensor, shift: float = 0.0) -> dict[str, list[float]]:
    """Return condition numbers of each ``matrix`` (..., n, n), flattened over the leading dimensions.

    ``kappa`` is l_max / l_min, or inf if l_min is at rounding level n * eps * l_max of the given precision.
    ``kappa_shifted`` is that of S + shift I. ``lambda_max`` is l_max. The function waits for the device.
    """
    clean, finite = _finite(_symmetric(matrix.cpu()).double())
    values, broken = torch.linalg.eigvalsh(clean).reshape(-1, matrix.shape[-1]), ~finite.reshape(-1)
    low, high = values[:, 0].clone(), values[:, -1]
    low[low <= matrix.shape[-1] * torch.finfo(at_least_float32(matrix).dtype).eps * high] = 0.0
    facts = {"kappa": _ratio(high, low), "kappa_shifted": _ratio(high + shift, low + shift), "lambda_max": high}
    return {name: value.masked_fill(broken, torch.nan).tolist() for name, value in facts.items()}


def _ratio(high: Tensor, low: Tensor) -> Tensor:
    return torch.where(low > 0, high / low.clamp_min(1e-300), torch.inf)


def _symmetric(matrix: Tensor) -> Tensor:
    x = at_least_float32(matrix)
    return 0.5 * (x + x.mT)


def _scaled(s: Tensor, shift: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return S / size^2 and size (..., 1, 1), a power of two near the root of the largest entry of S or ``shift``."""
    size = 0.5 * magnitude(magnitude(s, -2, -1).sqrt(), -2, -1)
    if shift:
        size = size.clamp_min(2.0 ** round(math.log2(shift) / 2))
    if s.requires_grad and not torch.compiler.is_compiling():
        # the gradient of a tiny matrix may overflow its number format: then it becomes the largest number
        most = torch.finfo(s.dtype).max
        s.register_hook(lambda gradient: None if gradient is None else gradient.clamp(-most, most))
    return s / size.square(), size


def _finite(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Replace matrices that are not finite by zeros and return (..., 1) whether each is finite: eigh raises on NaN."""
    finite = matrix.isfinite().flatten(-2).all(-1)[..., None]
    return torch.where(finite[..., None], matrix, 0.0), finite


def _decompose(s: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues (..., n), at least 0, ascending, and eigenvectors; values are NaN if ``s`` is not finite."""
    clean, finite = _finite(s)
    values, vectors = eigh(clean)
    return torch.where(finite, values.clamp_min(0.0), torch.nan), vectors


def _smallest(dtype: torch.dtype) -> float:
    """Return the value below which a matrix counts as zero: its inverse root, squared, is still finite."""
    return torch.finfo(dtype).tiny ** 0.5


def _raised(values: Tensor) -> Tensor:
    """Raise eigenvalues to at least the rounding level of the largest."""
    floor = torch.finfo(values.dtype).eps * values[..., -1:]
    return torch.maximum(values, floor.clamp_min(_smallest(values.dtype)))


def _compose(vectors: Tensor, values: Tensor) -> Tensor:
    return (vectors * values.unsqueeze(-2)) @ vectors.mT


class _FiniteGradient(torch.autograd.Function):
    """The identity; elements of its gradient that are not finite become 0."""

    @staticmethod
    def forward(ctx: Any, s: Tensor) -> Tensor:
        return s.view_as(s)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore
        return gradient.nan_to_num(0.0, 0.0, 0.0)


class _Lyapunov(torch.autograd.Function):
    """X with A X + X A = C for symmetric A = Q diag(a) Q^T; its gradients are also Lyapunov solutions."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, c: Tensor, vectors: Tensor, values: Tensor) -> Tensor:
        inner = (vectors.mT @ c @ vectors) / (values.unsqueeze(-1) + values.unsqueeze(-2))
        x = vectors @ inner @ vectors.mT
        ctx.save_for_backward(a, vectors, values, x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:  # pyright: ignore
        a, vectors, values, x = ctx.saved_tensors
        with without_autocast(gradient.device):
            y: Tensor = _Lyapunov.apply(a, gradient, vectors, values)  # pyright: ignore[reportAssignmentType]
            return -(y @ x.mT + x.mT @ y), y, None, None


class _Roots(torch.autograd.Function):
    """R = (S + shift I)^(1/2) and P = R^(-1) by eigh. R R = S implies dR R + R dR = dS and dP = -P dR P."""

    @staticmethod
    def forward(ctx: Any, s: Tensor, shift: Tensor | None) -> tuple[Tensor, Tensor]:
        values, vectors = _decompose(s)
        if shift is None:
            raised = _raised(values).sqrt()
        else:
            values = values + shift.squeeze(-1)
            raised = values.sqrt()
        root, inverse = _compose(vectors, values.sqrt()), _compose(vectors, raised.reciprocal())
        ctx.save_for_backward(root, inverse, vectors, raised)
        return root, inverse

    @staticmethod
    def backward(ctx: Any, by_root: Tensor, by_inverse: Tensor) -> tuple[Tensor, None]:  # pyright: ignore
        root, inverse, vectors, raised = ctx.saved_tensors
        with without_autocast(by_root.device):
            right = by_root - inverse @ by_inverse @ inverse
            return _Lyapunov.apply(root, right, vectors, raised), None  # pyright: ignore[reportReturnType]


class _GapRoot(torch.autograd.Function):
    """S^(1/2) by eigh, with the gradient of the decomposition and an approximated eigen-gap.

    The gap appears together with sqrt l_i - sqrt l_j in the numerator. The approximation phi(x) of 1/(1 - x) therefore
    scales the exact 1 / (sqrt l_i + sqrt l_j) by (1 - x) phi(x): 1 - x^101 for the series. The Pade approximant is
    1/(1 - x) itself, which is infinite at x = 1. There the authors use a large number; here 1/(1 - x) is at most 1/eps.
    """

    @staticmethod
    def forward(ctx: Any, s: Tensor, method: str) -> Tensor:
        values, vectors = _decompose(s)
        ctx.method = method
        ctx.save_for_backward(s, _raised(values), vectors)
        return _compose(vectors, values.sqrt())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore
        s, values, vectors = ctx.saved_tensors
        with torch.no_grad(), without_autocast(gradient.device):
            one, other = values.unsqueeze(-1), values.unsqueeze(-2)
            x = torch.minimum(one, other) / torch.maximum(one, other)
            if ctx.method == "taylor":
                weight = -torch.expm1((DEGREE + 1) * x.log())
            else:
                weight = ((1 - x) / torch.finfo(x.dtype).eps).clamp_max(1.0)
            weight = weight + torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)  # gradient of the eigenvalues
            inner = (vectors.mT @ gradient @ vectors) * weight / (one.sqrt() + other.sqrt())
            found = vectors @ inner @ vectors.mT
        # without this, torch.autograd.grad would leave out the second derivative without an error
        return _Once.apply(found, gradient, s, ctx.method) if differentiates_again() else found, None  # pyright: ignore


class _Once(torch.autograd.Function):
    """The identity of a gradient that has no derivative; asking for one is an error."""

    @staticmethod
    def forward(ctx: Any, found: Tensor, gradient: Tensor, s: Tensor, method: str) -> Tensor:
        ctx.method = method
        return found.view_as(found)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore
        raise RuntimeError(
            f"matrix_sqrt with method {ctx.method!r} is differentiable once; use method 'eigh' for second derivatives, "
            "such as those of a gradient penalty"
        )


def _newton_schulz(s: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Return root and inverse root: Y <- Y T, Z <- T Z, T = (3 I - Z Y) / 2, from S / tr S, rescaled at the end."""
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}: must be at least 1")
    trace = s.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None].clamp_min(_smallest(s.dtype))
    eye = torch.eye(s.shape[-1], dtype=s.dtype, device=s.device)
    y, z = s / trace, eye
    for _ in range(iterations):
        t = 0.5 * (3 * eye - z @ y)
        y, z = y @ t, t @ z
    return y * trace.sqrt(), z / trace.sqrt()


class _PadeRoots(torch.autograd.Function):
    """The root R and its inverse P by the [5,5] approximant, with gradients as if R R = S."""

    @staticmethod
    def forward(ctx: Any, s: Tensor) -> tuple[Tensor, Tensor]:
        norm = s.flatten(-2).norm(dim=-1)[..., None, None].clamp_min(_smallest(s.dtype))
        z = s / norm
        power = torch.eye(s.shape[-1], dtype=s.dtype, device=s.device)
        above, below = NUMERATOR[0] * power, DENOMINATOR[0] * power
        for p, q in zip(NUMERATOR[1:], DENOMINATOR[1:], strict=True):
            power = power @ z
            above, below = above + p * power, below + q * power
        # solve_ex: these cannot be singular (condition at most 1024), and a check would wait for the device
        root = norm.sqrt() * torch.linalg.solve_ex(below, above)[0]
        inverse = torch.linalg.solve_ex(above, below)[0] / norm.sqrt()
        root, inverse = 0.5 * (root + root.mT), 0.5 * (inverse + inverse.mT)
        ctx.save_for_backward(root, inverse)
        return root, inverse

    @staticmethod
    def backward(ctx: Any, by_root: Tensor, by_inverse: Tensor) -> Tensor:  # pyright: ignore
        root, inverse = ctx.saved_tensors
        with without_autocast(by_root.device):
            return _lyapunov_by_products(root, by_root - inverse @ by_inverse @ inverse)


def _lyapunov_by_products(a: Tensor, c: Tensor) -> Tensor:
    """Return X with A X + X A = C for positive definite A, by sign iteration on [[A, C], [0, -A]]; differentiable."""
    size = a.flatten(-2).norm(dim=-1)[..., None, None].clamp_min(_smallest(a.dtype))
    b, c = a / size, c / size
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    for _ in range(LYAPUNOV_ITERATIONS):
        square = b @ b
        c = 0.5 * (c @ (3 * eye - square) - square @ c + b @ c @ b)
        b = 0.5 * b @ (3 * eye - square)
    return 0.5 * c
