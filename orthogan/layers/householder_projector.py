"""The Householder projector (Song, Zhang, Sebe & Wang 2023): a linear layer with a few equal singular values.

Its weight is Q(U) S Q(V)^T. Both Q are products of Householder reflections, and S = diag(1, ..., 1, 0, ..., 0). The
rows of Q(V)^T that S keeps are the input directions that change the output, all equally. No other direction changes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from orthogan.arguments import checked
from orthogan.config.base import Positive, Width
from orthogan.layers.shapes import check_features, check_numbers
from orthogan.linalg import rotations
from orthogan.linalg.precision import at_least_float32, without_autocast
from orthogan.weights.effective import Equalized, effective_weight
from orthogan.weights.network import CONSTRAINTS, ConstraintConfig

if TYPE_CHECKING:
    from orthogan.config.schema import Config


class HouseholderProjector(nn.Module):
    """A linear map (..., in_features) -> (..., out_features) through ``rank`` orthonormal directions, for any sizes.

    ``left`` (out, rank) and ``right`` (in, rank) store the reflection vectors below their diagonals. On the diagonal,
    each vector has a 1, and all other entries are ignored. Therefore no vector can vanish, weight decay pulls the
    directions toward coordinate axes, and ``rank`` reflections can represent every frame (up to signs, stored in a
    buffer). The authors learn all in + out reflections, which represent the same set. S is also a buffer: ``scale``
    (rank,), ones by default. The computation uses at least float32, also inside autocast, and the output has the dtype
    of the input.

    Args:
        rank: number of directions; 10 in the paper.

    Raises:
        ValueError: a size is below 1, or the rank exceeds the smaller of in_features and out_features.

    Source: Song, Zhang, Sebe & Wang 2023, arXiv:2307.08012.

    Example:
        >>> import torch
        >>> from orthogan.layers import HouseholderProjector
        >>> layer = HouseholderProjector(16, 12, rank=4, bias=False)
        >>> weight = layer(torch.eye(16)).T  # as a matrix
        >>> torch.linalg.matrix_rank(weight).item()
        4
    """

    # for orthogan.weights.select: it replaces a linear layer, but no tool can act on its weight
    matrix_name, matrix_type, matrix_fixed = "weight", "linear", True
    scale: Tensor
    signs: Tensor

    @checked
    def __init__(self, in_features: int, out_features: int, rank: int = 10, *, bias: bool = True) -> None:
        super().__init__()
        if min(in_features, out_features) < 1:
            raise ValueError(f"in_features is {in_features}, out_features is {out_features}: must be at least 1")
        if not 1 <= rank <= min(in_features, out_features):
            raise ValueError(
                f"rank is {rank}: a {out_features} x {in_features} weight has 1 to "
                f"{min(in_features, out_features)} directions"
            )
        self.in_features, self.out_features, self.rank = in_features, out_features, rank
        # reflections that triangularize a Gaussian matrix: their product is uniform over the frames
        self.left = nn.Parameter(_gaussian(out_features, rank))
        self.right = nn.Parameter(_gaussian(in_features, rank))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.register_buffer("scale", torch.ones(rank))
        self.register_buffer("signs", torch.ones(rank))

    @classmethod
    @torch.no_grad()
    def from_linear(cls, linear: nn.Linear, rank: int = 10, *, scale: float | None = 1.0) -> HouseholderProjector:
        """Return a projector on the ``rank`` top singular directions of ``linear``, with its bias, device and dtype.

        Among all weights with ``rank`` singular values ``scale`` and the rest 0, the new weight is the nearest to the
        given one. The original singular values are lost. For an equalized layer, the effective weight and bias are
        used.

        Args:
            scale: 1 in the paper; None for the root mean square of the singular values that are kept.

        Raises:
            ValueError: the layer is not an ``nn.Linear``, the weight is not finite, the scale is not positive (a zero
                weight has none), or the rank does not fit.
        """
        if not isinstance(linear, nn.Linear):
            raise ValueError(f"{type(linear).__name__}: only an nn.Linear can become a Householder projector")
        weight = effective_weight(linear)
        new = cls(linear.in_features, linear.out_features, rank, bias=linear.bias is not None)
        new.to(weight.device, weight.dtype).train(linear.training)
        new.fit(weight, scale)
        if new.bias is not None:
            new.bias.copy_(linear.bias * (linear.rate if isinstance(linear, Equalized) else 1.0))
        return new

    @torch.no_grad()
    def fit(self, weight: Tensor, scale: float | None = 1.0) -> None:
        """Set the directions to the top singular directions of ``weight`` (out, in); see ``from_linear``."""
        if weight.is_meta:
            return
        # on the CPU: not every device supports float64 and these decompositions
        matrix = weight.to("cpu", torch.float64)
        if not bool(torch.isfinite(matrix).all()):
            raise ValueError("the weight of the linear layer contains NaN or infinite values")
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        size = float(values[: self.rank].square().mean().sqrt()) if scale is None else scale
        if not size > 0:
            raise ValueError(f"scale is {size}: the singular values of a projector must be positive")
        parts = [_reflection_vectors(frame[:, : self.rank]) for frame in (left, right.mT)]
        for mine, (vectors, _) in zip((self.left, self.right), parts, strict=True):
            mine.copy_(vectors)
        self.signs.copy_(parts[0][1] * parts[1][1])
        self.scale.fill_(size)

    @torch.no_grad()
    def baked(self) -> nn.Module:
        """Return an equivalent plain layer; ``orthogan.weights.remove`` replaces this layer with it."""
        new = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        new.to(self.left.device, self.left.dtype).train(self.training)
        new.weight.copy_(self.weight)
        if self.bias is not None:
            new.bias.copy_(self.bias)
        return new

    def frames(self) -> tuple[Tensor, Tensor]:
        """Return the columns of Q(U) (out, rank) and Q(V) (in, rank) that S keeps, orthonormal, at least float32."""
        with without_autocast(self.left.device):
            return _reflected(at_least_float32(self.left)) * at_least_float32(self.signs), _reflected(
                at_least_float32(self.right)
            )

    def directions(self) -> Tensor:
        """Return the unit directions (rank, in) of the input that change the output."""
        return self.frames()[1].mT

    @property
    def weight(self) -> Tensor:
        """Return Q(U) S Q(V)^T (out, in), in at least float32."""
        left, right = self.frames()
        with without_autocast(left.device):
            return (left * at_least_float32(self.scale)) @ right.mT

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in) -> (..., out), without forming the weight.

        Raises:
            ValueError: the input has another length.
        """
        check_features(self, input, self.in_features)
        with without_autocast(input.device):
            out = self.product(input)
            if self.bias is not None:
                out = out + at_least_float32(self.bias)
            return out.to(input.dtype)

    def product(self, input: Tensor) -> Tensor:
        """Return the output without the bias, in at least float32."""
        left, right = self.frames()
        with without_autocast(input.device):
            return (at_least_float32(input) @ right * at_least_float32(self.scale)) @ left.mT

    def extra_repr(self) -> str:
        """Return the text that ``print(net)`` shows."""
        return f"{self.in_features}, {self.out_features}, rank={self.rank}, bias={self.bias is not None}"


