"""Orthogonal over-parameterized training (Liu et al. 2021): fixed neurons, a learned rotation of their space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from orthogan.linalg import orthogonality_error, rotations
from orthogan.linalg.precision import at_least_float32
from orthogan.weights.constraint import Constraint, register
from orthogan.weights.matrix import MatrixView

RotationMethod = Literal[
    "qr",
    "gram_schmidt",
    "householder",
    "polar",
    "polar_newton_schulz",
    "cayley",
    "matrix_exp",
    "ogd",
    "relaxed",
]
COMPACT: dict[str, Callable[[Tensor, int], Tensor]] = {
    "householder": rotations.householder,
    "cayley": rotations.cayley,
    "matrix_exp": rotations.matrix_exp,
}
SQUARE: dict[str, Callable[[Tensor], Tensor]] = {
    "qr": rotations.qr,
    "gram_schmidt": rotations.gram_schmidt,
    "polar": rotations.polar,
    "polar_newton_schulz": rotations.polar_newton_schulz,
    # the parameter is the rotation itself: kept on the group by its update, or only drawn towards it
    "ogd": lambda square: square,
    "relaxed": lambda square: square,
}


class Rotation(Constraint):
    """W = W0 R^T: the rows of W0 (the neurons) are fixed, the orthogonal R on the fan-in is learned.

    R acts on inputs, not on neurons, so W W^T = W0 W0^T: all norms, angles and singular values, and with them the
    hyperspherical energy, stay those of W0. R is block diagonal with ``blocks`` blocks, or acts on a sample of
    ``sample`` dimensions only (stochastic OPT), the rest staying as they are until ``resample`` moves on. The groups
    of a convolution share R, so all of this is also true of their block-diagonal matrix.

    The first blocks have ``size`` dimensions, the last ``short`` ones, where the blocks do not divide them evenly, one
    less. In the parameter these are as large as the others: what concerns their last dimension is ignored.
    """

    neurons: Tensor
    index: Tensor
    fixed: Tensor | None  # where the parameter is ignored

    def __init__(
        self, module: nn.Module, weight: Tensor, *, method: RotationMethod, blocks: int = 1, sample: int | None = None
    ) -> None:
        super().__init__(module, weight)
        self.method: RotationMethod = method
        columns = self.view.columns
        if sample is not None and sample >= columns:
            sample = None  # all dimensions: the stochastic step is the full one
        self.sample, self.blocks = sample, blocks
        self.width = sample or columns
        self.size = -(-self.width // blocks)
        self.short = blocks * self.size - self.width
        self.register_buffer("neurons", at_least_float32(self.view.to(weight.detach())).clone())
        self.register_buffer("index", torch.arange(sample, device=weight.device) if sample else None)
        self.register_buffer("fixed", self._fixed() if self.short else None, persistent=False)

    def _fixed(self) -> Tensor:
        last = torch.arange(self.size, device=self.neurons.device) == self.size - 1
        short = torch.arange(self.blocks, device=last.device) >= self.blocks - self.short
        if self.method in COMPACT:
            _, columns = torch.triu_indices(self.size, self.size, 1, device=last.device)
            return short[:, None] & last[columns]
        return short[:, None, None] & (last[:, None] | last)

    def initial(self) -> Tensor:
        """The parameter that stands for no rotation."""
        if self.method in COMPACT:
            return self.neurons.new_zeros(self.blocks, self.size * (self.size - 1) // 2)
        return torch.eye(self.size, dtype=self.neurons.dtype, device=self.neurons.device).repeat(self.blocks, 1, 1)

    def rotation(self, parameter: Tensor) -> Tensor:
        """R (blocks, size, size); a short block leaves its last dimension alone."""
        if self.fixed is not None:
            parameter = torch.where(self.fixed, self.initial().to(parameter.dtype), parameter)
        if self.method in COMPACT:
            return COMPACT[self.method](parameter, self.size)
        return SQUARE[self.method](parameter)

    def rotated(self, parameter: Tensor) -> Tensor:
        """W (rows, columns)."""
        # copies: DistributedDataParallel may broadcast buffers in place before this forward's backward
        neurons = at_least_float32(self.neurons).clone()
        index = None if self.sample is None else self.index.clone()
        part = neurons if index is None else neurons.index_select(1, index)
        turned = self._split(part).transpose(0, 1) @ self.rotation(parameter).mT
        turned = self._joined(turned.transpose(0, 1))
        return turned if index is None else neurons.index_copy(1, index, turned)

    def _split(self, part: Tensor) -> Tensor:
        """(rows, width) -> (rows, blocks, size), a zero at the end of each short block."""
        if not self.short:
            return part.unflatten(1, (self.blocks, self.size))
        end = (self.blocks - self.short) * self.size
        short = part[:, end:].unflatten(1, (self.short, self.size - 1))
        return torch.cat([part[:, :end].unflatten(1, (-1, self.size)), nn.functional.pad(short, (0, 1))], 1)

    def _joined(self, part: Tensor) -> Tensor:
        """The inverse of ``_split``."""
        if not self.short:
            return part.flatten(1)
        full = self.blocks - self.short
        return torch.cat([part[:, :full].flatten(1), part[:, full:, :-1].flatten(1)], 1)

    def forward(self, parameter: Tensor) -> Tensor:
        """The effective weight, worked out in at least float32, in the dtype of the parameter."""
        with torch.autocast(parameter.device.type, enabled=False):
            return self.given(self.view.back(self.rotated(at_least_float32(parameter))), parameter)

    @torch.no_grad()
    def right_inverse(self, weight: Tensor) -> Tensor:
        """Assigning a weight makes its rows the fixed neurons, not rotated yet."""
        self.neurons.copy_(self.view.to(self.assignable(weight)))
        return self.initial().to(weight.dtype)

    def before_load(self, parameters: ParametrizationList, state: dict[str, Any], prefix: str, own: str) -> None:
        """Take the equal blocks that a checkpoint has, which an older version may have chosen otherwise."""
        stored = state.get(f"{prefix}original")
        if not isinstance(stored, Tensor) or stored.shape == parameters.original.shape:
            return
        blocks = len(stored) if stored.dim() else 0
        if blocks and self.width % blocks == 0:
            size = self.width // blocks
            one = (size * (size - 1) // 2,) if self.method in COMPACT else (size, size)
            if stored.shape == (blocks, *one):
                self.blocks, self.size, self.short, self.fixed = blocks, size, 0, None
                parameters.original.data = parameters.original.data.new_empty(stored.shape)

    @torch.no_grad()
    def facts(self, weight: Tensor) -> dict[str, float]:
        """||R R^T - I||_F."""
        return {"orthogonality_error": float(orthogonality_error(self.rotation(at_least_float32(weight))).norm())}


def rotation(
    module: nn.Module,
    name: str = "weight",
    method: RotationMethod = "qr",
    *,
    neurons: Literal["gaussian", "weight"] = "gaussian",
    blocks: int | None = 1,
    block_size: int = 1024,
    sample: float | None = None,
) -> nn.Module:
    """Train ``module.name`` by rotating fixed neurons (OPT); returns ``module``.

    Args:
        method: how the orthogonal matrix is made. "qr" (fastest), "gram_schmidt", "householder" (learned
            reflections), "polar" (Löwdin, by SVD), "polar_newton_schulz" (the same by products), "cayley",
            "matrix_exp"; "ogd": the parameter is the rotation and must be updated by
            ``orthogan.gradients.CayleyRetraction``; "relaxed": any matrix, with
            ``orthogan.weights.relaxation(model)`` added to the loss.
        neurons: "gaussian" draws He-Gaussian rows, as in the paper; "weight" keeps those that are there (to
            fine-tune a trained layer).
        blocks: number of equal diagonal blocks of R; None chooses the fewest of at most ``block_size``, and where
            the fan-in has only far smaller divisors, the fewest that differ by one at most. A 512-channel 3x3
            convolution (fan-in 4,608) has 21 M numbers in one block, 3.5 M in six.
        sample: stochastic OPT: rotate so many sampled dimensions at a time (a whole number), or this share of the
            fan-in (below 1); see ``orthogan.weights.resample``. A layer with no more dimensions is rotated whole.

    With a fan-in of 1 there is nothing to rotate: the weight stays at its neurons.

    Raises:
        ValueError: an unknown method, blocks that do not divide the fan-in or have a single dimension, in which
            nothing turns, or no such weight.
    """
    if method not in get_args(RotationMethod):
        raise ValueError(f"method {method!r}: choose {', '.join(get_args(RotationMethod))}")
    if neurons not in ("gaussian", "weight"):
        raise ValueError(f"neurons {neurons!r}: choose gaussian or weight")
    if sample is not None and not (0 < sample < 1 or (sample >= 2 and sample == int(sample))):
        raise ValueError(f"sample is {sample}: a number of dimensions, 2 or more, or a share between 0 and 1")
    if sample is not None and method == "relaxed":
        raise ValueError("sample with method 'relaxed': merging a matrix that is not orthogonal changes the neurons")

    if block_size < 1:
        raise ValueError(f"block_size is {block_size}: a block has at least 1 dimension")

    def make(weight: Tensor) -> Rotation:
        columns = MatrixView(module, weight).columns
        wanted = None if sample is None else max(2, int(sample * columns if sample < 1 else sample))
        width = min(wanted or columns, columns)
        count = fewest_blocks(width, block_size) if blocks is None else blocks
        if blocks is not None and (blocks < 1 or width % blocks):
            raise ValueError(f"blocks is {blocks}: it must divide the {width} dimensions that are rotated")
        if count == width > 1:
            raise ValueError(f"blocks is {blocks}: a block of one of the {width} dimensions cannot rotate anything")
        if neurons == "gaussian":
            with torch.no_grad():
                weight.normal_(0.0, (2 / columns) ** 0.5)
        return Rotation(module, weight, method=method, blocks=count, sample=wanted)

    return register(module, name, make)


def fewest_blocks(width: int, most: int) -> int:
    """The smallest number of blocks of ``width`` dimensions that are no larger than ``most``.

    Equal ones, as long as that leaves them a quarter of ``most``; else their sizes differ by one at most. A block has
    2 dimensions at least, even if that is more than ``most``.
    """
    most = max(most, 1)
    fewest = -(-width // most)
    equal = next(count for count in range(fewest, width + 1) if width % count == 0)
    size = width // equal
    return equal if equal == 1 or (size > 1 and 4 * size >= most) else max(1, min(fewest, width // 2))
