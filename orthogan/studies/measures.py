"""Measures for any run: errors of a classifier, cost, conditioning from the log, and the neurons."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from orthogan import weights
from orthogan.errors import UserError
from orthogan.evaluation import MetricResult
from orthogan.evaluation.robustness.attacks import Attack, attacked_accuracy
from orthogan.evaluation.robustness.corruptions import corruption_accuracy
from orthogan.evaluation.spectrum.near_orthogonality import near_orthogonality
from orthogan.linalg import hyperspherical_energy
from orthogan.rng import derive
from orthogan.studies.finished import CheckpointGone, FinishedRun
from orthogan.studies.values import Better, MeasureResult, Value, standing
from orthogan.training.classifier.task import open_sources
from orthogan.weights.matrix import Layer

FINAL_ERROR, BEST_ERROR = "test error, final [%]", "test error, best [%]"
TRAIN_ERROR, GAP = "train error, final [%]", "generalisation gap [%]"
PARAMETERS, SECONDS, MEMORY = "parameters", "seconds a step", "peak memory [MiB]"
ENERGY, ENERGY_CHANGE = "energy of the neurons, final", "energy change, relative size"
KERNEL, OPERATOR = "orthogonality error of kernels", "orthogonality error of maps"
CORRUPTED, UNTOUCHED = "error on corrupted images [%]", "error on the same images as they are [%]"
ATTACKED, EPS = 500, (2.0, 8.0)  # test images, and sizes of an attack [1/255]
# numbers per layer in the log that have the same meaning in every layer, and their names over all layers
OF_LAYERS = {
    "stable_rank_after": "stable rank (median of layers)",
    "condition": "condition number (median of layers)",
    "orthogonality_error": "|R R^T - I|_F (median of layers)",
    "active": "share of layers where the stable-rank constraint binds",
}


def classification(run: FinishedRun) -> MeasureResult:
    """Measure the errors of a classifier in percent.

    These are the final error, the best over training (on the test images, as papers report it), the error on training
    images, and the gap between the two.

    Raises:
        UserError: the run has no score at its last step.
    """
    test, train = run.scores_of("accuracy"), run.scores_of("train_accuracy")
    if not test or test[-1][0] != run.steps:
        raise UserError(f"{run.folder}: has no accuracy at its last step; set evaluation.every")
    final, last = test[-1][1], train[-1][1]
    best = max((score for _, score in test), key=lambda score: score.value)
    errors = [100 * (1 - score.value) for score in (final, best, last)]
    images = run.images_per_step
    return MeasureResult(
        {
            FINAL_ERROR: Value(errors[0], "lower", final.protocol),
            BEST_ERROR: Value(errors[1], "lower", best.protocol),
            TRAIN_ERROR: Value(errors[2], "", last.protocol),
            GAP: Value(errors[0] - errors[2], "lower", _both(final.protocol, last.protocol)),
        },
        {
            # skip the start, whose error of random guessing would hide all later differences
            "test error [%]": [(step * images, 100 * (1 - score.value)) for step, score in test if step],
            "training loss": run.curve("C/loss"),
        },
    )


def as_value(score: MetricResult, part: str = "", better: Better = "") -> Value:
    """Return a score, better in the direction of its metric; or one of its parts, better as ``better`` says."""
    if part:
        return Value(score.parts[part], better, score.protocol)
    directions: dict[str, Better] = {"lower": "lower", "higher": "higher"}
    return Value(score.value, directions.get(score.direction, ""), score.protocol)


def scores(run: FinishedRun) -> MeasureResult:
    """Collect every score of training, at the end and over training, under its own label."""
    numbers: dict[str, Value] = {}
    curves: dict[str, list[tuple[float, float]]] = {}
    for step, score in sorted(run.scores, key=lambda pair: pair[0]):
        curves.setdefault(score.label, []).append((step * run.images_per_step, score.value))
        if step == run.steps:
            numbers[score.label] = as_value(score)
            numbers |= {f"{score.label}: {part}": as_value(score, part) for part in score.parts}
    for key in ("C/loss", "D/loss", "G/loss"):
        if curve := run.curve(key):
            curves[f"loss of {key[0]}"] = curve
    return MeasureResult(numbers, curves)


def cost(run: FinishedRun) -> MeasureResult:
    """Measure the trained parameters, the median time per step, and the peak memory of training."""
    numbers: dict[str, Value] = {}
    if run.checkpoints():
        net = run.net()
        numbers[PARAMETERS] = Value(sum(p.numel() for p in net.parameters()), "lower")
    place = where(run)
    timed = [record for record in run.log if "seconds" in record]
    if len(timed) > 2:  # the first interval includes the start; the median is robust to scores and pictures
        paces = [(b["seconds"] - a["seconds"]) / (b["step"] - a["step"]) for a, b in pairwise(timed)]
        numbers[SECONDS] = Value(statistics.median(paces), "lower", place=place)
    peaks = [sitting["peak memory [MiB]"] for sitting in run.sittings if sitting.get("trained")]
    if peaks:
        numbers[MEMORY] = Value(max(peaks), "lower", place=place)
    return MeasureResult(numbers)


def where(run: FinishedRun) -> dict[str, str]:
    """Return the machine that the run was trained on, as far as times depend on it; sessions may differ."""
    found = {}
    for key in ("processor", "gpu", "threads", "cells at a time"):
        values = dict.fromkeys(str(s[key]) for s in run.sittings if s.get("trained") and key in s)
        if values:
            found[key] = " and ".join(values)
    return found


def energy(run: FinishedRun) -> MeasureResult:
    """Measure the hyperspherical energy of the neurons at each checkpoint.

    It is the mean over pairs (s = 1) and over all layers but the last: the final value, and its change from the first.

    Raises:
        CheckpointGone: the run was measured before and then kept only its last checkpoint.
    """
    every, steps = run.config.checkpoint.every, run.steps
    kept = dict(run.checkpoints())
    if missing := [step for step in [*range(every, steps, every), steps] if step not in kept]:
        raise CheckpointGone(
            f"{run.folder}: the checkpoint of step {missing[0]} is gone; train again with --redo METHOD"
        )
    curve = [(step * run.images_per_step, _energy(run, kept[step])) for step in sorted(kept)]
    first, last = curve[0][1], curve[-1][1]
    return MeasureResult(
        {
            ENERGY: Value(last, "", {"s": 1, "layers": "all but the last"}),
            ENERGY_CHANGE: Value(abs(last - first) / first, "", {"s": 1, "since": min(kept)}),
        },
        {"energy of the neurons": curve},
    )


@torch.no_grad()
def _energy(run: FinishedRun, folder: Path) -> float:
    net = run.net(folder)
    with weights.hold_power_iteration(net):
        layers = [layer for layer in weights.select(net, "matrix,!last") if isinstance(layer.layer, Layer)]
        found = [float(hyperspherical_energy(layer.matrix, 1.0)) for layer in layers]
    return statistics.fmean(found)


def orthogonality(run: FinishedRun) -> MeasureResult:
    """Measure how far the final layers, except the last (the classifier), are from orthogonal.

    The numbers are means over the layers of the root mean square of s^2 - 1, with s the singular values of the
    weight as a matrix, and of the layer as a map.
    """
    found = near_orthogonality(run.net(), "!last")
    protocol = {"layers": "all but the last"}
    return MeasureResult(
        {
            KERNEL: Value(found["mean/kernel"], "lower", protocol),
            OPERATOR: Value(found["mean/operator"], "lower", protocol),
        }
    )


def robustness(run: FinishedRun) -> MeasureResult:
    """Measure the errors on corrupted and on attacked test images, in percent, and on the same images unchanged.

    Raises:
        UserError: the attack library is not installed.
    """
    _, source = open_sources(run.config)
    section, net = run.config.evaluation, run.net()
    options: dict[str, Any] = {
        "samples": min(ATTACKED, section.samples),
        "batch_size": min(100, section.batch_size),
        "seed": derive(run.config.seed, "study"),
        "progress": False,
    }
    found = {CORRUPTED: corruption_accuracy(net, source, severities=(1, 3, 5), **options)}
    for eps in EPS:
        for kind in ("fgsm", "pgd"):
            attack = Attack(kind, "inf", eps, steps=10)
            found[f"error under {kind}, {eps:g}/255 [%]"] = attacked_accuracy(net, source, attack, **options)
    clean = found[CORRUPTED]
    numbers = {name: Value(100 * (1 - score.value), "lower", score.protocol) for name, score in found.items()}
    about = {key: value for key, value in clean.protocol.items() if key not in ("corruptions", "severities")}
    numbers[UNTOUCHED] = Value(100 * (1 - clean.parts["clean"]), "lower", about)
    return MeasureResult(numbers)


def spectra(run: FinishedRun) -> MeasureResult:
    """Summarize what the log records about the layers of each network, over training.

    Each number is a median over the layers, or a share for the count of layers in which a stable-rank constraint binds.
    """
    gathered: dict[str, dict[float, list[float]]] = {}
    for layer, numbers in run.spectra().items():
        for name, curve in numbers.items():
            if name in OF_LAYERS:
                of = gathered.setdefault(f"{OF_LAYERS[name]} of {layer.partition('.')[0]}", {})
                for images, value in curve:
                    of.setdefault(images, []).append(value)
    curves = {}
    for title, by_images in gathered.items():
        middle = statistics.fmean if title.startswith("share") else statistics.median
        curves[title] = [(images, middle(values)) for images, values in sorted(by_images.items())]
    return MeasureResult({}, curves)


def _both(test: Mapping[str, Any], train: Mapping[str, Any]) -> dict[str, Any]:
    """Return the protocol of a difference of two scores."""
    return {"test": standing(test), "train": standing(train)}
