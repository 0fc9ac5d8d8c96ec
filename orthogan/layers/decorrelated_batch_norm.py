"""Decorrelated batch normalization: whitening instead of standardization (Huang et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from orthogan.arguments import checked
from orthogan.distributed import sum_of_all
from orthogan.layers.batch_norm import joined_mean, several_processes
from orthogan.layers.shapes import check_map
from orthogan.linalg.precision import at_least_float32, without_autocast
from orthogan.linalg.roots import InverseMethod, condition_numbers, inverse_sqrt
from orthogan.recompute import is_repeated
from orthogan.weights.selection import choose


class DecorrelatedBatchNorm2d(nn.Module):
    """ZCA whitening of the channels over (n, h, w), in groups: y = (S + eps I)^(-1/2) (x - mean), gain and bias.

    Training updates running averages of the mean and the whitening matrix, and evaluation uses them. Several processes
    with shares of a batch give the outputs, gradients and averages of one process with the whole batch. The
    computation uses at least float32, also inside autocast. The output is finite for constant input, a single sample or
    linearly dependent channels, because eps bounds the whitening matrix by 1 / sqrt(eps).

    Args:
        groups: split the channels in order into this many equal groups, and whiten each group.
        eps: value added to the eigenvalues of the covariance S. 1e-2 as in Song et al. 2022.
        momentum: weight of the new batch in the running averages.
        affine: whether to learn a gain (initially 1) and a bias (initially 0) per channel.
        method: method of ``orthogan.linalg.roots.inverse_sqrt``. "pade" is that of Song et al., and "newton_schulz"
            that of iterative normalization (Huang et al. 2019).
        iterations: number of iterations of "newton_schulz".

    Raises:
        ValueError: an argument is out of range, or the channels cannot be divided into the groups.

    Source: Huang et al. 2018, arXiv:1804.08450.

    Example:
        >>> import torch
        >>> from orthogan.layers import DecorrelatedBatchNorm2d
        >>> layer = DecorrelatedBatchNorm2d(3, eps=1e-5, affine=False)
        >>> white = layer(torch.rand(8, 3, 6, 6))
        >>> torch.cov(white.transpose(0, 1).flatten(1)).round(decimals=1).abs()
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]])
    """

    running_mean: Tensor
    running_whitening: Tensor
    num_batches_tracked: Tensor

    @checked
    def __init__(
        self,
        num_features: int,
        *,
        groups: int = 1,
        eps: float = 1e-2,
        momentum: float = 0.1,
        affine: bool = True,
        method: InverseMethod = "eigh",
        iterations: int = 5,
    ) -> None:
        super().__init__()
        if groups < 1 or num_features % groups:
            raise ValueError(f"groups is {groups}: it must divide the {num_features} channels")
        if eps <= 0:
            raise ValueError(f"eps is {eps}: must be above 0, because the covariance may be singular")
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum is {momentum}: must be in [0, 1]")
        inverse_sqrt(torch.eye(1, device="cpu"), method, iterations=iterations)  # reject invalid options early
        self.num_features, self.groups, self.eps, self.momentum = num_features, groups, eps, momentum
        self.method: InverseMethod = method
        self.iterations = iterations
        self.weight = nn.Parameter(torch.ones(num_features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features)) if affine else None
        size = num_features // groups
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_whitening", torch.eye(size).repeat(groups, 1, 1))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))
        self.last_covariance: Tensor | None = None

    def forward(self, input: Tensor) -> Tensor:
        """Whiten (n, num_features, h, w) -> the same shape.

        Raises:
            ValueError: the input has another shape, or a training batch has no pixels.
        """
        check_map(self, input, self.num_features)
        if self.training and not input.numel() and not several_processes():
            raise ValueError(f"{type(self).__name__}: a training batch of shape {tuple(input.shape)} is empty")
        with without_autocast(input.device):
            x = at_least_float32(input).flatten(2).unflatten(1, (self.groups, self.num_features // self.groups))
            if self.training:
                centred, whitening = self._batch(x)
            else:
                # copies: a forward pass in training mode may update the averages before this backward pass
                centred = x - self.running_mean.to(x.dtype, copy=True).view(1, *x.shape[1:3], 1)
                whitening = self.running_whitening.to(x.dtype, copy=True)
            out = torch.einsum("gde,ngep->ngdp", whitening, centred).reshape(input.shape)
            if self.weight is not None and self.bias is not None:
                out = torch.addcmul(self.bias.view(-1, 1, 1), out, self.weight.view(-1, 1, 1))
        return out.to(input.dtype).contiguous()

    def _batch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the centered (n, groups, c/groups, h*w) and the whitening matrices, and update the averages."""
        count: Tensor | int = x.shape[0] * x.shape[3]
        joined, total = several_processes(), x.sum((0, 3))
        mean, count = joined_mean(total, count) if joined else (total / count, count)
        centred = x - mean[None, :, :, None]
        products = torch.einsum("ngdp,ngep->gde", centred, centred)
        covariance = (sum_of_all(products) if joined else products) / count
        whitening = inverse_sqrt(covariance, self.method, iterations=self.iterations, shift=self.eps)
        self.last_covariance = covariance.detach()
        if not is_repeated():
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean.flatten().to(self.running_mean.dtype), self.momentum)
                self.running_whitening.lerp_(whitening.to(self.running_whitening.dtype), self.momentum)
        return centred, whitening

    def conditioning(self) -> dict[str, list[float]]:
        """Return how well conditioned the covariance S of the last training batch is, one number per group.

        The values are ``kappa`` of S (inf if S is rank deficient), ``kappa_shifted`` of S + eps I, and ``lambda_max``
        of S. They are computed at the time of the call from the stored covariance.

        Raises:
            ValueError: there has been no training batch yet.
        """
        if self.last_covariance is None:
            raise ValueError("conditioning: no batch yet; run a forward pass in training mode first")
        return condition_numbers(self.last_covariance, self.eps)

    def extra_repr(self) -> str:
        """Return the text that ``print(net)`` shows."""
        return f"{self.num_features}, groups={self.groups}, eps={self.eps}, method={self.method}"


