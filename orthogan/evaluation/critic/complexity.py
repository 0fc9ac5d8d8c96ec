"""Complexity of a classifier relative to its margins: the three measures of Sanyal, Torr & Dokania (ICLR 2020).

Each is one number per image, taken from a bound on the generalization error; smaller is simpler. With the margin g =
logit of the label - largest other logit, and matrices W_i with one row per output,

- Spec-Fro (Neyshabur et al. 2018): prod |W_i|_2^2 * sum_i srank(W_i) / g^2;
- Spec-L1 (Bartlett et al. 2017): prod |W_i|_2^2 * (sum_i (|W_i|_{2,1} / |W_i|_2)^(2/3))^3 / g^2, where |W|_{2,1} is
  the sum of the lengths of the rows (the paper's |W^T|_{2,1});
- Jac-Norm (Wei & Ma 2019): sum_i |h_i|_2 |dg/dh_i|_2 / g over the hidden layers h_i, the inputs of all layers but
  the first.

None changes if the layers of a ReLU network without biases are scaled, together with the logits. How the figures of the
paper are normalized beyond this is not known. The products run over all layers in sequence, which is a heuristic
for networks with shortcuts. A batch norm in eval mode is part of the activation after its layer: its factor max
|gain| / sqrt(variance + eps) enters the product, like the Lipschitz constants of activations in Bartlett et al.
2017, theorem 1.1.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from orthogan import weights
from orthogan.data import ImageSource, to_float
from orthogan.distributed import broadcast_json, hide_progress
from orthogan.errors import UserError
from orthogan.evaluation.deterministic import choose_device, deterministic_float32
from orthogan.evaluation.metric import Inputs, Metric, register
from orthogan.evaluation.result import MetricResult, made_by
from orthogan.evaluation.robustness.accuracy import open_labelled
from orthogan.evaluation.spectrum.layer_spectrum import list_unmeasured, spectrum
from orthogan.layers import DecorrelatedBatchNorm2d
from orthogan.linalg.precision import at_least_float32
from orthogan.models.modes import eval_mode
from orthogan.progress import progress_bar
from orthogan.weights.effective import effective_weight
from orthogan.weights.matrix import Layer

Norm = Literal["matrix", "operator"]
SPEC_FRO, SPEC_L1, JAC_NORM, MARGIN = "spec_fro", "spec_l1", "jac_norm", "margin"
PERCENTILES = (10, 50, 90)
SHOWN = 90  # percentile used as the value


@register("complexity")
class ComplexityMetric(Metric):
    """Margins of a classifier on its training images, and complexity measures."""

    needs = frozenset({"classifier", "train"})
    samples = None

    def compute(self, inputs: Inputs) -> list[MetricResult]:
        """See ``complexity``."""
        options = inputs.pick("samples", "batch_size", "seed", "device", "progress", "info")
        return complexity(inputs.classifier, inputs.train, **options)[0]


@dataclass(frozen=True, repr=False)
class Complexity(MetricResult):
    """The 90th percentile over images of log10 of a measure (for the margin: the median, without log10)."""

    def one_line(self) -> str:
        """Format the value, the parts, and the images."""
        text = f"{self.label} {self.value:.4g}" + "".join(f", {name} {value:.4g}" for name, value in self.parts.items())
        return f"{text} ({self.protocol['samples']} images of {self.protocol['reference']})"


def complexity(
    net: nn.Module,
    source: ImageSource,
    *,
    samples: int | None = None,
    norm: Norm = "matrix",
    size: int = 8,
    batch_size: int = 100,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = True,
    info: Mapping[str, str] | None = None,
) -> tuple[list[MetricResult], dict[str, np.ndarray]]:
    """Compute the measures of ``net`` on images and labels of ``source``, which should be its training images.

    Results of ``margin``, ``spec_fro``, ``spec_l1`` and ``jac_norm``, and the numbers behind them, float64: margins
    (n,), and log10 of each measure for the correctly classified images (margin > 0; ``right`` in the parts is their
    fraction). In a process group, every process computes everything.

    Args:
        net: images (n, c, h, w) in [-1, 1] -> logits (n, classes); its mode is restored.
        source: images with labels.
        samples: size of a random subset of the images, which depends on ``seed`` (None, or too many: all).
        norm: norm of a convolution in the product: of its kernel as a matrix, as published, or of its linear map
            ("operator", see ``conv_operator``). The sums always use matrices.
        size: side of the map for "operator".
        batch_size: images per batch.
        seed: random seed of the subset.
        device: by default that of the network.
        info: further facts for the protocol.

    Raises:
        UserError: no classes, no correctly classified image, no hidden layer, or a network with unknown norms.

    Source: Sanyal, Torr & Dokania 2020, arXiv:1906.04659.

    Example:
        >>> import orthogan
        >>> from orthogan.evaluation.critic.complexity import complexity
        >>> from orthogan.models.classifiers import MLP
        >>> images = orthogan.open_source("sprites", channels=1, count=32)
        >>> net = MLP(resolution=32, image_channels=1, channels=4, num_classes=3)
        >>> results, _ = complexity(net, images, progress=False)
        >>> [result.metric for result in results]
        ['margin', 'spec_fro', 'spec_l1', 'jac_norm']
    """
    began, place = time.monotonic(), choose_device(net, device)
    if (samples is not None and samples < 1) or batch_size < 1:
        raise UserError(f"samples={samples}, batch_size={batch_size}: must be at least 1")
    chosen = open_labelled(source, samples, seed)
    count = len(chosen)
    net.to(place)
    parts = capacity(net, norm=norm, size=size)
    seen: list[tuple[Tensor, Tensor]] = []
    bar = progress_bar(total=count, desc="margins", unit="image", disable=hide_progress(progress), leave=False)
    with deterministic_float32(net, place), bar:
        for start in range(0, count, batch_size):
            pixels, classes = source.read(chosen[start : start + batch_size])
            images = to_float(torch.from_numpy(np.ascontiguousarray(pixels)).to(place), dequantize=False)
            seen.append(jacobian_norm(net, images, torch.from_numpy(classes).to(place)))
            bar.update(len(pixels))
    margin, jacobian = (torch.cat(column).cpu().double().numpy() for column in zip(*seen, strict=True))
    if not (np.isfinite(margin).all() and np.isfinite(jacobian).all()):
        raise UserError(f"complexity: the logits of {type(net).__name__} are NaN or infinite; the network is damaged")
    right = margin > 0
    if not right.any():
        raise UserError(
            f"complexity: none of {count} images of {source.name} is classified correctly; train the network first"
        )
    found = {MARGIN: margin} | {name: over_margins(top, margin) for name, top in parts.items()}
    # if an image switches off all hidden neurons, its margin comes from biases alone: the smallest complexity, but a
    # number
    least = np.finfo(np.float32).tiny
    found[JAC_NORM] = np.log10(np.maximum(jacobian[right], least)) - np.log10(margin[right])
    protocol = {
        "samples": count,
        "reference": source.name,
        "norms": "of kernels as matrices" if norm == "matrix" else f"of convolutions as maps of {size} pixels",
        "seed": seed,
        "batch norm": "running statistics, its factor in the product",
        "dtype": "float32 without TF32",
        "device": place.type,
        **made_by(info, began),
    }
    variant = "" if norm == "matrix" else norm
    results: list[MetricResult] = []
    for name, values in found.items():
        numbers = dict(zip(PERCENTILES, np.percentile(values, PERCENTILES).tolist(), strict=True))
        shares = {f"{percent}%": number for percent, number in numbers.items()} | {"right": float(right.mean())}
        value, shares = broadcast_json([numbers[50 if name == MARGIN else SHOWN], shares])
        of = variant if name in (SPEC_FRO, SPEC_L1) else ""
        about = protocol if name == MARGIN else {**protocol, "value": f"log10, {SHOWN}th percentile"}
        results.append(Complexity(name, value, "none", None, shares, about, of))
    return results, found


def over_margins(top: float, margin: np.ndarray) -> np.ndarray:
    """Return log10 of Spec-Fro or Spec-L1 with ``top`` from ``capacity``, for images with ``margin`` (n,) above 0."""
    return top - 2 * np.log10(margin[margin > 0])


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the logit of the label minus the largest other logit, (n, classes) and (n,) -> (n,)."""
    own = logits.gather(1, labels[:, None])[:, 0]
    return own - logits.scatter(1, labels[:, None], -math.inf).amax(1)


