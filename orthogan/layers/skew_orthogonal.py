"""Skew orthogonal convolution (Singla & Feizi 2021): the exponential of a skew-symmetric convolution.

A convolution is a linear map. Its transpose is a convolution whose kernel has swapped channels and reversed taps. Half
the difference of the two kernels defines a skew-symmetric map A, both on a torus and with zero padding, so exp(A) is
orthogonal. The layer sums the Taylor series of exp(A), with one convolution per term.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import ParametrizationList

from orthogan.arguments import checked
from orthogan.layers.shapes import check_map
from orthogan.linalg import normalize, power_iteration
from orthogan.linalg.precision import at_least_float32, magnitude, without_autocast
from orthogan.weights.belonging import can_look, fitting, top_vectors
from orthogan.weights.constraint import Constraint, register
from orthogan.weights.network import CONSTRAINTS, ConstraintConfig, hold_power_iteration

if TYPE_CHECKING:
    from orthogan.config.schema import Config

Padding = Literal["circular", "zeros"]
WARM_UP = 50
STEPS = 3  # power iterations per forward pass in training; with 1, the vectors lag twice as far behind large steps
# The authors scale a filter to 0.7 in a norm, and sqrt(3 * 3) times that norm bounds the map; a 1x1 filter to 1.
# Here the limit of 2.1 also holds for larger kernels; with 0.7 alone, the series would have no useful bound for them.
NORM, NORM_1X1 = 0.7 * 3, 1.0


class BoundedSkew(Constraint):
    """Parametrization of a kernel (m, m, k, k) by its skew-symmetric part, scaled so that ||A|| is at most ``limit``.

    ||A|| <= k * min of the norms of four unfoldings (Singla & Feizi 2021, "Fantastic four"): (out, in*k*k),
    (out*k*k, in), and (out*k, in*k) with the taps in either order. For a skew filter, the first two have equal norms,
    and so do the last two. One vector per pair follows them by power iteration, as in ``SpectralNorm``. The estimate is
    too low while a vector lags behind the filter, and the bound can then exceed the limit (in experiments by 1% with
    Adam at 2e-4 and by up to 40% with SGD at 0.1, although ||A|| itself stayed below it). ``facts`` returns the exact
    value.
    """

    u_wide: Tensor
    u_square: Tensor

    def __init__(self, module: nn.Module, weight: Tensor) -> None:
        super().__init__(module, weight)
        self.limit = NORM if weight.shape[-1] > 1 else NORM_1X1
        matrices = _unfoldings(skew(at_least_float32(weight.detach())))
        starts = [normalize(torch.randn(len(matrix), dtype=matrix.dtype, device=matrix.device)) for matrix in matrices]
        self.register_buffer("u_wide", starts[0])
        self.register_buffer("u_square", starts[1])
        self.advance(weight, WARM_UP)
        self._made_for: Tensor | None = weight  # the first weight that right_inverse gets

    @torch.no_grad()
    def advance(self, weight: Tensor, iterations: int = STEPS) -> None:
        """Iterate the two vectors toward the top singular vectors of the unfoldings."""
        with without_autocast(weight.device):
            for u, matrix in zip(
                (self.u_wide, self.u_square), _unfoldings(skew(at_least_float32(weight))), strict=True
            ):
                u.copy_(power_iteration(matrix, at_least_float32(u), iterations)[0])

    def forward(self, weight: Tensor) -> Tensor:
        """Return the filter of A (m, m, k, k), computed in at least float32, in the dtype of ``weight``."""
        if self.moves:
            self.advance(weight)
        with without_autocast(weight.device):
            return self.given(self.effective(at_least_float32(weight)), weight)

    def effective(self, weight: Tensor) -> Tensor:
        """Return the filter of A with the current vectors."""
        kernel = skew(weight)
        kernel = kernel / magnitude(kernel, -4, -3, -2, -1)  # weight decay may have made it arbitrarily small
        wide, square = _unfoldings(kernel)
        sigma = torch.minimum(
            (wide.mT @ self.present(wide, self.u_wide)).norm(), (square.mT @ self.present(square, self.u_square)).norm()
        )
        return kernel * (self.limit / (weight.shape[-1] * sigma.clamp_min(1e-12)))

    @torch.no_grad()
    def present(self, matrix: Tensor, u: Tensor) -> Tensor:
        """Return a copy of u, or in eval mode a newly computed u if the stored one does not belong to ``matrix``."""
        # a copy: a later forward pass may advance the buffers before this backward pass
        u = at_least_float32(u).clone()
        if self.training:
            return u
        return fitting(matrix, u, normalize(matrix.mT @ u))[0]

    @torch.no_grad()
    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the unconstrained parameter for an assigned filter; only its skew-symmetric part matters."""
        weight = self.assignable(weight)
        if can_look(weight) and self._made_for is not weight:
            self.fit(weight)
        self._made_for = None
        return weight

    def fit(self, weight: Tensor) -> None:
        """Set the two vectors to the top singular vectors of the unfoldings for the parameter ``weight``."""
        for u, matrix in zip((self.u_wide, self.u_square), _unfoldings(skew(at_least_float32(weight))), strict=True):
            u.copy_(top_vectors(matrix)[0])

    @torch.no_grad()
    def before_load(self, parameters: ParametrizationList, state: dict[str, Any], prefix: str, own: str) -> None:
        """Compute the vectors for a checkpoint without them, or without one of them."""
        weight, whole = state.get(f"{prefix}original"), {f"{own}u_wide", f"{own}u_square"} <= state.keys()
        if not isinstance(weight, Tensor) or whole or weight.shape != parameters.original.shape:
            return
        if can_look(weight) and bool(torch.isfinite(weight).all()):
            self.fit(weight.to(self.u_wide.device))

    @torch.no_grad()
    def facts(self, weight: Tensor) -> dict[str, float]:
        """Return ``operator_bound``, the upper bound on the norm of A by exact singular values."""
        norms = [
            float(torch.linalg.svdvals(matrix)[0]) for matrix in _unfoldings(self.effective(at_least_float32(weight)))
        ]
        return {"operator_bound": weight.shape[-1] * min(norms)}


