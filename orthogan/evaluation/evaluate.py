"""Metrics of a generator, or of a set of images, against a reference: the one function behind every number."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch_fidelity

from orthogan import __version__
from orthogan.data import ImageSource
from orthogan.errors import UserError
from orthogan.evaluation.checks import check_counts, check_paths, check_request
from orthogan.evaluation.distances import load_distance
from orthogan.evaluation.extractors import Extractor, load_extractor, resolve_extractor
from orthogan.evaluation.features import Features, extract
from orthogan.evaluation.frechet import check_length, frechet_distance
from orthogan.evaluation.images import generated, real
from orthogan.evaluation.inception_score import inception_score
from orthogan.evaluation.kid import kernel_distance
from orthogan.evaluation.path_length import check_path, path_length
from orthogan.evaluation.path_variants import PATH_METRICS
from orthogan.evaluation.precision_recall import precision_recall
from orthogan.evaluation.processes import agreed
from orthogan.evaluation.reference import Reference, reference_from_file, reference_of, save_reference
from orthogan.evaluation.result import MetricResult
from orthogan.models.modes import frozen
from orthogan.models.protocol import Generator, as_generator


def evaluate(
    subject: Generator | ImageSource,
    reference: ImageSource | str | Path | None,
    *,
    metrics: Sequence[str] = ("fid",),
    samples: int | None = 50_000,
    extractor: str = "auto",
    weights: str | Path | None = None,
    batch_size: int = 64,
    seed: int = 0,
    device: torch.device | str | None = None,
    truncation: float = 1.0,
    reference_samples: int | None = None,
    save_reference_to: str | Path | None = None,
    progress: bool = True,
    info: Mapping[str, str] | None = None,
) -> list[MetricResult]:
    """Score ``subject`` against ``reference``; one result for each metric, in their order.

    In a process group every process calls this with the same arguments, does its share, and gets the same results.

    Args:
        subject: a generator (drawn from in eval mode, its mode restored), or images.
        reference: images, or a file of statistics (fid only); None for isc and path lengths.
        metrics: out of fid, isc, kid, prc, and the path lengths of ``path_variants.PATH_METRICS``.
        samples: images drawn from a generator, or at most taken from a set of images (None: all of it); also pairs
            of images for a path length, of which publications used 10,000 to 100,000.
        extractor: a name of ``orthogan.evaluation.extractors``; "auto" = inception if its weights are here.
        weights: its weights file, instead of the published one.
        seed: of the latents and labels.
        truncation: of the latents, see ``orthogan.latent.truncation``.
        reference_samples: compare with a seeded subset of so many real images (None: all).
        save_reference_to: write the reference statistics to this .safetensors file.
        info: further facts for the protocol.

    Raises:
        UserError: an unknown metric or extractor, missing weights, too few images, an unlike reference, a path length
            of images or of a space that the generator does not have.
    """
    check_request(metrics, reference, save_reference_to, truncation)
    check_paths(metrics, isinstance(subject, ImageSource), truncation)
    count = _count(subject, samples)
    images = _count(reference, reference_samples) if isinstance(reference, ImageSource) else None
    check_counts(metrics, count, images)
    place = _device(subject, device)
    paths = [metric for metric in metrics if metric in PATH_METRICS]
    # what may fail comes before what takes long
    for metric in paths:
        check_path(cast(Generator, subject), PATH_METRICS[metric][0])
    distances = {name: load_distance(name, device=place) for name in {PATH_METRICS[metric][1] for metric in paths}}
    found: dict[str, MetricResult] = {}
    seen = [metric for metric in metrics if metric not in paths]
    if seen:
        net = load_extractor(resolve_extractor(extractor), device=place, weights=weights)
        scored = _of_images(
            subject,
            reference,
            net,
            seen,
            count,
            batch_size,
            seed,
            place,
            truncation,
            reference_samples,
            save_reference_to,
            progress,
            info or {},
        )
        found |= {result.metric: result for result in scored}
    for metric in paths:
        variant, distance = PATH_METRICS[metric]
        found[metric] = path_length(
            cast(Generator, subject),  # check_paths saw to it
            variant,
            distance=distances[distance],
            samples=count,
            batch_size=batch_size,
            seed=seed,
            device=place,
            progress=progress,
            info=info,
        )
    return [found[metric] for metric in metrics]


def _of_images(
    subject: Generator | ImageSource,
    reference: ImageSource | str | Path | None,
    net: Extractor,
    metrics: Sequence[str],
    count: int,
    batch_size: int,
    seed: int,
    place: torch.device,
    truncation: float,
    reference_samples: int | None,
    save_reference_to: str | Path | None,
    progress: bool,
    info: Mapping[str, str],
) -> list[MetricResult]:
    """The metrics that look at images through an extractor."""
    began = time.monotonic()
    length, classifies = net.probe(place)
    if "isc" in metrics and not classifies:
        raise UserError(f"extractor {net.name}: it classifies nothing, so it gives no Inception Score")
    keep = any(metric in ("kid", "prc") for metric in metrics)
    against = _reference(reference, net, keep, place, batch_size, reference_samples, progress)
    if against is not None:
        check_length(length, against.features.gaussian)
    if save_reference_to is not None and against is not None:
        save_reference(save_reference_to, against, net)
    found = _features(subject, net, metrics, keep, count, seed, batch_size, truncation, place, progress)
    scores, seconds = agreed(
        [[_score(metric, found, against) for metric in metrics], round(time.monotonic() - began, 1)]
    )
    protocol = {
        "samples": count,
        "reference": against.name if against is not None else "none",
        "extractor": net.name,
        "extractor weights": net.weights,
        "resize": net.resize,
        "seed": seed,
        **_drawing(subject, truncation),
        "dtype": _dtype(place),
        "device": place.type,
        "orthogan": __version__,
        "torch": torch.__version__,
        "torch-fidelity": torch_fidelity.__version__,
        **info,
        "seconds": seconds,
    }
    return [
        MetricResult(metric, value, net.name, std, parts, protocol)
        for metric, (value, std, parts) in zip(metrics, scores, strict=True)
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
    return {"truncation": truncation, "batch norm": "running statistics"}


def _dtype(device: torch.device) -> str:
    """The number format of the features and of their statistics; CUDA may shorten factors within convolutions."""
    cudnn: Any = torch.backends.cudnn  # typed without its submodules
    tf32 = device.type == "cuda" and cudnn.conv.fp32_precision == "tf32"
    return f"float32{' (TF32 convolutions)' if tf32 else ''}, statistics float64"


def _device(subject: Generator | ImageSource, device: torch.device | str | None) -> torch.device:
    if device is not None:
        return torch.device(device)
    if isinstance(subject, torch.nn.Module):
        parameter = next(subject.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _reference(
    reference: ImageSource | str | Path | None,
    net: Extractor,
    keep: bool,
    device: torch.device,
    batch_size: int,
    samples: int | None,
    progress: bool,
) -> Reference | None:
    if reference is None:
        return None
    if isinstance(reference, ImageSource):
        return reference_of(
            reference,
            net,
            samples=samples,
            keep_vectors=keep,
            device=device,
            batch_size=batch_size,
            progress=progress,
        )
    return reference_from_file(reference, net)


def _features(
    subject: Generator | ImageSource,
    net: Extractor,
    metrics: Sequence[str],
    keep: bool,
    count: int,
    seed: int,
    batch_size: int,
    truncation: float,
    device: torch.device,
    progress: bool,
) -> Features:
    options = {
        "device": device,
        "keep_vectors": keep,
        "keep_logits": "isc" in metrics,
        "progress": progress,
    }
    if isinstance(subject, ImageSource):
        batches = real(subject, count, batch_size=batch_size, seed=seed)
        return extract(batches, net, total=count, what=f"features of {subject.name}", **options)
    generator = as_generator(subject)
    generator.to(device)
    with frozen(generator):
        batches = generated(generator, count, seed=seed, batch_size=batch_size, truncation=truncation, device=device)
        return extract(batches, net, total=count, what="features of fakes", **options)


def _score(metric: str, found: Features, against: Reference | None) -> tuple[float, float | None, dict[str, float]]:
    """Value, spread, parts."""
    if metric == "isc":
        assert found.logits is not None
        return *inception_score(found.logits), {}
    assert against is not None
    if metric == "fid":
        return frechet_distance(found.gaussian, against.features.gaussian), None, {}
    assert found.vectors is not None
    assert against.features.vectors is not None
    if metric == "kid":
        return *kernel_distance(found.vectors, against.features.vectors), {}
    parts = precision_recall(found.vectors, against.features.vectors)
    return parts.pop("f_score"), None, parts
