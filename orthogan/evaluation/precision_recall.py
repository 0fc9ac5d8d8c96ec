"""Precision and recall of a generator, by nearest neighbours in feature space."""

from __future__ import annotations

from torch import Tensor
from torch_fidelity.metric_prc import (
    KEY_METRIC_F_SCORE,
    KEY_METRIC_PRECISION,
    KEY_METRIC_RECALL,
    prc_features_to_metric,
)

from orthogan.errors import UserError

NEIGHBOURHOOD = 3
CHUNK = 2000  # rows of the distance matrix at a time: 50,000 x 2,000 floats are 400 MB


def check_precision_recall(images: int) -> None:
    """Raises UserError if ``images``, the fewest of the two sides, are too few to have a third neighbour."""
    if images <= NEIGHBOURHOOD:
        raise UserError(f"samples: precision and recall need more than {NEIGHBOURHOOD} images a side, not {images}")


def precision_recall(generated: Tensor, reference: Tensor) -> dict[str, float]:
    """{"precision", "recall", "f_score"} with balls to the third neighbour (Kynkäänniemi et al. 2019).

    Args:
        generated, reference: features (n, d), (m, d). Memory grows with max(n, m), not with n * m.

    Raises:
        UserError: a side with too few images for three neighbours.
    """
    check_precision_recall(min(len(generated), len(reference)))
    # torch-fidelity's convention since 0.4: first the generated, then the real
    found = prc_features_to_metric(
        generated, reference, prc_neighborhood=NEIGHBOURHOOD, prc_batch_size=CHUNK, save_cpu_ram=True, verbose=False
    )
    return {
        "precision": found[KEY_METRIC_PRECISION],
        "recall": found[KEY_METRIC_RECALL],
        "f_score": found[KEY_METRIC_F_SCORE],
    }