class SkewOrthogonalConv2d(nn.Module):
    """An orthogonal convolution (n, in, h, w) -> (n, out, h/stride, w/stride), plus a bias.

    All its singular values are 1, up to the truncation of the series. It preserves the norm of its input if
    in*stride^2 <= out, and the norm of the gradient if in*stride^2 >= out. A stride first moves the pixels of each
    stride x stride square into channels, so that the kernel spans k*stride pixels. Internally the map is square, with
    m = max(in*stride^2, out) channels: the input is padded with zero channels, and the output is truncated.

    Singular values differ from 1 by at most ``truncation_bound(b, terms)``, where b is the ``operator_bound`` of
    ``orthogan.weights.report``. b is 2.1 (1 for 1x1 kernels) once power iteration has converged, so the difference is
    at most 0.12 for 5 terms and 9e-5 for 10. The map of a random filter has a norm near 1.2, with errors of 4e-3 and
    2e-7. The computation uses at least float32, also inside autocast, and the output has the dtype of the input.

    ``weight`` is the skew filter (m, m, k, k). It does not depend on the scale of the parameter behind it, so weight
    decay only changes the effective step size. ``orthogan.weights`` freezes, advances, reports and removes the
    constraint.

    Args:
        kernel_size: k, odd.
        padding: padding mode. The amount of padding is always such that stride 1 keeps the size.
        terms: number of terms of the series in training, with one convolution per term.
        eval_terms: number of terms in eval mode; twice ``terms`` by default.

    Raises:
        ValueError: an argument is out of range.

    Source: Singla & Feizi 2021, arXiv:2105.11417.

    Example:
        >>> import torch
        >>> from orthogan.layers import SkewOrthogonalConv2d
        >>> layer = SkewOrthogonalConv2d(4, 4, bias=False, terms=12)
        >>> x = torch.rand(1, 4, 8, 8)
        >>> torch.allclose(layer(x).norm(), x.norm(), rtol=1e-3)  # it keeps the norm
        True
    """

    # for orthogan.weights.select: tools for a convolution's weight act on the filter, as in the authors' use of NOG
    matrix_name, matrix_type = "weight", "conv"
    weight: Tensor

    @checked
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        padding: Padding = "circular",
        *,
        terms: int = 5,
        eval_terms: int | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        given = {"in_channels": in_channels, "out_channels": out_channels, "stride": stride, "terms": terms}
        for name, value in given.items():
            if value < 1:
                raise ValueError(f"{name} is {value}: must be at least 1")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}: must be odd, such as 3")
        if padding not in get_args(Padding):
            raise ValueError(f"padding is {padding!r}: choose one of {', '.join(get_args(Padding))}")
        if eval_terms is not None and eval_terms < terms:
            raise ValueError(f"eval_terms is {eval_terms}: use at least the {terms} terms of training, or None")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride = kernel_size, stride
        self.padding: Padding = padding
        self.terms, self.eval_terms = terms, 2 * terms if eval_terms is None else eval_terms
        self.channels = max(in_channels * stride**2, out_channels)
        raw = torch.randn(self.channels, self.channels, kernel_size, kernel_size) / math.sqrt(self.channels)
        self.weight = nn.Parameter(raw)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        register(self, "weight", lambda weight: BoundedSkew(self, weight))

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (n, in, h, w) -> (n, out, h/stride, w/stride).

        Raises:
            ValueError: the input has another shape, h or w is not a multiple of the stride, or a circular map is
                smaller than half the kernel.
        """
        check_map(self, input, self.in_channels)
        height, width = input.shape[2:]
        if height % self.stride or width % self.stride:
            raise ValueError(f"the map is {height} x {width}: stride {self.stride} needs multiples of it")
        if self.padding == "circular" and min(height, width) // self.stride < self.kernel_size // 2:
            raise ValueError(
                f"the map is {height} x {width}: kernel_size {self.kernel_size} wraps around it more than once; use "
                "a smaller kernel or padding 'zeros'"
            )
        with without_autocast(input.device):
            x = F.pixel_unshuffle(at_least_float32(input), self.stride)
            x = F.pad(x, (0, 0, 0, 0, 0, self.channels - x.shape[1]))
            out = self._exponential(x, circular=self.padding == "circular")[:, : self.out_channels]
            if self.bias is not None:
                out = out + self.bias.view(-1, 1, 1)
        return out.to(input.dtype)

    def _exponential(self, x: Tensor, *, circular: bool) -> Tensor:
        """Return the series at ``x`` (n, channels, h, w): x + A(x + A/2 (x + A/3 (...)))."""
        kernel, reach = at_least_float32(self.weight), self.kernel_size // 2
        y = x
        for i in range(self.terms if self.training else self.eval_terms, 0, -1):
            if circular:
                y = x + F.conv2d(F.pad(y, (reach,) * 4, mode="circular"), kernel / i)
            else:
                y = x + F.conv2d(y, kernel / i, padding=reach)
        return y

    def kernel(self) -> tuple[Tensor, int]:
        """Return a kernel (out, in, K, K) and the padding p of one convolution that is equivalent to this layer.

        The layer, including its series, is ``conv2d(x, kernel, bias, stride)`` with x padded by p. The padding is
        circular and K = stride * (1 + terms * (k - 1)), with the terms of the current mode. No state changes.
        ``orthogan.evaluation.spectrum.conv_operator`` computes the singular values of such a kernel.

        Raises:
            ValueError: the padding is "zeros": no single convolution is equivalent at the edges.
        """
        if self.padding != "circular":
            raise ValueError("padding is 'zeros': only a circular layer equals a single convolution")
        return self.torus_kernel()

    def torus_kernel(self) -> tuple[Tensor, int]:
        """Return the ``kernel`` of the layer with the same filter and circular padding."""
        reach = (self.terms if self.training else self.eval_terms) * (self.kernel_size // 2)
        like = self.bias if self.bias is not None else next(self.parameters())
        with hold_power_iteration(self), without_autocast(like.device):
            # responses to single pixels; they just reach the edges, so the padding does not matter
            eye = torch.eye(self.channels, dtype=at_least_float32(like).dtype, device=like.device)
            pixels = F.pad(eye[:, :, None, None], (reach,) * 4)
            found = self._exponential(pixels, circular=False).transpose(0, 1).flip(2, 3)
            found = found[: self.out_channels, : self.in_channels * self.stride**2]
            return F.pixel_shuffle(found, self.stride), reach * self.stride

    def extra_repr(self) -> str:
        """Return the text that ``print(net)`` shows."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, terms={self.terms}, eval_terms={self.eval_terms}, bias={self.bias is not None}"
        )


