"""What generated images are compared with, computed once and kept under a hash of all that it depends on."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from orthogan.cache import cache_folder
from orthogan.data import ImageSource
from orthogan.errors import UserError
from orthogan.evaluation.extractors import Extractor
from orthogan.evaluation.features import Features, extract
from orthogan.evaluation.images import real
from orthogan.evaluation.processes import everywhere, rank_and_world
from orthogan.evaluation.statistics import load_gaussian, save_gaussian


@dataclass(frozen=True)
class Reference:
    """Features of the real images, and what they are called in a protocol."""

    features: Features
    name: str


def reference_of(
    source: ImageSource,
    extractor: Extractor,
    *,
    samples: int | None,
    keep_vectors: bool,
    device: torch.device,
    batch_size: int,
    progress: bool,
) -> Reference:
    """Features of ``source`` (or of a seeded subset of ``samples`` images), from the cache where they are there."""
    count = len(source) if samples is None else min(samples, len(source))
    name = f"{source.name}, {count:,} images of {source.resolution} px"
    key = _key(source, extractor, count)
    statistics = cache_folder() / f"{key}.safetensors"
    vectors = cache_folder() / f"{key}-features.safetensors"
    found = _cached(statistics, vectors if keep_vectors else None)
    if everywhere(found is not None) and found is not None:
        return Reference(found, name)
    features = extract(
        real(source, samples, batch_size=batch_size),
        extractor,
        device=device,
        total=count,
        keep_vectors=keep_vectors,
        keep_logits=False,
        what=f"features of {source.name}",
        progress=progress,
    )
    if rank_and_world()[0] == 0:
        _store(statistics, vectors, features, name, extractor)
    return Reference(features, name)


def reference_from_file(path: str | Path, extractor: Extractor) -> Reference:
    """Precomputed statistics; those of ours must be of the same extractor.

    Raises:
        UserError: unreadable, or made with another extractor, other weights or another resizing.
    """
    gaussian, metadata = load_gaussian(path)
    for key, value in _identity(extractor).items():
        if metadata and metadata.get(key) != value:
            raise UserError(f"{path}: made with {key} {metadata.get(key)!r}, but the generator is seen with {value!r}")
    images = f", {gaussian.count:,} images" if gaussian.count else ""
    return Reference(Features(gaussian, None, None), metadata.get("reference", f"{Path(path).name}{images}"))


def save_reference(path: str | Path, reference: Reference, extractor: Extractor) -> None:
    """Write statistics that ``reference_from_file`` accepts; of several processes the first one writes.

    Raises:
        UserError: it cannot be written.
    """
    if rank_and_world()[0] > 0:
        return
    try:
        save_gaussian(path, reference.features.gaussian, {"reference": reference.name, **_identity(extractor)})
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: reference statistics cannot be written: {error}") from None


def _identity(extractor: Extractor) -> dict[str, str]:
    return {"extractor": extractor.name, "weights": extractor.weights, "resize": extractor.resize}


def _key(source: ImageSource, extractor: Extractor, count: int) -> str:
    parts = [source.fingerprint(), str(count), *_identity(extractor).values()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _cached(statistics: Path, vectors: Path | None) -> Features | None:
    if not statistics.is_file() or not (vectors is None or vectors.is_file()):
        return None
    try:
        gaussian, _ = load_gaussian(statistics)
        kept = None if vectors is None else load_file(vectors)["features"]
    except (UserError, SafetensorError, KeyError, OSError) as error:
        print(f"orthogan: computing a damaged cache file anew: {error}", file=sys.stderr)
        return None
    return Features(gaussian, kept, None)


def _store(statistics: Path, vectors: Path, features: Features, name: str, extractor: Extractor) -> None:
    try:
        if features.vectors is not None:
            vectors.parent.mkdir(parents=True, exist_ok=True)
            temporary = vectors.with_name(f".{vectors.name}.writing")
            save_file({"features": features.vectors.contiguous()}, temporary)
            temporary.replace(vectors)
        save_gaussian(statistics, features.gaussian, {"reference": name, **_identity(extractor)})
    except (OSError, SafetensorError) as error:  # a cache that cannot be written costs time, not the result
        print(f"orthogan: reference statistics are not kept: {error}", file=sys.stderr)
