"""Empirical Lipschitz constants of a discriminator: |D(x) - D(y)| / ||x - y|| over pairs of real and generated images.

Sanyal, Torr & Dokania (ICLR 2020) draw them as histograms. Each is a lower bound on the Lipschitz constant of D; the
product of the norms of its layers is an upper bound.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from orthogan.data import ImageSource, to_float
from orthogan.data.order import subset
from orthogan.distributed import broadcast_json, hide_progress
from orthogan.errors import UserError
from orthogan.evaluation.deterministic import choose_device, deterministic_float32, fake_batch
from orthogan.evaluation.finite import Finite, Images
from orthogan.evaluation.images import latents
from orthogan.evaluation.metric import Inputs, Metric, register
from orthogan.evaluation.result import MetricResult, made_by
from orthogan.models.label_table import label_table
from orthogan.models.protocol import Generator, as_generator
from orthogan.penalties.input_gradient import between, squared_norm, track_gradient
from orthogan.progress import progress_bar
from orthogan.rng import derive
from orthogan.rng import generator as seeded
from orthogan.words import counted

NAME, PAIRS = "lipschitz", 10_000
KINDS = ("real-real", "real-fake", "fake-fake")
SHOWN = "real-fake"  # the pairs whose mean is the value: the ones that the loss makes D distinguish
GRADIENT = "gradient "  # prefix of the kind in the names of the gradient norms


@register(NAME)
class Lipschitz(Metric):
    """Steepness of the discriminator between real and generated images; neither lower nor higher is better."""

    needs = frozenset({"generator", "discriminator", "train"})
    samples = PAIRS

    def compute(self, inputs: Inputs) -> list[MetricResult]:
        """See ``lipschitz``."""
        options = inputs.pick("batch_size", "seed", "device", "progress", "info")
        nets = inputs.discriminator, inputs.generator
        return [lipschitz(*nets, inputs.train, pairs=inputs.samples or PAIRS, **options)[0]]


def lipschitz(
    discriminator: nn.Module,
    generator: nn.Module,
    reals: ImageSource,
    *,
    pairs: int = PAIRS,
    gradients: bool = False,
    batch_size: int = 100,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = True,
    info: Mapping[str, str] | None = None,
) -> tuple[MetricResult, dict[str, np.ndarray]]:
    """Compute |D(x) - D(y)| / ||x - y||_2 for each of ``KINDS``, (n,) float64, and a summary as a result.

    ``pairs`` reals (or all of them) and as many fakes are drawn; each real is paired with the fake at the same index
    and with the next real, each fake with the next fake. With classes, both images of a pair have the same class, which
    D gets as well. D is in eval mode, so power iterations do not advance. The ``value`` is the mean over real-fake
    pairs, ``std`` its standard error; ``parts`` are mean, median, 99th percentile and maximum of each kind. Pairs of
    equal images are ignored. For a D that uses the whole batch (minibatch deviation) the numbers depend on the batch
    size. In a process group, every process computes everything.

    Args:
        discriminator: images (n, c, h, w) in [-1, 1] (and labels) -> (n,); moved to ``device``, as the generator is.
        generator: the generator of the fakes.
        reals: training images or others, with the classes of the networks, if any.
        pairs: number of pairs of each kind, at most the number of reals.
        gradients: also compute ||grad D|| at a random point between the images of every pair, as "gradient real-real",
            ….
        batch_size: images per batch.
        seed: random seed.
        device: by default that of the discriminator.
        info: further facts for the protocol.

    Raises:
        UserError: networks and images have different classes or sizes, there are fewer than two images, or values are
            not finite.

    Example:
        >>> import orthogan
        >>> from orthogan.evaluation.critic.lipschitz import lipschitz
        >>> from orthogan.models import SNGANDiscriminator
        >>> generator = orthogan.load("sprites-sngan")
        >>> discriminator = SNGANDiscriminator(resolution=32, image_channels=1, channels=4)
        >>> reals = orthogan.open_source("sprites", channels=1, count=16)
        >>> result, quotients = lipschitz(discriminator, generator, reals, pairs=8, progress=False)
        >>> sorted(quotients)
        ['fake-fake', 'real-fake', 'real-real']
    """
    began, net = time.monotonic(), as_generator(generator)
    classes = _classes(discriminator, net, reals)
    count = min(pairs, len(reals))
    if count < 2 or batch_size < 1:
        raise UserError(f"pairs={pairs}, batch_size={batch_size}, {len(reals)} reals: must be at least 2, 1 and 2")
    place = choose_device(discriminator, device)
    discriminator.to(place)
    net.to(place)
    found: dict[str, list[Tensor]] = {}
    # where the gradient is computed between the images of a pair
    at = {kind: torch.rand(count, generator=seeded("cpu", seed, "lipschitz between", kind)) for kind in KINDS}
    finite = Images(net)
    bar = progress_bar(total=count, desc=NAME, unit="pair", disable=hide_progress(progress), leave=False)
    with deterministic_float32(net, place), deterministic_float32(discriminator, place), bar:
        before: dict[str, _Seen] = {}
        for real, fake in _images(net, reals, classes, count, batch_size, seed, place, finite):
            now = {"real": _seen(discriminator, *real), "fake": _seen(discriminator, *fake)}
            for kind in KINDS:
                first, second = kind.split("-")
                a, b = (now[first], now[second]) if first != second else _neighbours(before.get(first), now[first])
                far = (a.images - b.images).flatten(1).norm(dim=1).cpu().double()
                there = far > 0
                found.setdefault(kind, []).append(((a.values - b.values).abs() / far)[there])
                here, at[kind] = at[kind].split([len(far), len(at[kind]) - len(far)])
                if gradients and len(far):
                    found.setdefault(GRADIENT + kind, []).append(_slopes(discriminator, a, b, here)[there])
            before = {kind: one.part(slice(-1, None)) for kind, one in now.items()}
            bar.update(len(real[0]))
    finite.check()
    quotients = {kind: torch.cat(parts).numpy() for kind, parts in found.items()}
    for kind, values in quotients.items():
        if not len(values) or not np.isfinite(values).all():
            reason = "all images are equal" if not len(values) else "D has NaN or infinite values"
            raise UserError(f"lipschitz, {kind}: {reason}; check the images and the discriminator")
    protocol = {
        "samples": count,
        "reference": reals.name,
        "pairs": "each real with its fake and the next real, each fake with the next; equal images left out",
        "classes": "both images of a pair of one class" if classes else "none",
        "spread": f"standard error of the mean over {SHOWN} pairs",
        "seed": seed,
        "batch norm": "running statistics",
        "dtype": "float32 without TF32",
        "device": place.type,
        **made_by(info, began),
    }
    parts = {f"{kind} {name}": number for kind, values in quotients.items() for name, number in _numbers(values)}
    shown = quotients[SHOWN]
    error = float(shown.std(ddof=1)) / len(shown) ** 0.5 if len(shown) > 1 else None
    value, error, parts = broadcast_json([float(shown.mean()), error, parts])
    return MetricResult(NAME, value, "discriminator", error, parts, protocol), quotients


@dataclass(frozen=True)
class _Seen:
    """Images (n, c, h, w), the values of D (n,) float64 on the CPU, and the classes (n,)."""

    images: Tensor
    values: Tensor
    labels: Tensor

    def part(self, rows: slice | Tensor) -> _Seen:
        where = rows if isinstance(rows, slice) else rows.cpu()
        return _Seen(self.images[rows], self.values[where], self.labels[rows])


def _classes(discriminator: nn.Module, net: Generator, reals: ImageSource) -> int:
    """Return the number of classes of the networks, 0 for none."""
    known = int(getattr(discriminator, "num_classes", 0)), net.num_classes
    classes = max(known)
    if classes and (reals.num_classes != classes or min(known) not in (0, classes)):
        raise UserError(
            f"lipschitz: the discriminator has {known[0]} classes, the generator {known[1]} and {reals.name} "
            f"{reals.num_classes}; use networks of one run and images of its data set, with labels"
        )
    table, vectors = label_table(net), reals.label_vectors
    if table is None or vectors is None:
        unlike = table is not None or vectors is not None
    else:
        unlike = not np.array_equal(table.vectors.cpu().numpy(), vectors)
    if classes and unlike:
        raise UserError(
            f"lipschitz: the label vectors of {reals.name} are not those of the generator; use the images that it was "
            "trained on"
        )
    return classes


def _images(
    net: Generator,
    reals: ImageSource,
    classes: int,
    count: int,
    batch_size: int,
    seed: int,
    device: torch.device,
    finite: Finite,
) -> Iterator[tuple[tuple[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]]:
    """Yield batches of (reals, classes) and (fakes, classes) as floats, one class after the other."""
    order = subset(derive(seed, "lipschitz reals"), len(reals), count)
    if classes:
        cuts = range(0, count, batch_size)
        labels = np.concatenate([reals.read(order[start : start + batch_size])[1] for start in cuts])
        order = order[labels.argsort(kind="stable")]
    for start in range(0, count, batch_size):
        stop = min(start + batch_size, count)
        pixels, labels = reals.read(order[start:stop])
        y = torch.from_numpy(labels).to(device) if classes else None
        real = to_float(torch.from_numpy(np.ascontiguousarray(pixels)).to(device), dequantize=False)
        z, noise = latents(net, start, stop, seed), derive(seed, "lipschitz noise", start)
        told = y if net.num_classes else None
        fake = fake_batch(net, z, told, noise_seed=noise, device=device, finite=finite).float()
        if fake.shape != real.shape:
            raise UserError(
                f"lipschitz: the generator produces images {tuple(fake.shape[1:])}, but {reals.name} has "
                f"{tuple(real.shape[1:])}; open it at the same resolution and channels"
            )
        yield (real, y), (fake, y)


def _seen(discriminator: nn.Module, images: Tensor, labels: Tensor | None) -> _Seen:
    known = labels if getattr(discriminator, "num_classes", 0) else None
    values = discriminator(images) if known is None else discriminator(images, known)
    if values.shape != (len(images),):
        raise UserError(
            f"{type(discriminator).__name__}: returns shape {tuple(values.shape)} for {counted(len(images), 'image')}; "
            "a discriminator must return one number per image, (n,)"
        )
    same = torch.zeros(len(images), dtype=torch.int64, device=images.device) if labels is None else labels
    return _Seen(images, values.cpu().double(), same)


def _neighbours(before: _Seen | None, now: _Seen) -> tuple[_Seen, _Seen]:
    """Pair each image with the next one of its class; ``before`` is the last one of the previous batch."""
    if before is not None:
        fields = ("images", "values", "labels")
        now = _Seen(*(torch.cat([getattr(before, name), getattr(now, name)]) for name in fields))
    same = now.labels[:-1] == now.labels[1:]
    return now.part(slice(None, -1)).part(same), now.part(slice(1, None)).part(same)


def _slopes(discriminator: nn.Module, a: _Seen, b: _Seen, at: Tensor) -> Tensor:
    """Return the norms (n,) of D's gradients at fractions ``at`` (n,) between each pair, float64 on the CPU."""
    origin = torch.zeros((), device=a.images.device, requires_grad=True)
    with torch.enable_grad():
        points = track_gradient(between(a.images, b.images, at), origin)
        known = getattr(discriminator, "num_classes", 0)
        values = discriminator(points, a.labels) if known else discriminator(points)
        return squared_norm(values, points).detach().sqrt().cpu().double()


def _numbers(values: np.ndarray) -> list[tuple[str, float]]:
    """Summarize a histogram."""
    return [
        ("mean", float(values.mean())),
        ("median", float(np.median(values))),
        ("99%", float(np.percentile(values, 99))),
        ("max", float(values.max())),
    ]
