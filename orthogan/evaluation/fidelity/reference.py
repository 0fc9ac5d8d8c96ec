"""Features of the reference images, computed once and cached under a hash of everything they depend on."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orthogan.data import ImageSource
from orthogan.distributed import all_true, rank_and_world
from orthogan.errors import CannotWrite, UserError
from orthogan.evaluation.extractors.extractor import Extractor
from orthogan.evaluation.fidelity.features import Features, extract
from orthogan.evaluation.fidelity.statistics import load_gaussian, save_gaussian
from orthogan.evaluation.images import real
from orthogan.evaluation.metric import Stream
from orthogan.io.read import cache_folder
from orthogan.io.weights import read_sealed, write_sealed
from orthogan.size import size_in_words

PRECISION, FP32, BF16 = "precision", "float32", "bfloat16"


@dataclass(frozen=True)
class Reference:
    """Features of the real images, and their name in a protocol."""

    features: Features
    name: str


def reference_of(
    source: ImageSource,
    extractor: Extractor | None,
    *,
    samples: int | None,
    device: torch.device,
    batch_size: int,
    progress: bool,
    keep: np.ndarray | None = None,
    streams: Mapping[tuple[str, str], Stream] | None = None,
) -> Reference:
    """Return features of ``source`` (or of a random subset of ``samples`` images), from the cache if possible.

    Arguments as in ``features.extract``; with ``streams``, the images are always read.
    """
    count = len(source) if samples is None else min(samples, len(source))
    name = f"{source.name}, {count:,} images of {size_in_words(source.resolution)} px"
    common: dict[str, Any] = {"device": device, "total": count, "keep": keep, "streams": streams, "progress": progress}
    common["what"] = f"features of {source.name}"
    batches = real(source, samples, batch_size=batch_size)
    if extractor is None:
        return Reference(extract(batches, None, **common), name)
    key = _key(source, extractor, count)
    statistics = cache_folder() / f"{key}.safetensors"
    vectors = cache_folder() / f"{key}-features{_part(keep, count)}.safetensors"
    whole = cache_folder() / f"{key}-features.safetensors"
    found = None if streams else _cached(statistics, keep, whole if whole.is_file() else vectors)
    if all_true(found is not None) and found is not None:
        return Reference(found, name)
    features = extract(batches, extractor, **common)
    if rank_and_world()[0] == 0:
        _store(statistics, vectors, features, name, extractor)
    return Reference(features, name)


def reference_from_file(path: str | Path, extractor: Extractor) -> Reference:
    """Read precomputed statistics; statistics written by orthogan must be of the same extractor.

    Raises:
        UserError: unreadable, or made with another extractor, other weights or another resizing.
    """
    gaussian, metadata = load_gaussian(path)
    for key, value in {PRECISION: FP32, **_identity(extractor)}.items():
        made = metadata.get(key, FP32 if key == PRECISION else None)
        if metadata and made != value:
            raise UserError(f"{path}: was made with {key} {made!r}, but this evaluation uses {value!r}")
    images = f", {gaussian.count:,} images" if gaussian.count else ""
    return Reference(Features(gaussian), metadata.get("reference", f"{Path(path).name}{images}"))


def save_reference(path: str | Path, reference: Reference, extractor: Extractor) -> None:
    """Write statistics for ``reference_from_file``; only the first process writes.

    Raises:
        UserError: it cannot be written.
    """
    if rank_and_world()[0] > 0:
        return
    save_gaussian(path, reference.features.gaussian, {"reference": reference.name, **_identity(extractor)})


def _identity(extractor: Extractor) -> dict[str, str]:
    """Return what features depend on in addition to the images; float32 is not stated, as in older files."""
    found = {"extractor": extractor.name, "weights": extractor.weights, "resize": extractor.resize}
    return found | ({PRECISION: BF16} if extractor.bf16 else {})


def _key(source: ImageSource, extractor: Extractor, count: int) -> str:
    parts = [source.fingerprint(), str(count), *_identity(extractor).values()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _part(keep: np.ndarray | None, count: int) -> str:
    """Return the part of a file name that says which images it has, if not all."""
    return "" if keep is None or len(keep) == count else f"-{hashlib.sha256(keep.tobytes()).hexdigest()[:16]}"


def _cached(statistics: Path, keep: np.ndarray | None, vectors: Path) -> Features | None:
    """Return the cached features; ``vectors``: of all images, or of those in ``keep``."""
    if not statistics.is_file() or not (keep is None or vectors.is_file()):
        return None
    try:
        gaussian, _ = load_gaussian(statistics, sealed=True)
        if keep is None:
            return Features(gaussian)
        rows = read_sealed(vectors, needed=True)[0]["features"]
    except (UserError, KeyError) as error:
        print(f"orthogan: computing the features of the reference again, {error}", file=sys.stderr)
        return None
    return Features(gaussian, keep, rows if len(rows) == len(keep) else rows[torch.from_numpy(keep)])


def _store(statistics: Path, vectors: Path, features: Features, name: str, extractor: Extractor) -> None:
    try:
        if features.rows is not None:
            write_sealed(vectors, {"features": features.rows}, {})
        save_gaussian(statistics, features.gaussian, {"reference": name, **_identity(extractor)})
    except CannotWrite as error:  # an unwritable cache costs time, but not the result
        print(f"orthogan: cannot cache the reference statistics: {error}", file=sys.stderr)
