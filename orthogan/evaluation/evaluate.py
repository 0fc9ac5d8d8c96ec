"""Metrics of a generator, or of a set of images, against a reference: the one function behind every number."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch_fidelity
from torch import nn

from orthogan import __version__
from orthogan.data import ImageSource
from orthogan.distributed import broadcast_json, rank_and_world
from orthogan.errors import UserError
from orthogan.evaluation.checks import check_metric, check_request
from orthogan.evaluation.fidelity.extractors import Extractor, load_extractor, resolve_extractor
from orthogan.evaluation.fidelity.features import Features, extract
from orthogan.evaluation.fidelity.frechet import check_length, frechet_distance
from orthogan.evaluation.fidelity.kid import SUBSET_SIZE, Subsets, kernel_distance
from orthogan.evaluation.fidelity.precision_recall import precision_recall
from orthogan.evaluation.fidelity.reference import Reference, reference_from_file, reference_of, save_reference
from orthogan.evaluation.finite import NotFinite
from orthogan.evaluation.given import as_source, reference_given
from orthogan.evaluation.images import generate_images, real
from orthogan.evaluation.names import metric_names
from orthogan.evaluation.paths.distances import Distance, load_distance
from orthogan.evaluation.paths.path_length import check_path, path_length
from orthogan.evaluation.paths.path_variants import PATH_METRICS
from orthogan.evaluation.precision import Precision, describe_precision, prepare_net, resolve_precision
from orthogan.evaluation.result import NAMES, MetricResult
from orthogan.evaluation.steady import choose_device
from orthogan.io.read import whole_number
from orthogan.models.modes import eval_mode
from orthogan.models.protocol import Generator, as_generator
from orthogan.rng import derive


class Incomplete(UserError):
    """Some metrics could not be computed; ``results`` holds the others, in their order."""

    def __init__(self, errors: Mapping[str, UserError], results: list[MetricResult]) -> None:
        super().__init__("\n".join(f"{metric} was not measured: {error}" for metric, error in errors.items()))
        self.results = results


def evaluate(
    subject: Any,
    reference: Any = None,
    *,
    metrics: Sequence[str] | str = ("fid",),
    samples: int | None = 50_000,
    extractor: str = "auto",
    weights: str | Path | None = None,
    batch_size: int = 64,
    seed: int = 0,
    device: torch.device | str | None = None,
    truncation: float = 1.0,
    reference_samples: int | None = None,
    save_reference_to: str | Path | None = None,
    kid_subset_size: int | None = None,
    precision: str = "fp32",
    progress: bool = True,
    info: Mapping[str, str] | None = None,
) -> list[MetricResult]:
    """Score ``subject`` against ``reference``; one result for each metric, in their order.

    In a process group every process calls this with the same arguments, does its share, and gets the same results.

    Args:
        subject: a generator (drawn from in eval mode, its mode restored), or images: an image source, a tensor or
            array (n, c, h, w), a Dataset or a DataLoader, as ``given.images_of`` describes.
        reference: images in one of these forms, another generator, the path of a folder or .zip of images (brought to
            the size of the subject's), or of a file of statistics (fid only); None for isc and path lengths.
        metrics: out of fid, isc, kid, prc, and the path lengths of ``path_variants.PATH_METRICS``; also under the
            names of ``names.HABITS``.
        samples: images drawn from a generator, or at most taken from a set of images (None: all of it); also pairs
            of images for a path length, of which publications used 10,000 to 100,000.
        extractor: a name of ``orthogan.evaluation.fidelity.extractors``; "auto" = inception if its weights are here.
        weights: its weights file, instead of the published one.
        seed: of the latents and labels.
        truncation: of the latents, see ``orthogan.models.generate``.
        reference_samples: compare with a seeded subset of so many real images (None: all); of a generator as
            reference, how many it draws (None: ``samples``).
        save_reference_to: write the reference statistics to this .safetensors file.
        kid_subset_size: images in each subset of kid (None: 1000, as published); another size is another KID.
        precision: of sampling and of the feature net: "fp32", as published numbers are; "bf16"; "auto": bf16 sampling
            where the hardware has it, fp32 features. Path lengths are always fp32.
        info: further facts for the protocol.

    Raises:
        Incomplete: some metrics could not be computed; it holds the results of the others.
        UserError: an unknown metric, extractor or precision, missing weights, too few images, an unlike reference, a
            path length of images or of a space that the generator does not have.
        TypeError: a subject or reference of another kind.
    """
    names = metric_names(metrics, (*NAMES, *PATH_METRICS))
    for name, number in (("samples", samples), ("reference_samples", reference_samples), ("batch_size", batch_size)):
        if number is not None and whole_number(name, number) < 1:
            raise UserError(f"{name}: {number}; give at least 1")
    subject = as_generator(subject) if isinstance(subject, nn.Module) else as_source(subject, "subject")
    fakes = reference_samples or samples
    against = reference_given(reference, subject, fakes, derive(seed, "reference"))
    check_request(names, against, save_reference_to, truncation)
    count = _count(subject, samples)
    images = _count(against, reference_samples) if isinstance(against, ImageSource) else None
    place = choose_device(subject, device)
    formats = resolve_precision(precision, place)
    found: dict[str, MetricResult] = {}
    refused: dict[str, UserError] = {}
    distances: dict[str, Distance] = {}
    # what may fail comes before what takes long
    for metric in names:
        with _noted(refused, metric, alike=True):
            still = isinstance(subject, ImageSource)
            counts = (count, images)
            check_metric(
                metric, against, images=still, truncation=truncation, counts=counts, subset_size=kid_subset_size
            )
            if metric in PATH_METRICS:
                check_path(cast(Generator, subject), PATH_METRICS[metric][0])  # check_metric saw to it
        if metric in PATH_METRICS and metric not in refused:
            name = PATH_METRICS[metric][1]
            with _noted(refused, metric):
                distances[name] = distances.get(name) or load_distance(name, device=place)
    seen = [metric for metric in names if metric not in PATH_METRICS and metric not in refused]
    if seen:
        with _noted(refused, *seen):
            net = load_extractor(resolve_extractor(extractor), device=place, weights=weights, bf16=formats.features)
            length, classifies = net.probe(place)
            if "isc" in seen and not classifies:
                seen.remove("isc")
                refused["isc"] = UserError(
                    f"extractor {net.name}: it classifies nothing, so it gives no Inception Score"
                )
            job = _Job(seen, count, images, batch_size, seed, place, truncation, formats, kid_subset_size, progress)
            scored = (
                _of_images(subject, against, net, length, job, reference_samples, save_reference_to, info or {})
                if seen
                else []
            )
            for result in scored:
                with _noted(refused, result.metric, alike=True):
                    found[result.metric] = _checked(result)
    for metric in (metric for metric in names if metric in PATH_METRICS and metric not in refused):
        variant, distance = PATH_METRICS[metric]
        with _noted(refused, metric):
            found[metric] = _checked(
                path_length(
                    cast(Generator, subject),
                    variant,
                    distance=distances[distance],
                    samples=count,
                    batch_size=batch_size,
                    seed=seed,
                    device=place,
                    progress=progress,
                    info=info,
                )
            )
    results = [found[metric] for metric in names if metric in found]
    if not refused:
        return results
    errors = {metric: refused[metric] for metric in names if metric in refused}
    if not results and len({str(error) for error in errors.values()}) == 1:
        raise next(iter(errors.values()))
    raise Incomplete(errors, results)


@contextmanager
def _noted(refused: dict[str, UserError], *metrics: str, alike: bool = False) -> Iterator[None]:
    """Within the block an error of the user's is kept for ``metrics`` instead of raised.

    Not so where another process may not meet it: it would wait for this one. ``alike``: all meet it.
    """
    try:
        yield
    except UserError as error:
        if not (alike or isinstance(error, NotFinite) or rank_and_world()[1] == 1):
            raise
        refused |= {metric: error for metric in metrics if metric not in refused}


def _checked(result: MetricResult) -> MetricResult:
    """``result``, unless one of its numbers overflowed."""
    numbers = {result.label: result.value, "its spread": result.std or 0.0, **result.parts}
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise NotFinite(f"{result.label}: {name} is {number}: the features or the reference are too large for it")
    return result


@dataclass(frozen=True)
class _Job:
    """What is to be measured, and how."""

    metrics: Sequence[str]
    count: int
    reference_count: int | None  # None where there are only statistics, or nothing
    batch_size: int
    seed: int
    device: torch.device
    truncation: float
    precision: Precision
    subset_size: int | None
    progress: bool

    def kept(self, subsets: Subsets | None) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Of which generated and real images the features are needed themselves: all for neighbours, few for KID."""
        sides = [self.count, self.reference_count or 0]
        if "prc" in self.metrics:
            return np.arange(sides[0]), np.arange(sides[1])
        if subsets is None:
            return None, None
        # a reference that fits is kept whole: its cache then serves any number of fakes
        few = sides[1] <= subsets.reference.size
        return np.unique(subsets.generated), np.arange(sides[1]) if few else np.unique(subsets.reference)


def _of_images(
    subject: Generator | ImageSource,
    reference: ImageSource | Path | None,
    net: Extractor,
    length: int,
    job: _Job,
    reference_samples: int | None,
    save_reference_to: str | Path | None,
    info: Mapping[str, str],
) -> list[MetricResult]:
    """The metrics that look at images through an extractor."""
    began = time.monotonic()
    subsets = Subsets.of(job.count, job.reference_count or 0, job.subset_size) if "kid" in job.metrics else None
    fakes, reals = job.kept(subsets)
    against = _reference(reference, net, reals, job, reference_samples)
    if against is not None:
        check_length(length, against.features.gaussian)
    if save_reference_to is not None and against is not None:
        save_reference(save_reference_to, against, net)
    found = _features(subject, net, fakes, job)
    scores, seconds = broadcast_json(
        [
            [_score(metric, found, against, subsets, job.device) for metric in job.metrics],
            round(time.monotonic() - began, 1),
        ]
    )
    protocol = {
        "samples": job.count,
        "reference": against.name if against is not None else "none",
        "extractor": net.name,
        "extractor weights": net.weights,
        "resize": net.resize,
        "seed": job.seed,
        **_drawing(subject, job.truncation),
        "dtype": describe_precision(job.precision, job.device, drawn=not isinstance(subject, ImageSource)),
        "device": job.device.type,
        "orthogan": __version__,
        "torch": torch.__version__,
        "torch-fidelity": torch_fidelity.__version__,
        **info,
        "seconds": seconds,
    }
    smaller = f"subset={job.subset_size}" if job.subset_size not in (None, SUBSET_SIZE) else ""
    return [
        MetricResult(metric, value, net.name, std, parts, protocol, smaller if metric == "kid" else "")
        for metric, (value, std, parts) in zip(job.metrics, scores, strict=True)
    ]


def _count(images: Generator | ImageSource, samples: int | None) -> int:
    """How many images are looked at."""
    if isinstance(images, ImageSource):
        return len(images) if samples is None else min(samples, len(images))
    if samples is None:
        raise UserError("samples: say how many images to draw from the generator")
    return samples


def _drawing(subject: Generator | ImageSource, truncation: float) -> dict[str, object]:
    """How a generator was drawn from; images that were there already are only read."""
    if isinstance(subject, ImageSource):
        return {}
    labels = {"labels": "every class equally often, in random order"} if as_generator(subject).num_classes else {}
    return {"truncation": truncation, **labels, "batch norm": "running statistics"}


def _reference(
    reference: ImageSource | Path | None,
    net: Extractor,
    keep: np.ndarray | None,
    job: _Job,
    samples: int | None,
) -> Reference | None:
    if reference is None:
        return None
    if isinstance(reference, ImageSource):
        return reference_of(
            reference,
            net,
            samples=samples,
            keep=keep,
            device=job.device,
            batch_size=job.batch_size,
            progress=job.progress,
        )
    return reference_from_file(reference, net)


def _features(subject: Generator | ImageSource, net: Extractor, keep: np.ndarray | None, job: _Job) -> Features:
    options = {
        "device": job.device,
        "total": job.count,
        "keep": keep,
        "score": "isc" in job.metrics,
        "progress": job.progress,
    }
    if isinstance(subject, ImageSource):
        batches = real(subject, job.count, batch_size=job.batch_size, seed=job.seed)
        return extract(batches, net, what=f"features of {subject.name}", **options)
    generator = as_generator(subject)
    generator.to(job.device)
    with eval_mode(generator), prepare_net(generator):
        batches = generate_images(
            generator,
            job.count,
            seed=job.seed,
            batch_size=job.batch_size,
            truncation=job.truncation,
            device=job.device,
            bf16=job.precision.sampling,
        )
        return extract(batches, net, what="features of fakes", **options)


def _score(
    metric: str, found: Features, against: Reference | None, subsets: Subsets | None, device: torch.device
) -> tuple[float, float | None, dict[str, float]]:
    """Value, spread, parts."""
    if metric == "isc":
        assert found.inception_score is not None
        return *found.inception_score, {}
    assert against is not None
    if metric == "fid":
        return frechet_distance(found.gaussian, against.features.gaussian, device=device), None, {}
    fakes, reals = found.kept, against.features.kept
    assert fakes is not None
    assert reals is not None
    if metric == "kid":
        assert subsets is not None
        return *kernel_distance(subsets, fakes, reals), {}
    parts = precision_recall(fakes[1], reals[1], device=device)
    return parts.pop("f_score"), None, parts
