"""Accuracy, error and loss of a classifier on labeled images."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
from orthogan.evaluation.metric import Inputs, Metric, register
from orthogan.evaluation.result import MetricResult, made_by
from orthogan.models.modes import eval_mode, get_device


@dataclass(frozen=True, repr=False)
class Accuracy(MetricResult):
    """The fraction of correctly classified images [0-1]; ``parts`` contains the error and the mean cross entropy."""

    def one_line(self) -> str:
        """Format the value in percent, the parts, and the images."""
        text = f"{self.label.replace('_', ' ')} {self.value:.2%}"
        text += "".join(f", {name} {value:.4g}" for name, value in self.parts.items())
        step = f"step {self.protocol['step']}: " if "step" in self.protocol else ""
        return f"{step}{text} ({self.protocol['samples']} images of {self.protocol['reference']})"


@dataclass(frozen=True, repr=False)
class Robustness(Accuracy):
    """The fraction of images that are classified correctly despite changes [0-1]."""

    def one_line(self) -> str:
        """Format the value in percent, and the images; there are too many parts to show."""
        return f"{self.label} {self.value:.2%} ({self.protocol['samples']} images of {self.protocol['reference']})"


class ClassifierMetric(Metric):
    """A metric of a classifier on labeled images that it was not trained on; higher is better."""

    better = "higher"
    needs = frozenset({"classifier", "test"})
    samples = None

    def prepare(self, inputs: Inputs) -> None:
        """Check that there is one logit per class of the images."""
        with eval_mode(inputs.classifier):
            inputs.once("classes", lambda: check_classes(inputs.classifier, inputs.test, inputs.device))


@register("accuracy", "acc")
class AccuracyMetric(ClassifierMetric):
    """The fraction of images that are classified correctly."""

    def compute(self, inputs: Inputs) -> list[Accuracy]:
        """See ``accuracy``."""
        began = time.monotonic()
        options = inputs.pick("samples", "batch_size", "seed", "device")
        value, loss, count = accuracy(inputs.classifier, inputs.test, **options)
        protocol = protocol_of(inputs.classifier, inputs.test, count, inputs.seed, {}, inputs.info, began)
        return [Accuracy(self.name, value, "none", None, {"error": 1.0 - value, "loss": loss}, protocol)]


def accuracy(
    net: nn.Module,
    source: ImageSource,
    *,
    samples: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[float, float, int]:
    """Return (fraction of correctly classified images, mean cross entropy, number of images), in eval mode.

    In a process group, every process calls this with the same arguments, computes its part, and gets the same numbers.

    Args:
        net: images (n, c, h, w) in [-1, 1] -> logits (n, classes); its mode is restored.
        samples: size of a random subset of the images, which depends on ``seed`` (None, or too many: all).

    Raises:
        UserError: the images have no classes, or the logits are not finite.
    """
    finite = Finite(LOGITS)
    chosen = open_labelled(source, samples, seed)
    count = len(chosen)
    begin, end = share_of_rank(count)
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    # no parameter changes here, so a constrained weight is computed once
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
    """Return the ascending indices (n,) of the images to use; arguments and errors as in ``accuracy``."""
    if source.num_classes < 2:
        raise UserError(
            f"{source.name}: has {source.num_classes} classes, so accuracy is not defined; "
            f"{source.why_unlabeled or 'use images with labels'}"
        )
    count = len(source) if samples is None else min(samples, len(source))
    return np.arange(count) if count == len(source) else np.sort(subset(seed, len(source), count))


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (2,) float64: the number of correct predictions, and the sum of the losses."""
    right = (logits.argmax(1) == labels).sum()
    return torch.stack([right.double(), functional.cross_entropy(logits.double(), labels, reduction="sum")])


def check_classes(net: nn.Module, source: ImageSource, device: torch.device) -> None:
    """Raise UserError unless ``net``, in eval mode, returns one logit per class of ``source``."""
    pixels, _ = source.read(np.zeros(1, np.int64))
    logits = net(to_float(torch.from_numpy(np.ascontiguousarray(pixels)).to(device), dequantize=False))
    if logits.shape != (1, source.num_classes):
        raise UserError(
            f"{source.name}: has {source.num_classes} classes, but the network returns {tuple(logits.shape[1:])} "
            "logits; choose images with the classes that it was trained on"
        )


def protocol_of(
    net: nn.Module,
    source: ImageSource,
    count: int,
    seed: int,
    about: Mapping[str, Any],
    info: Mapping[str, str] | None,
    began: float,
) -> dict[str, Any]:
    """Return what a number of a classifier depends on."""
    return {
        "samples": count,
        "reference": source.name,
        **about,
        "batch norm": "running statistics",
        "seed": seed,
        "dtype": "float32",
        "device": get_device(net).type,
        **made_by(info, began),
    }
