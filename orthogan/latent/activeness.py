"""Activeness: how much each latent coordinate changes the image, without labels or other networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from orthogan.arguments import shown
from orthogan.models.label_table import classes_at
from orthogan.models.modes import eval_mode, get_device
from orthogan.models.protocol import as_generator

VALUES = (-2.0, 0.0, 2.0)
ACTIVE = 0.01  # fraction of the largest value; coordinates that change the image less count as inactive


def walk_variance(
    images: Callable[[Tensor, Tensor, Tensor], Tensor],
    *,
    samples: int,
    coordinates: int,
    values: Tensor,
    batch_size: int = 64,
) -> Tensor:
    """Return float64 (coordinates,): the variance (ddof 1) of a pixel as one coordinate takes ``values``, averaged.

    It is averaged over pixels and ``samples`` latents, on the device of ``values``.

    Args:
        images: sample index (n,), coordinate index (n,), and its value (n,) -> images (n, ...), such as those of the
            latent of this sample with this coordinate set to this value.
        values: (v,), v >= 2.
        batch_size: approximate number of images per batch.
    """
    total = torch.zeros(coordinates, dtype=torch.float64, device=values.device)
    count = len(values)
    for pair in torch.arange(samples * coordinates, device=values.device).split(max(1, batch_size // count)):
        sample, index = pair // coordinates, pair % coordinates
        found = images(sample.repeat_interleave(count), index.repeat_interleave(count), values.repeat(len(pair)))
        spread = found.double().reshape(len(pair), count, -1).var(dim=1).mean(dim=1)
        total.index_add_(0, index, spread.to(total.device))
    return total / samples


def activeness(
    generator: nn.Module,
    *,
    samples: int = 300,
    dims: int | None = None,
    values: Sequence[float] = VALUES,
    batch_size: int = 64,
    seed: int = 0,
) -> np.ndarray:
    """Return float64 (dims,): the variance (ddof 1) of a pixel as one dimension takes ``values``, averaged over pixels.

    Averaged over ``samples`` latents of the prior (Peebles et al. 2020, Wei et al. 2021). In squared units of the
    images, float in [-1, 1]; ``np.argsort(-a)`` orders the dimensions. A conditional generator cycles through its
    classes. Runs in eval mode without gradients, and restores the mode. Generates samples * dims * len(values) images.
    For directions that are not axes, see ``orthogan.disentanglement.activity``.

    Args:
        generator: z (n, latent_dim) and labels (n,), if it is conditional, to images (n, ...).
        dims: only the first ``dims`` dimensions of the latent; None for all.
        batch_size: approximate number of images per batch; it affects the result only by rounding.

    Raises:
        ValueError: fewer than two values, no samples, a batch size below 1, or non-finite images.

    Source: Peebles et al. 2020, arXiv:2008.10599; Wei et al. 2021, arXiv:2108.07668.

    Example:
        >>> import orthogan
        >>> from orthogan.disentanglement import activeness
        >>> activeness(orthogan.load("sprites-sngan"), samples=4, dims=3).shape
        (3,)
    """
    if len(values) < 2 or samples < 1 or batch_size < 1:
        raise ValueError(
            f"activeness: values={list(values)}, samples={samples}, batch_size={batch_size}: needs at least 2, 1 and 1"
        )
    net = as_generator(generator)
    place = get_device(net)
    latents = net.sample_latent(samples, seed=seed).to(place)

    def images(sample: Tensor, dim: Tensor, value: Tensor) -> Tensor:
        z = latents[sample]
        z[torch.arange(len(z), device=place), dim] = value
        return net(z, classes_at(net, sample)) if net.num_classes else net(z)

    # constrained weights do not change here, so each is computed once
    with eval_mode(net), parametrize.cached(), torch.autocast(place.type, enabled=False):
        result = walk_variance(
            images,
            samples=samples,
            coordinates=net.latent_dim if dims is None else dims,
            values=torch.tensor(values, dtype=latents.dtype, device=place),
            batch_size=batch_size,
        ).cpu()
    if bad := torch.nonzero(~torch.isfinite(result)).flatten().tolist():
        raise ValueError(f"activeness: images are NaN or infinite along dimensions {shown(bad)}")
    return result.numpy()
