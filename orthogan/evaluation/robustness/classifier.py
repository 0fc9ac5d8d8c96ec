"""What a classifier still gets right when its images are corrupted or attacked; all its metrics by name."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize
from tqdm import tqdm

from orthogan import __version__
from orthogan.data import ImageSource, to_float
from orthogan.distributed import broadcast_json, gather, hide_progress, share_of_rank
from orthogan.errors import UserError
from orthogan.evaluation.finite import LOGITS, Finite
from orthogan.evaluation.names import metric_names
from orthogan.evaluation.robustness.accuracy import Accuracy, accuracy, open_labelled
from orthogan.evaluation.robustness.attacks import KINDS, PACKAGE, RESTARTS, STEPS, Attack, Attacker, need_art
from orthogan.evaluation.robustness.corruptions import CORRUPTIONS, SET, SEVERITIES, Corrupted
from orthogan.models.modes import eval_mode, get_device
from orthogan.rng import derive

METRICS = ("accuracy", "corruptions", *KINDS)
EPS = {"inf": (2.0, 8.0), "2": (32.0, 128.0)}  # by norm [1/255]; the second is that of most publications


@dataclass(frozen=True, repr=False)
class Robustness(Accuracy):
    """The share of images whose class was found in spite of something [0-1]."""

    @property
    def label(self) -> str:
        """``corruptions``, ``pgd[Linf 8/255, …]``."""
        return f"{self.metric}[{self.variant}]" if self.variant else self.metric

    def one_line(self) -> str:
        """The value in percent, and what it was measured on; the parts are many."""
        return f"{self.label} {self.value:.2%} ({self.protocol['samples']} images of {self.protocol['reference']})"


def evaluate_classifier(
    net: nn.Module,
    source: ImageSource,
    *,
    metrics: Sequence[str] = ("accuracy",),
    norm: str = "inf",
    eps: Sequence[float] | None = None,
    steps: int = STEPS,
    restarts: int = RESTARTS,
    samples: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
    info: Mapping[str, str] | None = None,
) -> list[Accuracy]:
    """The ``metrics`` of ``net`` on ``source``, in their order; an attack gives one result for each ``eps``.

    In a process group every process calls this with the same arguments, does its share, and gets the same results.

    Args:
        net: images (n, c, h, w) in [-1, 1] -> logits (n, classes); its mode is restored.
        metrics: out of accuracy, corruptions, fgsm, pgd.
        norm, eps, steps, restarts: see ``Attack``; eps None: 2 and 8 of norm "inf", 32 and 128 of norm "2".
        samples: look at a random subset of so many images, a function of ``seed`` (None, or too many: all).
        info: further facts for the protocol.

    Raises:
        UserError: no such metric, images without classes, a library that is missing, an attack that means nothing.
    """
    metrics = metric_names(metrics, METRICS)
    # what may fail comes before what takes long
    if norm not in EPS:
        raise UserError(f"norm {norm!r}: choose {' or '.join(EPS)}")
    sizes = EPS[norm] if eps is None else tuple(eps)
    attacks = {kind: [Attack(kind, norm, size, steps, None, restarts) for size in sizes] for kind in KINDS}
    if set(KINDS) & set(metrics):
        need_art()
    with eval_mode(net):
        _check_classes(net, source, get_device(net))
    common: dict[str, Any] = {"samples": samples, "batch_size": batch_size, "seed": seed, "info": info}
    found: list[Accuracy] = []
    for metric in metrics:
        if metric == "accuracy":
            found.append(_clean(net, source, **common))
        elif metric == "corruptions":
            found.append(corruption_accuracy(net, source, progress=progress, **common))
        else:
            found += [attacked_accuracy(net, source, a, progress=progress, **common) for a in attacks[metric]]
    return found


def corruption_accuracy(
    net: nn.Module,
    source: ImageSource,
    *,
    names: Sequence[str] = CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES,
    samples: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
    info: Mapping[str, str] | None = None,
) -> Robustness:
    """The mean accuracy over ``names`` and ``severities``, each counted alike; ``parts`` holds them all.

    Parts: ``clean``, the mean of each corruption by its name, and ``NAME/SEVERITY``. Arguments and errors as above;
    names and severities as of ``corruptions.corrupt``.
    """
    began = time.monotonic()
    if not names or not severities:
        raise UserError("corruptions: name at least one corruption and one severity")
    views = {(name, severity): Corrupted(source, name, severity, seed) for name in names for severity in severities}
    options: dict[str, Any] = {"samples": samples, "batch_size": batch_size, "seed": seed, "device": get_device(net)}
    clean, _, count = accuracy(net, source, **options)
    values = {
        key: accuracy(net, view, **options)[0]
        for key, view in tqdm(
            views.items(), "corruptions", unit="set", disable=hide_progress(progress), dynamic_ncols=True
        )
    }
    means = {name: float(np.mean([values[name, severity] for severity in severities])) for name in names}
    parts = {"clean": clean, **means, **{f"{name}/{severity}": v for (name, severity), v in values.items()}}
    about = {"corruptions": SET, "severities": list(severities)}
    protocol = _protocol(net, source, count, seed, about, info, began)
    return Robustness("corruptions", float(np.mean(list(means.values()))), "none", None, parts, protocol)


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
    """The share of images that ``net`` classifies rightly as they are and also under ``attack``.

    ``parts`` holds ``clean``, the accuracy without it. Arguments and errors as above. An image's random starts
    depend on ``seed``, ``batch_size`` and its place in the batch. All is done in eval mode and float32.
    """
    began = time.monotonic()
    device, chosen = get_device(net), open_labelled(source, samples, seed)
    count = len(chosen)
    batches = [chosen[start : start + batch_size] for start in range(0, count, batch_size)]
    shape = (source.channels, source.resolution, source.resolution)
    sums = torch.zeros(2, dtype=torch.float64)
    finite = Finite(LOGITS)
    title = f"{attack.kind} {attack.eps:g}/255"
    # the attacker sees to gradients by itself; the parameters do not move, so a constrained weight is worked out once
    with eval_mode(net), parametrize.cached():
        _check_classes(net, source, device)
        attacker = Attacker(net, attack, shape=shape, num_classes=source.num_classes)
        todo = range(*share_of_rank(len(batches)))
        for index in tqdm(todo, title, unit="batch", disable=hide_progress(progress), dynamic_ncols=True):
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
    protocol = _protocol(net, source, count, seed, about, info, began)
    return Robustness(attack.kind, robust, "none", None, {"clean": clean}, protocol, attack.variant)


def _check_classes(net: nn.Module, source: ImageSource, device: torch.device) -> None:
    """There is one logit for each class."""
    pixels, _ = source.read(np.zeros(1, np.int64))
    logits = net(to_float(torch.from_numpy(np.ascontiguousarray(pixels)).to(device), dequantize=False))
    if logits.shape != (1, source.num_classes):
        raise UserError(
            f"{source.name}: has {source.num_classes} classes, and the net gives {tuple(logits.shape[1:])} logits; "
            "choose the images that it was trained on"
        )


def _clean(
    net: nn.Module,
    source: ImageSource,
    *,
    samples: int | None,
    batch_size: int,
    seed: int,
    info: Mapping[str, str] | None,
) -> Accuracy:
    began = time.monotonic()
    value, loss, count = accuracy(
        net, source, samples=samples, batch_size=batch_size, seed=seed, device=get_device(net)
    )
    protocol = _protocol(net, source, count, seed, {}, info, began)
    return Accuracy("accuracy", value, "none", None, {"error": 1.0 - value, "loss": loss}, protocol)


def _protocol(
    net: nn.Module,
    source: ImageSource,
    count: int,
    seed: int,
    about: Mapping[str, Any],
    info: Mapping[str, str] | None,
    began: float,
) -> dict[str, Any]:
    return {
        "samples": count,
        "reference": source.name,
        **about,
        "batch norm": "running statistics",
        "seed": seed,
        "dtype": "float32",
        "device": get_device(net).type,
        "orthogan": __version__,
        "torch": torch.__version__,
        **(info or {}),
        "seconds": broadcast_json(round(time.monotonic() - began, 1)),
    }
