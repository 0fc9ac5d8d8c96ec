"""SRN in classifiers: the gap between test and training images, random labels, and complexity measures of margins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from orthogan.drawing.plots import plot_histograms
from orthogan.evaluation.critic.complexity import (
    JAC_NORM,
    MARGIN,
    SHOWN,
    SPEC_FRO,
    SPEC_L1,
    capacity,
    complexity,
    over_margins,
)
from orthogan.models.open import load_classifier
from orthogan.rng import derive
from orthogan.studies.finished import FinishedRun
from orthogan.studies.measures import FINAL_ERROR, GAP, TRAIN_ERROR, classification, cost
from orthogan.studies.papers.gan_measures import device_of
from orthogan.studies.papers.scales import FASHION_PATH
from orthogan.studies.study import STUDIES, Claim, Measure, Method, Scale, Setting, Study, higher, lower
from orthogan.studies.values import MeasureResult, Value
from orthogan.training.classifier.task import open_sources

COLUMNS = {
    MARGIN: "margin, median",
    SPEC_FRO: "Spec-Fro, log10, 90th percentile",
    SPEC_L1: "Spec-L1, log10, 90th percentile",
    JAC_NORM: "Jac-Norm, log10, 90th percentile",
}
OF_WEIGHTS = {
    SPEC_FRO: "Spec-Fro of the weights alone, log10, 90th percentile",
    SPEC_L1: "Spec-L1 of the weights alone, log10, 90th percentile",
}
VALUES = "complexity.npz"
LEARNED = 0.05  # the training error at which random labels count as memorized
MEMORIZED = "epochs to 5 % training error"
PAPER = "Sanyal, Torr & Dokania, ICLR 2020"


def margins(run: FinishedRun) -> MeasureResult:
    """Measure margins and complexity measures of the final network, on images and labels that it was trained on."""
    source, _ = open_sources(run.config)
    net = load_classifier(run.folder, trust=run.trust)
    results, values = complexity(
        net,
        source,
        samples=run.config.evaluation.samples,
        batch_size=run.config.evaluation.batch_size,
        seed=derive(run.config.seed, "study"),
        device=device_of(run.config),
        progress=False,
        info={"label noise": f"{run.config.data.label_noise:g}"},
    )
    arrays: dict[str, Any] = {name: some.astype(np.float32) for name, some in values.items()}
    np.savez(run.folder / VALUES, **arrays)
    numbers = {
        COLUMNS[r.metric]: Value(r.value, "higher" if r.metric == MARGIN else "lower", r.protocol) for r in results
    }
    alone = capacity(net, batch_norm=False)
    for result in results:
        if result.metric in alone:  # the same margins with another product
            value = float(np.percentile(over_margins(alone[result.metric], values[MARGIN]), SHOWN))
            about = {**result.protocol, "batch norm": "running statistics, not in the product"}
            numbers[OF_WEIGHTS[result.metric]] = Value(value, "lower", about)
    return MeasureResult(numbers)


def memorization(run: FinishedRun) -> MeasureResult:
    """Count the epochs until the training error of a network on random labels is at most 5 %.

    The error is interpolated between evaluations. A run that ends before that counts with its whole length, so the
    number is then a lower bound. It returns nothing for labels that are not random.
    """
    if run.config.data.label_noise < 1:
        return MeasureResult()
    train, _ = open_sources(run.config)
    errors = [
        (step * run.images_per_step / len(train), 1 - score.value) for step, score in run.scores_of("train_accuracy")
    ]
    before = (0.0, 1.0)
    for epochs, error in errors:
        if error <= LEARNED:
            share = (before[1] - LEARNED) / (before[1] - error)
            return MeasureResult({MEMORIZED: Value(before[0] + share * (epochs - before[0]))})
        before = (epochs, error)
    return MeasureResult({MEMORIZED: Value(before[0])})


def histograms(runs: Mapping[str, Path], path: Path) -> Path:
    """Draw the picture of the paper: margins and measures of several measured runs, by name, in one plot.

    Raises:
        UserError: there are more runs than can be told apart.
    """
    panels: dict[str, dict[str, np.ndarray]] = {}
    for name, folder in runs.items():
        with np.load(folder / VALUES) as file:
            for measure, title in COLUMNS.items():
                panels.setdefault(title.partition(",")[0], {})[name] = file[measure]
    axis = "margins of training images; log10 of the measures"
    return plot_histograms(panels, path, title="Complexity of the margins", x_label=axis, shared=False)


def _stable_rank(c: float) -> Method:
    norm = {"kind": "stable_rank", "layers": ["conv"], "c": c}
    keys = {f"model.classifier.norm.{name}": value for name, value in norm.items()}
    return Method(keys, f"stable rank of every convolution at most {c:g} of the possible, k = 1")


METHODS = {
    "vanilla": Method({}, "no constraint"),
    "sn": Method(
        {"model.classifier.norm.kind": "spectral", "model.classifier.norm.layers": ["conv"]},
        "every convolution divided by its largest singular value",
    ),
    "srn-50": _stable_rank(0.5),
    "srn-30": _stable_rank(0.3),
}
# Zhang et al. 2017: every label redrawn once; no augmentation, since the question is what the network can memorize
RANDOM = {"data.label_noise": 1.0, "data.crop": 0, "data.flip": False}
FREE = {"optimizer.classifier.weight_decay": 0.0}
TRUE, RANDOM_LABELS, NO_DECAY = "true", "random", "-no-decay"


def _four(keys: Mapping[str, Any], note: str) -> dict[str, Setting]:
    """Return true and random labels, with and without weight decay; claims need equal names at every scale."""
    return {
        TRUE: Setting(keys, f"{note}, true labels"),
        f"{TRUE}{NO_DECAY}": Setting({**keys, **FREE}, f"{note}, true labels, no weight decay"),
        RANDOM_LABELS: Setting({**keys, **RANDOM}, f"{note}, random labels"),
        f"{RANDOM_LABELS}{NO_DECAY}": Setting({**keys, **RANDOM, **FREE}, f"{note}, random labels, no weight decay"),
    }


# as configs/recipes/classifier.yaml, one schedule for all networks
FULL = {
    "task": "classifier",
    "data.source": "cifar100",
    "data.crop": 4,
    "data.flip": True,
    "optimizer.classifier.lr": 0.1,
    "optimizer.classifier.momentum": 0.9,
    "optimizer.classifier.weight_decay": 5e-4,
    "training.steps": 64_000,
    "training.batch_size": 128,
    "training.schedule.kind": "step",
    "training.schedule.milestones": [0.5, 0.75],
    "evaluation.every": 4000,
    "evaluation.samples": 10_000,
    "evaluation.batch_size": 250,
    "checkpoint.every": 4000,
}
RESNET = {"model.classifier.kind": "resnet110", "model.classifier.channels": 16}
OTHERS: dict[str, dict[str, Any]] = {
    "wrn-28-10": {"model.classifier.channels": 16},
    "densenet100": {"model.classifier.channels": 12},
    "vgg19": {"model.classifier.channels": 64},
    "alexnet": {"model.classifier.channels": 64, "optimizer.classifier.lr": 0.01},
}
# A tenth of Fashion-MNIST is small enough for a small network to memorize within minutes.
CPU = {
    "task": "classifier",
    "data.source": "fashion-mnist",
    "data.path": FASHION_PATH,
    "data.resolution": 16,
    "data.channels": 1,
    "data.holdout": 0.9,
    "model.classifier.kind": "cnn6",
    "model.classifier.channels": 32,
    "optimizer.classifier.lr": 0.02,
    "optimizer.classifier.momentum": 0.9,
    "optimizer.classifier.weight_decay": 5e-4,
    "training.steps": 2000,
    "training.batch_size": 128,
    "training.schedule.kind": "step",
    "training.schedule.milestones": [0.5, 0.8],
    "logging.spectrum_every": 500,
    "evaluation.every": 1000,
    "evaluation.samples": 6000,
    "evaluation.batch_size": 500,
    "checkpoint.every": 500,
}
# A sixth of Fashion-MNIST, a fifth of its labels wrong, so that the gap between training and test images is large.
DECIDE = CPU | {
    "data.resolution": 32,
    "data.holdout": 5 / 6,
    "data.label_noise": 0.2,
    "training.steps": 4000,
    "training.schedule.milestones": [0.5, 0.75],
    "logging.every": 100,
    "evaluation.every": 400,
    "evaluation.samples": 10_000,
    "optimizer.classifier.lr": 0.1,
}
DECIDE_NETS: dict[str, dict[str, Any]] = {
    TRUE: {"model.classifier.kind": "resnet20", "model.classifier.channels": 8},  # as in the other scales, the main net
    "wrn-10-2": {"model.classifier.channels": 8},
    "densenet40": {"model.classifier.channels": 6},
    "vgg11": {"model.classifier.channels": 16},
    "alexnet": {"model.classifier.channels": 16, "optimizer.classifier.lr": 0.01},
}
SMOKE = CPU | {
    "data.source": "sprites",
    "data.path": None,
    "data.resolution": 32,
    "data.count": 160,
    "data.holdout": 0.2,
    "model.classifier.channels": 4,
    "training.steps": 6,
    "training.batch_size": 16,
    "training.device": "cpu",
    "logging.every": 2,
    "logging.samples": 4,
    "logging.spectrum_every": 3,
    "logging.tensorboard": False,
    "evaluation.every": 6,
    "evaluation.samples": 128,
    "evaluation.batch_size": 64,
    "checkpoint.every": 6,
}
_OTHER_NETS = {
    net: Setting({"model.classifier.kind": net, **keys}, f"CIFAR-100, {net}, true labels")
    for net, keys in OTHERS.items()
}

_DECIDE_SETTINGS = {
    net: Setting({"model.classifier.kind": net, **keys}, f"10,000 images of Fashion-MNIST, 20 % random labels, {net}")
    for net, keys in DECIDE_NETS.items()
} | {RANDOM_LABELS: Setting(DECIDE_NETS[TRUE] | RANDOM, "the same images, resnet20, random labels")}

STUDY = Study(
    name="srn-generalisation",
    title="Stable rank normalization and generalization of classifiers",
    about=(
        "Classifiers without constraint, with spectral normalization and with stable rank normalization of their "
        "convolutions (the classifying layer is free, as in the first author's later code). The gap is the test error "
        "less the training error. Random labels can only be memorized: a higher training error after the same number "
        "of steps means less memorization. The measures are of margins on training images, log10, smaller is "
        "simpler; how the figures of the paper are normalised is not known, so the products are given with the "
        "factors of batch norms and without. Batch norms undo the scale of a layer, so that under them spectral "
        "normalization changes little but the effective learning rate. Learning rates and schedule are ours: those of "
        "the paper were not found."
    ),
    baseline="vanilla",
    methods=METHODS,
    scales={
        "smoke": Scale(SMOKE, _four({}, "sprites"), 1, "A minute."),
        "cpu": Scale(
            CPU,
            _four({}, "6,000 images of Fashion-MNIST, CNN-6 at half its width"),
            3,
            "2,000 steps of 128 images at 16 pixels, 43 epochs of a small part.",
        ),
        "decide": Scale(
            DECIDE,
            _DECIDE_SETTINGS,
            5,
            "Five narrow nets, 4,000 steps of 128 images at 32 pixels, 51 epochs of a part.",
        ),
        "full": Scale(FULL, _four(RESNET, "CIFAR-100, resnet110") | _OTHER_NETS, 3, "Five nets, 164 epochs; for GPUs."),
    },
    measures=[
        Measure("errors", classification, version=2),
        Measure("memorization", memorization),
        Measure("margins", margins, version=3),
        Measure("cost", cost),
    ],
    overlays={"complexity of the margins": histograms},
    claims=[
        Claim(
            "SRN makes the generalization gap smaller (the first version: by up to 11.3 %)",
            f"{PAPER}, abstract (read)",
            (lower(GAP, "srn-50", "vanilla", TRUE), lower(GAP, "srn-30", "vanilla", TRUE)),
            published="up to 11.3 % smaller",
        ),
        Claim(
            "SRN improves classification",
            f"{PAPER}, abstract (read); the tables of errors were not found",
            (lower(FINAL_ERROR, "srn-50", "vanilla", TRUE),),
        ),
        Claim(
            "Both also in WRN, DenseNet, VGG and AlexNet",
            f"{PAPER}, abstract (read) for the nets",
            tuple(
                lower(number, "srn-50", "vanilla", net)
                for net in dict.fromkeys((*OTHERS, *DECIDE_NETS))
                if net != TRUE
                for number in (GAP, FINAL_ERROR)
            ),
        ),
        Claim(
            "SRN nets learn random labels less well than SN nets, and these less well than unconstrained ones, with "
            "weight decay and without",
            f"{PAPER}, abstract (read) for less memorising; the order is from memory",
            tuple(
                higher(TRAIN_ERROR, method, than, f"{RANDOM_LABELS}{decay}")
                for decay in ("", NO_DECAY)
                for method, than in (("srn-30", "sn"), ("sn", "vanilla"))
            ),
        ),
        Claim(
            "SRN nets need more epochs to memorize random labels than SN nets, and these more than unconstrained ones",
            f"{PAPER}, abstract (read) for less memorizing; the order is from memory",
            tuple(
                higher(MEMORIZED, method, than, RANDOM_LABELS)
                for method, than in (("srn-30", "sn"), ("srn-50", "sn"), ("sn", "vanilla"))
            ),
        ),
        Claim(
            "SRN nets are simpler by all three measures of margins (the products as published, of weights alone)",
            f"{PAPER}, abstract (read)",
            tuple(
                lower(number, method, "vanilla", TRUE)
                for number in (*OF_WEIGHTS.values(), COLUMNS[JAC_NORM])
                for method in ("srn-50", "srn-30")
            ),
        ),
        Claim(
            "they are so too where the factors of batch norms are in the products, as they are in the function",
            "not claimed: the paper's formulas are of weights, and ours of a net with batch norms",
            tuple(
                lower(COLUMNS[name], method, "vanilla", TRUE)
                for name in (SPEC_FRO, SPEC_L1)
                for method in ("srn-50", "srn-30")
            ),
        ),
    ],
)
STUDIES.register("srn-generalisation")(STUDY)
