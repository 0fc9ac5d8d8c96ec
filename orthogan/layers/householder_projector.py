"""The Householder projector (Song, Zhang, Sebe & Wang 2023): a linear layer with a few equal singular values.

Its weight is Q(U) S Q(V)^T, both Q products of Householder reflections, S = diag(1, ..., 1, 0, ..., 0). The rows of
Q(V)^T that S keeps are the directions of the input that change the output, all equally; the others change nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orthogan.layers.shapes import check_features
from orthogan.linalg import rotations
from orthogan.linalg.precision import at_least_float32
from orthogan.weights.effective import Equalized, effective_weight


class HouseholderProjector(nn.Module):
    """(..., in_features) -> (..., out_features) through ``rank`` orthonormal directions; any sizes.

    ``left`` (out, rank) and ``right`` (in, rank) hold the vectors of the reflections below their diagonals, where
    each has a 1; what they hold elsewhere is ignored. So no vector can vanish, weight decay draws the directions
    towards axes, and ``rank`` reflections reach every frame (up to signs, a buffer). The authors learn all in + out of
    them, to the same end. S is a buffer too: ``scale`` (rank,), ones unless set. At least float32, also inside
    autocast; the output has the dtype of the input.

    Args:
        rank: number of directions; 10 in the paper.

    Raises:
        ValueError: a size below 1, or a rank above the smaller of in_features and out_features.
    """

    # for orthogan.weights.select: it stands in the place of a linear layer, but no tool acts on its weight
    matrix_name, matrix_type, matrix_fixed = "weight", "linear", True
    scale: Tensor
    signs: Tensor

    def __init__(self, in_features: int, out_features: int, rank: int = 10, *, bias: bool = True) -> None:
        super().__init__()
        if min(in_features, out_features) < 1:
            raise ValueError(f"in_features is {in_features}, out_features is {out_features}: at least 1 is needed")
        if not 1 <= rank <= min(in_features, out_features):
            raise ValueError(
                f"rank is {rank}: a {out_features} x {in_features} weight has 1 to "
                f"{min(in_features, out_features)} directions"
            )
        self.in_features, self.out_features, self.rank = in_features, out_features, rank
        # reflections that triangularise a Gaussian matrix: their product is uniform over the frames
        self.left = nn.Parameter(torch.geqrf(torch.randn(out_features, rank))[0].tril(-1))
        self.right = nn.Parameter(torch.geqrf(torch.randn(in_features, rank))[0].tril(-1))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.register_buffer("scale", torch.ones(rank))
        self.register_buffer("signs", torch.ones(rank))

    @classmethod
    @torch.no_grad()
    def from_linear(cls, linear: nn.Linear, rank: int = 10, *, scale: float | None = 1.0) -> HouseholderProjector:
        """A projector along the ``rank`` largest singular directions of ``linear``, with its bias, device and dtype.

        Its weight is the nearest to the given one among those with ``rank`` singular values ``scale`` and the rest 0;
        the singular values themselves are lost. The weight and bias of an equalised layer count as it applies them.

        Args:
            scale: 1 in the paper; None for the root mean square of the singular values that are kept.

        Raises:
            ValueError: not an ``nn.Linear``, a weight that is not finite, a scale that is not positive (a weight of
                zeros has none), or a rank that does not fit.
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
        """Turn towards the largest singular directions of ``weight`` (out, in); see ``from_linear``."""
        # on the CPU: not every device has float64 and these decompositions
        matrix = weight.to("cpu", torch.float64)
        if not bool(torch.isfinite(matrix).all()):
            raise ValueError("the weight of the linear layer holds NaN or infinite values: it has no directions")
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
        """A plain layer that does the same; ``orthogan.weights.remove`` puts it in this one's place."""
        new = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        new.to(self.left.device, self.left.dtype).train(self.training)
        new.weight.copy_(self.weight)
        if self.bias is not None:
            new.bias.copy_(self.bias)
        return new

    def frames(self) -> tuple[Tensor, Tensor]:
        """What S keeps of Q(U) (out, rank) and of Q(V) (in, rank): orthonormal columns, in at least float32."""
        with torch.autocast(self.left.device.type, enabled=False):
            return _reflected(at_least_float32(self.left)) * at_least_float32(self.signs), _reflected(
                at_least_float32(self.right)
            )

    def directions(self) -> Tensor:
        """The unit directions (rank, in) of the input that change the output; no others do."""
        return self.frames()[1].mT

    @property
    def weight(self) -> Tensor:
        """Q(U) S Q(V)^T (out, in), in at least float32."""
        left, right = self.frames()
        with torch.autocast(left.device.type, enabled=False):
            return (left * at_least_float32(self.scale)) @ right.mT

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) -> (..., out), without ever making the weight.

        Raises:
            ValueError: an input of another length.
        """
        check_features(self, input, self.in_features)
        with torch.autocast(input.device.type, enabled=False):
            out = self.product(input)
            if self.bias is not None:
                out = out + at_least_float32(self.bias)
            return out.to(input.dtype)

    def product(self, input: Tensor) -> Tensor:
        """The same without the bias, in at least float32."""
        left, right = self.frames()
        with torch.autocast(input.device.type, enabled=False):
            return (at_least_float32(input) @ right * at_least_float32(self.scale)) @ left.mT

    def extra_repr(self) -> str:
        """Of ``print(net)``."""
        return f"{self.in_features}, {self.out_features}, rank={self.rank}, bias={self.bias is not None}"


def _reflected(vectors: Tensor) -> Tensor:
    """The first columns of the product of the reflections along the columns of tril(vectors, -1) + I."""
    lower = vectors.tril(-1)
    return rotations.newton_schulz_step(
        rotations.reflections(lower + torch.eye(*lower.shape, dtype=lower.dtype, device=lower.device))
    )


def _reflection_vectors(frame: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors and signs (rank,) such that ``_reflected(vectors) * signs`` is ``frame`` (orthonormal columns)."""
    vectors = torch.geqrf(frame)[0].tril(-1)
    return vectors, torch.where((_reflected(vectors) * frame).sum(0) < 0, -1.0, 1.0)
