"""Batch normalization with the statistics of the whole batch, even if several processes share it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional

from orthogan.layers.shapes import check_map

EPS = 2e-5  # from the SN-GAN authors' Chainer code, like the momentum (Chainer's decay 0.9)
MOMENTUM = 0.1


class BatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` that combines its batch statistics across processes during training, on any device.

    ``nn.SyncBatchNorm`` needs CUDA. This layer all-reduces sums with autograd, so that n processes with equal
    shares of a batch give the outputs, gradients and running statistics of one process with the whole batch.
    """

    def __init__(self, num_features: int, *, affine: bool = True) -> None:
        super().__init__(num_features, eps=EPS, momentum=MOMENTUM, affine=affine)

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (n, c, h, w) -> (n, c, h, w).

        Raises:
            ValueError: the input has another shape.
        """
        check_map(self, input, self.num_features)
        if self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            return self._joined(input)
        return super().forward(input)

    def _joined(self, x: Tensor) -> Tensor:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        with torch.autocast(x.device.type, enabled=False):
            exact = x.float()
            count = exact.numel() // exact.shape[1] * dist.get_world_size()
            mean = all_reduce(exact.sum((0, 2, 3))) / count
            centred = exact - mean.view(1, -1, 1, 1)
            variance = all_reduce(centred.square().sum((0, 2, 3))) / count
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean, MOMENTUM)
                self.running_var.lerp_(variance * (count / max(count - 1, 1)), MOMENTUM)
            scale = torch.rsqrt(variance + self.eps)
            if self.affine:
                scale = scale * self.weight
            out = centred * scale.view(1, -1, 1, 1)
            if self.affine:
                out = out + self.bias.view(1, -1, 1, 1)
        return out.to(x.dtype)


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
