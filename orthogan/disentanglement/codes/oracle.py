"""An oracle: a classifier of factors trained on labeled data, which predicts the factors of generated images.

Each is trained once and cached in one file, named by a hash of everything that it depends on.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from orthogan.data.order import permuted_index, subset
from orthogan.data.source import ImageSource
from orthogan.data.sources.sprites import SpriteGrid
from orthogan.disentanglement.codes.merging import LEVELS, TURNS, Merging, get_merging
from orthogan.disentanglement.codes.trunk import Precision, Trunk, fit_trunk, new_trunk, prepare_images
from orthogan.errors import UserError
from orthogan.io.hashing import ContentHash
from orthogan.io.read import cache_folder, parse_json
from orthogan.io.weights import read_sealed, write_sealed
from orthogan.rng import derive
from orthogan.words import counted

LEAST_ACCURACY = 0.9
ROWS = 1024  # images per batch
LEAST_IMAGES = 20


@dataclass(frozen=True)
class TrainingRecipe:
    """How an oracle is trained; part of its identity.

    ``steps`` of ``batch_size`` images; ``held_out``: number of images, at most a tenth of all, that are held out to
    measure the accuracy.

    Example:
        >>> from orthogan.disentanglement import TrainingRecipe
        >>> TrainingRecipe(seed=1).steps
        3000
    """

    seed: int = 0
    steps: int = 3000
    batch_size: int = 128
    lr: float = 3e-3
    held_out: int = 5000
    precision: Precision = "bfloat16"


@dataclass(frozen=True, eq=False)
class FactorClassifier:
    """Maps uint8 images of one size to the class of every factor of ``merging``.

    ``accuracy``, ``chance``, ``confidence``: for each factor, on held-out images of ``source``, the accuracy, the
    frequency of the most common class, and the mean probability of the predicted class. ``fingerprint``: of the source
    and its factors.

    Example:
        >>> import orthogan
        >>> from orthogan.disentanglement import train_oracle
        >>> sprites = orthogan.open_source("sprites", count=64, channels=1)
        >>> oracle = train_oracle(sprites, steps=2, batch_size=8, held_out=20, precision="float32", progress=False)
        >>> classes, probability = oracle.read(sprites.read([0, 1, 2])[0])
        >>> classes.shape == probability.shape == (3, len(oracle.merging.names))
        True
    """

    net: Trunk
    merging: Merging
    resolution: int
    channels: int
    accuracy: Mapping[str, float]
    chance: Mapping[str, float]
    confidence: Mapping[str, float]
    source: str
    fingerprint: str
    teaching: TrainingRecipe = field(default_factory=TrainingRecipe)

    def read(self, images: np.ndarray | Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return predictions int64 (n, K) and their probabilities float32 (n, K) for images uint8 (n, c, s, s).

        Raises ValueError: images of another size or type.
        """
        given = prepare_images(images, self.channels, self.resolution, "oracle")
        return _answers(self.net, given, self.merging.sizes)

    def kept(self, least_accuracy: float = LEAST_ACCURACY) -> list[int]:
        """Return the indices of the factors predicted with at least this accuracy."""
        return [j for j, name in enumerate(self.merging.names) if self.accuracy[name] >= least_accuracy]

    def as_dict(self) -> dict[str, Any]:
        """Return everything except the network, ready for JSON."""
        named = ("resolution", "channels", "accuracy", "chance", "confidence", "source", "fingerprint")
        plain = {name: getattr(self, name) for name in named}
        return plain | {"merging": asdict(self.merging), "teaching": asdict(self.teaching)}


