"""Layers that decompose a covariance (Song, Sebe & Wang, ECCV 2022 and TPAMI 2023): their conditioning and accuracy.

The reference explains what the published condition number measures: after a first convolution of c*9 < channels inputs,
S is rank-deficient, so that kappa(S + eps I) is lambda_max / eps + 1 and depends on the scale of that convolution.
Therefore kappa of both, lambda_max and the norm of the preceding layer are reported separately.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orthogan.config.schema import Config
from orthogan.errors import UserError
from orthogan.linalg.decompositions import failures
from orthogan.studies import measures
from orthogan.studies.finished import FinishedRun
from orthogan.studies.measures import FINAL_ERROR
from orthogan.studies.papers.scales import FASHION_CPU, SMOKE
from orthogan.studies.study import STUDIES, Claim, Keys, Measure, Method, Scale, Setting, Study, lower, trained
from orthogan.studies.values import MeasureResult, Value

C = "model.classifier"
WHITENING, POOLING = "whitening", "pooling"
# the layer before the decomposition, by a pattern of its name (the word "conv" would mean all convolutions)
BEFORE = {WHITENING: "con?", POOLING: "pool.reduction.0"}
OL_WEIGHT = 1e-2  # our choice: the published value was not available
SHIFTED, PLAIN = "log10 kappa(S + eps I), median", "log10 kappa(S), median"
LARGEST, NORM = "log10 lambda_max, median", "norm of the layer before, final"
FAILED, FAILURES = "decompositions that failed", "failures.txt"
TREATMENTS = ("sn", "ol", "ow", "nog", "olr", "nog+sn", "nog+ol", "nog+ow", "nog+olr", "ow+olr", "nog+ow+olr")
WORDS = {
    "sn": "spectral normalization",
    "ol": f"orthogonality loss, {OL_WEIGHT:g} ||Gram - I||^2",
    "ow": "orthogonal weight (skew orthogonal convolution)",
    "nog": "nearest orthogonal gradient",
    "olr": "optimal learning rate",
}


def layered(solver: str, treatments: tuple[str, ...] = ()) -> Callable[[str], Keys]:
    """Return the keys, by setting, of a decomposition by ``solver`` ("" = none) with treatments of the layer before."""

    def keys(setting: str) -> Keys:
        layer = [BEFORE[setting]]
        options: dict[str, Any] = {"skew": "ow" in treatments}
        found: dict[str, Any] = {}
        if setting == POOLING:
            options["method"] = solver or "mean"
        elif solver:
            found[f"{C}.whitening"] = {"layers": ["norm"], "method": solver, "eps": 1e-2}
        if "sn" in treatments:
            found[f"{C}.norm"] = {"kind": "spectral", "layers": layer}
        if "ol" in treatments:
            found[f"{C}.penalties"] = [{"kind": "soft_orthogonality", "weight": OL_WEIGHT, "layers": layer}]
        rules = {"nog": "nearest_orthogonal", "olr": "optimal_learning_rate"}
        if chosen := [{"kind": kind, "layers": layer} for name, kind in rules.items() if name in treatments]:
            found[f"{C}.gradient_transforms"] = chosen
        return {f"{C}.options": options, **found}

    return keys


def treated(names: str) -> Method:
    """Return the SVD with treatments, such as ``nog+ow``."""
    parts = tuple(names.split("+"))
    return Method(layered("eigh", parts), "SVD with " + ", ".join(WORDS[part] for part in parts) + ".")


METHODS = {
    "plain": Method(layered(""), "batch norm, and the mean over the map, with no covariance."),
    "svd": Method(layered("eigh"), "the exact eigendecomposition, with the gradient that has no eigen-gap."),
    "svd-autograd": Method(
        layered("eigh_autograd"), "the exact eigendecomposition, with autograd's gradient, which divides by eigen-gaps."
    ),
    "newton-schulz": Method(layered("newton_schulz"), "by products, five iterations."),
    "pade": Method(layered("pade"), "the authors' Padé approximants."),
    **{f"svd+{names}": treated(names) for names in TREATMENTS},
}


def conditions(run: FinishedRun) -> MeasureResult:
    """Measure the covariance's condition at every logged step, and the norm of the preceding layer.

    It returns nothing for a network without a covariance.

    Raises:
        UserError: the run did not log its spectra.
    """
    layers = run.spectra()
    decomposed = [name for name, numbers in layers.items() if "kappa" in numbers]
    if not decomposed:
        return MeasureResult()
    if not run.config.logging.spectrum_every:
        raise UserError(f"{run.folder}: nothing is known of its layers; set logging.spectrum_every")
    numbers = layers[decomposed[0]]
    curves = {
        title: [(images, math.log10(value) if value > 0 else math.nan) for images, value in numbers[name]]
        for name, title in (("kappa_shifted", SHIFTED), ("kappa", PLAIN), ("lambda_max", LARGEST))
        if name in numbers
    }
    found = {
        title: Value(statistics.median(value for _, value in curve), "" if title == LARGEST else "lower")
        for title, curve in curves.items()
    }
    before = "C.pool.reduction.0" if decomposed[0] == "C.pool" else "C.conv"
    weights = layers.get(before, {}).get("norm")
    if weights:
        found[NORM] = Value(weights[-1][1])
        curves[NORM.partition(",")[0]] = weights
    return MeasureResult(found, {title.partition(",")[0]: curve for title, curve in curves.items()})


def counted(config: Config) -> Path:
    """Train, and add a line to ``FAILURES`` per decomposition that LAPACK failed on; these were redone in float64."""
    with failures() as found:
        try:
            return trained(config)
        finally:
            if found:
                with (Path(str(config.out)) / FAILURES).open("a", encoding="utf-8") as stream:
                    stream.write("".join(f"{what}\n" for what in found))


def failed(run: FinishedRun) -> MeasureResult:
    """Count the failed decompositions in training."""
    file = run.folder / FAILURES
    count = len(file.read_text(encoding="utf-8").splitlines()) if file.is_file() else 0
    return MeasureResult({FAILED: Value(count, "lower")})


CLAIMS = (
    Claim(
        "NOG improves both the condition and the error of the SVD",
        "abstract (read); condition: curves of the authors' repository (measured from the picture)",
        (lower(SHIFTED, "svd+nog", "svd", WHITENING), lower(FINAL_ERROR, "svd+nog", "svd")),
        published="log10 kappa 5.3 to 5.4, and 8.5 to 12.7 without it",
    ),
    Claim(
        "OLR improves both the condition and the error of the SVD",
        "abstract (read); condition: curves of the authors' repository (measured from the picture)",
        (lower(SHIFTED, "svd+olr", "svd", WHITENING), lower(FINAL_ERROR, "svd+olr", "svd")),
    ),
    Claim(
        "treatments of the weight improve the condition",
        "abstract (read)",
        tuple(lower(SHIFTED, f"svd+{name}", "svd", WHITENING) for name in ("sn", "ol", "ow")),
    ),
    Claim(
        "treatments of the weight alone harm the error",
        "abstract (read): existing treatments improve conditioning but hurt performance",
        tuple(lower(FINAL_ERROR, "svd", f"svd+{name}") for name in ("sn", "ol", "ow")),
    ),
    Claim(
        "NOG and OLR together with orthogonal weights improve the error further",
        "abstract (read)",
        (
            lower(FINAL_ERROR, "svd+nog+ow", "svd+nog"),
            lower(FINAL_ERROR, "svd+ow+olr", "svd+olr"),
            lower(FINAL_ERROR, "svd+nog+ow+olr", "svd+nog+olr"),
        ),
    ),
    Claim(
        "NOG with OLR is worse conditioned than OLR alone",
        "curves of the authors' repository (measured from the picture)",
        (lower(SHIFTED, "svd+olr", "svd+nog+olr", WHITENING),),
    ),
)


def settings(depth: int, channels: int, pooled_channels: int, resnet: str) -> dict[str, Setting]:
    """Return the settings: a ResNet-18 that whitens after its stem, a ResNet of ``depth`` that pools a covariance."""
    whitened = {f"{C}.kind": "stem-resnet", f"{C}.channels": channels, f"{C}.options": {"depth": int(resnet)}}
    pooled = {f"{C}.kind": "pooled-resnet", f"{C}.channels": pooled_channels, f"{C}.options": {"depth": depth}}
    return {
        WHITENING: Setting(whitened, f"decorrelated batch norm after the stem of ResNet-{resnet}, width {channels}"),
        POOLING: Setting(pooled, f"global covariance pooling at the end of ResNet-{depth}, width {pooled_channels}"),
    }


CPU_KEYS = {
    **FASHION_CPU,
    "optimizer.classifier": {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    "training": {"steps": 500, "batch_size": 128, "schedule": {"kind": "step", "milestones": [0.3, 0.6, 0.9]}},
    "evaluation": {"every": 250, "at_start": True, "samples": 5000, "batch_size": 500},
    "checkpoint": {"every": 250},
    "logging": {"every": 20, "spectrum_every": 20, "tensorboard": False},
}
# three colors, so that the kernel matrix of the stem has rank 27, as published
DECIDE_KEYS = {
    "task": "classifier",
    "data": {"source": "cifar10", "resolution": 16, "channels": 3, "crop": 1, "flip": True},
    "optimizer.classifier": {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    "training": {"steps": 5000, "batch_size": 128, "schedule": {"kind": "step", "milestones": [0.3, 0.6, 0.9]}},
    "evaluation": {"every": 500, "at_start": True, "samples": 10_000, "batch_size": 500},
    "checkpoint": {"every": 500},
    "logging": {"every": 50, "spectrum_every": 50, "tensorboard": False},
}
DECIDED = ("sn", "ol", "ow", "nog", "olr", "nog+ow", "nog+olr", "ow+olr", "nog+ow+olr")
FULL_KEYS = {
    "task": "classifier",
    "data": {"source": "cifar10", "resolution": 32, "channels": 3, "crop": 4, "flip": True},
    "optimizer.classifier": {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    "training": {
        "steps": 136_850,
        "batch_size": 128,
        "schedule": {"kind": "step", "milestones": [0.2857, 0.5714, 0.8571]},
    },
    "evaluation": {"every": 3910, "samples": 10_000, "batch_size": 500},
    "checkpoint": {"every": 3910},
    "logging": {"every": 100, "spectrum_every": 391, "tensorboard": False},
}

STUDY = Study(
    name="covariance",
    title="Layers that decompose a covariance",
    about="Decorrelated batch norm and global covariance pooling, by three ways to decompose the covariance S and by "
    "treatments of the layer before it: error, condition numbers over training, and how often LAPACK gave a "
    "decomposition up (float64 then takes it over; the authors' code stops). Behind a stem with fewer inputs than "
    "outputs S lacks rank, so kappa(S) is infinite there, and kappa(S + eps I) follows lambda_max, that is the scale "
    "of the stem.",
    baseline="svd",
    methods=METHODS,
    scales={
        "smoke": Scale({**SMOKE, "training.batch_size": 8}, settings(8, 4, 4, "18"), seeds=1),
        "cpu": Scale(
            CPU_KEYS,
            settings(14, 16, 16, "18"),
            note="Narrow nets, Fashion-MNIST at 16 pixels, 500 steps of 128 images.",
        ),
        "decide": Scale(
            DECIDE_KEYS,
            {
                WHITENING: Setting(
                    {f"{C}.kind": "stem-resnet", f"{C}.channels": 16, f"{C}.options": {"depth": 18, "stem": 64}},
                    "decorrelated batch norm after a stem of 64 channels and rank 27, ResNet-18, width 16",
                )
            },
            seeds=5,
            note="The authors' stem and optimizer, CIFAR-10 at 16 pixels, 5,000 steps: the norm of the stem under NOG "
            "comes to rest after about 3,000. Images in folders: "
            "data.source=folder data.path=FOLDER data.labels=true data.holdout=0.1.",
            methods={name: {} for name in ("svd", "svd-autograd", *(f"svd+{names}" for names in DECIDED))},
        ),
        "full": Scale(
            FULL_KEYS,
            settings(20, 64, 64, "18"),
            note="The authors' CIFAR-10 setting of ResNet-18, 350 epochs. Their pooling was on ImageNet, not here.",
        ),
    },
    measures=(
        Measure("classification", measures.classification, version=2),
        Measure("cost", measures.cost),
        Measure("conditions", conditions),
        Measure("failures", failed),
    ),
    claims=CLAIMS,
    run=counted,
)
STUDIES.register("covariance")(STUDY)