@checked
def skew_orthogonal(conv: nn.Conv2d, *, terms: int = 5, eval_terms: int | None = None) -> SkewOrthogonalConv2d:
    """Return a new layer with the shape, stride, padding mode, bias, device, dtype and mode of ``conv``.

    The filter of the new layer is freshly initialized.

    Raises:
        ValueError: the layer has groups, dilation, an even or non-square kernel, different strides per axis, or a
            padding other than (k - 1) / 2 zeros or circular. The message says which.

    Source: Singla & Feizi 2021, arXiv:2105.11417.

    Example:
        >>> from torch import nn
        >>> from orthogan.layers import skew_orthogonal
        >>> conv = nn.Conv2d(8, 8, 3, padding=1)
        >>> layer = skew_orthogonal(conv)
        >>> layer.in_channels, layer.out_channels
        (8, 8)
    """
    if not isinstance(conv, nn.Conv2d):
        raise ValueError(f"{type(conv).__name__}: only an nn.Conv2d can become a skew orthogonal convolution")
    if type(conv).forward is not nn.Conv2d.forward:
        raise ValueError(f"{type(conv).__name__} has its own forward, so a plain convolution cannot replace it")
    k, stride = conv.kernel_size[0], conv.stride[0]
    if conv.groups != 1:
        raise ValueError(f"groups is {conv.groups}: use one layer per group, or groups 1")
    if any(d != 1 for d in conv.dilation):
        raise ValueError(f"dilation is {conv.dilation}: only 1 is supported")
    if any(n != k for n in conv.kernel_size) or k % 2 == 0:
        raise ValueError(f"kernel_size is {conv.kernel_size}: use a square one with an odd side")
    if any(s != stride for s in conv.stride):
        raise ValueError(f"stride is {conv.stride}: use the same along both axes")
    if conv.padding_mode not in get_args(Padding):
        raise ValueError(f"padding_mode is {conv.padding_mode!r}: choose one of {', '.join(get_args(Padding))}")
    if conv.padding not in ("same", (k // 2, k // 2)) and not (conv.padding == "valid" and k == 1):
        raise ValueError(f"padding is {conv.padding!r}: a {k}x{k} kernel needs {k // 2} (it keeps the size of a map)")
    new = SkewOrthogonalConv2d(
        conv.in_channels,
        conv.out_channels,
        k,
        stride,
        conv.padding_mode,  # pyright: ignore[reportArgumentType]
        terms=terms,
        eval_terms=eval_terms,
        bias=conv.bias is not None,
    )
    new.to(conv.weight.device, conv.weight.dtype).train(conv.training)
    if conv.bias is not None and new.bias is not None:
        with torch.no_grad():
            new.bias.copy_(conv.bias).requires_grad_(conv.bias.requires_grad)
    return new


def skew(kernel: Tensor) -> Tensor:
    """Return half of the difference of ``kernel`` (m, m, k, k) and its transpose as a convolution."""
    return (kernel - kernel.transpose(0, 1).flip(2, 3)) / 2


def truncation_bound(norm: float, terms: int) -> float:
    """Return ||A||^(terms + 1) / (terms + 1)!, a bound on ||exp(A) - series|| for skew-symmetric A.

    ``terms`` does not include the identity. The bound is from Singla & Feizi 2021. Every singular value of the series
    is within this distance of 1.
    """
    return norm ** (terms + 1) / math.factorial(terms + 1)


def _unfoldings(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Return (m, m*k*k) and (m*k, m*k) of a kernel (m, m, k, k)."""
    m, k = kernel.shape[0], kernel.shape[-1]
    return kernel.reshape(m, -1), kernel.transpose(1, 2).reshape(m * k, m * k)


@CONSTRAINTS.register("skew_orthogonal", "soc")
class SkewOrthogonalConfig(ConstraintConfig):
    """A newly initialized ``SkewOrthogonalConv2d`` that replaces each convolution."""

    kind: str = "skew_orthogonal"
    terms: Annotated[int, Field(ge=1, le=100)] = Field(
        default=5, description="terms of the exponential series in training"
    )
    usual_layers: ClassVar = "conv"
    replaces: ClassVar = True
    lipschitz: ClassVar = True
    put_on: ClassVar = staticmethod(lambda layer, name, **options: skew_orthogonal(layer, **options))

    def check(self, config: Config, net: str) -> None:
        """Refuse given weights, because they would be initialized again."""
        if config.model.init is not None:
            raise ValueError(
                f"model.init: model.{net}.norm.kind 'skew_orthogonal' initializes its kernels randomly and would "
                "discard these weights; choose another norm, or omit model.init"
            )
