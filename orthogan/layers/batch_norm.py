"""Batch normalization with the statistics of the whole batch, even if several processes share it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional

from orthogan.distributed import sum_of_all
from orthogan.layers.shapes import check_map
from orthogan.linalg.precision import at_least_float32, without_autocast

EPS = 2e-5  # from the SN-GAN authors' Chainer code, like the momentum (Chainer's decay 0.9)
MOMENTUM = 0.1


class JoinedNorm(nn.modules.batchnorm._BatchNorm):
    """A batch norm of torch that combines its batch statistics across processes during training, on any device.

    ``nn.SyncBatchNorm`` needs CUDA. This layer all-reduces sums with autograd, so that n processes with shares of a
    batch, of any size, give the outputs, gradients and running statistics of one process with the whole batch.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (n, c, ...) -> (n, c, ...)."""
        if not (self.training and several_processes()):
            return super().forward(input)
        self._check_input_dim(input)
        with without_autocast(input.device):
            centered, mean, variance, count = joined_statistics(input)
            if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
                with torch.no_grad():
                    self.num_batches_tracked += 1
                    # momentum None: a plain average, as in torch
                    new = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
                    unbiased = variance * (count / (count - 1).clamp_min(1))
                    for running, now in ((self.running_mean, mean), (self.running_var, unbiased)):
                        running.copy_(running + new * (now.to(running.dtype) - running))
            scale = torch.rsqrt(variance + self.eps)
            if self.affine:
                scale = scale * self.weight
            out = centered * _along(scale, centered)
            if self.affine:
                out = out + _along(self.bias, centered)
        return out.to(input.dtype)


class BatchNorm1d(JoinedNorm, nn.BatchNorm1d):
    """``nn.BatchNorm1d`` that combines its batch statistics across processes, see ``JoinedNorm``."""


class BatchNorm2d(JoinedNorm, nn.BatchNorm2d):
    """``nn.BatchNorm2d`` that combines its batch statistics across processes, with the defaults of SN-GAN."""

    def __init__(self, num_features: int, *, eps: float = EPS, affine: bool = True) -> None:
        super().__init__(num_features, eps=eps, momentum=MOMENTUM, affine=affine)

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (n, c, h, w) -> (n, c, h, w).

        Raises:
            ValueError: the input has another shape.
        """
        check_map(self, input, self.num_features)
        return super().forward(input)


def several_processes() -> bool:
    """Return whether several processes share each batch."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def joined_mean(total: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the mean over all processes, and the number of values (0-d), from the sums and the number of this one."""
    found = sum_of_all(torch.cat([total.flatten(), total.new_full((1,), count)]))
    return (found[:-1] / found[-1]).view_as(total), found[-1]


def joined_statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return statistics of (n, c, ...) over all processes, in at least float32, with gradients across processes.

    They are x less the mean, the mean (c,), the variance (c,), without Bessel's correction, and the number of values.
    """
    exact = at_least_float32(x)
    dims = [0, *range(2, exact.dim())]
    mean, count = joined_mean(exact.sum(dims), exact.numel() // exact.shape[1])
    centered = exact - _along(mean, exact)
    return centered, mean, sum_of_all(centered.square().sum(dims)) / count, count


def _along(channels: Tensor, x: Tensor) -> Tensor:
    """Reshape (c,) to (1, c, 1, ...) for ``x`` (n, c, ...)."""
    return channels.view(1, -1, *[1] * (x.dim() - 2))


class ConditionalBatchNorm2d(nn.Module):
    """Batch normalization with a gain and a bias per class (de Vries et al. 2017), initialized to 1 and 0.

    A label may also be a vector v of ``num_classes`` numbers. The gain is then 1 plus the sum over the classes of v_c
    times (gain of c - 1), and the bias the sum of v_c times the bias of c. A one-hot vector thus means its class.
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.norm = BatchNorm2d(num_features, affine=False)
        # parameters, not nn.Embedding: a constraint on all weights of a network must not apply to them
        self.gain = nn.Parameter(torch.ones(num_classes, num_features))
        self.bias = nn.Parameter(torch.zeros(num_classes, num_features))

    def forward(self, input: Tensor, labels: Tensor) -> Tensor:
        """Normalize (n, c, h, w) with labels (n,) or (n, num_classes) -> (n, c, h, w).

        Raises:
            ValueError: the input has another shape, or there is not exactly one label per image.
        """
        check_map(self, input, self.gain.shape[1])
        vectors = labels.is_floating_point()
        if labels.shape != (*input.shape[:1], *self.gain.shape[: int(vectors)]):
            raise ValueError(
                f"{type(self).__name__}: the labels are {tuple(labels.shape)}; "
                f"one per image, {tuple(input.shape[:1])}, is needed"
            )
        if vectors:
            share = labels.to(self.gain.dtype)
            gain, bias = 1 + share @ (self.gain - 1), share @ self.bias
        else:
            gain, bias = self.gain[labels], self.bias[labels]
        gain, bias = gain[:, :, None, None], bias[:, :, None, None]
        out = self.norm(input)
        return torch.addcmul(bias.to(out.dtype), out, gain.to(out.dtype))


class Norm(nn.Module):
    """The generator's batch norm, conditional if there are classes, followed by ReLU."""

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.norm = ConditionalBatchNorm2d(num_features, num_classes) if num_classes else BatchNorm2d(num_features)
        self.conditional = num_classes > 0

    def forward(self, input: Tensor, labels: Tensor | None) -> Tensor:
        """Normalize and apply ReLU: (n, c, h, w) -> (n, c, h, w)."""
        return functional.relu(self.norm(input, labels) if self.conditional else self.norm(input))
