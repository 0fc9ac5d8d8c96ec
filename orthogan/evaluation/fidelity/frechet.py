"""The Fréchet distance between two Gaussians of features: FID for Inception features."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from orthogan.errors import UserError
from orthogan.evaluation.fidelity.statistics import Gaussian
from orthogan.evaluation.metric import Inputs, Metric, Score, register


@register("fid", "fd", "frechet")
class FrechetDistance(Metric):
    """FID, or the Fréchet distance of other features (Heusel et al. 2017)."""

    label, feature_label = "FID", "FD"
    better = "lower"
    in_scorecard = True
    needs = frozenset({"gaussian"})
    compares = True

    def compute(self, inputs: Inputs) -> Score:
        """The distance."""
        return Score(frechet_distance(inputs.fakes.gaussian, inputs.reals.gaussian, device=inputs.device))


@register("fd_dinov2", "fd_dino", "fdd")
class DINOv2Distance(FrechetDistance):
    """FD-DINOv2 (Stein et al. 2023, arXiv 2306.04675): the distance of features of DINOv2 ViT-L/14."""

    label, feature_label = "FD-DINOv2", ""
    extractor = "dinov2-vit-l-14"


@register("fd_clip")
class CLIPDistance(FrechetDistance):
    """FD-CLIP (Kynkäänniemi et al. 2023, arXiv 2203.06026): the distance of features of CLIP ViT-B/32."""

    label, feature_label = "FD-CLIP", ""
    extractor = "clip-vit-b-32"


def check_length(length: int, reference: Gaussian) -> None:
    """Raise UserError unless the features of the reference have the ``length`` of the extractor's features."""
    if len(reference.mean) != length:
        raise UserError(
            f"the reference has features of length {len(reference.mean)}, but the extractor computes {length}: the "
            "reference was made with another extractor"
        )


def frechet_distance(generated: Gaussian, reference: Gaussian, *, device: torch.device | str = "cpu") -> float:
    """Compute |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Heusel et al. 2017, eq. 6) in float64 on ``device``.

    Raises:
        UserError: the features have different lengths.
    """
    check_length(len(generated.mean), reference)
    place = torch.device(device)
    if place.type == "mps":  # it has no float64
        place = torch.device("cpu")
    (m1, c1), (m2, c2) = ((_at(g.mean, place), _at(g.covariance, place)) for g in (generated, reference))
    return float((m1 - m2).square().sum() + c1.trace() + c2.trace() - 2 * trace_root_product(c1, c2))


def trace_root_product(a: Tensor, b: Tensor) -> Tensor:
    """Compute tr (A B)^(1/2) of symmetric positive semi-definite float64 matrices (d, d) without a matrix square root.

    With B = F F^T, A B and F^T A F have the same nonzero eigenvalues, and the latter is symmetric: its eigenvalues are
    real, cheaper to compute, and accurate even if A B is far from normal.
    """
    root = factor(b)
    if root.shape[1] == 0:
        return a.new_zeros(())
    return torch.linalg.eigvalsh(root.T @ a @ root).clamp_min(0).sqrt().sum()


def factor(matrix: Tensor) -> Tensor:
    """Return F (d, rank) with F F^T = ``matrix``: by Cholesky if clearly positive definite, else by eigenvectors."""
    length = len(matrix)
    lower, failed = torch.linalg.cholesky_ex(matrix)
    pivots = lower.diagonal().square()
    rounding = length * torch.finfo(matrix.dtype).eps
    # a pivot below the rounding error of its column means a singular matrix (fewer images than features)
    if not failed and bool((pivots > rounding * matrix.diagonal()).all()):
        return lower
    values, vectors = torch.linalg.eigh(matrix)
    kept = values > rounding * values[-1].clamp_min(0)
    return vectors[:, kept] * values[kept].sqrt()


def _at(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).double().to(device)
