"""How many generated images are not copies of training images, and a picture of those that may be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from orthogan.data import ImageSource
from orthogan.distributed import rank_and_world
from orthogan.drawing.grid import image_grid, save_png
from orthogan.evaluation.fidelity.neighbors import nearest
from orthogan.evaluation.images import images_at, subset
from orthogan.evaluation.metric import Inputs, Metric, Score, register

PICTURED, BESIDE = 16, 5  # generated images in the picture, and training images beside each


@register("authenticity", "authpct", "memorization")
class Authenticity(Metric):
    """The share of authentic images (Alaa et al. 2022, arXiv 2102.08921); the reference must be the training images.

    With the option ``nearest`` (``--nearest FILE.png``), it draws the generated images that are closest to a training
    image, with their nearest training images.
    """

    feature_label = "Authenticity"
    better = "higher"
    in_scorecard = True
    needs = frozenset({"rows"})
    compares = True

    def compute(self, inputs: Inputs) -> Score:
        """Return the share, and draw the picture if one is wanted."""
        fakes, reals = (side.rows.to(inputs.device) for side in (inputs.fakes, inputs.reals))
        path = inputs.options.get("nearest")
        if path is not None:
            _draw(Path(path), fakes, reals, inputs)
        value, closest = authenticity(fakes, reals)
        return Score(value, parts={"exact copies": float((closest == 0).double().mean())})


def authenticity(generated: Tensor, training: Tensor) -> tuple[float, Tensor]:
    """Return the share of authentic images, and the distance (n,) of each one to its nearest training image.

    An image is authentic if it is farther from its nearest training image than that image is from the nearest other
    training image (arXiv 2102.08921, section 3.3).

    Args:
        generated, training: features (n, d), (m, d).

    Example:
        >>> import torch
        >>> from orthogan.evaluation.fidelity.authenticity import authenticity
        >>> training = torch.tensor([[0.0], [1.0], [10.0]])
        >>> authenticity(torch.tensor([[0.1], [5.0]]), training)[0]
        0.5
    """
    distances, indices = nearest(generated, training)
    apart, _ = nearest(training, training, same=True)
    return float((distances[:, 0] > apart[indices[:, 0], 0]).double().mean()), distances[:, 0]


def _draw(path: Path, fakes: Tensor, reals: Tensor, inputs: Inputs) -> None:
    """Draw the images with the smallest distance to a training image, relative to that image's own neighbor."""
    distances, indices = nearest(fakes, reals, min(BESIDE, len(reals)))
    apart, _ = nearest(reals, reals, same=True)
    ratios = distances[:, 0] / apart[indices[:, 0], 0].clamp_min(1e-12)
    chosen = ratios.argsort(stable=True)[:PICTURED].numpy()
    source = inputs.reference
    assert isinstance(source, ImageSource)
    numbers = subset(source, inputs.reference_samples)[indices[chosen].numpy()]
    if inputs.generator is not None:
        shown = images_at(
            inputs.generator,
            chosen,
            inputs.samples or 0,
            seed=inputs.seed,
            truncation=inputs.truncation,
            device=inputs.device,
        )
    else:
        own = subset(inputs.images, inputs.samples, inputs.seed)[chosen]
        shown = torch.from_numpy(inputs.images.read(own)[0])
    if rank_and_world()[0] == 0:
        draw_nearest(path, shown.numpy(), [source.read(row)[0] for row in numbers], ratios[chosen].tolist())


def draw_nearest(path: Path, shown: np.ndarray, beside: Sequence[np.ndarray], ratios: Sequence[float]) -> None:
    """Write a PNG with one image per row, its nearest images to the right, and its ratio of distances to the left.

    Args:
        shown: generated images uint8 (n, c, h, w).
        beside: for each of them, images of the same size (k, c, h, w).
        ratios: (n,).
    """
    rows = [np.concatenate([own[None], others]) for own, others in zip(shown, beside, strict=True)]
    across = len(rows[0])
    layout = np.full((len(rows), across + 1), -1)
    layout[:, 0] = np.arange(len(rows)) * across
    layout[:, 2:] = layout[:, :1] + np.arange(1, across)
    picture = image_grid(np.concatenate(rows), layout=layout, row_labels=[f"{ratio:.2f}" for ratio in ratios])
    about = "left: generated; right: nearest real images; number: distance to the nearest / distance of that to its own"
    save_png(picture, path, {"description": about})