@checked
def decorrelate(module: nn.Module, layers: str | Sequence[str] = ("*",), **options: Any) -> list[str]:
    """Replace batch norms below ``module`` with ``DecorrelatedBatchNorm2d`` and return their names.

    The new layer keeps the width, gain, bias, device and mode of the old one, but not its running statistics.

    Args:
        layers: which ``nn.BatchNorm2d`` layers (and subclasses) to replace, as in ``orthogan.weights.select``,
            such as ``blocks.0.*`` or ``!first``, as a list or one comma-separated string.
        options: options of ``DecorrelatedBatchNorm2d``.

    Raises:
        ValueError: a word matches no such layer, or an option does not fit a layer. Nothing is replaced in that case.

    Example:
        >>> from torch import nn
        >>> from orthogan.layers import decorrelate
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        >>> decorrelate(net)
        ['1']
        >>> net[1]
        DecorrelatedBatchNorm2d(8, groups=1, eps=0.01, method=eigh)
    """
    norms = {
        name: part
        for name, part in module.named_modules(remove_duplicate=False)
        if name and isinstance(part, nn.BatchNorm2d)
    }
    chosen = {name: norms[name] for name in choose(norms, layers, what=f"the batch norms of {type(module).__name__}")}
    # one new layer per old layer, even if the old one is registered in two places
    new = {part: _like(part, options) for part in dict.fromkeys(chosen.values())}
    for name, part in chosen.items():
        module.set_submodule(name, new[part])
    return list(chosen)


@torch.no_grad()
def _like(norm: nn.BatchNorm2d, options: dict[str, Any]) -> DecorrelatedBatchNorm2d:
    options = {"affine": norm.affine} | options
    new = DecorrelatedBatchNorm2d(norm.num_features, **options)
    like = norm.weight if norm.affine else norm.running_mean
    if like is not None:
        new.to(like.device, like.dtype)
    if norm.affine and new.weight is not None and new.bias is not None:
        new.weight.copy_(norm.weight).requires_grad_(norm.weight.requires_grad)
        new.bias.copy_(norm.bias).requires_grad_(norm.bias.requires_grad)
    return new.train(norm.training)
