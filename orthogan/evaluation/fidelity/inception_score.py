"""The Inception Score: how confident a classifier is about each image, and how diverse its predictions are."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from orthogan.distributed import gather
from orthogan.evaluation.fidelity.statistics import float64_place
from orthogan.evaluation.metric import Inputs, Metric, Score, TooFewImages, register

SPLITS = 10
SHUFFLE_SEED = 2020  # torch-fidelity's


@register("isc", "is", "inception_score")
class InceptionScoreMetric(Metric):
    """The Inception Score (Salimans et al. 2016) of the generated images."""

    label = feature_label = "IS"
    better = "higher"
    in_scorecard = True
    needs = frozenset({"logits"})

    def check(self, inputs: Inputs) -> None:
        """Check that there are enough images to split."""
        super().check(inputs)
        check_inception_score(inputs.samples or 0)

    def stream(self, need: Literal["logits", "images"], total: int, device: torch.device) -> InceptionScore:
        """Accumulate sums instead of keeping the logits of all images."""
        return InceptionScore(total)

    def compute(self, inputs: Inputs) -> Score:
        """Return the score and its standard deviation over the splits."""
        return Score(*inputs.fakes.logits)


def check_inception_score(images: int) -> None:
    """Raise UserError if there are too few ``images`` to split."""
    if images < SPLITS:
        raise TooFewImages(f"samples: isc needs at least {SPLITS} generated images, one per split, not {images}")


class InceptionScore:
    """A running Inception Score of ``images`` images: sums over each split, and one byte per image.

    The splits are those of torch-fidelity after its shuffle, which only depends on the number of images. With q the
    mean of p over a split, mean KL(p || q) = mean sum p log p - sum q log q.

    Raises:
        UserError: fewer images than splits.
    """

    def __init__(self, images: int) -> None:
        check_inception_score(images)
        shuffled = np.random.RandomState(SHUFFLE_SEED).permutation(images)
        borders = np.arange(SPLITS + 1) * images // SPLITS
        split_of = np.empty(images, dtype=np.uint8)
        split_of[shuffled] = np.repeat(np.arange(SPLITS), np.diff(borders))
        self.counts = torch.from_numpy(np.diff(borders))
        self.split_of = torch.from_numpy(split_of)
        self.sums: Tensor | None = None  # (splits, k + 1): of p, and of sum p log p

    def add(self, logits: Tensor, first: int) -> None:
        """Add the logits (n, k) of images ``first`` to ``first + n - 1``."""
        x = float64_place(logits).double()
        if self.sums is None:
            self.sums = x.new_zeros(SPLITS, x.shape[1] + 1)
            self.split_of = self.split_of.to(x.device)
        log_p = x.log_softmax(1)
        p = log_p.exp()
        found = torch.cat([p, (p * log_p).sum(1, keepdim=True)], 1)
        # a matrix product with 0 and 1: index_add has no fixed order on CUDA
        belongs = self.split_of[first : first + len(x)] == torch.arange(SPLITS, device=x.device)[:, None]
        self.sums.addmm_(belongs.double(), found)

    def result(self) -> tuple[float, float]:
        """Return mean and standard deviation over ten splits of exp E KL(p(y|x) || p(y)) (Salimans et al. 2016).

        All processes call this together, each with its part of the images.
        """
        assert self.sums is not None
        means = torch.stack(gather(self.sums)).sum(0).cpu() / self.counts[:, None]
        q, mean_p_log_p = means[:, :-1], means[:, -1]
        scores = (mean_p_log_p - torch.special.xlogy(q, q).sum(1)).exp()
        return float(scores.mean()), float(scores.std(correction=0))