def _gaussian(size: int, rank: int) -> Tensor:
    drawn = torch.randn(size, rank)
    return drawn if drawn.is_meta else torch.geqrf(drawn)[0].tril(-1)  # geqrf does not work without data


def _reflected(vectors: Tensor) -> Tensor:
    """Return the first columns of the product of the reflections along the columns of tril(vectors, -1) + I."""
    lower = vectors.tril(-1)
    return rotations.newton_schulz_step(
        rotations.reflections(lower + torch.eye(*lower.shape, dtype=lower.dtype, device=lower.device))
    )


def _reflection_vectors(frame: Tensor) -> tuple[Tensor, Tensor]:
    """Return vectors and signs (rank,) with ``_reflected(vectors) * signs`` = ``frame`` (orthonormal columns)."""
    vectors = torch.geqrf(frame)[0].tril(-1)
    return vectors, torch.where((_reflected(vectors) * frame).sum(0) < 0, -1.0, 1.0)


class HouseholderPixel(HouseholderProjector):
    """A map (n, in, 1, 1) -> (n, out, kh, kw) through ``rank`` orthonormal directions, with one bias per channel.

    For a single input pixel, a transposed convolution is the matrix (out*kh*kw, in) of its kernels. The projector
    is that matrix, for any stride.

    Args:
        shape: (out, kh, kw).

    Raises:
        ValueError: as in ``HouseholderProjector``.

    Source: Song, Zhang, Sebe & Wang 2023, arXiv:2307.08012.

    Example:
        >>> import torch
        >>> from orthogan.layers import HouseholderPixel
        >>> layer = HouseholderPixel(16, (8, 4, 4), rank=4)
        >>> layer(torch.rand(2, 16, 1, 1)).shape
        torch.Size([2, 8, 4, 4])
    """

    matrix_type = "transposed"

    @checked
    def __init__(self, in_channels: int, shape: tuple[int, int, int], rank: int = 10, *, bias: bool = True) -> None:
        channels, height, width = shape
        super().__init__(in_channels, channels * height * width, rank, bias=False)
        self.shape = (channels, height, width)
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    @classmethod
    @torch.no_grad()
    def from_transposed(
        cls, conv: nn.ConvTranspose2d, rank: int = 10, *, scale: float | None = 1.0
    ) -> HouseholderPixel:
        """Return a replacement for ``conv`` on the ``rank`` top singular directions of its matrix.

        It is computed as in ``from_linear``.

        Raises:
            ValueError: the layer has no such matrix (padding, dilation, groups), or as in ``from_linear``.
        """
        if not isinstance(conv, nn.ConvTranspose2d):
            raise ValueError(
                f"{type(conv).__name__}: only an nn.ConvTranspose2d can become a Householder projector here"
            )
        plain = (conv.padding, conv.output_padding, conv.dilation, conv.groups) == ((0, 0), (0, 0), (1, 1), 1)
        if not plain:
            raise ValueError(
                "a transposed convolution with padding, dilation or groups is not a matrix applied to one pixel; "
                "choose a layer without them"
            )
        weight = effective_weight(conv)
        shape = (conv.out_channels, int(conv.kernel_size[0]), int(conv.kernel_size[1]))
        new = cls(conv.in_channels, shape, rank, bias=conv.bias is not None)
        new.to(weight.device, weight.dtype).train(conv.training)
        new.fit(weight.flatten(1).mT, scale)
        if new.bias is not None and conv.bias is not None:
            new.bias.copy_(conv.bias)
        return new

    @torch.no_grad()
    def baked(self) -> nn.Module:
        """Return the plain transposed convolution that gives the same result for a single pixel."""
        channels, *kernel = self.shape
        new = nn.ConvTranspose2d(self.in_features, channels, tuple(kernel), bias=self.bias is not None)  # pyright: ignore
        new.to(self.left.device, self.left.dtype).train(self.training)
        new.weight.copy_(self.weight.mT.unflatten(1, self.shape))
        if self.bias is not None and new.bias is not None:
            new.bias.copy_(self.bias)
        return new

    def forward(self, input: Tensor) -> Tensor:
        """Map (n, in, 1, 1) -> (n, out, kh, kw).

        Raises:
            ValueError: the input has more than one pixel, or is not real floating-point.
        """
        check_numbers(self, input)
        if input.shape[1:] != (self.in_features, 1, 1):
            raise ValueError(
                f"the input is {tuple(input.shape)}: a Householder projector in place of a transposed convolution "
                f"takes (n, {self.in_features}, 1, 1)"
            )
        with without_autocast(input.device):
            out = self.product(input.flatten(1)).unflatten(1, self.shape)
            if self.bias is not None:
                out = out + at_least_float32(self.bias)[:, None, None]
            return out.to(input.dtype)


