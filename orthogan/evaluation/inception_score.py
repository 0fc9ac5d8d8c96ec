"""The Inception Score: how sure a classifier is of each image, and how varied its answers are."""

from __future__ import annotations

from torch import Tensor
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

from orthogan.errors import UserError

SPLITS = 10
SHUFFLE_SEED = 2020  # torch-fidelity's


def check_inception_score(images: int) -> None:
    """Raises UserError if ``images`` are too few to be split."""
    if images < SPLITS:
        raise UserError(f"samples: {images} images are too few for an Inception Score over {SPLITS} splits")


def inception_score(logits: Tensor) -> tuple[float, float]:
    """Mean and standard deviation over ten splits of exp E KL(p(y|x) || p(y)) (Salimans et al. 2016), logits (n, k).

    Raises:
        UserError: fewer logits than splits.
    """
    check_inception_score(len(logits))
    found = isc_features_to_metric(logits, SPLITS, shuffle=True, rng_seed=SHUFFLE_SEED)
    return found[KEY_METRIC_ISC_MEAN], found[KEY_METRIC_ISC_STD]
