"""How much each latent dimension of a generator moves the picture: no labels, no other net, seconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from orthogan.models.modes import eval_mode, get_device
from orthogan.models.protocol import as_generator

VALUES = (-2.0, 0.0, 2.0)
ACTIVE = 0.01  # of the largest: what moves less counts as not moving


def activeness(
    generator: nn.Module,
    *,
    samples: int = 300,
    dims: int | None = None,
    values: Sequence[float] = VALUES,
    batch_size: int = 64,
    seed: int = 0,
) -> np.ndarray:
    """float64 (dims,): the variance (ddof 1) of each pixel as one dimension takes ``values``, mean over pixels.

    Averaged over ``samples`` latents of the prior (Peebles et al. 2020, Wei et al. 2021). In squared units of the
    images, float in [-1, 1]; ``np.argsort(-a)`` orders the dimensions. A conditional generator gets its classes in
    turn. Eval mode and no gradients; all is put back. Makes samples * dims * len(values) images.

    Args:
        generator: z (n, latent_dim) and labels (n,), if it is conditional, to images (n, ...).
        dims: only the first so many dimensions of the latent; None for all.
        batch_size: images at a time, about; it changes the result by rounding only.

    Raises:
        ValueError: fewer than two values, no samples, a batch size below 1, or images that are not finite.
    """
    if len(values) < 2 or samples < 1 or batch_size < 1:
        raise ValueError(
            f"activeness: values={list(values)}, samples={samples}, batch_size={batch_size}: at least 2, 1 and 1"
        )
    net = as_generator(generator)
    place = get_device(net)
    latents = net.sample_latent(samples, seed=seed).to(place)
    points = torch.tensor(values, dtype=latents.dtype, device=place)
    count = net.latent_dim if dims is None else dims
    pairs = samples * count
    total = torch.zeros(count, dtype=torch.float64, device=place)
    # nothing moves a constrained weight here, so it is worked out once
    with eval_mode(net), parametrize.cached(), torch.autocast(place.type, enabled=False):
        for start in range(0, pairs, max(1, batch_size // len(values))):
            pair = torch.arange(start, min(start + max(1, batch_size // len(values)), pairs), device=place)
            sample, dim = pair // count, pair % count
            z = latents[sample][:, None].repeat(1, len(values), 1)
            z[torch.arange(len(pair), device=place), :, dim] = points
            classes = (sample % net.num_classes).repeat_interleave(len(values)) if net.num_classes else None
            images = net(z.flatten(0, 1)) if classes is None else net(z.flatten(0, 1), classes)
            spread = images.double().reshape(len(pair), len(values), -1).var(dim=1).mean(dim=1)
            total.index_add_(0, dim, spread)
    result = (total / samples).cpu().numpy()
    bad = np.flatnonzero(~np.isfinite(result))
    if len(bad):
        raise ValueError(f"activeness: the images are NaN or infinite along dimensions {bad.tolist()}")
    return result
