"""Adversarial images for classifiers of images in [-1, 1], with the Adversarial Robustness Toolbox (extra ``robust``).

ART is the only maintained library: Foolbox has been unmaintained since 2024, torchattacks since 2023, advertorch since
2020.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from orthogan.data import ImageSource, to_float
from orthogan.distributed import gather, hide_progress, share_of_rank
from orthogan.errors import UserError, install
from orthogan.evaluation.finite import LOGITS, Finite
from orthogan.evaluation.metric import METRICS, Inputs
from orthogan.evaluation.robustness.accuracy import (
    ClassifierMetric,
    Robustness,
    check_classes,
    open_labelled,
    protocol_of,
)
from orthogan.models.modes import eval_mode, get_device
from orthogan.progress import progress_bar
from orthogan.rng import derive

KINDS = ("fgsm", "pgd")
NORMS = {"inf": np.inf, "2": 2}
EPS = {"inf": (2.0, 8.0), "2": (32.0, 128.0)}  # by norm [1/255]; most publications use the second one
STEPS, RESTARTS = 20, 1
PACKAGE = "adversarial-robustness-toolbox"


@dataclass(frozen=True)
class Attack:
    """An attack on images.

    ``kind``: fgsm (Goodfellow et al. 2015; one step, along the gradient itself if ``norm`` is "2") or pgd (Madry et al.
    2018). ``norm``: "inf" or "2", of the whole perturbation. ``eps``: its largest size [1/255 of images in [0, 1]];
    0 keeps the image. Only for pgd: ``steps`` steps of size ``step`` [1/255] (None: 2.5 eps / steps, at most eps), from
    each of ``restarts`` random points in the ball (0: once, from the image itself).

    Raises:
        UserError: an invalid value; the message names the key.
    """

    kind: str = "pgd"
    norm: str = "inf"
    eps: float = 8.0
    steps: int = STEPS
    step: float | None = None
    restarts: int = RESTARTS

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"attack {self.kind!r}: choose {' or '.join(KINDS)}")
        if self.norm not in NORMS:
            raise UserError(f"norm {self.norm!r}: choose {' or '.join(NORMS)}")
        if not (math.isfinite(self.eps) and self.eps >= 0):
            raise UserError(f"eps is {self.eps}: must be the size of the perturbation in 1/255, such as 8")
        if self.steps < 1:
            raise UserError(f"steps is {self.steps}: must be at least 1")
        if self.step is not None and self.step <= 0:
            raise UserError(f"step is {self.step}: must be its size in 1/255, or none for 2.5 eps / steps")
        if self.restarts < 0:
            raise UserError(
                f"restarts is {self.restarts}: must be a number of random starts, or 0 to start from the image itself"
            )

    @property
    def step_size(self) -> float:
        """Size of one step of pgd [1/255]."""
        return min(self.eps, 2.5 * self.eps / self.steps) if self.step is None else self.step

    @property
    def variant(self) -> str:
        """Everything that affects the number."""
        size = f"L{self.norm} {self.eps:g}/255"
        if self.kind == "fgsm":
            return size
        return f"{size}, {self.steps} steps of {self.step_size:g}, {self.restarts} restarts"


class AttackMetric(ClassifierMetric):
    """Accuracy under an attack, one result for each size.

    Options: ``attack_norm``, ``eps``, ``steps``, ``restarts``, as in ``Attack``.
    """

    def __init__(self, kind: str) -> None:
        self.name = kind

    def check(self, inputs: Inputs) -> None:
        """Check the attack and its library."""
        super().check(inputs)
        self._attacks(inputs)
        need_art()

    def compute(self, inputs: Inputs) -> list[Robustness]:
        """See ``attacked_accuracy``."""
        options = inputs.pick("samples", "batch_size", "seed", "progress", "info")
        nets = inputs.classifier, inputs.test
        return [attacked_accuracy(*nets, attack, **options) for attack in self._attacks(inputs)]

    def _attacks(self, inputs: Inputs) -> list[Attack]:
        given = {name: value for name, value in inputs.options.items() if value is not None}
        norm = given.get("attack_norm", "inf")
        steps, restarts = given.get("steps", STEPS), given.get("restarts", RESTARTS)
        return [
            Attack(self.name, norm, size, steps, None, restarts) for size in given.get("eps", EPS.get(norm, (8.0,)))
        ]


for _kind in KINDS:
    METRICS.register(_kind)(AttackMetric(_kind))


def attacked_accuracy(
    net: nn.Module,
    source: ImageSource,
    attack: Attack,
    *,
    samples: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
    info: Mapping[str, str] | None = None,
) -> Robustness:
    """Compute the fraction of images that ``net`` classifies correctly both unchanged and under ``attack``.

    ``parts`` contains ``clean``, the accuracy without attack. Arguments and errors as in ``evaluate_classifier``. The
    random starts of an image depend on ``seed``, ``batch_size`` and its position in the batch. Everything runs in eval
    mode and float32.
    """
    began = time.monotonic()
    device, chosen = get_device(net), open_labelled(source, samples, seed)
    count = len(chosen)
    batches = [chosen[start : start + batch_size] for start in range(0, count, batch_size)]
    shape = (source.channels, source.resolution, source.resolution)
    sums = torch.zeros(2, dtype=torch.float64)
    finite = Finite(LOGITS)
    title = f"{attack.kind} {attack.eps:g}/255"
    # the attacker computes gradients itself; parameters do not change, so a constrained weight is computed once
    with eval_mode(net), parametrize.cached():
        check_classes(net, source, device)
        attacker = Attacker(net, attack, shape=shape, num_classes=source.num_classes)
        todo = range(*share_of_rank(len(batches)))
        for index in progress_bar(todo, title, unit="batch", disable=hide_progress(progress)):
            pixels, labels = source.read(batches[index])
            images = to_float(torch.from_numpy(np.ascontiguousarray(pixels)).to(device), dequantize=False)
            truth = torch.from_numpy(labels).to(device)
            answers, shaken = net(images), net(attacker(images, truth, seed=derive(seed, "attack", index)))
            finite.watch(answers)
            finite.watch(shaken)
            right = answers.argmax(1) == truth
            withstood = right & (shaken.argmax(1) == truth)
            sums += torch.stack([right.sum(), withstood.sum()]).double().cpu()
    finite.check()
    clean, robust = (torch.stack(gather(sums)).sum(0) / count).tolist()
    about = {"attack": attack.variant, "attack library": f"{PACKAGE} {need_art()}", "batch size": batch_size}
    protocol = protocol_of(net, source, count, seed, about, info, began)
    return Robustness(attack.kind, robust, "none", None, {"clean": clean}, protocol, attack.variant)


def need_art() -> str:
    """Return the version of ART; raises ``UserError`` if it is not installed."""
    if importlib.util.find_spec("art") is not None:
        try:
            return importlib.metadata.version(PACKAGE)
        except importlib.metadata.PackageNotFoundError:  # another package with the same name
            pass
    raise UserError(f"fgsm and pgd need {PACKAGE}: {install('robust')}; corruptions need no extra package")


class Attacker:
    """Applies ``attack`` to ``net``, which must be in eval mode: call it with images and their labels.

    Args:
        shape: shape of one image (c, h, w).
        num_classes: number of logits.

    Raises:
        UserError: ART is not installed, or does not support the device of the network.
    """

    def __init__(self, net: nn.Module, attack: Attack, *, shape: tuple[int, ...], num_classes: int) -> None:
        self.net, self.attack, self.num_classes = net, attack, num_classes
        self.device = get_device(net)
        need_art()
        if self.device.type not in ("cpu", "cuda"):
            raise UserError(f"fgsm and pgd run on cpu or cuda, not {self.device.type}; choose the device cpu")
        self._make = self._method(shape) if attack.eps > 0 else None

    def __call__(self, images: Tensor, labels: Tensor, *, seed: int = 0) -> Tensor:
        """Map images (n, c, h, w) in [-1, 1] and labels (n,) to adversarial images within eps, in [-1, 1].

        The parameters of the network and their gradients are not changed.
        """
        if self._make is None:
            return images.clone()
        start = (images + 1) / 2
        targets = functional.one_hot(labels, self.num_classes).float()
        with _still(self.net), _seeded(seed), torch.enable_grad(), self._here():
            found = self._make.generate(x=start.cpu().numpy(), y=targets.cpu().numpy())
        # add the difference, so that unchanged pixels stay bit-identical
        change = torch.from_numpy(found).to(start) - start
        return (images + 2 * change).clamp(-1, 1)

    def _method(self, shape: tuple[int, ...]) -> Any:
        attack = self.attack
        evasion = importlib.import_module("art.attacks.evasion")
        classifiers = importlib.import_module("art.estimators.classification")
        with self._here():
            estimator = classifiers.PyTorchClassifier(
                model=_Unit(self.net),
                loss=nn.CrossEntropyLoss(),
                input_shape=shape,
                nb_classes=self.num_classes,
                clip_values=(0.0, 1.0),
                device_type="gpu" if self.device.type == "cuda" else "cpu",
            )
        common: dict[str, Any] = {"norm": NORMS[attack.norm], "eps": attack.eps / 255, "batch_size": 2**30}
        if attack.kind == "fgsm":
            return evasion.FastGradientMethod(estimator, **common)
        return evasion.ProjectedGradientDescent(
            estimator,
            eps_step=attack.step_size / 255,
            max_iter=attack.steps,
            num_random_init=attack.restarts,
            verbose=False,
            **common,
        )

    @contextmanager
    def _here(self) -> Iterator[None]:
        """Make this the current GPU, which ART uses."""
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                yield
        else:
            yield


class _Unit(nn.Module):
    """The network for images in [0, 1]; logits in float32."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(2 * x - 1).float()


@contextmanager
def _still(net: nn.Module) -> Iterator[None]:
    """Disable gradients of the parameters."""
    wanted = [p for p in net.parameters() if p.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, which ART uses, and restore it afterward, as well as torch's."""
    before = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        np.random.set_state(before)
