"""Accuracy, error and loss of a classifier on labelled images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from orthogan.data import ImageSource, to_float
from orthogan.data.order import subset
from orthogan.distributed import gather, share_of_rank
from orthogan.errors import UserError
from orthogan.evaluation.finite import LOGITS, Finite
from orthogan.evaluation.result import MetricResult
from orthogan.models.modes import eval_mode


@dataclass(frozen=True, repr=False)
class Accuracy(MetricResult):
    """The share of images whose class was found [0-1]; ``parts`` holds the error and the mean cross entropy."""

    @property
    def label(self) -> str:
        """``accuracy``, or ``train_accuracy``."""
        return self.metric

    def one_line(self) -> str:
        """The value in percent, the parts, and what it was measured on."""
        text = f"{self.label.replace('_', ' ')} {self.value:.2%}"
        text += "".join(f", {name} {value:.4g}" for name, value in self.parts.items())
        step = f"step {self.protocol['step']}: " if "step" in self.protocol else ""
        return f"{step}{text} ({self.protocol['samples']} images of {self.protocol['reference']})"


def accuracy(
    net: nn.Module,
    source: ImageSource,
    *,
    samples: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[float, float, int]:
    """(share of the images that ``net`` classifies rightly, mean cross entropy, number of images), in eval mode.

    In a process group every process calls this with the same arguments, does its share, and gets the same numbers.

    Args:
        net: images (n, c, h, w) in [-1, 1] -> logits (n, classes); its mode is restored.
        samples: look at a random subset of so many images, a function of ``seed`` (None, or too many: all).

    Raises:
        UserError: the images have no classes, or the logits are not finite.
    """
    finite = Finite(LOGITS)
    chosen = open_labelled(source, samples, seed)
    count = len(chosen)
    begin, end = share_of_rank(count)
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    # no parameter moves here, so a constrained weight is worked out once
    with eval_mode(net), parametrize.cached():
        for start in range(begin, end, batch_size):
            pixels, classes = source.read(chosen[start : min(start + batch_size, end)])
            images = to_float(torch.from_numpy(np.ascontiguousarray(pixels)).to(device), dequantize=False)
            labels = torch.from_numpy(classes).to(device)
            logits = net(images).float()
            finite.watch(logits)
            sums += _sums(logits, labels)
    finite.check()
    right, loss = torch.stack(gather(sums.cpu())).sum(0).tolist()
    return right / count, loss / count, count


def open_labelled(source: ImageSource, samples: int | None, seed: int) -> np.ndarray:
    """The indices (n,) of the images that are looked at, ascending; arguments and errors as of ``accuracy``."""
    if source.num_classes < 2:
        raise UserError(
            f"{source.name}: has {source.num_classes} classes, so accuracy means nothing there; "
            f"{source.why_unlabeled or 'give images with labels'}"
        )
    count = len(source) if samples is None else min(samples, len(source))
    return np.arange(count) if count == len(source) else np.sort(subset(seed, len(source), count))


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    """(2,) float64: how many are right, and the sum of the losses."""
    right = (logits.argmax(1) == labels).sum()
    return torch.stack([right.double(), functional.cross_entropy(logits.double(), labels, reduction="sum")])
