"""A penalty on the total correlation of the codes that Q reads from images, in the spirit of TC-GAN.

Wang & Yao 2024 add an independence constraint on the codes to InfoGAN. Here the constraint has a closed form, the total
correlation of a normal distribution with the covariance of the predictions, so no further network is trained
(``loss.total_correlation``). It sees linear dependence only.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from orthogan.config.base import NotNegative, Section
from orthogan.linalg.precision import at_least_float32, autocast_off
from orthogan.words import counted

FLOOR = 1e-4  # added to every variance, so that a code that Q does not know yet has a finite logarithm


class TotalCorrelationConfig(Section):
    """The config section ``loss.total_correlation``."""

    weight: NotNegative = Field(
        default=0.0,
        description="coefficient of the total correlation of the continuous codes that Q predicts, of reals and fakes "
        "in the loss of D and of fakes in that of G; needs loss.information.weight; 0 = off (with training.accumulate: "
        "over each part of a batch, which must have more images than there are continuous codes)",
    )


@autocast_off
def total_correlation(values: Tensor) -> Tensor:
    """Return the total correlation in nats of a normal distribution with the covariance of ``values`` (n, d): scalar.

    It is (sum of log variances - log determinant of the covariance) / 2, which is 0 for uncorrelated columns. For
    independent columns, n rows give about d (d - 1) / (4 n). It has a gradient. The computation uses at least float32,
    also inside autocast.

    Raises:
        ValueError: there are fewer than two rows.

    Source: Watanabe 1960; as a constraint on the codes of a GAN: Wang & Yao 2024, arXiv:2409.02672.

    Example:
        >>> import torch
        >>> from orthogan.penalties import total_correlation
        >>> x = torch.randn(10_000, 1, generator=torch.Generator().manual_seed(0))
        >>> noise = torch.randn(10_000, 1, generator=torch.Generator().manual_seed(1))
        >>> bool(total_correlation(torch.cat([x, noise], 1)) < 0.01)
        True
        >>> bool(total_correlation(torch.cat([x, x + noise], 1)) > 0.3)
        True
    """
    values = at_least_float32(values)
    if len(values) < 2:
        raise ValueError(f"values has {counted(len(values), 'row')}: a covariance needs at least 2")
    centered = values - values.mean(0)
    covariance = centered.T @ centered / (len(values) - 1)
    covariance = covariance + FLOOR * torch.eye(len(covariance), dtype=values.dtype, device=values.device)
    # the determinant of the correlations, from the Cholesky factor
    factor = torch.linalg.cholesky(covariance)
    return 0.5 * covariance.diagonal().log().sum() - factor.diagonal().log().sum()
