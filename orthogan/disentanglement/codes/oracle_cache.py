"""Oracles are kept, so that each is trained once: one file, named by a hash of all that it depends on."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from orthogan.data.source import ImageSource
from orthogan.disentanglement.codes.merging import LEVELS, TURNS, Merging, get_merging
from orthogan.disentanglement.codes.oracle import FactorClassifier, TrainingRecipe, fingerprint_of, train_oracle
from orthogan.disentanglement.codes.trunk import new_trunk
from orthogan.errors import UserError
from orthogan.io.read import cache_folder, parse_json
from orthogan.io.weights import read_sealed, write_sealed

FORMAT = "orthogan-oracle-1"
_KEY = "oracle"


def oracle_for(
    source: ImageSource,
    *,
    teaching: TrainingRecipe | None = None,
    levels: int = LEVELS,
    turns: int = TURNS,
    merging: Merging | None = None,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> FactorClassifier:
    """The oracle of ``source`` out of the cache, or trained now and put there; on ``device``.

    It is found again while the images, the factors, their merging and the ``teaching`` are the same.
    Raises ValueError as ``train_oracle``.
    """
    taught = TrainingRecipe() if teaching is None else teaching
    merging = get_merging(source, levels=levels, turns=turns) if merging is None else merging
    identity = json.dumps([FORMAT, fingerprint_of(source), source.resolution, asdict(merging), asdict(taught)])
    path = cache_folder() / f"oracle-{hashlib.sha256(identity.encode()).hexdigest()[:32]}.safetensors"
    if path.is_file():
        try:
            return load_oracle(path, device=device, sealed=True)
        except UserError as error:
            print(f"orthogan: training the oracle again, {error}", file=sys.stderr)
    oracle = train_oracle(source, merging=merging, device=device, progress=progress, **asdict(taught))
    try:
        save_oracle(path, oracle)
    except UserError as error:  # a cache that cannot be written costs time, not the result
        print(f"orthogan: the oracle is not kept: {error}", file=sys.stderr)
    return oracle


def save_oracle(path: str | os.PathLike[str], oracle: FactorClassifier) -> Path:
    """Write the weights, the rest as JSON metadata, and a hash to a ``.safetensors`` file. Raises CannotWrite."""
    text = json.dumps({"format": FORMAT, **oracle.as_dict()})
    return write_sealed(path, oracle.net.state_dict(), {_KEY: text})


def load_oracle(
    path: str | os.PathLike[str], *, device: torch.device | str = "cpu", sealed: bool = False
) -> FactorClassifier:
    """Read what ``save_oracle`` wrote; ``sealed``: a file without a hash, of an earlier version, counts as damaged.

    Raises UserError naming the file: missing, damaged, or no oracle.
    """
    tensors, metadata = read_sealed(path, needed=sealed)
    if _KEY not in metadata:
        raise UserError(f"{path}: holds no oracle")
    described: Any = parse_json(metadata[_KEY], path)
    try:
        if described.pop("format") != FORMAT:
            raise UserError(f"{path}: written by another version of orthogan; expected {FORMAT}")
        merging = _merging(described.pop("merging"))
        teaching = TrainingRecipe(**described.pop("teaching"))
        net = new_trunk(described["channels"], described["resolution"], sum(merging.sizes), seed=0)
        net.load_state_dict(tensors)
        return FactorClassifier(net.to(device).eval(), merging, teaching=teaching, **described)
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: cannot be read as an oracle ({error})") from error


def _merging(plain: Mapping[str, Any]) -> Merging:
    return Merging(
        tuple(plain["names"]), tuple(plain["columns"]), tuple(map(tuple, plain["tables"])), tuple(plain["notes"])
    )
