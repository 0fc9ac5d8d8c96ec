"""Neural divergence: how well a newly trained critic separates fakes from reals that the GAN never saw.

Gulrajani, Raffel & Metz (ICLR 2019), used as a score of SRN-GANs by Sanyal, Torr & Dokania (ICLR 2020). With held-out
reals, a generator that only memorizes its training images gets a bad score. Lower is better.

If all images are at a point a and all fakes at b, with W = |a - b|, the best critic rises along the line between them
with slope 1 + W / (2 lambda): the difference of its means is W + W^2 / (2 lambda), and the value, which is this
difference minus the penalty, is W + W^2 / (4 lambda).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from orthogan.data import Batches, ImageSource, to_float
from orthogan.distributed import broadcast_json, hide_progress, rank_and_world
from orthogan.drawing.grid import to_uint8
from orthogan.errors import UserError
from orthogan.evaluation.critic.critic import (
    LOOK_EVERY,
    Critic,
    Pairs,
    Recipe,
    gradient_penalty,
    new_critic,
    train_critic,
)
from orthogan.evaluation.deterministic import choose_device, deterministic_float32, fake_batch
from orthogan.evaluation.finite import IMAGES, Finite, Images, NotFinite
from orthogan.evaluation.metric import Inputs, Metric, register
from orthogan.evaluation.result import MetricResult, made_by
from orthogan.models.generate import model_hash
from orthogan.models.label_table import classes_at
from orthogan.models.protocol import Generator, as_generator
from orthogan.progress import progress_bar
from orthogan.rng import derive
from orthogan.rng import generator as seeded

NAME, SAMPLES = "neural_divergence", 50_000
Drawn = Callable[[int], Tensor]  # index of a batch -> uint8 (n, c, h, w) on the device


@register(NAME)
class NeuralDivergence(Metric):
    """How well a critic separates fakes from images that the GAN has not seen.

    Options: ``critic``, a ``Recipe``, and ``keep``, as in ``neural_divergence``.
    """

    better = "lower"
    needs = frozenset({"generator", "test"})

    def compute(self, inputs: Inputs) -> list[MetricResult]:
        """See ``neural_divergence``."""
        found = neural_divergence(
            inputs.generator,
            inputs.test,
            recipe=inputs.options.get("critic"),
            samples=inputs.samples or SAMPLES,
            keep=inputs.options.get("keep"),
            **inputs.pick("seed", "device", "progress", "info"),
        )
        return [found]


def neural_divergence(
    subject: nn.Module | ImageSource,
    held_out: ImageSource,
    *,
    recipe: Recipe | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = True,
    keep: str | Path | None = None,
    info: Mapping[str, str] | None = None,
) -> MetricResult:
    """Compute E[D(real)] - E[D(fake)] - penalty of a critic D trained with WGAN-GP on ``held_out`` against ``subject``.

    D has the averaged weights of its training; the means are over ``samples`` further reals and fakes of the same
    streams, as published. ``std``: standard error of their difference for this critic; another seed gives another
    critic. The value is the objective of D, as in the published code; ``parts``: the ``difference`` of the means, and
    the ``penalty``. In records of earlier versions the value is the difference; their protocol says "not in the value"
    for the penalty. Images are dequantized from uint8, with all classes equally frequent; D does not see classes.
    Deterministic on a CPU. In a process group, every process trains the same critic.

    Args:
        subject: a generator, or images (such as the training set, for comparison).
        held_out: real images that the GAN was not trained on, of the size of the fakes.
        recipe: how to train the critic (None: as published, 100,000 steps). Results of different recipes are not
            comparable.
        samples: number of images of each kind for the means, rounded up to whole batches.
        keep: file for the state, to resume an interrupted training; deleted at the end.
        info: further facts for the protocol.

    Raises:
        UserError: images of another size, fewer than a batch, numbers out of range, or a loss that is not finite.

    Source: Gulrajani et al. 2020, arXiv:2001.03653.

    Example:
        >>> import orthogan
        >>> from orthogan.evaluation.critic.critic import Recipe
        >>> from orthogan.evaluation.critic.neural_divergence import neural_divergence
        >>> generator = orthogan.load("sprites-sngan")
        >>> held_out = orthogan.open_source("sprites", channels=1, count=16)
        >>> recipe = Recipe(steps=2, batch_size=4, width=2)  # far too short for a meaningful value
        >>> neural_divergence(generator, held_out, recipe=recipe, samples=8, progress=False).metric
        'neural_divergence'
    """
    began, chosen = time.monotonic(), recipe or Recipe()
    if samples < 2:
        raise UserError(f"samples={samples}: must be at least 2")
    net = None if isinstance(subject, ImageSource) else as_generator(subject)
    place = choose_device(net, device)
    main = rank_and_world()[0] == 0
    file = Path(keep) if keep is not None and main else None
    finite = Finite(IMAGES) if net is None else Images(net)
    critic = new_critic(held_out.channels, held_out.resolution, chosen.width, seed=seed)
    with ExitStack() as stack:
        # also for a critic of plain images: its products need the same precision
        stack.enter_context(deterministic_float32(nn.Identity() if net is None else net.to(place), place))
        reals = stack.enter_context(_batches(held_out, chosen, derive(seed, "critic reals"), place))
        if isinstance(subject, ImageSource):
            name, who = subject.name, subject.fingerprint
            others = stack.enter_context(_batches(subject, chosen, derive(seed, "critic fakes"), place))
            drawn = _read(others, chosen)
        else:
            assert net is not None
            name, who = type(subject).__name__, partial(model_hash, net)
            drawn = _drawn(net, chosen, seed, place, finite)
        pairs = _pairs(_read(reals, chosen), drawn, name, seed, place)
        about = "" if file is None else f"fakes {who()}, reals {held_out.fingerprint()}, {place.type}"
        shown = progress and main
        trained = train_critic(critic, pairs, chosen, seed=seed, device=place, progress=shown, keep=file, about=about)
        final = -(-samples // chosen.batch_size)
        real, fake, penalty = _measured(trained, pairs, chosen, final, seed, shown)
    finite.check()
    if not (np.isfinite(real).all() and np.isfinite(fake).all() and np.isfinite(penalty)):
        raise NotFinite(f"critic: its values became NaN or infinite; choose an lr below {chosen.lr:g}")
    if file is not None:
        file.unlink(missing_ok=True)
    # a repeating stream has no more distinct images than this
    there = len(fake) if not isinstance(subject, ImageSource) else min(len(fake), len(subject))
    error = float(np.sqrt(real.var() / min(len(real), len(held_out)) + fake.var() / there))
    difference = float(real.mean() - fake.mean())
    difference, error, penalty = broadcast_json([difference, error, penalty])
    protocol = {
        "samples": len(fake),
        "reference": held_out.name,
        "critic": critic.described,
        "critic training": f"WGAN-GP, {chosen.steps} steps of {chosen.batch_size} pairs",
        "optimiser": f"Adam {chosen.lr:g} falling to 0, betas 0 and 0.9",
        "penalty": f"{chosen.penalty:g}, in the value, as published",
        "weights of the critic": f"average, {chosen.average:g} a step",
        "images": "uint8 / 128 - 1 + U(0, 1/128)",
        "spread": "standard error, of this critic",
        "seed": seed,
        **({} if net is None else {"batch norm": "running statistics"}),
        "dtype": "float32 without TF32",
        "device": place.type,
        **made_by(info, began),
    }
    parts = {"difference": difference, "penalty": penalty}
    return MetricResult(NAME, difference - penalty, "critic", error, parts, protocol, chosen.described)


def _batches(source: ImageSource, recipe: Recipe, seed: int, device: torch.device) -> Batches:
    return Batches(source, batch_size=recipe.batch_size, seed=seed, device=device)


def _read(batches: Batches, recipe: Recipe) -> Drawn:
    """Yield the endless shuffled stream of a source."""
    return lambda index: batches.at(index * recipe.batch_size)[0]


def _drawn(net: Generator, recipe: Recipe, seed: int, device: torch.device, finite: Finite) -> Drawn:
    """Generate new fakes for every batch, cycling through the classes."""
    count = recipe.batch_size

    def draw(index: int) -> Tensor:
        z = net.sample_latent(count, seed=derive(seed, "critic fakes", index))
        labels = classes_at(net, torch.arange(count) + index * count) if net.num_classes else None
        noise = derive(seed, "critic fakes noise", index)
        images = fake_batch(net, z, labels, noise_seed=noise, device=device, finite=finite)
        # every process generates the same images, so each can decide alone
        if index % LOOK_EVERY == 0 and not finite.holds:
            raise NotFinite(IMAGES)
        return to_uint8(images)

    return draw


def _pairs(reals: Drawn, fakes: Drawn, name: str, seed: int, device: torch.device) -> Pairs:
    """Yield both as floats, after checking that the first batches have the same size."""

    def pair(index: int) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            real, fake = reals(index), fakes(index)
            if real.shape != fake.shape:
                raise UserError(
                    f"{name}: produces images {tuple(fake.shape[1:])}, but the held-out images have "
                    f"{tuple(real.shape[1:])}; open them at the same resolution and channels"
                )
            rng = seeded(device, seed, "critic dequantise", index)
            real = to_float(real, dequantize=True, generator=rng)
            return real, to_float(fake, dequantize=True, generator=rng)

    return pair


def _measured(
    critic: Critic, pairs: Pairs, recipe: Recipe, batches: int, seed: int, progress: bool
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return values of the trained critic on reals and fakes (n,) float64, and the penalty between them."""
    real: list[Tensor] = []
    fake: list[Tensor] = []
    paid = 0.0
    for index in progress_bar(
        range(recipe.steps, recipe.steps + batches), desc=NAME, disable=hide_progress(progress), leave=False
    ):
        images = pairs(index)
        for values, some in zip((real, fake), images, strict=True):
            values.append(critic(some).cpu().double())
        with torch.enable_grad():
            paid += float(gradient_penalty(critic, *images, recipe.penalty, seed=seed, index=index).detach())
    return torch.cat(real).numpy(), torch.cat(fake).numpy(), paid / batches