@torch.no_grad()
def capacity(net: nn.Module, *, norm: Norm = "matrix", size: int = 8, batch_norm: bool = True) -> dict[str, float]:
    """Return log10 of the numerators of Spec-Fro and Spec-L1; arguments and errors as ``complexity``.

    ``batch_norm``: include the factors of batch norms in the product; without them it uses the weights alone, as
    published, which is meaningless for networks whose batch norms undo the scale of the weights.
    """
    if norm not in get_args(Norm):
        raise UserError(f"norm={norm!r}: choose one of {', '.join(get_args(Norm))}")
    if others := list_unmeasured(net):
        raise UserError(f"complexity: the norms of {', '.join(others)} of {type(net).__name__} are not known")
    try:
        rows = spectrum(net, size=size)
    except ValueError as error:
        raise UserError(f"complexity: {error}") from error
    with eval_mode(net), weights.hold_power_iteration(net):
        lengths = [float(at_least_float32(found.matrix).norm(dim=1).double().sum()) for found in _layers(net)]
    zero = [row.name for row in rows if row.sigma == 0]
    if zero:
        raise UserError(f"complexity: the weight of {', '.join(zero)} is zero, so nothing passes through the network")
    norms = [row.sigma if norm == "matrix" else row.operator_norm for row in rows]
    factors = [*norms, *_activation_factors(net)] if batch_norm else norms
    product = 2 * sum(map(math.log10, factors))
    ratios = [length / row.sigma for length, row in zip(lengths, rows, strict=True)]
    return {
        SPEC_FRO: product + math.log10(sum(row.stable_rank for row in rows)),
        SPEC_L1: product + 3 * math.log10(sum(ratio ** (2 / 3) for ratio in ratios)),
    }


