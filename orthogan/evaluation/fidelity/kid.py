"""The kernel distance between features: the KID where they are Inception's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch_fidelity.metric_kid import kernel_mmd

from orthogan.errors import UserError

SUBSETS, SUBSET_SIZE = 100, 1000
SUBSET_SEED = 2020  # torch-fidelity's


def check_kernel_distance(images: int, size: int | None = None) -> None:
    """Raises UserError if ``images``, the fewest of the two sides, cannot fill a subset of ``size`` (None: 1000)."""
    size = SUBSET_SIZE if size is None else size
    if size < 2:
        raise UserError(f"kid: subsets of {size} images: at least 2")
    if images < size:
        raise UserError(
            f"kid: draws subsets of {size} images from each side, as published, but one side has {images}; give more "
            f"images, or choose smaller subsets with --kid-subset-size {max(2, images)} (evaluation.kid_subset_size, "
            "kid_subset_size=), which is another KID"
        )


@dataclass(frozen=True)
class Subsets:
    """The numbers of the images in each subset, (subsets, size) a side: known before any image is looked at."""

    generated: np.ndarray
    reference: np.ndarray

    @classmethod
    def of(cls, generated: int, reference: int, size: int | None = None) -> Subsets:
        """Those of ``size`` (None: 1000) images that torch-fidelity draws from so many images a side.

        Raises:
            UserError: fewer images than a subset has.
        """
        check_kernel_distance(min(generated, reference), size)
        size = SUBSET_SIZE if size is None else size
        rng = np.random.RandomState(SUBSET_SEED)
        sides = np.empty((2, SUBSETS, size), dtype=np.int64)
        for subset in range(SUBSETS):
            for side, images in enumerate((generated, reference)):
                sides[side, subset] = rng.choice(images, size, replace=False)
        return cls(*sides)


def kernel_distance(
    subsets: Subsets, generated: tuple[np.ndarray, Tensor], reference: tuple[np.ndarray, Tensor]
) -> tuple[float, float]:
    """Mean and standard deviation over the subsets of the squared MMD, cubic kernel (Binkowski et al. 2018).

    Args:
        generated, reference: numbers of images (n,), ascending, that hold all of the subsets'; their features (n, d).
    """
    sides = [
        (rows.numpy(), np.searchsorted(numbers, chosen))
        for (numbers, rows), chosen in ((generated, subsets.generated), (reference, subsets.reference))
    ]
    (fakes, of_fakes), (reals, of_reals) = sides
    found = np.array([kernel_mmd(fakes[a], reals[b]) for a, b in zip(of_fakes, of_reals, strict=True)], np.float64)
    return float(np.mean(found)), float(np.std(found))
