"""The Fréchet distance between two Gaussians of features: the FID where they are Inception's."""

from __future__ import annotations

from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

from orthogan.errors import UserError
from orthogan.evaluation.statistics import Gaussian


def check_length(length: int, reference: Gaussian) -> None:
    """Raises UserError unless the reference's features have the ``length`` that the extractor gives."""
    if len(reference.mean) != length:
        raise UserError(
            f"the reference has features of length {len(reference.mean)}, the extractor gives {length}: "
            "they come from different extractors"
        )


def frechet_distance(generated: Gaussian, reference: Gaussian) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Heusel et al. 2017, eq. 6), by torch-fidelity's arithmetic.

    Raises:
        UserError: the features have different lengths.
    """
    check_length(len(generated.mean), reference)
    statistics = [{"mu": g.mean, "sigma": g.covariance} for g in (generated, reference)]
    return fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID]
