"""The kernel distance between features: the KID where they are Inception's."""

from __future__ import annotations

from torch import Tensor
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

from orthogan.errors import UserError

SUBSETS, SUBSET_SIZE = 100, 1000


def check_kernel_distance(images: int) -> None:
    """Raises UserError if ``images``, the fewest of the two sides, cannot fill a subset."""
    if images < SUBSET_SIZE:
        raise UserError(f"samples: KID draws subsets of {SUBSET_SIZE} images from each side, but one has {images}")


def kernel_distance(generated: Tensor, reference: Tensor) -> tuple[float, float]:
    """Mean and standard deviation over 100 subsets of the squared MMD, cubic kernel (Binkowski et al. 2018).

    Args:
        generated, reference: features (n, d), (m, d).

    Raises:
        UserError: fewer images than a subset has.
    """
    check_kernel_distance(min(len(generated), len(reference)))
    found = kid_features_to_metric(
        generated, reference, kid_subsets=SUBSETS, kid_subset_size=SUBSET_SIZE, rng_seed=2020, verbose=False
    )
    return found[KEY_METRIC_KID_MEAN], found[KEY_METRIC_KID_STD]
