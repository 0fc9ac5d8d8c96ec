"""Feature extraction from batches of images, keeping only what the metrics need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orthogan.distributed import gather_rows, hide_progress, rank_and_world, share_of_rank
from orthogan.errors import UserError
from orthogan.evaluation.extractors.extractor import Extractor
from orthogan.evaluation.fidelity.statistics import Gaussian, Moments
from orthogan.evaluation.finite import FEATURES, Finite
from orthogan.evaluation.metric import ABSENT, Stream
from orthogan.progress import progress_bar


@dataclass(frozen=True)
class Features:
    """Statistics of a set of images over all processes, as requested by the metrics.

    Attributes:
        gaussian: mean and covariance of the features.
        numbers: indices of the images whose features were kept (n,), ascending.
        rows: their features (n, d) float32, on the CPU.
        logits: class logits (n, classes), on the CPU, or the result of the ``stream`` of the metric.
        images: pixels uint8 (n, c, h, w), on the CPU, or the result of the ``stream`` of the metric.
    """

    gaussian: Gaussian = ABSENT
    numbers: np.ndarray = ABSENT
    rows: Tensor = ABSENT
    logits: Any = ABSENT
    images: Any = ABSENT
    streams: Mapping[tuple[str, str], Any] = field(default_factory=dict)  # by metric and need

    def of(self, metric: str) -> Features:
        """Return the part for ``metric``."""
        own = {need: found for (name, need), found in self.streams.items() if name == metric}
        return replace(self, **own) if own else self


def extract(
    batches: Iterable[Tensor],
    extractor: Extractor | None,
    *,
    device: torch.device,
    total: int,
    what: str,
    progress: bool,
    keep: np.ndarray | None = None,
    streams: Mapping[tuple[str, str], Stream] | None = None,
) -> Features:
    """Extract features of all batches of all processes, without synchronizing with the device before the last batch.

    Args:
        batches: this process's part of ``total`` images, in order.
        extractor: None if only images are requested.
        keep: indices of the images whose features to keep, ascending; None: of none.
        streams: consumers of logits or images, by metric and need ("logits", "images").

    Raises:
        UserError: logits of an extractor that has none, or non-finite features.
    """
    moments = Moments()
    streams = streams or {}
    looking = any(need == "logits" for _, need in streams)
    rows = None if keep is None else Rows(keep, total, device)
    finite = Finite(FEATURES)
    _, world = rank_and_world()
    position, _ = share_of_rank(total)
    with progress_bar(
        total=total, desc=what, unit="img", unit_scale=True, disable=hide_progress(progress), leave=False
    ) as bar:
        for images in batches:
            images, logits = _moved(images, device), None
            if extractor is not None:
                features, logits = extractor(images)
                finite.watch(features)
                moments.add(features)
                if rows is not None:
                    rows.add(features, position)
                if looking:
                    if logits is None:
                        raise UserError(f"extractor {extractor.name} is not a classifier, so it has no logits")
                    finite.watch(logits)
            for (_, need), stream in streams.items():
                batch = logits if need == "logits" else images
                assert batch is not None
                stream.add(batch, position)
            position += len(images)
            bar.update(len(images) * world)
    finite.check()
    return Features(
        ABSENT if extractor is None else moments.gathered().gaussian(),
        ABSENT if rows is None else rows.chosen,
        ABSENT if rows is None else rows.result(),
        streams={key: stream.result() for key, stream in streams.items()},
    )


class Rows:
    """Features (or logits, or pixels) of selected images, copied to the CPU asynchronously.

    ``chosen``: indices of images out of ``total``, ascending; each process keeps those of its part.
    """

    def __init__(self, chosen: np.ndarray, total: int, device: torch.device) -> None:
        first, last = share_of_rank(total)
        self.chosen = chosen
        self.mine = chosen[slice(*np.searchsorted(chosen, (first, last)))]
        self.on_device = torch.from_numpy(self.mine).to(device)  # in one go: copying each batch would synchronize
        self.device = device
        self.found: Tensor | None = None

    def add(self, features: Tensor, first: int) -> None:
        """Add the selected features (n, ...) of images ``first`` to ``first + n - 1``."""
        if self.found is None:
            size, pinned = (len(self.mine), *features.shape[1:]), self.device.type == "cuda"
            self.found = torch.empty(size, dtype=features.dtype, pin_memory=pinned)
        a, b = np.searchsorted(self.mine, (first, first + len(features)))
        if b - a < len(features):
            features = features[self.on_device[a:b] - first]
        self.found[a:b].copy_(features, non_blocking=True)

    def result(self) -> Tensor:
        """Return the selected features of all processes."""
        assert self.found is not None
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return gather_rows(self.found)


def _moved(images: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda" and not images.is_cuda:
        return images.pin_memory().to(device, non_blocking=True)
    return images.to(device)
