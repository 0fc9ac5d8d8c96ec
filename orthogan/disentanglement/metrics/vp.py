"""Variation predictability: can a network tell which latent coordinate differs between two images?

Zhu, Xu & Tao, ECCV 2020, "Learning Disentangled Representations with Latent Variation Predictability".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.disentanglement.codes.coordinates import LatentCoordinates, subject
from orthogan.disentanglement.codes.trunk import Precision
from orthogan.disentanglement.registry import register_metric
from orthogan.disentanglement.score import Score
from orthogan.fit import fit
from orthogan.fit import seeded as seeded_init
from orthogan.latent.directions import Directions
from orthogan.progress import progress_bar
from orthogan.rng import derive
from orthogan.rng import generator as seeded

ProtocolName = Literal["validation", "published"]
Inputs = Literal["diff", "both"]
LOOK = 512  # pairs per batch


@dataclass(frozen=True)
class Protocol:
    """How the network is trained and tested: fractions of the ``pairs``, settings of Adam, and the epoch that counts.

    ``validation``: 0 means that the epoch is chosen on the test pairs. ``decay``: the rate falls to 0 as a cosine.
    ``side``: larger images are averaged down to it.
    """

    pairs: int
    train: float
    validation: float
    epochs: int
    lr: float
    batch_size: int
    decay: bool
    side: int | None
    precision: Precision


PROTOCOLS: dict[str, Protocol] = {
    "published": Protocol(10_000, 0.1, 0.0, 200, 0.01, 32, decay=False, side=None, precision="float32"),
    "validation": Protocol(4_000, 0.6, 0.1, 8, 0.001, 32, decay=True, side=32, precision="bfloat16"),
}


class Judge(nn.Module):
    """Maps pairs of images (n, inputs, h, w) to logits (n, k) of the coordinate; layers as in the paper's code."""

    def __init__(self, inputs: int, k: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_layer(inputs, 64, 7, stride=2),
            *_layer(64, 64, 3),
            nn.MaxPool2d(3, stride=2, padding=1),
            *_layer(64, 128, 3),
            *_layer(128, 256, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(256, k)

    def forward(self, pairs: Tensor) -> Tensor:
        """Return logits (n, k) of the coordinate in which the images of each pair differ."""
        return self.head(self.features(pairs.contiguous(memory_format=torch.channels_last)))


@register_metric("vp")
def vp(
    generator: nn.Module,
    directions: Directions | None = None,
    *,
    protocol: ProtocolName = "validation",
    pairs: int | None = None,
    train_share: float | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    inputs: Inputs = "diff",
    reach: float = 2.0,
    noise_scale: float = 1.0,
    y: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Score:
    """Accuracy of a small network that predicts in which coordinate a pair differs, from chance (1 / k) to 1.

    Higher is better. All k coordinates along ``directions`` (default: native) are uniform in [-reach, reach]; one of
    them is resampled for the second image. The rest of the latent comes from the prior, multiplied by ``noise_scale``,
    and is shared by the pair, as is the class. The score rewards distinct changes, not meaningful ones, and is not
    comparable between different k or reach. Coordinates are lengths in z, and standard deviations in other spaces.

    * "published": 10,000 pairs, 1,000 for training, 200 epochs, and the epoch is chosen on the test pairs, which is
      optimistic. About an hour on one core.
    * "validation": 4,000 pairs, 60 % for training, 10 % to choose the epoch, 30 % for the score; images larger than 32
      pixels are averaged down to 32. Half a minute on one core.

    The EigenGAN of the NOG paper (Song et al. 2022) has ``reach=4, noise_scale=0.7``.

    Args:
        pairs, train_share, epochs, lr: override the numbers of the protocol.
        inputs: "diff", the difference of the two images, or "both".
        y: class of a conditional generator; None cycles through all classes.

    Returns details "per_direction" (k,) (NaN if no test pair has it), "confusion" (k, k) counts, with true coordinates
    as rows, "chance", "standard_error" (of sampling the test pairs), "train" and "validation" (accuracies at that
    epoch), "epoch", "last" (test accuracy after the last epoch), "curve" (accuracy by epoch that the epoch was chosen
    on).

    Raises:
        ValueError: fewer than two directions, or numbers that are too small. UserError: invalid directions.

    Source: Zhu, Xu & Tao 2020, arXiv:2007.12885.

    Example:
        >>> import orthogan
        >>> from orthogan.disentanglement import vp
        >>> generator = orthogan.load("sprites-sngan")
        >>> vp(generator, pairs=40, epochs=1).metric
        'vp'
    """
    plan = _plan(protocol, inputs, pairs, train_share, epochs, lr)
    if not (reach > 0 and noise_scale >= 0):
        raise ValueError(f"vp: reach={reach}, noise_scale={noise_scale}: must be above 0, and at least 0")
    with subject(generator, directions, y=y) as seen:
        if len(seen) < 2:
            raise ValueError("vp: at least 2 directions are needed")
        first, second, labels = _pairs(seen, plan, reach, noise_scale, seed, progress)
        place = seen.response.device
    parts = _split(plan, labels, seed)
    net, curve, epoch, last = _taught(plan, inputs, first, second, labels, parts, len(seen), seed, place, progress)
    answers = [_named(net, inputs, first, second, part) for part in parts]
    train, validation, test = (found == labels[part] for found, part in zip(answers, parts, strict=True))
    confusion = np.zeros((len(seen), len(seen)), np.int64)
    np.add.at(confusion, (labels[parts[2]], answers[2]), 1)
    counts = confusion.sum(1)
    value = float(test.mean())
    details = {
        "per_direction": np.where(counts > 0, confusion.diagonal() / np.maximum(counts, 1), np.nan),
        "confusion": confusion,
        "chance": 1 / len(seen),
        "standard_error": float(np.sqrt(value * (1 - value) / len(test))),
        "train": float(train.mean()),
        "validation": float(validation.mean()) if len(validation) else value,
        "epoch": epoch,
        "last": last,
        "curve": np.array(curve),
    }
    chosen = "validation" if len(parts[1]) else "test"
    sizes = "+".join(str(len(part)) for part in parts)
    shrunk = f",side={plan.side}" if plan.side is not None and first.shape[-1] == plan.side else ""
    variant = (
        f"{protocol},k={len(seen)},{inputs},reach={reach:g},noise={noise_scale:g},pairs={sizes},epochs={plan.epochs},"
        f"epoch by {chosen},lr={plan.lr:g}{',cosine' if plan.decay else ''},batch={plan.batch_size}{shrunk},"
        f"{plan.precision}"
    )
    return Score("vp", variant, value, seed, details)


def _layer(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


def _plan(
    name: str, inputs: str, pairs: int | None, train_share: float | None, epochs: int | None, lr: float | None
) -> Protocol:
    """Return the protocol with overrides."""
    if name not in PROTOCOLS or inputs not in get_args(Inputs):
        raise ValueError(
            f"vp: protocol={name!r}, inputs={inputs!r}: choose one of {', '.join(PROTOCOLS)}, and one of "
            f"{', '.join(get_args(Inputs))}"
        )
    given = {"pairs": pairs, "train": train_share, "epochs": epochs, "lr": lr}
    plan = replace(PROTOCOLS[name], **{key: value for key, value in given.items() if value is not None})
    if not 0 < plan.train < 1 - plan.validation or plan.epochs < 1 or not plan.lr > 0 or plan.pairs * plan.train < 2:
        raise ValueError(
            f"vp: pairs={plan.pairs}, train_share={plan.train}, epochs={plan.epochs}, lr={plan.lr}: needs two pairs "
            f"for training, a fraction between 0 and {1 - plan.validation:g}, at least 1 epoch, and a positive "
            "learning rate"
        )
    return plan


def _pairs(
    seen: LatentCoordinates, plan: Protocol, reach: float, noise_scale: float, seed: int, progress: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return first and second images uint8 (pairs, c, h, w), and the coordinate in which they differ (pairs,)."""
    k, lines = len(seen), seen.coordinates
    source = seeded("cpu", seed, "vp pairs")
    latents, classes = seen.draw(plan.pairs, derive(seed, "vp latents"))
    values = (2 * torch.rand(plan.pairs, k, generator=source) - 1) * reach
    index = torch.randint(0, k, (plan.pairs,), generator=source)
    fresh = (2 * torch.rand(plan.pairs, generator=source) - 1) * reach
    before = lines.put(lines.scaled_rest(latents, noise_scale), values)
    after = lines.put_one(before, index, fresh)
    pictures: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    with progress_bar(total=plan.pairs, desc="vp pairs", unit=" pairs", disable=not progress, leave=False) as bar:
        for few in torch.arange(plan.pairs).split(128):
            for z, kept in zip((before, after), pictures, strict=True):
                images = seen.images(z[few], None if classes is None else classes[few])
                kept.append(_shrunk(images, plan.side))
            bar.update(len(few))
    return np.concatenate(pictures[0]), np.concatenate(pictures[1]), index.numpy()


def _shrunk(images: np.ndarray, side: int | None) -> np.ndarray:
    if side is None or max(images.shape[2:]) <= side:
        return images
    return functional.adaptive_avg_pool2d(torch.from_numpy(images).float(), side).round().to(torch.uint8).numpy()


def _split(plan: Protocol, labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows for training, for choosing the epoch (none: the test rows), and for testing."""
    order = torch.randperm(len(labels), generator=seeded("cpu", seed, "vp split")).numpy()
    a, b = round(plan.train * len(labels)), round((plan.train + plan.validation) * len(labels))
    return order[:a], order[a:b], order[b:]


def _input(inputs: str, first: np.ndarray, second: np.ndarray, rows: np.ndarray) -> Tensor:
    """(n, c or 2c, h, w): the difference of images in [-1, 1], or both."""
    one, two = (torch.from_numpy(images[rows]).float() / 127.5 for images in (first, second))
    return one - two if inputs == "diff" else torch.cat([one, two], 1) - 1


def _taught(
    plan: Protocol,
    inputs: str,
    first: np.ndarray,
    second: np.ndarray,
    labels: np.ndarray,
    parts: tuple[np.ndarray, np.ndarray, np.ndarray],
    k: int,
    seed: int,
    place: torch.device,
    progress: bool,
) -> tuple[Judge, list[float], int, float]:
    """Return the network at its best epoch, the validation accuracies, that epoch (from 1), and the last accuracy."""
    train, validation, test = parts
    judged = validation if len(validation) else test
    with seeded_init(seed, "vp net"):
        net = Judge(first.shape[1] * (1 if inputs == "diff" else 2), k)
    net.to(device=place, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    batches = max(1, len(train) // plan.batch_size)
    steps = plan.epochs * batches
    curve: list[float] = []
    best: dict[str, Tensor] = {}
    order: list[np.ndarray] = []

    def score(rows: np.ndarray) -> float:
        return float((_named(net, inputs, first, second, rows) == labels[rows]).mean())

    def loss(step: int) -> Tensor:
        epoch, number = divmod(step, batches)
        if number == 0:
            net.train()
            shuffled = torch.randperm(len(train), generator=seeded("cpu", seed, "vp order", epoch)).numpy()
            order[:] = np.array_split(train[shuffled], batches)
        rows = order[number]
        with torch.autocast(place.type, torch.bfloat16, enabled=plan.precision == "bfloat16"):
            logits = net(_input(inputs, first, second, rows).to(place))
        return functional.cross_entropy(logits.float(), torch.from_numpy(labels[rows]).to(place))

    def after(step: int) -> None:
        nonlocal best
        if (step + 1) % batches == 0:
            curve.append(score(judged))
            if curve[-1] > max(curve[:-1], default=-1.0):
                best = {name: tensor.clone() for name, tensor in net.state_dict().items()}

    fit(
        torch.optim.Adam(net.parameters(), lr=plan.lr),
        loss,
        steps,
        what="vp net",
        rate=(lambda step: plan.lr * (1 + np.cos(np.pi * (step / steps))) / 2) if plan.decay else None,
        after=after,
        progress=progress,
    )
    last = score(test)
    net.load_state_dict(best)
    return net, curve, int(np.argmax(curve)) + 1, last


@torch.no_grad()
def _named(net: Judge, inputs: str, first: np.ndarray, second: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the predicted coordinate (n,) of each row, in eval mode and float32."""
    net.eval()
    place = net.head.weight.device
    pieces = [rows[start : start + LOOK] for start in range(0, len(rows), LOOK)]
    found = [net(_input(inputs, first, second, piece).to(place)).argmax(1).cpu().numpy() for piece in pieces]
    return np.concatenate(found) if found else np.empty(0, np.int64)