def _layers(net: nn.Module) -> list[weights.Selected]:
    return [found for found in weights.select(net) if isinstance(found.layer, Layer)]


def jacobian_norm(net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return margins g (n,), and sum_i |h_i| |dg/dh_i| (n,) over the hidden layers, for a network in eval mode.

    Raises:
        UserError: there is no hidden layer.
    """
    with torch.enable_grad(), _inputs(net) as layers:
        found = margins(net(images.detach().requires_grad_()), labels)
        hidden = layers[1:]  # the first layer's input is the image
        if not hidden:
            raise UserError(f"complexity: {type(net).__name__} has only one layer, but Jac-Norm needs hidden layers")
        # in eval mode the margin of an image does not depend on other images
        slopes = torch.autograd.grad(found.sum(), hidden)
    with torch.no_grad():
        terms = [h.flatten(1).norm(dim=1) * j.flatten(1).norm(dim=1) for h, j in zip(hidden, slopes, strict=True)]
        return found.detach(), torch.stack(terms).sum(0)


@contextmanager
def _inputs(net: nn.Module) -> Iterator[list[Tensor]]:
    """Context that records the inputs of linear and convolution layers in a forward pass, each once, in order."""
    seen: list[Tensor] = []

    def note(layer: nn.Module, arguments: Sequence[Any]) -> None:
        if not any(arguments[0] is other for other in seen):  # the input of a shortcut enters two layers
            seen.append(arguments[0])

    handles = [found.layer.register_forward_pre_hook(note) for found in _layers(net)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _activation_factors(net: nn.Module) -> Iterator[float]:
    """Return the Lipschitz constant of every norm layer in eval mode."""
    for name, part in net.named_modules():
        if isinstance(part, DecorrelatedBatchNorm2d):
            whitening = part.running_whitening
            gain = torch.ones(part.num_features) if part.weight is None else effective_weight(part).cpu()
            factor = float(torch.linalg.matrix_norm(gain.view(len(whitening), -1, 1) * whitening.cpu(), 2).amax())
        elif isinstance(part, _BatchNorm) and part.running_var is not None:
            scale = torch.rsqrt(part.running_var + part.eps)
            factor = float((scale if part.weight is None else scale * effective_weight(part)).abs().amax())
        elif isinstance(part, _BatchNorm | _InstanceNorm | nn.GroupNorm | nn.LayerNorm):
            raise UserError(
                f"complexity: {name}, a {type(part).__name__}, scales by statistics of the image, so it has no fixed "
                "norm; use batch norms"
            )
        else:
            continue
        if factor == 0:
            raise UserError(f"complexity: the gain of {name} is zero, so nothing passes through the network")
        yield factor
