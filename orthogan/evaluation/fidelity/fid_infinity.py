"""FID without the bias of a finite number of images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from orthogan.evaluation.fidelity.frechet import factor
from orthogan.evaluation.fidelity.statistics import Gaussian, float64_place
from orthogan.evaluation.metric import Inputs, Metric, Score, TooFewImages, register
from orthogan.rng import derive

FEWEST, POINTS = 5000, 15  # as in the authors' code
SMALLEST = 20  # images


@register("fid_infinity", "fid_inf", "fd_infinity")
class FIDInfinity(Metric):
    """FID extrapolated to infinitely many generated images (Chong & Forsyth 2020, arXiv 1911.07023)."""

    label, feature_label = "FID-infinity", "FD-infinity"
    better = "lower"
    in_scorecard = True
    needs = frozenset({"gaussian", "rows"})
    compares = True

    def check(self, inputs: Inputs) -> None:
        """Check that there are enough images for a line."""
        super().check(inputs)
        if (inputs.samples or 0) < SMALLEST:
            raise TooFewImages(
                f"samples: fid_infinity needs at least {SMALLEST} generated images, not {inputs.samples}"
            )

    def rows(self, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """Return all generated images; of the real images, only the statistics are needed."""
        return np.arange(inputs.samples or 0), np.arange(0)

    def compute(self, inputs: Inputs) -> Score:
        """Return the intercept; its parts are the slope and the distance for all images."""
        fewest = first_size(inputs.samples or 0)
        rows = inputs.fakes.rows
        value, slope, whole = fid_infinity(
            rows, inputs.reals.gaussian, fewest=fewest, seed=inputs.seed, device=inputs.device
        )
        parts = {f"at {len(rows)} images": whole, "slope per 1/N": slope}
        return Score(value, parts=parts, variant="" if fewest == FEWEST else f"from {fewest}")


def first_size(samples: int) -> int:
    """Return the number of images in the smallest subset: 5000, or half of fewer than 10,000 images."""
    return min(FEWEST, samples // 2)


def fid_infinity(
    generated: Tensor,
    reference: Gaussian,
    *,
    fewest: int = FEWEST,
    points: int = POINTS,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[float, float, float]:
    """Return intercept and slope of a line through the Fréchet distances of N images over 1/N, and the last distance.

    Each of ``points`` sizes from ``fewest`` to all images has its own random subset (arXiv 1911.07023, section 4).

    Args:
        generated: features (n, d).
        reference: statistics of the real images, which are the same for every subset.

    Example:
        >>> import torch
        >>> from orthogan.evaluation.fidelity.fid_infinity import fid_infinity
        >>> from orthogan.evaluation.fidelity.statistics import Moments
        >>> x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
        >>> real = Moments()
        >>> real.add(x)
        >>> value, slope, whole = fid_infinity(x, real.gaussian(), fewest=50)
        >>> abs(whole) < 1e-6, slope > 0
        (True, True)
    """
    sizes = np.linspace(fewest, len(generated), points).astype(np.int64)
    place = float64_place(torch.empty(0, device=device)).device
    rows = generated.to(place)
    mean, covariance = (torch.from_numpy(x).to(place) for x in (reference.mean, reference.covariance))
    root = factor(covariance)
    distances = []
    for point, size in enumerate(sizes):
        rng = np.random.default_rng(derive(seed, "fid_infinity", point))
        chosen = torch.from_numpy(np.sort(rng.permutation(len(rows))[:size])).to(place)
        distances.append(_distance(rows[chosen].double(), mean, covariance, root))
    slope, value = np.polyfit(1 / sizes, distances, 1)
    return float(value), float(slope), distances[-1]


def _distance(x: Tensor, mean: Tensor, covariance: Tensor, root: Tensor) -> float:
    """Return the Fréchet distance of features (n, d) to a Gaussian whose covariance is ``root`` times its transpose.

    With C = X^T X / (n - 1), the product of C and the covariance has the nonzero eigenvalues of a matrix of the size of
    X or of ``root``, whichever is smaller.
    """
    centered = (x - x.mean(0)) / (len(x) - 1) ** 0.5
    if len(x) < root.shape[1]:
        product = centered @ covariance @ centered.T
    else:
        half = centered @ root
        product = half.T @ half
    spread = torch.linalg.eigvalsh(product).clamp_min(0).sqrt().sum()
    return float((x.mean(0) - mean).square().sum() + centered.square().sum() + covariance.trace() - 2 * spread)
