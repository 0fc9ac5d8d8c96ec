"""Global covariance pooling: the square root of the channel covariance instead of the channel means."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orthogan.arguments import checked
from orthogan.layers.batch_norm import BatchNorm2d
from orthogan.layers.shapes import check_map
from orthogan.linalg.precision import at_least_float32, without_autocast
from orthogan.linalg.roots import SqrtMethod, condition_numbers, matrix_sqrt


class CovariancePooling(nn.Module):
    """Global covariance pooling, (n, c, h, w) -> (n, c(c+1)/2).

    The output is the upper triangle, row by row, of the square root of the channel covariance over the positions, as in
    MPN-COV and iSQRT-COV (Li et al. 2017, 2018). The computation uses at least float32, also inside autocast. Gradients
    stay finite if there are fewer positions than channels.

    Args:
        method: method of ``orthogan.linalg.roots.matrix_sqrt``.
        iterations: number of iterations of "newton_schulz".
        dimension: first reduce to this many channels by a 1x1 convolution, batch norm and ReLU.
        batch_norm: whether the reduction includes batch norm. A discriminator should not use it, because it rates
            images one by one.
        in_channels: number of input channels; required with ``dimension``, and not allowed without it.

    Raises:
        ValueError: the method is unknown, iterations is below one, or only one of dimension and in_channels is given.

    Source: Li et al. 2017, arXiv:1703.08050; Li et al. 2018, arXiv:1712.01034.

    Example:
        >>> import torch
        >>> from orthogan.layers import CovariancePooling
        >>> pool = CovariancePooling()
        >>> pool(torch.rand(2, 4, 6, 6)).shape  # 4 * 5 / 2
        torch.Size([2, 10])
    """

    @checked
    def __init__(
        self,
        method: SqrtMethod = "pade",
        iterations: int = 5,
        dimension: int | None = None,
        in_channels: int | None = None,
        *,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        matrix_sqrt(torch.eye(1, device="cpu"), method, iterations=iterations)  # reject invalid options early
        self.method: SqrtMethod = method
        self.iterations = iterations
        self.reduction: nn.Module = nn.Identity()
        if (dimension is None) != (in_channels is None):
            raise ValueError(
                f"dimension is {dimension} and in_channels is {in_channels}: set both for a reduction, or neither"
            )
        if dimension is not None and in_channels is not None:
            convolution = nn.Conv2d(in_channels, dimension, 1, bias=False)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            self.reduction = nn.Sequential(
                convolution, BatchNorm2d(dimension) if batch_norm else nn.Identity(), nn.ReLU()
            )
        self.dimension, self.in_channels = dimension, in_channels
        self.last_covariance: Tensor | None = None

    @property
    def features(self) -> int:
        """Return the length of the output if a reduction determines it.

        Raises:
            ValueError: there is no reduction.
        """
        if self.dimension is None:
            raise ValueError("without a reduction the number of features depends on the input")
        return self.dimension * (self.dimension + 1) // 2

    def forward(self, input: Tensor) -> Tensor:
        """Pool (n, c, h, w) -> (n, c(c+1)/2).

        Raises:
            ValueError: the input has another shape, or its maps have no pixels.
        """
        check_map(self, input, self.in_channels)
        if not input.shape[2] * input.shape[3]:
            raise ValueError(f"{type(self).__name__}: maps of shape {tuple(input.shape)} have no pixels")
        reduced = self.reduction(input)
        with without_autocast(input.device):
            x = at_least_float32(reduced).flatten(2)
            centred = x - x.mean(2, keepdim=True)
            covariance = centred @ centred.mT / x.shape[2]
            self.last_covariance = covariance.detach()
            root = matrix_sqrt(covariance, self.method, iterations=self.iterations)
            row, column = torch.triu_indices(x.shape[1], x.shape[1], device=x.device)
            return root[:, row, column].to(reduced.dtype)

    def conditioning(self) -> dict[str, list[float]]:
        """Return ``kappa`` and ``lambda_max`` of the covariance of the last batch, one number per image.

        They are computed at the time of the call. kappa is inf if the covariance is rank deficient, for example if
        there are fewer positions than channels.

        Raises:
            ValueError: there has been no batch yet.
        """
        if self.last_covariance is None:
            raise ValueError("conditioning: no batch yet; run a forward pass first")
        found = condition_numbers(self.last_covariance)
        return {"kappa": found["kappa"], "lambda_max": found["lambda_max"]}

    def extra_repr(self) -> str:
        """Return the text that ``print(net)`` shows."""
        return f"method={self.method}"
