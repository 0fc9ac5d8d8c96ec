"""Metrics of a generator, or of a set of images, against a reference: the one function behind every number."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch_fidelity

from orthogan import __version__
from orthogan.data import ImageSource
from orthogan.errors import UserError
from orthogan.evaluation.extractors import Extractor, load_extractor, resolve_extractor
from orthogan.evaluation.features import Features, extract
from orthogan.evaluation.frechet import frechet_distance
from orthogan.evaluation.images import generated, real
from orthogan.evaluation.inception_score import inception_score
from orthogan.evaluation.kid import kernel_distance
from orthogan.evaluation.precision_recall import precision_recall
from orthogan.evaluation.reference import Reference, reference_from_file, reference_of, save_reference
from orthogan.evaluation.result import NAMES, MetricResult
from orthogan.models.modes import frozen
from orthogan.models.protocol import Generator, as_generator

COMPARING = ("fid", "kid", "prc")  # the Inception Score needs no reference


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
        reference: images, or a file of statistics (fid only); None for isc alone.
        metrics: out of fid, isc, kid, prc.
        samples: images drawn from a generator, or at most taken from a set of images (None: all of it).
        extractor: a name of ``orthogan.evaluation.extractors``; "auto" = inception if its weights are here.
        weights: its weights file, instead of the published one.
        seed: of the latents and labels.
        truncation: of the latents, see ``orthogan.latent.truncation``.
        reference_samples: compare with a seeded subset of so many real images (None: all).
        save_reference_to: write the reference statistics to this .safetensors file.
        info: further facts for the protocol.

    Raises:
        UserError: an unknown metric or extractor, missing weights, too few images, an unlike reference.
    """
    began = time.monotonic()
    _check(metrics, reference)
    place = _device(subject, device)
    net = load_extractor(resolve_extractor(extractor), device=place, weights=weights)
    keep = any(metric in ("kid", "prc") for metric in metrics)
    against = _reference(reference, net, keep, place, batch_size, reference_samples, progress)
    if save_reference_to is not None and against is not None:
        save_reference(save_reference_to, against, net)
    found, count = _features(subject, net, metrics, keep, samples, seed, batch_size, truncation, place, progress)
    protocol = {
        "samples": count,
        "reference": against.name if against is not None else "none",
        "extractor": net.name,
        "extractor weights": net.weights,
        "resize": net.resize,
        "seed": seed,
        "truncation": truncation,
        "batch norm": "running statistics",
        "dtype": "float32, statistics float64",
        "device": place.type,
        "orthogan": __version__,
        "torch": torch.__version__,
        "torch-fidelity": torch_fidelity.__version__,
        **(info or {}),
        "seconds": round(time.monotonic() - began, 1),
    }
    return [_result(metric, found, against, net, protocol) for metric in metrics]


def _check(metrics: Sequence[str], reference: object) -> None:
    unknown = [metric for metric in metrics if metric not in NAMES]
    if unknown or not metrics:
        raise UserError(f"metrics: {', '.join(unknown) or 'none'} given; choose out of {', '.join(NAMES)}")
    comparing = [metric for metric in metrics if metric in COMPARING]
    if reference is None and comparing:
        raise UserError(f"metrics: {', '.join(comparing)} need a reference to compare with")
    if isinstance(reference, str | Path) and {"kid", "prc"} & set(metrics):
        raise UserError("metrics: kid and prc compare single images; give them images as reference, not statistics")


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
    samples: int | None,
    seed: int,
    batch_size: int,
    truncation: float,
    device: torch.device,
    progress: bool,
) -> tuple[Features, int]:
    options = {
        "device": device,
        "keep_vectors": keep,
        "keep_logits": "isc" in metrics,
        "progress": progress,
    }
    if isinstance(subject, ImageSource):
        count = len(subject) if samples is None else min(samples, len(subject))
        batches = real(subject, samples, batch_size=batch_size, seed=seed)
        return extract(batches, net, total=count, what=f"features of {subject.name}", **options), count
    if samples is None:
        raise UserError("samples: say how many images to draw from the generator")
    generator = as_generator(subject)
    generator.to(device)
    with frozen(generator):
        batches = generated(generator, samples, seed=seed, batch_size=batch_size, truncation=truncation, device=device)
        return extract(batches, net, total=samples, what="features of fakes", **options), samples


def _result(
    metric: str, found: Features, against: Reference | None, net: Extractor, protocol: dict[str, object]
) -> MetricResult:
    if metric == "isc":
        assert found.logits is not None
        value, std = inception_score(found.logits)
        return MetricResult("isc", value, net.name, std, protocol=protocol)
    assert against is not None
    if metric == "fid":
        value = frechet_distance(found.gaussian, against.features.gaussian)
        return MetricResult("fid", value, net.name, protocol=protocol)
    assert found.vectors is not None
    assert against.features.vectors is not None
    if metric == "kid":
        value, std = kernel_distance(found.vectors, against.features.vectors)
        return MetricResult("kid", value, net.name, std, protocol=protocol)
    parts = precision_recall(found.vectors, against.features.vectors)
    return MetricResult("prc", parts.pop("f_score"), net.name, parts=parts, protocol=protocol)
