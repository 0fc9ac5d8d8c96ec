"""Precision and recall of a generator, with nearest neighbors in feature space."""

from __future__ import annotations

import torch
from torch import Tensor

from orthogan.evaluation.fidelity.neighbors import chunk_of, radii
from orthogan.evaluation.metric import Inputs, Metric, Score, TooFewImages, register

NEIGHBOURHOOD = 3


@register("prc", "pr", "precision", "recall")
class PrecisionRecall(Metric):
    """Improved precision and recall (Kynkäänniemi et al. 2019); the value is their F-score."""

    feature_label = (
        "F-score"  # VGG16 in the paper, Inception elsewhere: there is no standard, so the label always names it
    )
    better = "higher"
    in_scorecard = True
    needs = frozenset({"rows"})
    compares = True

    def check(self, inputs: Inputs) -> None:
        """Check that there are enough images for three neighbors."""
        super().check(inputs)
        check_precision_recall(self.fewest(inputs))

    def compute(self, inputs: Inputs) -> Score:
        """Return the F-score, with precision and recall as parts."""
        parts = precision_recall(inputs.fakes.rows, inputs.reals.rows, device=inputs.device)
        return Score(parts.pop("f_score"), parts=parts)


def check_precision_recall(images: int) -> None:
    """Raise UserError if ``images``, the smaller number of the two sides, is too few for a third neighbor."""
    if images <= NEIGHBOURHOOD:
        raise TooFewImages(
            f"samples: precision and recall need more than {NEIGHBOURHOOD} images per side, not {images}"
        )


def precision_recall(
    generated: Tensor, reference: Tensor, *, device: torch.device | str | None = None
) -> dict[str, float]:
    """Compute {"precision", "recall", "f_score"} with balls to the third neighbor (Kynkäänniemi et al. 2019).

    Precision is the fraction of generated images within the ball of a real image; recall is the reverse. Distances are
    those of torch-fidelity (``cdist`` in float32), and so are ties: the boundary belongs to the ball.

    Args:
        generated, reference: features (n, d), (m, d). Additional memory does not grow with n and m.
        device: where to compute; None: the device of the generated features.

    Raises:
        UserError: one side has too few images for three neighbors.
    """
    check_precision_recall(min(len(generated), len(reference)))
    fakes, reals = (x.to(device or generated.device) for x in (generated, reference))
    chunk = chunk_of(fakes)
    of_fakes, of_reals = (radii(x, chunk, NEIGHBOURHOOD) for x in (fakes, reals))
    inside_fakes = torch.zeros(len(reals), dtype=torch.bool, device=fakes.device)
    inside_reals = torch.zeros(len(fakes), dtype=torch.bool, device=fakes.device)
    for i in range(0, len(reals), chunk):
        for j in range(0, len(fakes), chunk):
            # one matrix serves both precision and recall
            distances = torch.cdist(reals[i : i + chunk], fakes[j : j + chunk])
            inside_fakes[i : i + chunk] |= (distances <= of_fakes[j : j + chunk]).any(1)
            inside_reals[j : j + chunk] |= (distances <= of_reals[i : i + chunk, None]).any(0)
    precision, recall = (float(inside.float().mean()) for inside in (inside_reals, inside_fakes))
    return {
        "precision": precision,
        "recall": recall,
        "f_score": 2 * precision * recall / max(1e-5, precision + recall),
    }
