"""The kernel distance between features: the KID where they are Inception's."""

from __future__ import annotations

from torch import Tensor
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

from orthogan.errors import UserError

SUBSETS, SUBSET_SIZE = 100, 1000


def kernel_distance(generated: Tensor, reference: Tensor, *, subset_size: int = SUBSET_SIZE) -> tuple[float, float]:
    """Mean and standard deviation over 100 subsets of the squared MMD, cubic kernel (Binkowski et al. 2018).

    Args:
        generated, reference: features (n, d), (m, d).
        subset_size: images of each side in a subset.

    Raises:
        UserError: fewer images than a subset has.
    """
    fewest = min(len(generated), len(reference))
    if fewest < subset_size:
        raise UserError(f"samples: KID draws subsets of {subset_size} images from each side, but one has {fewest}")
    found = kid_features_to_metric(
        generated, reference, kid_subsets=SUBSETS, kid_subset_size=subset_size, rng_seed=2020, verbose=False
    )
    return found[KEY_METRIC_KID_MEAN], found[KEY_METRIC_KID_STD]