def train_oracle(
    source: ImageSource,
    *,
    seed: int = 0,
    steps: int = 3000,
    batch_size: int = 128,
    lr: float = 3e-3,
    levels: int = LEVELS,
    turns: int = TURNS,
    merging: Merging | None = None,
    held_out: int = 5000,
    precision: Precision = "bfloat16",
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> FactorClassifier:
    """Train an oracle for ``source``: one trunk, with the cross-entropy of each factor.

    It sees random images, each once if there are enough of them. Held-out images are not used for training; identical
    sprites (orientation 0 and 39) count as two images. The same arguments give the same oracle on the same machine and
    number of threads.

    Args:
        levels, turns: how factors are merged, see ``get_merging``; or give the ``merging`` itself.

    Raises:
        ValueError: the factors are not known, there are too few images, or numbers are too small.

    Example:
        >>> import orthogan
        >>> from orthogan.disentanglement import train_oracle
        >>> sprites = orthogan.open_source("sprites", count=64, channels=1)
        >>> oracle = train_oracle(sprites, steps=2, batch_size=8, held_out=20, precision="float32", progress=False)
        >>> list(oracle.accuracy)  # on images that were held out
        ['shape', 'scale', 'orientation', 'x', 'y']
    """
    teaching = TrainingRecipe(seed, steps, batch_size, lr, held_out, precision)
    merging = get_merging(source, levels=levels, turns=turns) if merging is None else merging
    kept_back = min(held_out, len(source) // 10)
    if len(source) < LEAST_IMAGES or kept_back < 1 or batch_size < 2:
        raise ValueError(
            f"{source.name}: {counted(len(source), 'image')}, held_out={held_out}, batch_size={batch_size}: "
            f"an oracle needs {LEAST_IMAGES} images, 1 held out and batches of 2"
        )
    rows = subset(derive(seed, "oracle images"), len(source), min(len(source), kept_back + steps * batch_size))
    held, taught = rows[:kept_back], rows[kept_back:]
    classes = merging(factors_at(source, taught))
    order = derive(seed, "oracle order")

    def batch(step: int) -> tuple[Tensor, Tensor]:
        chosen = permuted_index(order, len(taught), step * batch_size, batch_size)
        images = torch.from_numpy(source.read(taught[chosen])[0]).to(device)
        return as_input(images), torch.from_numpy(classes[chosen]).to(device)

    net = new_trunk(source.channels, source.resolution, sum(merging.sizes), seed=seed).to(device)
    fit_trunk(
        net,
        batch,
        lambda out, targets: _loss(out, targets, merging.sizes),
        steps=steps,
        lr=lr,
        precision=precision,
        what=f"oracle of {source.name}",
        progress=progress,
    )
    truth = merging(factors_at(source, held))
    parts = [_answers(net, torch.from_numpy(source.read(few)[0]), merging.sizes) for few in pieces(held)]
    answers, sure = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    names = merging.names
    common = [np.bincount(column).max() / len(column) for column in truth.T]
    return FactorClassifier(
        net,
        merging,
        source.resolution,
        source.channels,
        accuracy=dict(zip(names, (answers == truth).mean(0).tolist(), strict=True)),
        chance=dict(zip(names, map(float, common), strict=True)),
        confidence=dict(zip(names, sure.mean(0, dtype=np.float64).tolist(), strict=True)),
        source=source.name,
        fingerprint=fingerprint_of(source),
        teaching=teaching,
    )


def factors_at(source: ImageSource, indices: np.ndarray) -> np.ndarray:
    """Return the factors, integers (n, K), of the images at ``indices``. Raises ValueError if they are not known."""
    if isinstance(source, SpriteGrid):  # the whole table takes half a gigabyte
        return source.classes(indices)
    factors = source.factors
    if factors is None:
        raise ValueError(f"{source.name}: its factors are not known; choose one with factors, such as faces")
    return factors[indices]


def fingerprint_of(source: ImageSource) -> str:
    """Return a hash of the images and their factors."""
    digest = ContentHash().text(source.fingerprint(), *source.factor_names, *source.factor_sizes)
    if not isinstance(source, SpriteGrid) and source.factors is not None:
        digest.array(source.factors)
    return digest.hexdigest()


def as_input(images: Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def pieces(indices: np.ndarray) -> list[np.ndarray]:
    """Split ``indices`` (n,) into batches."""
    return [indices[start : start + ROWS] for start in range(0, len(indices), ROWS)]


def _loss(logits: Tensor, targets: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """The sum over factors of the cross-entropy."""
    parts = zip(logits.split(sizes, 1), targets.unbind(1), strict=True)
    return torch.stack([functional.cross_entropy(part, target) for part, target in parts]).sum()


@torch.no_grad()
def _answers(net: Trunk, images: Tensor, sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    place = next(net.parameters()).device
    answers, sure = [], []
    for start in range(0, len(images), ROWS):
        logits = net(as_input(images[start : start + ROWS].to(place)))
        best = [part.softmax(1).max(1) for part in logits.split(sizes, 1)]
        answers.append(torch.stack([one.indices for one in best], 1).cpu().numpy())
        sure.append(torch.stack([one.values for one in best], 1).cpu().numpy())
    return np.concatenate(answers), np.concatenate(sure)


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
    """Return the oracle of ``source`` on ``device``, from the cache or trained now and cached.

    The cached oracle is used if the images, the factors, their merging and the ``teaching`` are the same.

    Args:
        source: images with known factors.
        teaching: how the oracle is trained; default: ``TrainingRecipe()``.
        levels: largest number of bins of an ordered factor, as in ``get_merging``.
        turns: number of bins of the orientation, as in ``get_merging``.
        merging: how values of the factors are merged into classes, instead of ``levels`` and ``turns``.
        device: where the oracle is trained and returned.
        progress: show a progress bar.

    Raises:
        ValueError: as ``train_oracle``.

    Example:
        >>> import orthogan
        >>> from orthogan.disentanglement import TrainingRecipe, oracle_for
        >>> sprites = orthogan.open_source("sprites", count=64, channels=1)
        >>> quick = TrainingRecipe(steps=2, batch_size=8, held_out=20, precision="float32")
        >>> oracle = oracle_for(sprites, teaching=quick, progress=False)  # the second call finds it in the cache
        >>> oracle.resolution
        32
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
    except UserError as error:  # an unwritable cache costs time, but not the result
        print(f"orthogan: cannot cache the oracle: {error}", file=sys.stderr)
    return oracle


def save_oracle(path: str | os.PathLike[str], oracle: FactorClassifier) -> Path:
    """Write the weights, JSON metadata and a hash to a ``.safetensors`` file. Raises CannotWrite.

    Example:
        >>> import orthogan
        >>> from orthogan.disentanglement import save_oracle, train_oracle
        >>> sprites = orthogan.open_source("sprites", count=64, channels=1)
        >>> oracle = train_oracle(sprites, steps=2, batch_size=8, held_out=20, precision="float32", progress=False)
        >>> save_oracle("oracle.safetensors", oracle).name
        'oracle.safetensors'
    """
    text = json.dumps({"format": FORMAT, **oracle.as_dict()})
    return write_sealed(path, oracle.net.state_dict(), {_KEY: text})


def load_oracle(
    path: str | os.PathLike[str], *, device: torch.device | str = "cpu", sealed: bool = False
) -> FactorClassifier:
    """Read an oracle written by ``save_oracle``.

    Args:
        path: the .safetensors file.
        device: of the returned oracle.
        sealed: treat a file without a hash (from earlier versions) as damaged.

    Raises:
        UserError: the file is missing, damaged, or not an oracle.

    Example:
        >>> import orthogan
        >>> from orthogan.disentanglement import load_oracle, save_oracle, train_oracle
        >>> sprites = orthogan.open_source("sprites", count=64, channels=1)
        >>> oracle = train_oracle(sprites, steps=2, batch_size=8, held_out=20, precision="float32", progress=False)
        >>> load_oracle(save_oracle("oracle.safetensors", oracle)).merging == oracle.merging
        True
    """
    tensors, metadata = read_sealed(path, needed=sealed)
    if _KEY not in metadata:
        raise UserError(f"{path}: not an oracle")
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
