"""Detection of an overfitted or dead discriminator and of a collapsed generator, reported once per episode.

Overfitting is measured as in Karras et al. 2020 (arXiv 2006.06676, equation 1): the share

    r_v = (E[D(training images)] - E[D(held-out images)]) / (E[D(training images)] - E[D(fakes)])

of the gap between training images and fakes by which D also rates held-out images lower. It is 0 where D cannot tell
held-out images from training images and 1 where it takes them for fakes.

Collapse is measured by the distances of fakes from each other, as a share of those of real images: the mean over all
pairs (``spread``), which falls when all fakes become alike, and the median distance to the nearest other fake
(``spacing``), which also falls when fakes repeat a few images. Distances are Euclidean, of pixels at ``SIDE`` x
``SIDE``, so they are blind to details that keep a fake apart from its copies.

A discriminator is dead when it gives nearly the same logit to all images, training images and fakes alike. Its gradient
is then zero and G learns nothing; it does not recover.

Everything is measured in eval mode on the main process, with separate images, latents and random numbers, so training
does not depend on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.config.schema import Config
from orthogan.data import ImageSource, permuted_index, to_float
from orthogan.errors import UserError
from orthogan.models.label_table import classes_at
from orthogan.models.modes import eval_mode
from orthogan.models.protocol import Generator
from orthogan.rng import derive, generator
from orthogan.size import sides

IMAGES = 256  # of each kind: training, held out, fake
MOST_PIXELS = 1 << 24  # of the images of one kind together; large images are fewer, but at least 32
SIDE = 16  # pixels
# Six GANs trained on 50,000 faces (32 px, SN-GAN and EigenGAN, 1,000 to 4,000 steps) have 0.00 to 0.08; an SN-GAN that
# trains on 48 of them without augmentation has 0.29 to 0.46 between steps 100 and 400.
OVERFIT = 0.25
ERRORS = 3.0  # the gap must be so many standard errors of its own, which depends on IMAGES
# Shares of the best value so far. The six GANs have a spread of 0.86 to 0.96 and a spacing of 0.61 to 0.98; two shipped
# GANs of sprites have 0.90 to 0.98 and 0.78 to 1.01. An SN-GAN that collapses because its learning rate is 40 times too
# high has a spread of 0.75, 0.60, 0.52 and 0.43 at steps 100, 150, 175 and 200, when all its fakes look alike.
COLLAPSED = {"spread": 0.7, "spacing": 0.5}
# Shares of the distances of real images, in the second half of a run.
NEVER_VARIED = {"spread": 0.4, "spacing": 0.25}
# Standard deviation of the logits of training images and fakes together: 0.34 to 0.91 for three trained GANs (faces and
# Fashion-MNIST at 32 px). An SN-GAN of CIFAR-10 whose D died at a learning rate of 2e-3 gave all images exactly 0.
DEAD = 1e-3
OVER = 0.8  # an episode is over when the sign is this much better than its threshold
IN_A_ROW = 2  # measurements that must agree: one may be an accident
SMALL = 10_000  # images; a smaller set without held-out images is worth a word


class Health:
    """The measurements of one run, and what was told.

    Args:
        source: the images that D is trained on.
        held_out: opens images that D is not trained on; raises ``UserError`` where there are none.
        classes: of the nets; 0 for none.
    """

    def __init__(
        self, config: Config, source: ImageSource, held_out: Callable[[], ImageSource], *, classes: int
    ) -> None:
        self.config, self.source, self.classes = config, source, classes
        self._open = held_out
        self._held: tuple[Tensor, Tensor] | None = None
        self._known: tuple[Tensor, Tensor] | None = None
        self._asked = False
        # of overfitting, collapse, missing held-out images, a dead D: measurements in a row, whether it was told
        self._state = torch.zeros(4, 2)
        self._best = torch.zeros(2)  # the largest spread and spacing so far
        self._news: list[str] = []

    def numbers(self, net: Generator, critic: nn.Module, *, step: int, device: torch.device) -> dict[str, float]:
        """``overfit`` (r_v), ``spread``, ``spacing``, and the mean logits they come from.

        A net whose output is not finite has none: the watch of the training loop names the trouble.
        """
        self._read()
        assert self._known is not None
        chance = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
        with chance, eval_mode(net), eval_mode(critic):
            fakes = self._fakes(net, device)
            real = self._reals(*self._known, device=device, purpose="training")
            values = {"logit_training": self._logits(critic, *real), "logit_fake": self._logits(critic, *fakes)}
            if self._held is not None:
                held = self._reals(*self._held, device=device, purpose="held out")
                values["logit_held_out"] = self._logits(critic, *held)
        if not all(bool(torch.isfinite(some).all()) for some in (fakes[0], *values.values())):
            return {}
        found = {name: float(some.mean()) for name, some in values.items()}
        (spread, spacing), of_reals = distances(fakes[0]), distances(real[0])
        if of_reals[0] > 0:
            found["spread"] = spread / of_reals[0]
        if of_reals[1] > 0:
            found["spacing"] = spacing / of_reals[1]
        if self._held is not None:
            found["overfit"] = self._judge_overfitting(values, step)
        self._judge_collapse(found, step)
        self._judge_life(torch.cat([values["logit_training"], values["logit_fake"]]), step)
        return found

    def pop_warnings(self) -> list[str]:
        """The warnings since the last call."""
        found, self._news = self._news, []
        return found

    def state(self) -> dict[str, Tensor]:
        """What must be stored so that a resumed run warns as one in a single session does."""
        return {"health": self._state, "health_best": self._best}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of ``state``."""
        if "health" in tensors:
            self._state[: len(tensors["health"])] = tensors["health"]
            self._best.copy_(tensors["health_best"])

    def _judge_overfitting(self, values: dict[str, Tensor], step: int) -> float:
        training, held, fake = (values[name] for name in ("logit_training", "logit_held_out", "logit_fake"))
        gap, whole = float(training.mean() - held.mean()), float(training.mean() - fake.mean())
        error = float((training.var() / len(training) + held.var() / len(held)).sqrt())
        share = gap / whole if whole > 0 else 0.0
        bad = share > OVERFIT and gap > ERRORS * error
        if self._begins(0, bad, over=share < OVERFIT * OVER):
            self._news.append(
                f"step {step}: D overfits: its mean logit of held-out images is {share:.0%} of the way from training "
                f"images to fakes ({gap:.2g} of {whole:.2g}). {self._cure()}"
            )
        return share

    def _cure(self) -> str:
        config = self.config
        cures = []
        if config.augment.kind == "none":
            cures.append("set augment.kind to ada (or diffaugment)")
        penalty = config.loss.gradient_penalty
        if penalty.kind == "none":
            cures.append("add loss.gradient_penalty={kind: r1, weight: 1}")
        else:
            cures.append(f"raise loss.gradient_penalty.weight above {penalty.weight:g}")
        cures.append("train on more images")
        text = ", ".join(cures)
        return f"{text[0].upper()}{text[1:]}, or stop here and use the best checkpoint"

    def _judge_collapse(self, found: dict[str, float], step: int) -> None:
        late = step / self.config.training.steps >= 0.5
        signs: list[str] = []
        over = True
        for i, (name, words) in enumerate((("spread", "all alike"), ("spacing", "near copies of each other"))):
            if (value := found.get(name)) is None:
                continue
            best = min(1.0, float(self._best[i]))
            fallen = COLLAPSED[name] * best
            least = max(fallen, NEVER_VARIED[name] if late else 0.0)
            if value < least:
                signs.append(
                    f"its images become {words} ({name} {value:.2f} of that of real images; it was {best:.2f})"
                    if value < fallen
                    else f"its images are {words} ({name} {value:.2f} of that of real images)"
                )
            over &= value >= least / OVER
            self._best[i] = max(float(self._best[i]), value)
        if self._begins(1, bool(signs), over=over):
            updates = self.config.training.d_steps_per_g_step
            self._news.append(
                f"step {step}: G collapses: {' and '.join(signs)}. Lower optimizer.generator.lr, raise "
                f"training.d_steps_per_g_step above {updates} or training.batch_size, or add "
                "loss.gradient_penalty={kind: r1, weight: 1}; then train again, or resume from an earlier checkpoint"
            )

    def _judge_life(self, logits: Tensor, step: int) -> None:
        deviation = float(logits.std())
        if not self._begins(3, deviation < DEAD, over=deviation > DEAD / OVER):
            return
        cures = ["lower optimizer.discriminator.lr"]
        penalty = self.config.loss.gradient_penalty
        if penalty.kind != "none":
            cures.append(f"lower loss.gradient_penalty.weight below {penalty.weight:g}")
        if self.config.model.discriminator.norm.kind != "none":
            cures.append("set model.discriminator.norm.kind=none")
        self._news.append(
            f"step {step}: D is dead: it gives nearly the same logit to all images (standard deviation "
            f"{deviation:.1g}), so G learns nothing. Stop, {' or '.join(cures)}, and train again"
        )

    def _begins(self, row: int, bad: bool, *, over: bool) -> bool:
        """Whether an episode begins: the sign was bad ``IN_A_ROW`` times, and no word of it since it was well."""
        count, told = (float(value) for value in self._state[row])
        count = count + 1 if bad else 0.0
        told = 0.0 if over else told
        begins = count >= IN_A_ROW and not told
        self._state[row] = torch.tensor([count, 1.0 if begins else told])
        return begins

    def _read(self) -> None:
        """Read the images once, when they are first needed."""
        if self._known is None:
            self._known = self._some(self.source, "training")
        if self._asked:
            return
        self._asked = True
        try:
            self._held = self._some(self._same_labels(self._open()), "held out")
        except UserError as error:
            if len(self.source) < SMALL and self.config.augment.kind == "none" and not self._state[2, 1]:
                self._state[2, 1] = 1.0
                self._news.append(
                    f"no held-out images, so overfitting of D cannot be detected ({error}). With "
                    f"{len(self.source):,} images D may overfit: set data.holdout=0.05 to detect it, or "
                    "augment.kind=ada to prevent it"
                )

    def _same_labels(self, held: ImageSource) -> ImageSource:
        """Return ``held``. Raises UserError if its labels mean something else than those that D knows."""
        if not self.classes:
            return held
        vectors, known = held.label_vectors, self.source.label_vectors
        if known is None and list(held.class_names) == list(self.source.class_names):
            return held
        if known is not None and vectors is not None and vectors.shape[1] == known.shape[1]:
            return held
        raise UserError(f"{held.name} and {self.source.name} have different labels")

    def _some(self, source: ImageSource, purpose: str) -> tuple[Tensor, Tensor]:
        pixels = source.channels * math.prod(sides(source.resolution))
        count = min(len(source), IMAGES, max(32, MOST_PIXELS // pixels))
        images, labels = source.read(permuted_index(derive(self.config.seed, "health", purpose), len(source), 0, count))
        if self.classes and source.label_vectors is not None:  # other images may number the vectors differently
            labels = source.label_vectors[labels]
        return torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels)

    def _reals(
        self, images: Tensor, labels: Tensor, *, device: torch.device, purpose: str
    ) -> tuple[Tensor, Tensor | None]:
        rng = generator(device, self.config.seed, "health", purpose)
        floats = to_float(images.to(device), dequantize=self.config.data.dequantize, generator=rng)
        return floats, labels.to(device) if self.classes else None

    def _fakes(self, net: Generator, device: torch.device) -> tuple[Tensor, Tensor | None]:
        assert self._known is not None
        count = len(self._known[0])
        z = net.sample_latent(count, seed=derive(self.config.seed, "health", "latents")).to(device)
        labels = classes_at(net, torch.arange(count, device=device)) if self.classes else None
        size = self.config.evaluation.batch_size
        parts = [None] * -(-count // size) if labels is None else labels.split(size)
        fakes = [net(few, some).float() for few, some in zip(z.split(size), parts, strict=True)]
        return torch.cat(fakes), labels

    def _logits(self, critic: nn.Module, images: Tensor, labels: Tensor | None) -> Tensor:
        size = self.config.evaluation.batch_size
        parts = [None] * -(-len(images) // size) if labels is None else labels.split(size)
        return torch.cat([critic(few, some).float() for few, some in zip(images.split(size), parts, strict=True)])


def distances(images: Tensor) -> tuple[float, float]:
    """(mean distance over all pairs, median distance to the nearest other) of ``images`` (n, c, h, w), n >= 2."""
    side = min(SIDE, *images.shape[2:])
    points = functional.adaptive_avg_pool2d(images.float(), side).flatten(1)
    table = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    mean = float(table.sum()) / (len(points) * (len(points) - 1))
    nearest = table.fill_diagonal_(torch.inf).amin(1)
    return mean, float(nearest.median())
