"""Activeness along directions as a score: how much images change along one coordinate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from orthogan.disentanglement.codes.coordinates import BATCH, subject
from orthogan.disentanglement.registry import register_metric
from orthogan.disentanglement.score import Score
from orthogan.drawing.grid import DAMAGED
from orthogan.errors import UserError
from orthogan.latent.activeness import ACTIVE, VALUES, walk_variance
from orthogan.latent.directions import Directions
from orthogan.rng import derive


@register_metric("activeness")
def activity(
    generator: nn.Module,
    directions: Directions | None = None,
    *,
    samples: int = 100,
    values: Sequence[float] = VALUES,
    y: int | None = None,
    seed: int = 0,
) -> Score:
    """Mean over directions of the variance (ddof 1) of a pixel as one coordinate takes ``values``; mean over pixels.

    ``activeness`` for directions that need not be axes, in squared units of images in [-1, 1]. It measures how much
    changes, not whether it is a single factor: random directions may have a larger mean.

    Args:
        generator: the generator.
        directions: the k directions; default: the native ones.
        samples: number of latents of the prior, over which the result is averaged.
        values: values of the coordinate along a direction, in standard deviations of the prior.
        y: class of all images; None means a random class per image, if there are classes.
        seed: of the latents.

    Returns:
        The score, with details "per_direction" (k,) and "active", the number of directions with at least 1 % of the
            largest.

    Raises:
        ValueError: fewer than two values, or no samples.
        UserError: invalid directions, or damaged images.

    Source: Peebles et al. 2020, arXiv:2008.10599; Wei et al. 2021, arXiv:2108.07668.

    Example:
        >>> import orthogan
        >>> from orthogan.disentanglement import activity
        >>> score = activity(orthogan.load("sprites-sngan"), samples=4)
        >>> score.value > 0
        True
    """
    if len(values) < 2 or samples < 1:
        raise ValueError(
            f"activity: values={list(values)}, samples={samples}: at least 2 values and 1 sample are needed"
        )
    with subject(generator, directions, y=y) as seen:
        z, labels = seen.draw(samples, derive(seed, "activity"))
        place = seen.response.device

        def images(sample: Tensor, index: Tensor, value: Tensor) -> Tensor:
            walked = seen.coordinates.put_one(z[sample], index, value)
            return seen.response(walked.to(place), None if labels is None else labels[sample].to(place))

        points = torch.tensor(values, dtype=z.dtype)
        found = walk_variance(images, samples=samples, coordinates=len(seen), values=points, batch_size=BATCH).numpy()
    if not np.isfinite(found).all():
        raise UserError(DAMAGED)
    details = {"per_direction": found, "active": int((found >= ACTIVE * found.max()).sum())}
    steps = "|".join(f"{value:g}" for value in values)
    variant = f"k={len(found)},values={steps},latents={samples}"
    return Score("activeness", variant, float(found.mean()), seed, details)
