"""Density and coverage of a generator: like precision and recall, but robust to outliers."""

from __future__ import annotations

import torch
from torch import Tensor

from orthogan.evaluation.fidelity.neighbors import chunk_of, float64_distances, radii
from orthogan.evaluation.fidelity.statistics import float64_place
from orthogan.evaluation.metric import Inputs, Metric, Score, TooFewImages, register

NEIGHBORS = 5  # as in the paper


@register("prdc", "density", "coverage", "density_coverage")
class DensityCoverage(Metric):
    """Density and coverage (Naeem et al. 2020, arXiv 2002.09797); the value is the coverage."""

    feature_label = "Coverage"
    better = "higher"
    in_scorecard = True
    needs = frozenset({"rows"})
    compares = True

    def check(self, inputs: Inputs) -> None:
        """Check that there are enough real images for five neighbors."""
        super().check(inputs)
        if self.fewest(inputs) <= NEIGHBORS:
            raise TooFewImages(
                f"samples: density and coverage need more than {NEIGHBORS} images per side, not {self.fewest(inputs)}"
            )

    def compute(self, inputs: Inputs) -> Score:
        """Return the coverage, with the density as a part."""
        parts = density_coverage(inputs.fakes.rows, inputs.reals.rows, device=inputs.device)
        return Score(parts["coverage"], parts=parts)


def density_coverage(
    generated: Tensor, reference: Tensor, *, neighbors: int = NEIGHBORS, device: torch.device | str | None = None
) -> dict[str, float]:
    """Compute {"density", "coverage"} (arXiv 2002.09797, eq. 3 and 4).

    Each real image has a ball that reaches to its neighbor number ``neighbors`` among the real images. Density is the
    mean number of balls around a generated image, divided by ``neighbors``; it can exceed 1. Coverage is the share of
    balls with a generated image inside. As in the authors' code, the boundary does not belong to the ball, and the
    distances are float64.

    Args:
        generated, reference: features (n, d), (m, d).
        device: where to compute; None: the device of the generated features.

    Example:
        >>> import torch
        >>> from orthogan.evaluation.fidelity.density_coverage import density_coverage
        >>> x = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
        >>> density_coverage(x, x)["coverage"]
        1.0
    """
    fakes, reals = (float64_place(x.to(device or generated.device)) for x in (generated, reference))
    chunk = chunk_of(fakes)
    balls = radii(reals, chunk, neighbors, float64_distances)
    inside, covered = 0, torch.zeros(len(reals), dtype=torch.bool, device=fakes.device)
    for i in range(0, len(reals), chunk):
        for j in range(0, len(fakes), chunk):
            within = float64_distances(reals[i : i + chunk], fakes[j : j + chunk]) < balls[i : i + chunk, None]
            inside += int(within.sum())
            covered[i : i + chunk] |= within.any(1)
    return {"density": inside / (neighbors * len(fakes)), "coverage": float(covered.double().mean())}
