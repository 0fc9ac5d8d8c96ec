"""The kernel distance between features: KID for Inception features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from orthogan.errors import UserError
from orthogan.evaluation.metric import Inputs, Metric, Score, TooFewImages, register

SUBSETS, SUBSET_SIZE = 100, 1000
SUBSET_SEED = 2020  # torch-fidelity's


@register("kid", "kd")
class KernelDistance(Metric):
    """KID, or the kernel distance of other features (Binkowski et al. 2018)."""

    label, feature_label = "KID", "KD"
    better = "lower"
    needs = frozenset({"rows"})
    compares = True

    def check(self, inputs: Inputs) -> None:
        """Check that there are enough images for a subset."""
        super().check(inputs)
        check_kernel_distance(self.fewest(inputs), inputs.options.get("kid_subset_size"))

    def rows(self, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """Return the images of the subsets; all images of a reference that fits into a subset."""
        subsets, reals = self._subsets(inputs), inputs.reference_samples or 0
        # keep a small reference as a whole, so that its cache serves any number of fakes
        few = reals <= subsets.reference.size
        return np.unique(subsets.generated), np.arange(reals) if few else np.unique(subsets.reference)

    def compute(self, inputs: Inputs) -> Score:
        """Return the distance and its standard deviation over the subsets."""
        sides = ((side.numbers, side.rows) for side in (inputs.fakes, inputs.reals))
        value, std = kernel_distance(self._subsets(inputs), *sides)
        size = inputs.options.get("kid_subset_size")
        return Score(value, std, variant="" if size in (None, SUBSET_SIZE) else f"subset={size}")

    def _subsets(self, inputs: Inputs) -> Subsets:
        counts, size = (inputs.samples or 0, inputs.reference_samples or 0), inputs.options.get("kid_subset_size")
        return inputs.once("kid subsets", lambda: Subsets.of(*counts, size))


def check_kernel_distance(images: int, size: int | None = None) -> None:
    """Raise UserError if ``images``, the number on the smaller side, cannot fill a subset of ``size`` (None: 1000)."""
    size = SUBSET_SIZE if size is None else size
    if size < 2:
        raise UserError(f"kid: the subset size is {size}; it must be at least 2")
    if images < size:
        raise TooFewImages(
            f"kid: draws subsets of {size} images from each side, as published, but one side has only {images}; use "
            f"more images, or choose smaller subsets with --kid-subset-size {max(2, images)} (in a config "
            "evaluation.kid_subset_size, in Python kid_subset_size=); KIDs with different subset sizes are not "
            "comparable"
        )


@dataclass(frozen=True)
class Subsets:
    """The indices of the images in each subset, (subsets, size) per side, which are known in advance."""

    generated: np.ndarray
    reference: np.ndarray

    @classmethod
    def of(cls, generated: int, reference: int, size: int | None = None) -> Subsets:
        """Draw subsets of ``size`` (None: 1000) images in the same way as torch-fidelity.

        Raises:
            UserError: there are fewer images than in a subset.
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
    """Return mean and standard deviation over subsets of the squared MMD with a cubic kernel (Binkowski et al. 2018).

    Args:
        generated, reference: ascending indices of images (n,) that include all subsets, and their features (n, d).
    """
    from torch_fidelity.metric_kid import kernel_mmd  # slow to import

    sides = [
        (rows.numpy(), np.searchsorted(numbers, chosen))
        for (numbers, rows), chosen in ((generated, subsets.generated), (reference, subsets.reference))
    ]
    (fakes, of_fakes), (reals, of_reals) = sides
    found = np.array([kernel_mmd(fakes[a], reals[b]) for a, b in zip(of_fakes, of_reals, strict=True)], np.float64)
    return float(np.mean(found)), float(np.std(found))
