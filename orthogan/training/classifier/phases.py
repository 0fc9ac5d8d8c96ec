"""The loss of a classifier, as a pure function of network and batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.training.task import Losses


@dataclass(frozen=True)
class ClassifierBatch:
    """Images (n, c, h, w) in [-1, 1] with their labels (n,)."""

    images: Tensor
    labels: Tensor

    def part(self, index: int, of: int) -> ClassifierBatch:
        """Return the index-th of ``of`` equal parts."""
        cut = slice(index * len(self.images) // of, (index + 1) * len(self.images) // of)
        return ClassifierBatch(self.images[cut], self.labels[cut])


def classifier_loss(net: nn.Module, batch: ClassifierBatch, label_smoothing: float) -> Losses:
    """Compute the cross entropy with the labels, of which ``label_smoothing`` is spread evenly over all classes.

    The log contains the loss and the accuracy on the batch.
    """
    logits = net(batch.images).float()
    loss = functional.cross_entropy(logits, batch.labels, label_smoothing=label_smoothing)
    with torch.no_grad():
        right = (logits.argmax(1) == batch.labels).float().mean()
    return loss, {"C/loss": loss.detach(), "C/accuracy": right}
