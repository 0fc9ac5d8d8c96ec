"""Evaluation of a generator, a set of images, a GAN or a classifier."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import nn

from orthogan import __version__
from orthogan.arguments import checked, integer
from orthogan.data import ImageSource
from orthogan.distributed import broadcast_json, rank_and_world
from orthogan.errors import UserError
from orthogan.evaluation.deterministic import choose_device
from orthogan.evaluation.extractors.extractor import EXTRACTORS, Extractor, load_extractor, resolve_extractor
from orthogan.evaluation.fidelity.features import Features, Rows, extract
from orthogan.evaluation.fidelity.frechet import check_length
from orthogan.evaluation.fidelity.reference import Reference, reference_from_file, reference_of, save_reference
from orthogan.evaluation.finite import NoScore, NotFinite
from orthogan.evaluation.given import as_source, reference_given
from orthogan.evaluation.images import generate_images, real
from orthogan.evaluation.metric import (
    ABSENT,
    OF_FEATURES,
    OF_IMAGES,
    Inputs,
    Metric,
    Score,
    Stream,
    TooFewImages,
    find_metrics,
    names_scorecard,
)
from orthogan.evaluation.precision import Precision, describe_precision, prepare_net, resolve_precision
from orthogan.evaluation.result import MetricResult, MetricResults, made_by
from orthogan.models.generate import threshold
from orthogan.models.label_table import label_table
from orthogan.models.modes import eval_mode, get_device
from orthogan.models.protocol import Generator, as_generator
from orthogan.rng import derive


class Incomplete(UserError):
    """Some metrics could not be computed; ``results`` contains the others, in order.

    Example:
        >>> from orthogan.errors import UserError
        >>> from orthogan.evaluation import Incomplete, MetricResult
        >>> fid = MetricResult("fid", 12.3, "efficientnet-lite0")
        >>> error = Incomplete({"kid": UserError("kid: too few images")}, [fid])
        >>> str(error), error.results[0].value
        ('kid could not be computed: kid: too few images', 12.3)
    """

    def __init__(self, errors: Mapping[str, UserError], results: Sequence[MetricResult]) -> None:
        super().__init__("\n".join(f"{metric} could not be computed: {error}" for metric, error in errors.items()))
        self.results = MetricResults(results)


@checked
def evaluate(
    subject: Any,
    reference: Any = None,
    *,
    metrics: Sequence[str] | str = ("fid",),
    samples: int | None = 50_000,
    extractor: Annotated[str, "a name, such as 'inception', or 'module:Class' for your own"] = "auto",
    weights: str | Path | None = None,
    batch_size: int = 64,
    seed: int = 0,
    device: torch.device | str | None = None,
    truncation: float = 1.0,
    reference_samples: int | None = None,
    save_reference_to: str | Path | None = None,
    kid_subset_size: int | None = None,
    held_out: Any = None,
    nearest: str | Path | None = None,
    precision: str = "fp32",
    progress: bool = True,
    info: Mapping[str, str] | None = None,
) -> MetricResults:
    """Score ``subject`` against ``reference``; returns one result per metric, in order.

    In a process group, every process calls this with the same arguments, computes its part, and gets the same results.

    Args:
        subject: a generator (sampled in eval mode; its mode is restored), or images: an image source, a tensor or array
            (n, c, h, w), a Dataset or a DataLoader, as in ``given.as_source``.
        reference: images in one of these forms, another generator, the path of a folder or .zip of images (resized to
            the size of the subject's images), or of a file of statistics (fid only); None for isc and path lengths.
        metrics: names in ``METRICS`` (fid, isc, kid, prc, path lengths, …), their names in other tools, or your own
            ``module:Class``. "scorecard": all metrics of images that can be computed here; what is missing, and how to
            get it, is printed.
        samples: number of images drawn from a generator, or the most images taken from a set (None: all); also the
            number of pairs for path lengths (10,000 to 100,000 in publications).
        extractor: a name in ``EXTRACTORS``, or ``module:Class``; "auto" = inception if its weights are
            available.
        weights: weights file of the extractor, instead of the published one.
        seed: random seed of the latents and labels.
        truncation: truncation of the latents, see ``orthogan.models.generate``.
        reference_samples: compare with a random subset of this many real images (None: all); for a generator as
            reference, the number of images to draw (None: ``samples``).
        save_reference_to: write the reference statistics to this .safetensors file.
        kid_subset_size: images in each subset of kid (None: 1000, as published); KIDs with different sizes are not
            comparable.
        held_out: real images that the generator was not trained on, in one of the forms of ``reference``; for ct.
        nearest: draw generated images next to their nearest real images to this PNG file; for authenticity.
        precision: precision of sampling and of the feature network: "fp32", as published; "bf16"; "auto": sampling in
            bf16 if the hardware supports it, features in fp32. Path lengths are always fp32.
        info: further facts for the protocol.

    Raises:
        Incomplete: some metrics could not be computed; it holds the results of the others.
        UserError: unknown metric, extractor or precision, missing weights, too few images, an incompatible reference,
            or a path length of images or of a space that the generator does not have.
        TypeError: subject or reference of another type.

    Example:
        >>> import orthogan
        >>> generator = orthogan.load("sprites-sngan")
        >>> sprites = orthogan.open_source("sprites", count=64, channels=1)
        >>> (result,) = orthogan.evaluate(generator, sprites, samples=64, extractor="efficientnet-lite0")
        >>> result.value > 0
        True
    """
    chosen, scorecard = find_metrics(metrics), names_scorecard(metrics)
    for name, number in (("samples", samples), ("reference_samples", reference_samples), ("batch_size", batch_size)):
        if number is not None and integer(name, number) < 1:
            raise UserError(f"{name}: {number}; must be at least 1")
    subject = as_generator(subject) if isinstance(subject, nn.Module) else as_source(subject, "subject")
    fakes = reference_samples or samples
    compared = {"reference": reference, "reference_samples": reference_samples, "save_reference_to": save_reference_to}
    refuse_uncompared(chosen, compared)
    against = reference_given(reference, subject, fakes, derive(seed, "reference"))
    unseen: Any = reference_given(held_out, subject, fakes, derive(seed, "held out"))
    if isinstance(unseen, Path):
        raise UserError(f"{unseen}: held_out must be images, not statistics")
    if nearest is not None and not any(metric.name == "authenticity" for metric in chosen):
        raise UserError(f"{nearest}: the picture of nearest images is drawn by authenticity; add it to metrics")
    if nearest is not None and Path(nearest).suffix.lower() != ".png":
        raise UserError(f"{nearest}: the name of the picture of nearest images must end in .png")
    threshold(truncation)
    if save_reference_to is not None and Path(save_reference_to).suffix != ".safetensors":
        raise UserError(f"{save_reference_to}: the name of reference statistics must end in .safetensors")
    inputs = Inputs(
        samples=_count(subject, samples),
        reference_samples=_count(against, reference_samples) if isinstance(against, ImageSource) else None,
        batch_size=batch_size,
        seed=seed,
        device=choose_device(subject, device),
        progress=progress,
        truncation=truncation,
        reference=against,
        options={"kid_subset_size": kid_subset_size, "nearest": nearest},
        held_out=unseen,
        info=info or {},
    )
    if isinstance(subject, ImageSource):
        inputs.images = subject
    else:
        inputs.generator = subject
    try:
        return measure(
            chosen,
            inputs,
            extractor=extractor,
            weights=weights,
            precision=precision,
            save_reference_to=save_reference_to,
            lenient=scorecard,
        )
    except Incomplete as error:
        if not scorecard or not error.results:
            raise
        if rank_and_world()[0] == 0:
            lines = str(error).splitlines()
            print("".join(f"orthogan: not in this scorecard: {line}\n" for line in lines), end="", file=sys.stderr)
        return error.results


def refuse_uncompared(metrics: Sequence[Metric], given: Mapping[str, object]) -> None:
    """Raise ``UserError`` naming an argument of ``given`` that is set although none of ``metrics`` compares images."""
    name = next((name for name, value in given.items() if value is not None), None)
    if name is not None and not any(metric.compares for metric in metrics):
        alone = ", ".join(metric.name for metric in metrics)
        raise UserError(f"{name} does not apply to the metrics {alone}, which use no reference; omit it")


def evaluate_classifier(
    net: nn.Module,
    source: ImageSource,
    *,
    metrics: Sequence[str] | str = ("accuracy",),
    attack_norm: str = "inf",
    eps: Sequence[float] | None = None,
    steps: int | None = None,
    restarts: int | None = None,
    samples: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
    info: Mapping[str, str] | None = None,
) -> MetricResults:
    """Compute the ``metrics`` of ``net`` on ``source``, in order; attacks return one result per ``eps``.

    In a process group, every process calls this with the same arguments, computes its part, and gets the same results.

    Args:
        net: images (n, c, h, w) in [-1, 1] -> logits (n, classes); its mode is restored.
        metrics: accuracy, corruptions, fgsm, pgd, or your own ``module:Class``.
        attack_norm, eps, steps, restarts: options of fgsm and pgd, see ``Attack``; None: as published, for eps 2 and 8
            with norm "inf", 32 and 128 with norm "2".
        samples: size of a random subset of the images, which depends on ``seed`` (None, or too many: all).
        info: further facts for the protocol.

    Raises:
        Incomplete: some metrics could not be computed; it holds the results of the others.
        UserError: unknown metric, images without classes, a missing library, or an invalid attack.

    Example:
        >>> import numpy as np
        >>> from orthogan.data import ArraySource
        >>> from orthogan.evaluation import evaluate_classifier
        >>> from orthogan.models.classifiers import MLP
        >>> images = np.zeros((4, 1, 8, 8), np.uint8)
        >>> source = ArraySource("mine", images, labels=np.array([0, 1, 0, 1]), class_names=["cat", "dog"])
        >>> net = MLP(resolution=8, image_channels=1, channels=8, num_classes=2)
        >>> (result,) = evaluate_classifier(net, source)
        >>> result.metric, result.value
        ('accuracy', 0.5)
    """
    options: dict[str, Any] = {"attack_norm": attack_norm, "eps": eps, "steps": steps, "restarts": restarts}
    common: dict[str, Any] = {"samples": samples, "batch_size": batch_size, "seed": seed, "progress": progress}
    inputs = Inputs(classifier=net, test=source, device=get_device(net), options=options, info=info or {}, **common)
    return measure(find_metrics(metrics), inputs)


def measure(
    metrics: Sequence[Metric],
    inputs: Inputs,
    *,
    extractor: str = "auto",
    weights: str | Path | None = None,
    precision: str = "fp32",
    save_reference_to: str | Path | None = None,
    lenient: bool = False,
) -> MetricResults:
    """Compute the results of ``metrics``, in order; one pass over the images serves all metrics of an extractor.

    Arguments as in ``evaluate``. All checks are made before the first image is drawn. ``lenient``: leave out a metric
    that needs more images, or an extractor of its own whose weights would have to be downloaded.

    Raises:
        Incomplete: some metrics could not be computed; it holds the results of the others.
        UserError: a metric needs more images, or none could be computed, all for the same reason.
    """
    found: dict[str, Sequence[MetricResult]] = {}
    refused: dict[str, UserError] = {}
    formats = resolve_precision(precision, inputs.device)
    nets = _ready(metrics, inputs, refused, extractor, weights, formats, lenient)
    for own in dict.fromkeys(metric.extractor for metric in metrics):
        looking = [m for m in metrics if m.extractor == own and m.needs & OF_IMAGES and m.name not in refused]
        with _noted(refused, *looking):
            if looking:
                net, length = nets.pop(own, (None, 0))
                saved = None if own and "" in nets else save_reference_to
                found |= _of_images(looking, inputs, net, length, formats, saved, refused)
                del net
    for metric in metrics:
        if metric.name not in refused and not metric.needs & OF_IMAGES:
            with _noted(refused, metric):
                found[metric.name] = _computed(metric, inputs)
    for metric in metrics:
        with _noted(refused, metric, alike=True):
            for result in found.get(metric.name, ()):
                _check_numbers(result)
    results = MetricResults(result for metric in metrics if metric.name not in refused for result in found[metric.name])
    if not refused:
        return results
    errors = {metric.name: refused[metric.name] for metric in metrics if metric.name in refused}
    if not results and len({str(error) for error in errors.values()}) == 1:
        raise next(iter(errors.values()))
    raise Incomplete(errors, results)


def check_metrics(
    metrics: Sequence[Metric], inputs: Inputs, *, extractor: str = "auto", precision: str = "fp32"
) -> None:
    """Check before training what ``measure`` would refuse, without drawing images.

    Raises:
        UserError: too few images, a space that the generator does not have, or a missing extractor or weights.
    """
    refused: dict[str, UserError] = {}
    with torch.random.fork_rng(devices=[]):  # networks are initialized before their weights are read
        _ready(metrics, inputs, refused, extractor, None, resolve_precision(precision, inputs.device))
    for error in refused.values():
        raise error


def _ready(
    metrics: Sequence[Metric],
    inputs: Inputs,
    refused: dict[str, UserError],
    extractor: str,
    weights: str | Path | None,
    formats: Precision,
    lenient: bool = False,
) -> dict[str, tuple[Extractor, int]]:
    """Load the extractors and the length of their features by ``Metric.extractor``: what may fail comes first."""
    for metric in metrics:
        with _noted(refused, metric, alike=True):
            metric.check(inputs)
    few = dict.fromkeys(str(error) for error in refused.values() if isinstance(error, TooFewImages))
    if few and not lenient:
        raise TooFewImages("\n".join(few))
    for metric in metrics:
        if metric.name not in refused:
            with _noted(refused, metric):
                metric.prepare(inputs)
    groups: dict[str, list[Metric]] = {}
    for metric in metrics:
        if metric.needs & OF_FEATURES and metric.name not in refused:
            groups.setdefault(metric.extractor, []).append(metric)
    if weights is not None and "" not in groups and len(groups) > 1:
        raise UserError(
            f"weights: {', '.join(name for name in groups)} cannot all use {weights}; evaluate one metric at a time"
        )
    nets = {}
    for own, looking in groups.items():
        with _noted(refused, *looking):
            if own and lenient and (error := EXTRACTORS.get(own).missing()) is not None:
                raise error
            given = weights if own == "" or "" not in groups else None
            net = load_extractor(
                own or resolve_extractor(extractor), device=inputs.device, weights=given, bf16=formats.features
            )
            length, classifies = net.probe(inputs.device)
            for metric in looking:
                if "logits" in metric.needs and not classifies:
                    refused[metric.name] = UserError(
                        f"extractor {net.name} is not a classifier, so it has no logits for {metric.name}"
                    )
            nets[own] = (net, length)
    return nets


def _computed(metric: Metric, inputs: Inputs) -> Sequence[MetricResult]:
    """Compute a metric that does not use the common pass over the images."""
    began = time.monotonic()
    found = _run(metric, inputs)
    if not isinstance(found, Score):
        return found
    score = broadcast_json(asdict(found))
    source = inputs.test or inputs.train
    protocol = {
        "samples": inputs.samples or (len(source) if source is not None else 0),
        "reference": source.name if source is not None else "none",
        "seed": inputs.seed,
        "device": inputs.device.type,
        **made_by(inputs.info, began),
    }
    return [_result(metric, Score(**score), "none", protocol)]


def _run(metric: Metric, inputs: Inputs) -> Score | Sequence[MetricResult]:
    """Call ``compute``; errors in user code become a UserError and do not affect the other metrics."""
    try:
        return metric.compute(inputs)
    except UserError:
        raise
    except Exception as error:
        if ":" not in metric.name:
            raise
        raise UserError(f"{metric.name}: {type(error).__name__}: {error}") from error


def _result(metric: Metric, score: Score, extractor: str, protocol: dict[str, Any]) -> MetricResult:
    """Attach the protocol to ``score``; for a user's metric also its label and direction."""
    own = {"title": metric.titled(extractor, score.variant), "better": metric.better} if ":" in metric.name else {}
    parts = (extractor, score.std, score.parts, protocol, score.variant)
    return MetricResult(metric.name, float(score.value), *parts, **own)


@contextmanager
def _noted(refused: dict[str, UserError], *metrics: Metric, alike: bool = False) -> Iterator[None]:
    """Context that records a UserError for ``metrics`` instead of raising it.

    It is raised if another process may not get the same error, because that process would wait. ``alike``: all get it.
    """
    try:
        yield
    except UserError as error:
        if not (alike or isinstance(error, NoScore) or rank_and_world()[1] == 1):
            raise
        for metric in metrics:
            refused.setdefault(metric.name, error)


def _check_numbers(result: MetricResult) -> None:
    """Raise ``NotFinite`` if a number overflowed."""
    numbers = {result.label: result.value, "its spread": result.std or 0.0, **result.parts}
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise NotFinite(
                f"{result.label}: {name} is {number}: the values of the features or the reference are too large"
            )


def _of_images(
    metrics: Sequence[Metric],
    inputs: Inputs,
    net: Extractor | None,
    length: int,
    formats: Precision,
    save_reference_to: str | Path | None,
    refused: dict[str, UserError],
) -> dict[str, Sequence[MetricResult]]:
    """Compute the metrics of images, reading each image once."""
    began = time.monotonic()
    kept = _kept(metrics, inputs)
    against = _reference(metrics, inputs, net, kept[1])
    if against is not None and net is not None:
        check_length(length, against.features.gaussian)
        if save_reference_to is not None:
            save_reference(save_reference_to, against, net)
    unseen = _unseen(metrics, inputs, net)
    fakes, reals = _fakes(metrics, inputs, net, kept[0], formats), against and against.features
    scores: dict[str, Any] = {}
    found: dict[str, Sequence[MetricResult]] = {}
    for metric in metrics:
        with _noted(refused, metric):
            seen = replace(inputs, fakes=fakes.of(metric.name), reals=reals and reals.of(metric.name), unseen=unseen)
            score = _run(metric, seen)
            if isinstance(score, Score):
                scores[metric.name] = asdict(score)
            else:
                found[metric.name] = score
    scores, seconds = broadcast_json([scores, round(time.monotonic() - began, 1)])
    for metric in metrics:
        if metric.name in scores:
            looked = net if metric.needs & OF_FEATURES else None
            protocol = {
                "samples": inputs.samples,
                "reference": against.name if against is not None else "none",
                **({} if looked is None else _described(looked)),
                "seed": inputs.seed,
                **_drawing(inputs),
                "dtype": describe_precision(formats, inputs.device, drawn=inputs.generator is not None),
                "device": inputs.device.type,
                "orthogan": __version__,
                "torch": torch.__version__,
                "torch-fidelity": version("torch-fidelity"),
                **inputs.info,
                "seconds": seconds,
            }
            score = Score(**scores[metric.name])
            found[metric.name] = [_result(metric, score, looked.name if looked else "none", protocol)]
    return found


def _described(net: Extractor) -> dict[str, str]:
    return {"extractor": net.name, "extractor weights": net.weights, "resize": net.resize}


def _kept(metrics: Sequence[Metric], inputs: Inputs) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the indices of generated and real images whose features must be kept."""
    asked = [metric.rows(inputs) for metric in metrics if "rows" in metric.needs]
    if not asked:
        return None, None
    fakes, reals = (np.unique(np.concatenate([sides[side] for sides in asked])) for side in (0, 1))
    return fakes, reals if len(reals) else None


def _streams(metrics: Sequence[Metric], total: int, device: torch.device) -> dict[tuple[str, str], Stream]:
    """Return the consumers of logits and images, by metric and need."""
    found: dict[tuple[str, str], Stream] = {}
    for metric in metrics:
        for need in ("logits", "images"):
            if need in metric.needs:
                own = metric.stream(need, total, device)
                found[metric.name, need] = own or Rows(np.arange(total), total, device)
    return found


def _count(images: Generator | ImageSource, samples: int | None) -> int:
    """Return the number of images."""
    if isinstance(images, ImageSource):
        return len(images) if samples is None else min(samples, len(images))
    if samples is None:
        raise UserError("samples: set how many images to draw from the generator")
    return samples


def _drawing(inputs: Inputs) -> dict[str, object]:
    """Describe how images were generated; given images are only read."""
    if inputs.generator is None:
        return {}
    labels = {}
    if inputs.generator.num_classes:
        each = "every class equally often" if label_table(inputs.generator) is None else "as in the training images"
        labels = {"labels": f"{each}, in random order"}
    return {"truncation": inputs.truncation, **labels, "batch norm": "running statistics"}


def _reference(
    metrics: Sequence[Metric], inputs: Inputs, net: Extractor | None, keep: np.ndarray | None
) -> Reference | None:
    if isinstance(inputs.reference, Path):
        return None if net is None else reference_from_file(inputs.reference, net)
    if inputs.reference is None:
        return None
    count, device = inputs.reference_samples or 0, inputs.device
    return reference_of(
        inputs.reference,
        net,
        samples=count,
        keep=keep,
        streams=_streams([metric for metric in metrics if metric.compares], count, device),
        device=device,
        batch_size=inputs.batch_size,
        progress=inputs.progress,
    )


def _unseen(metrics: Sequence[Metric], inputs: Inputs, net: Extractor | None) -> Features:
    """Compute features of the held-out images, if a metric needs them."""
    if not any("held_out" in metric.needs for metric in metrics):
        return ABSENT
    count, common = len(inputs.held_out), inputs.pick("device", "batch_size", "progress")
    return reference_of(inputs.held_out, net, samples=None, keep=np.arange(count), **common).features


def _fakes(
    metrics: Sequence[Metric],
    inputs: Inputs,
    net: Extractor | None,
    keep: np.ndarray | None,
    formats: Precision,
) -> Features:
    count, device = inputs.samples or 0, inputs.device
    options: dict[str, Any] = {"device": device, "total": count, "keep": keep, "progress": inputs.progress}
    options["streams"] = _streams(metrics, count, device)
    if inputs.generator is None:
        batches = real(inputs.images, count, batch_size=inputs.batch_size, seed=inputs.seed)
        return extract(batches, net, what=f"features of {inputs.images.name}", **options)
    generator = inputs.generator
    generator.to(device)
    with eval_mode(generator), prepare_net(generator):
        batches = generate_images(
            generator,
            count,
            seed=inputs.seed,
            batch_size=inputs.batch_size,
            truncation=inputs.truncation,
            device=device,
            bf16=formats.sampling,
        )
        return extract(batches, net, what="features of fakes", **options)