def _projector(layer: nn.Module, name: str = "weight", **options: Any) -> HouseholderProjector:
    if isinstance(layer, nn.ConvTranspose2d):
        return HouseholderPixel.from_transposed(layer, **options)
    return HouseholderProjector.from_linear(layer, **options)  # pyright: ignore[reportArgumentType]


@CONSTRAINTS.register("householder", "householder_projector")
class HouseholderConfig(ConstraintConfig):
    """A ``HouseholderProjector``, fitted to the current weight, that replaces a linear layer.

    A transposed convolution with a single input pixel, such as the first layer of a DCGAN-like generator, becomes a
    ``HouseholderPixel``.
    """

    kind: str = "householder"
    rank: Width = Field(default=10, description="number of directions with equal singular values; 10 in the paper")
    scale: Positive | None = Field(
        default=1.0,
        description="singular value of these directions; 1 as published, null = root mean square of the original ones",
    )
    usual_layers: ClassVar = "first"
    replaces: ClassVar = True
    put_on: ClassVar = staticmethod(_projector)

    def check(self, config: Config, net: str) -> None:
        """Check that no other tool acts on a projector."""
        projected = {"first", "last"} & set(self.layers or ["first"])
        section = getattr(config.model, net)
        for key in ("penalties", "gradient_transforms"):
            for i, one in enumerate(getattr(section, key)):
                if shared := projected & {word.removeprefix("!") for word in one.layers}:
                    raise ValueError(
                        f"model.{net}.{key}.{i}.layers: the {min(shared)} layer becomes a Householder projector, "
                        "whose singular values are fixed; select other layers"
                    )
