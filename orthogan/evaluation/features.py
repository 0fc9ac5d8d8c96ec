"""From batches of images to what the metrics need of their features, and no more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist
from tqdm import tqdm

from orthogan.errors import UserError
from orthogan.evaluation.extractors import Extractor
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
    main = not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0
    world = 1 if not (dist.is_available() and dist.is_initialized()) else dist.get_world_size()
    with tqdm(total=total, desc=what, unit="img", unit_scale=True, disable=not (progress and main), leave=False) as bar:
        for images in batches:
            features, scores = extractor(images.to(device))
            moments.add(features)
            if keep_vectors:
                vectors.append(features.cpu())
            if keep_logits:
                if scores is None:
                    raise UserError(
                        f"extractor {extractor.name}: it classifies nothing, so it gives no Inception Score"
                    )
                logits.append(scores.cpu())
            bar.update(len(images) * world)
    return Features(
        moments.gathered().gaussian(),
        _joined(vectors) if keep_vectors else None,
        _joined(logits) if keep_logits else None,
    )


def _joined(parts: list[Tensor]) -> Tensor:
    mine = torch.cat(parts)
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return mine
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else mine.device
    world = dist.get_world_size()
    counts = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world)]
    dist.all_gather(counts, torch.tensor([len(mine)], device=device))
    longest = max(int(n) for n in counts)
    padded = torch.zeros(longest, mine.shape[1], device=device)
    padded[: len(mine)] = mine.to(device)
    found = [torch.empty_like(padded) for _ in range(world)]
    dist.all_gather(found, padded)
    return torch.cat([part[: int(n)].cpu() for part, n in zip(found, counts, strict=True)])
