"""Measures of a GAN: its images, its neural divergence, and the steepness of its discriminator."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orthogan.config.schema import Config
from orthogan.data import open_configured, open_held_out
from orthogan.drawing.plots import plot_histograms
from orthogan.evaluation import MetricResult, evaluate
from orthogan.evaluation.critic.critic import Recipe
from orthogan.evaluation.critic.lipschitz import KINDS, lipschitz
from orthogan.evaluation.critic.neural_divergence import neural_divergence
from orthogan.evaluation.deterministic import choose_device
from orthogan.evaluation.extractors.extractor import load_extractor, resolve_extractor
from orthogan.evaluation.fidelity.kid import SUBSET_SIZE
from orthogan.evaluation.spectrum.layer_spectrum import log10_product_of_norms, spectrum
from orthogan.models.open import load_discriminator, load_generator
from orthogan.rng import derive
from orthogan.studies.finished import FinishedRun
from orthogan.studies.measures import as_value
from orthogan.studies.values import MeasureResult, Value

FRECHET, FRECHET_OTHER = "Fréchet distance", "Fréchet distance, 5k fakes and 10k reals"
KERNEL, PRECISION, RECALL, INCEPTION_SCORE = "kernel distance", "precision", "recall", "Inception Score"
DIVERGENCE = "neural divergence"
STEEP, STEEPEST = "|D(x) - D(y)| / |x - y|, real-fake, mean", "|D(x) - D(y)| / |x - y|, real-fake, 99%"
STABLE_RANK, ACTIVE = (
    "stable rank of D over the possible, mean of layers",
    "active share of D's layers, mean of the run",
)
NORMS = "log10 of the product of D's norms"
# The protocol of the SN-GAN paper, in addition to that of all images; for runs that are scored on this many fakes.
PUBLISHED, FAKES, REALS = 50_000, 5_000, 10_000
MOST_PAIRS = 10_000
QUOTIENTS = "lipschitz.npz"
TITLE, AXIS = "Empirical Lipschitz constants of the discriminator", "|D(x) - D(y)| / |x - y|"
# Runs of at least this many steps have this critic; smaller ones belong to another scale and get another column.
CRITICS = {
    10_000: Recipe(),
    500: Recipe(steps=600, batch_size=64, width=16, lr=1e-3),
    0: Recipe(steps=10, batch_size=16, width=4, lr=1e-3),
}


def images(run: FinishedRun) -> MeasureResult:
    """Score the images at the end against the training images, by every metric that the extractor allows."""
    section, place = run.config.evaluation, device_of(run.config)
    source, net = open_configured(run.config.data), load_generator(run.folder, trust=run.trust)
    extractor = resolve_extractor(run.extractor)
    _, classifies = load_extractor(extractor, device=place).probe(place)
    reals = min(section.reference_samples or len(source), len(source))
    metrics = ["fid", "prc"]
    metrics += ["kid"] if min(section.samples, reals) >= SUBSET_SIZE else []
    metrics += ["isc"] if classifies else []

    def scored(wanted: list[str], samples: int, reference: int | None) -> dict[str, MetricResult]:
        results = evaluate(
            net,
            source,
            metrics=wanted,
            samples=samples,
            extractor=extractor,
            batch_size=section.batch_size,
            seed=run.config.seed,
            device=place,
            reference_samples=reference,
            precision=section.precision,
            progress=False,
        )
        return {result.metric: result for result in results}

    found = scored(metrics, section.samples, section.reference_samples)
    numbers = {FRECHET: as_value(found["fid"])}
    numbers |= {name: as_value(found["prc"], name, "higher") for name in (PRECISION, RECALL)}
    numbers |= {name: as_value(found[key]) for name, key in ((KERNEL, "kid"), (INCEPTION_SCORE, "isc")) if key in found}
    if section.samples >= PUBLISHED and len(source) >= REALS:
        numbers[FRECHET_OTHER] = as_value(scored(["fid"], FAKES, REALS)["fid"])
    curve = [(step * run.images_per_step, score.value) for step, score in run.scores_of("fid")]
    fakes = [path.name for path in sorted(run.folder.glob("fakes-*.png"))[-1:]]
    return MeasureResult(numbers, {FRECHET: curve} if curve else {}, fakes)


def divergence(run: FinishedRun) -> MeasureResult:
    """Measure the neural divergence from real images that the GAN never saw, without the penalty of the critic.

    The published value includes the penalty; the stored results of this study were measured without it.

    Raises:
        UserError: there are no such images for its data set.
    """
    recipe = next(recipe for steps, recipe in CRITICS.items() if run.steps >= steps)
    result = neural_divergence(
        load_generator(run.folder, trust=run.trust),
        open_held_out(run.config.data),
        recipe=recipe,
        samples=run.config.evaluation.samples,
        seed=derive(run.config.seed, "study"),
        device=device_of(run.config),
        progress=False,
        keep=run.folder / "critic.safetensors",
    )
    protocol = {**result.protocol, "penalty": f"{recipe.penalty:g}, not in the value"}
    return MeasureResult({DIVERGENCE: Value(result.parts["difference"], "lower", protocol)})


def steepness(run: FinishedRun) -> MeasureResult:
    """Measure the empirical Lipschitz constants of D between training images and fakes of the averaged generator."""
    result, quotients = lipschitz(
        load_discriminator(run.folder, trust=run.trust),
        load_generator(run.folder, trust=run.trust),
        open_configured(run.config.data),
        pairs=min(MOST_PAIRS, run.config.evaluation.samples),
        gradients=True,
        seed=derive(run.config.seed, "study"),
        device=device_of(run.config),
        progress=False,
    )
    arrays: dict[str, Any] = {kind: values.astype(np.float32) for kind, values in quotients.items()}
    np.savez(run.folder / QUOTIENTS, **arrays)
    numbers = {STEEP: Value(result.value, "lower", result.protocol)}
    numbers[STEEPEST] = as_value(result, "real-fake 99%", "lower")
    others = [kind for kind in KINDS if kind != "real-fake"]
    numbers |= {STEEP.replace("real-fake", kind): as_value(result, f"{kind} mean") for kind in others}
    numbers["|grad D| between real and fake, mean"] = as_value(result, "gradient real-fake mean")
    return MeasureResult(numbers)


def histograms(runs: Mapping[str, Path], path: Path) -> Path:
    """Draw the picture of the paper: the quotients of several measured runs, by name, in one plot.

    Raises:
        UserError: there are more runs than can be told apart.
    """
    found: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in KINDS}
    for name, folder in runs.items():
        with np.load(folder / QUOTIENTS) as file:
            for kind in KINDS:
                found[kind][name] = file[kind]
    return plot_histograms(found, path, title=TITLE, x_label=AXIS)


def ranks(run: FinishedRun) -> MeasureResult:
    """Measure stable rank, constraint and norms of D's layers: final exact singular values, and the log over training.

    The log contains only layers that something acts on, so a D without norm or penalty has no curves.
    """
    rows = spectrum(load_discriminator(run.folder, trust=run.trust))
    shares = [row.stable_rank / min(row.rows, row.columns) for row in rows if min(row.rows, row.columns) > 1]
    numbers = {
        STABLE_RANK: Value(statistics.fmean(shares), "", {"layers": "all of more than one row"}),
        NORMS: Value(log10_product_of_norms(rows)["operator"], "", {"norms": "of maps of 8 pixels"}),
    }
    curves: dict[str, list[tuple[float, float]]] = {}
    active: dict[float, list[float]] = {}
    for layer, series in run.spectra().items():
        if not layer.startswith("D."):
            continue
        if "stable_rank_after" in series:
            curves[f"stable rank of {layer}"] = series["stable_rank_after"]
        for at, value in series.get("active", []):
            active.setdefault(at, []).append(value)
    if active:
        curves["active share of D's layers"] = [(at, statistics.fmean(flags)) for at, flags in sorted(active.items())]
        mean = statistics.fmean(flag for flags in active.values() for flag in flags)
        numbers[ACTIVE] = Value(mean, "", {"snapshots every": run.config.logging.spectrum_every})
    return MeasureResult(numbers, curves)


def device_of(config: Config) -> torch.device:
    """Return the device to measure a run's networks on: the one that it was trained on, if available here."""
    wanted = config.training.device
    return choose_device(None, None if wanted == "auto" else wanted)
