"""From batches of images to what the metrics need of their features, and no more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from orthogan.errors import UserError
from orthogan.evaluation.extractors import Extractor
from orthogan.evaluation.processes import joined, rank_and_world
from orthogan.evaluation.statistics import Gaussian, Moments


@dataclass(frozen=True)
class Features:
    """Of a set of images, over all processes: the Gaussian, and where asked for the features and logits themselves."""

    gaussian: Gaussian
    vectors: Tensor | None  # (n, d) float32, CPU
    logits: Tensor | None  # (n, k) float32, CPU


def extract(
    batches: Iterable[Tensor],
    extractor: Extractor,
    *,
    device: torch.device,
    total: int,
    keep_vectors: bool,
    keep_logits: bool,
    what: str,
    progress: bool,
) -> Features:
    """Features of all batches of all processes, in the order of the images.

    Raises:
        UserError: logits were asked of an extractor that has none.
    """
    moments, vectors, logits = Moments(), [], []
    rank, world = rank_and_world()
    hidden = not progress or rank > 0
    with tqdm(total=total, desc=what, unit="img", unit_scale=True, disable=hidden, leave=False) as bar:
        for images in batches:
            features, scores = extractor(images.to(device))
            moments.add(features)
            if keep_vectors:
                vectors.append(features.cpu())
            if keep_logits:
                if scores is None:
                    raise UserError(f"extractor {extractor.name}: it classifies nothing: no Inception Score")
                logits.append(scores.cpu())
            bar.update(len(images) * world)
    return Features(
        moments.gathered().gaussian(),
        joined(torch.cat(vectors)) if keep_vectors else None,
        joined(torch.cat(logits)) if keep_logits else None,
    )
