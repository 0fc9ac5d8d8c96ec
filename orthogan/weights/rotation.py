"""Orthogonal over-parameterized training (Liu et al. 2021): fixed neurons and a learned rotation of the inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, get_args

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.optim import Adam, Optimizer

from orthogan.arguments import checked
from orthogan.config.base import Decay, NotNegative, Positive, PositiveInt
from orthogan.linalg import gram_residual, hyperspherical_energy, orthogonality_error, rotations
from orthogan.linalg.precision import at_least_float32, without_autocast
from orthogan.rng import generator
from orthogan.weights.belonging import can_look
from orthogan.weights.constraint import RULES, Constraint, register
from orthogan.weights.matrix import MatrixView
from orthogan.weights.network import CONSTRAINTS, ConstraintConfig, Upkeep, list_constrained, unconstrained

if TYPE_CHECKING:
    from orthogan.config.schema import Config

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
    # the parameter is the rotation itself; its update keeps it orthogonal, or a penalty only pulls it toward that
    "ogd": lambda square: square,
    "relaxed": lambda square: square,
}


ORTHOGONAL = 1e-3  # largest entry of R R^T - I of a matrix that counts as orthogonal


class Rotation(Constraint):
    """Parametrization W = W0 R^T with fixed rows of W0 (the neurons) and a learned orthogonal R on the fan-in.

    R acts on the inputs, not on the neurons, so W W^T = W0 W0^T. All norms, angles and singular values, and therefore
    the hyperspherical energy, stay those of W0. R is block diagonal with ``blocks`` blocks, or acts only on a sample of
    ``sample`` dimensions (stochastic OPT). In the latter case, the other dimensions stay fixed until ``resample`` draws
    new ones. The groups of a convolution share R, so all of this also holds for their block-diagonal matrix.

    If the number of blocks does not divide the dimensions evenly, the first blocks have ``size`` dimensions and the
    last ``short`` blocks have one dimension less. All blocks have the same size in the parameter; the entries for the
    missing last dimension of a short block are ignored.

    With method "ogd", the parameter is R itself, and an average of such parameters (a moving average, such as
    ``AveragedModel``) is not orthogonal. In eval mode, the nearest orthogonal matrix is used instead.

    Source: Liu et al. 2021, arXiv:2004.04690.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from orthogan.weights import Rotation, rotation
        >>> layer = rotation(nn.Linear(4, 3), method="cayley", neurons="weight")
        >>> isinstance(layer.parametrizations.weight[0], Rotation)
        True
        >>> before = layer.weight.detach() @ layer.weight.detach().T
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        >>> layer(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
        >>> torch.allclose(layer.weight @ layer.weight.T, before, atol=1e-5)  # angles and norms stay
        True
    """

    parametrizes_freely = True
    neurons: Tensor
    index: Tensor
    fixed: Tensor | None  # mask of the parameter entries that are ignored

    def __init__(
        self, module: nn.Module, weight: Tensor, *, method: RotationMethod, blocks: int = 1, sample: int | None = None
    ) -> None:
        super().__init__(module, weight)
        self.method: RotationMethod = method
        self.fixes = () if method == "relaxed" else ("spectrum", "gram")
        columns = self.view.columns
        if sample is not None and sample >= columns:
            sample = None  # all dimensions are sampled: the stochastic step equals the full one
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
        """Return the parameter of the identity."""
        if self.method in COMPACT:
            return self.neurons.new_zeros(self.blocks, self.size * (self.size - 1) // 2)
        return torch.eye(self.size, dtype=self.neurons.dtype, device=self.neurons.device).repeat(self.blocks, 1, 1)

    def rotation(self, parameter: Tensor) -> Tensor:
        """Return R (blocks, size, size); a short block leaves its last dimension unchanged."""
        if self.fixed is not None:
            parameter = torch.where(self.fixed, self.initial().to(parameter.dtype), parameter)
        if self.method in COMPACT:
            return COMPACT[self.method](parameter, self.size)
        found = SQUARE[self.method](parameter)
        return self._nearest(found) if self.method == "ogd" and not self.training and not found.is_meta else found

    def _nearest(self, rotation: Tensor) -> Tensor:
        """Return ``rotation``, or the nearest orthogonal matrix if it is not orthogonal."""
        if can_look(rotation) and float(gram_residual(rotation.detach()).abs().amax()) < ORTHOGONAL:
            return rotation
        return rotations.polar(rotation)

    def rotated(self, parameter: Tensor) -> Tensor:
        """Return W (rows, columns)."""
        # copies: DistributedDataParallel may broadcast buffers in place before this backward pass
        neurons = at_least_float32(self.neurons).clone()
        index = None if self.sample is None else self.index.clone()
        part = neurons if index is None else neurons.index_select(1, index)
        turned = self._split(part).transpose(0, 1) @ self.rotation(parameter).mT
        turned = self._joined(turned.transpose(0, 1))
        return turned if index is None else neurons.index_copy(1, index, turned)

    def _split(self, part: Tensor) -> Tensor:
        """Reshape (rows, width) to (rows, blocks, size), with a zero at the end of each short block."""
        if not self.short:
            return part.unflatten(1, (self.blocks, self.size))
        end = (self.blocks - self.short) * self.size
        short = part[:, end:].unflatten(1, (self.short, self.size - 1))
        return torch.cat([part[:, :end].unflatten(1, (-1, self.size)), nn.functional.pad(short, (0, 1))], 1)

    def _joined(self, part: Tensor) -> Tensor:
        """Invert ``_split``."""
        if not self.short:
            return part.flatten(1)
        full = self.blocks - self.short
        return torch.cat([part[:, :full].flatten(1), part[:, full:, :-1].flatten(1)], 1)

    def forward(self, parameter: Tensor) -> Tensor:
        """Return the effective weight, computed in at least float32, in the dtype of the parameter."""
        with without_autocast(parameter.device):
            return self.given(self.view.back(self.rotated(at_least_float32(parameter))), parameter)

    @torch.no_grad()
    def right_inverse(self, weight: Tensor) -> Tensor:
        """Make the rows of the assigned ``weight`` the fixed neurons and reset the rotation to the identity."""
        self.neurons.copy_(self.view.to(self.assignable(weight)))
        return self.initial().to(weight.dtype)

    def before_load(self, parameters: ParametrizationList, state: dict[str, Any], prefix: str, own: str) -> None:
        """Use the equal blocks of a checkpoint; an older version may have chosen another number of blocks."""
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
        """Return ||R R^T - I||_F."""
        return {"orthogonality_error": float(orthogonality_error(self.rotation(at_least_float32(weight))).norm())}


@checked
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
    """Train ``module.name`` by rotating fixed neurons (OPT) and return ``module``.

    Args:
        method: how to compute the orthogonal matrix. "qr" (fastest), "gram_schmidt", "householder" (learned
            reflections), "polar" (Löwdin, by SVD), "polar_newton_schulz" (the same by matrix products), "cayley", or
            "matrix_exp". With "ogd", the parameter is the rotation itself and must be updated by
            ``orthogan.gradients.CayleyRetraction``. With "relaxed", the matrix is unconstrained, and
            ``orthogan.weights.relaxation(model)`` is added to the loss.
        neurons: "gaussian" draws He-Gaussian rows, as in the paper. "weight" keeps the current rows, for example to
            fine-tune a trained layer.
        blocks: number of equal diagonal blocks of R. None chooses the smallest number of equal blocks with at most
            ``block_size`` dimensions. If the fan-in has only much smaller divisors, the block sizes may differ by one.
            A 512-channel 3x3 convolution (fan-in 4,608) has 21 M numbers in one block and 3.5 M in six blocks.
        sample: stochastic OPT: the number of sampled dimensions to rotate at a time (a whole number), or a fraction of
            the fan-in (below 1); see ``orthogan.weights.resample``. A layer without more dimensions is rotated whole.

    With a fan-in of 1 there is nothing to rotate, and the weight stays equal to its neurons.

    Raises:
        ValueError: the method is unknown, the blocks do not divide the fan-in, a block has a single dimension, in which
            no rotation is possible, or there is no such weight.

    Source: Liu et al. 2021, arXiv:2004.04690.

    Example:
        >>> from torch import nn
        >>> from orthogan.weights import rotation
        >>> layer = rotation(nn.Linear(8, 4), method="cayley", neurons="weight")
        >>> [name for name, parameter in layer.named_parameters() if parameter.requires_grad]
        ['bias', 'parametrizations.weight.original']
    """
    if method not in get_args(RotationMethod):
        raise ValueError(f"method {method!r}: choose {', '.join(get_args(RotationMethod))}")
    if neurons not in ("gaussian", "weight"):
        raise ValueError(f"neurons {neurons!r}: choose gaussian or weight")
    if sample is not None and not (0 < sample < 1 or (sample >= 2 and sample == int(sample))):
        raise ValueError(
            f"sample is {sample}: must be a number of dimensions, 2 or more, or a fraction between 0 and 1"
        )
    if sample is not None and method == "relaxed":
        raise ValueError("sample with method 'relaxed': merging a matrix that is not orthogonal changes the neurons")

    if block_size < 1:
        raise ValueError(f"block_size is {block_size}: must be at least 1")

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
    """Return the smallest number of blocks that split ``width`` dimensions into blocks of at most ``most``.

    The blocks are equal if that leaves them at least a quarter of ``most``; otherwise their sizes differ by at most
    one. A block has at least 2 dimensions, even if that is more than ``most``.
    """
    most = max(most, 1)
    fewest = -(-width // most)
    equal = next(count for count in range(fewest, width + 1) if width % count == 0)
    size = width // equal
    return equal if equal == 1 or (size > 1 and 4 * size >= most) else max(1, min(fewest, width // 2))


def list_rotations(module: nn.Module) -> list[tuple[str, Rotation, nn.Parameter]]:
    """Return (layer name, constraint, its parameter) for every rotation below ``module``."""
    return [
        (name, constraint, unconstrained(layer, weight))
        for name, layer, weight, constraint in list_constrained(module)
        if isinstance(constraint, Rotation)
    ]


def relaxation(module: nn.Module, weight: float = 0.1) -> Tensor:
    """Return weight * sum of ||R R^T - I||_F over the relaxed rotations below ``module`` (not squared, as published).

    Raises:
        ValueError: there are no relaxed rotations.

    Source: Liu et al. 2021, arXiv:2004.04690.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from orthogan.weights import relaxation, rotation
        >>> net = nn.Sequential(rotation(nn.Linear(4, 8), method="relaxed"), nn.Linear(8, 1))
        >>> loss = net(torch.ones(2, 4)).mean() + relaxation(net, weight=0.1)
        >>> loss.backward()
    """
    found = [(c, p) for _, c, p in list_rotations(module) if c.method == "relaxed"]
    if not found:
        raise ValueError(f"{type(module).__name__} has no weight under rotation(method='relaxed')")
    total = torch.zeros((), device=found[0][1].device)
    for constraint, parameter in found:
        # the norm is not differentiable at 0, the starting point of training
        residual = gram_residual(constraint.rotation(at_least_float32(parameter)))
        total = total + residual.square().sum().clamp_min(1e-12).sqrt()
    return weight * total


@torch.no_grad()
@checked
def resample(module: nn.Module, episode: int, *, optimizers: Iterable[Optimizer] = (), seed: int = 0) -> list[str]:
    """Start an episode of stochastic OPT below ``module``: merge the rotations and draw new dimensions.

    Each sampled rotation is merged into the fixed neurons, in float64, so that hundreds of merges preserve norms and
    angles. It then restarts at the identity, on dimensions that are a function of (seed, layer, episode). The state of
    ``optimizers`` for these parameters is dropped, because it belongs to other dimensions. Nothing else in the network
    changes, including batch norm, and the effective weights stay the same. Call this function at the start (episode 0)
    and then every N steps (750 in the authors' code).

    Returns:
        The names of the layers.

    Raises:
        ValueError: there is no weight with ``rotation(sample=...)`` below ``module``.

    Source: Liu et al. 2021, arXiv:2004.04690.

    Example:
        >>> from torch import nn
        >>> from orthogan.weights import resample, rotation
        >>> net = nn.Sequential(rotation(nn.Linear(16, 8), sample=4))
        >>> resample(net, episode=1)  # the names of the layers that turn other dimensions now
        ['0']
    """
    found = [(name, c, p) for name, c, p in list_rotations(module) if c.sample is not None]
    if not found:
        raise ValueError(f"{type(module).__name__} has no weight under rotation(sample=...)")
    optimizers = list(optimizers)
    for name, constraint, parameter in found:
        neurons = constraint.neurons
        constraint.neurons = neurons.double()
        merged = constraint.rotated(parameter.detach().double())
        constraint.neurons = neurons.copy_(merged)
        parameter.copy_(constraint.initial())
        order = torch.randperm(constraint.view.columns, generator=generator("cpu", seed, "dimensions", name, episode))
        constraint.index.copy_(order[: constraint.index.numel()].sort().values)
        for optimizer in optimizers:
            optimizer.state.pop(parameter, None)
            for rule in getattr(optimizer, RULES, ()):
                rule.forget(parameter)
    return [name for name, _, _ in found]


@checked
def refine(module: nn.Module, steps: int = 200, *, s: float = 2, lr: float = 0.01) -> dict[str, tuple[float, float]]:
    """Lower the hyperspherical energy of the fixed neurons of every rotation below ``module`` before training.

    Adam optimizes the directions, and the norms stay fixed. Rotations preserve the energy, so it stays low in training.

    Args:
        s: exponent of the energy, see ``orthogan.linalg.hyperspherical_energy``.

    Returns:
        The mean pair energy before and after, for each layer.

    Raises:
        ValueError: there is no rotation below ``module``.

    Source: Liu et al. 2021, arXiv:2004.04690.

    Example:
        >>> from torch import nn
        >>> from orthogan.weights import refine, rotation
        >>> net = nn.Sequential(rotation(nn.Linear(4, 8)))
        >>> before, after = refine(net, steps=20)["0"]
        >>> after < before
        True
    """
    found = list_rotations(module)
    if not found:
        raise ValueError(f"{type(module).__name__} has no weight under rotation()")
    energies = {}
    for name, constraint, _ in found:
        neurons = constraint.neurons
        norms = neurons.norm(dim=1, keepdim=True)
        directions = nn.Parameter(neurons / norms.clamp_min(1e-12))
        best, lowest, first = directions.detach().clone(), float("inf"), float("nan")
        optimizer = Adam([directions], lr=lr)
        for step in range(steps + 1):
            energy = hyperspherical_energy(directions, s=s)
            value = float(energy.detach())
            first = value if step == 0 else first
            if value < lowest:
                best, lowest = directions.detach().clone(), value
            if step < steps and len(neurons) > 1:
                optimizer.zero_grad()
                energy.backward()
                optimizer.step()
        with torch.no_grad():
            neurons.copy_(best / best.norm(dim=1, keepdim=True).clamp_min(1e-12) * norms)
        energies[name] = (first, lowest)
    return energies


@CONSTRAINTS.register("rotation", "opt")
class RotationConfig(ConstraintConfig):
    """Fixed neurons with learned rotations (OPT)."""

    kind: str = "rotation"
    method: RotationMethod = Field(default="qr", description="how to build the orthogonal matrix")
    block_size: PositiveInt = Field(
        default=1024, description="largest size of the equal diagonal blocks that the rotation is split into"
    )
    sample: Positive | None = Field(
        default=None,
        description="stochastic OPT: dimensions rotated at a time, a number or a fraction (< 1); null = all",
    )
    episode: PositiveInt = Field(default=750, description="stochastic OPT: merge and resample every N steps [steps]")
    refine: Annotated[int, Field(ge=0, le=10**5)] = Field(
        default=0, description="descent steps that lower the energy of the fixed neurons before training"
    )
    relaxation: NotNegative = Field(default=0.1, description="relaxed: weight of the penalty ||R R^T - I||")
    lr: Positive | None = Field(
        default=None, description="ogd: learning rate of the rotations; null = that of the network"
    )
    momentum: Decay = Field(default=0.9, description="ogd: momentum factor")
    with_given_weights: ClassVar = {"neurons": "weight"}
    put_on: ClassVar = staticmethod(rotation)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.sample is not None and self.method == "relaxed":
            raise ValueError("sample: merging a relaxed matrix, which is not orthogonal, would change the neurons")
        if self.sample is not None and self.sample > 1 and self.sample != int(self.sample):
            raise ValueError(f"sample: {self.sample} is neither a number of dimensions nor a fraction below 1")
        return self

    def keywords(self) -> dict[str, Any]:
        """Return the keywords of ``rotation``; the other options are those of ``attach``."""
        return {"method": self.method, "block_size": self.block_size, "sample": self.sample, "blocks": None}

    def check(self, config: Config, net: str) -> None:
        """Refuse a moving average of parameters whose meaning changes during training."""
        if self.sample is not None and net == "generator" and config.training.ema.on:
            raise ValueError(
                "model.generator.norm.sample: each merge changes the meaning of the parameters, so their average is "
                "meaningless; set training.ema.half_life to 0"
            )

    def attach(self, net: nn.Module, optimizer: Optimizer, *, seed: int) -> Upkeep:
        """Return the orthogonal-group update, the refinement, the episodes of stochastic OPT and the relaxation."""
        return _RotationUpkeep(self, net, optimizer, seed)


class _RotationUpkeep(Upkeep):
    def __init__(self, config: RotationConfig, net: nn.Module, optimizer: Optimizer, seed: int) -> None:
        self.config, self.net, self.optimizer, self.seed = config, net, optimizer, seed
        if config.method == "ogd":
            self.retraction = {"momentum": config.momentum, "lr": config.lr}
        if config.refine:
            refine(net, config.refine)
        self.finish_step(0)

    def penalties(self) -> dict[str, tuple[float, Tensor]]:
        """Return the distance of the relaxed matrices from orthogonality."""
        if self.config.method != "relaxed":
            return {}
        return {"relaxation": (self.config.relaxation, relaxation(self.net, 1.0))}

    def finish_step(self, done: int) -> None:
        """Start the next episode of stochastic OPT if it is due."""
        if self.config.sample is not None and done % self.config.episode == 0:
            resample(self.net, done // self.config.episode, optimizers=[self.optimizer], seed=self.seed)
