"""From batches of images to what the metrics need of their features, and no more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from orthogan.distributed import gather_rows, hide_progress, rank_and_world, share_of_rank
from orthogan.errors import UserError
from orthogan.evaluation.fidelity.extractors import Extractor
from orthogan.evaluation.fidelity.inception_score import InceptionScore
from orthogan.evaluation.fidelity.statistics import Gaussian, Moments
from orthogan.evaluation.finite import FEATURES, Finite


@dataclass(frozen=True)
class Features:
    """Of a set of images, over all processes: the Gaussian, and what else was asked for.

    ``kept``: the numbers of some images (n,), ascending, and their features (n, d) float32 on the CPU.
    ``inception_score``: mean and spread.
    """

    gaussian: Gaussian
    kept: tuple[np.ndarray, Tensor] | None = None
    inception_score: tuple[float, float] | None = None


def extract(
    batches: Iterable[Tensor],
    extractor: Extractor,
    *,
    device: torch.device,
    total: int,
    keep: np.ndarray | None,
    score: bool,
    what: str,
    progress: bool,
) -> Features:
    """Features of all batches of all processes; the device is never waited for before the last batch.

    Args:
        batches: this process's share of ``total`` images, in order.
        keep: numbers of the images whose features are kept, ascending; None: of none.
        score: whether to take the Inception Score as well.

    Raises:
        UserError: logits were asked of an extractor that has none, or features that are not finite.
    """
    moments = Moments()
    answers = InceptionScore(total) if score else None
    rows = None if keep is None else Rows(keep, total, device)
    finite = Finite(FEATURES)
    _, world = rank_and_world()
    position, _ = share_of_rank(total)
    with tqdm(total=total, desc=what, unit="img", unit_scale=True, disable=hide_progress(progress), leave=False) as bar:
        for images in batches:
            features, logits = extractor(_moved(images, device))
            finite.watch(features)
            moments.add(features)
            if rows is not None:
                rows.add(features, position)
            if answers is not None:
                if logits is None:
                    raise UserError(f"extractor {extractor.name}: it classifies nothing: no Inception Score")
                finite.watch(logits)
                answers.add(logits, position)
            position += len(images)
            bar.update(len(images) * world)
    finite.check()
    return Features(
        moments.gathered().gaussian(),
        None if rows is None else rows.joined(),
        None if answers is None else answers.score(),
    )


class Rows:
    """The features of chosen images, copied to the CPU while the device goes on.

    ``chosen``: numbers of images out of ``total``, ascending; this process keeps those of its share.
    """

    def __init__(self, chosen: np.ndarray, total: int, device: torch.device) -> None:
        first, last = share_of_rank(total)
        self.chosen = chosen
        self.mine = chosen[slice(*np.searchsorted(chosen, (first, last)))]
        self.on_device = torch.from_numpy(self.mine).to(device)  # at once: a copy for each batch would wait
        self.device = device
        self.found: Tensor | None = None

    def add(self, features: Tensor, first: int) -> None:
        """Take what was chosen of the features (n, d) of images ``first`` to ``first + n - 1``."""
        if self.found is None:
            size = (len(self.mine), features.shape[1])
            self.found = torch.empty(size, dtype=torch.float32, pin_memory=self.device.type == "cuda")
        a, b = np.searchsorted(self.mine, (first, first + len(features)))
        if b - a < len(features):
            features = features[self.on_device[a:b] - first]
        self.found[a:b].copy_(features, non_blocking=True)

    def joined(self) -> tuple[np.ndarray, Tensor]:
        """All that was chosen, of all processes."""
        assert self.found is not None
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.chosen, gather_rows(self.found)


def _moved(images: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda" and not images.is_cuda:
        return images.pin_memory().to(device, non_blocking=True)
    return images.to(device)
