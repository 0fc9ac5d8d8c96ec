"""Directions in a latent space and their metadata: the file that every latent command reads and writes."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from orthogan.arguments import integer, integers, some_path
from orthogan.errors import UserError
from orthogan.io.read import describe_error, parse_json, printable, shown
from orthogan.io.weights import read_sealed, write_sealed
from orthogan.models.generate import in_space
from orthogan.models.generate import model_hash as hash_of
from orthogan.models.protocol import as_generator
from orthogan.rng import generator as random_generator
from orthogan.words import counted, there_are

FORMAT = "orthogan-directions-1"
LATENT_STD = "latent std"
CHANGE = "change"  # score: how much a direction changes the images [gray levels]
MOST_LAYERS = 10_000
_KEY = "directions"
# Entries this close to the largest count as equal, so that rounding does not determine the sign.
_TIE = 1e-4


@dataclass(frozen=True, repr=False)
class Directions:
    """Directions of a latent space, one per row, and where they come from.

    Args:
        matrix: (k, latent_dim), converted to float32; an offset of 1 moves the latent by one row.
        method: how they were found.
        space: latent space of the rows: "z" is the input of the generator; for others see ``orthogan.latent.in_space``.
        layer: the layer that they were computed from ("" for none).
        unit: unit of an offset of 1 along a row.
        scores: name -> k finite numbers.
        names: k strings (default: "0", "1", …).
        notes: k strings (default: empty).
        model_hash: hash of their generator ("" for any).
        seed: random seed of the method.
        layers: numbers of the layers that they apply to, in a space that enters the network layer by layer (empty:
            all).

    Raises:
        UserError: these do not match, or a row is zero or not finite.

    Example:
        >>> import numpy as np
        >>> import orthogan
        >>> directions = orthogan.Directions(np.eye(2, 16, dtype=np.float32), method="mine", names=["size", "hue"])
        >>> directions.save("mine.safetensors")
        PosixPath('mine.safetensors')
        >>> orthogan.Directions.load("mine.safetensors").names
        ('size', 'hue')
    """

    matrix: np.ndarray
    method: str
    space: str = "z"
    layer: str = ""
    unit: str = LATENT_STD
    scores: Mapping[str, Sequence[float]] = field(default_factory=dict)
    names: Sequence[str] = ()
    notes: Sequence[str] = ()
    model_hash: str = ""
    seed: int = 0
    layers: Sequence[int] = ()

    def __post_init__(self) -> None:
        for name in ("method", "space", "layer", "unit", "model_hash"):
            check_text(f"{name} of these directions", getattr(self, name))
        matrix = real_array("directions", self.matrix)
        if matrix.ndim != 2 or 0 in matrix.shape:
            raise UserError(f"directions of shape {matrix.shape}: expected (directions, latent_dim), at least one each")
        if not np.isfinite(matrix).all():
            raise UserError("directions contain NaN or infinite values")
        empty = np.flatnonzero(~matrix.any(axis=1))
        if empty.size:
            raise UserError(f"direction {empty[0]} is all zeros, so it is not a direction")
        count = len(matrix)
        for what in ("names", "notes"):
            if isinstance(getattr(self, what), str):
                raise UserError(f"{what} is {shown(getattr(self, what))}: expected a list, one per direction")
        names = tuple(str(name) for name in self.names) or tuple(map(str, np.arange(count)))
        notes = tuple(str(note) for note in self.notes) or ("",) * count
        scores = {str(key): score_values(key, values) for key, values in self.scores.items()}
        for text in (*names, *notes, *scores):
            check_text("a name, note or score of these directions", text)
        for what, values in {"names": names, "notes": notes, **scores}.items():
            if len(values) != count:
                raise UserError(
                    f"{counted(len(values), 'value')} of '{what}' for {counted(count, 'direction')}; expected one per "
                    "direction"
                )
        for key, values in scores.items():
            if not all(map(math.isfinite, values)):
                raise UserError(f"score '{key}' contains a NaN or infinite value")
        layers = tuple(sorted(set(integers("layers", self.layers))))
        if layers and (self.space == "z" or layers[0] < 0 or layers[-1] > MOST_LAYERS):
            raise UserError(
                f"layers {shown(list(layers))} of space '{self.space}': must be numbers from 0, in a space other than z"
            )
        matrix.setflags(write=False)
        seed = integer("seed", self.seed)
        if not -(1 << 63) <= seed < 1 << 63:
            raise UserError(f"seed is {shown(self.seed)}: expected an integer of at most 63 bits")
        fixed = {"matrix": matrix, "names": names, "notes": notes, "scores": scores, "layers": layers, "seed": seed}
        for name, value in fixed.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.matrix)

    def __repr__(self) -> str:
        return f"<{counted(len(self), 'direction')} in {self.space} ({self.latent_dim}), {self.method}>"

    @property
    def latent_dim(self) -> int:
        """Width of the latent space."""
        return self.matrix.shape[1]

    def select(self, indices: Sequence[int] | np.ndarray) -> Directions:
        """Return the directions at ``indices``, in this order. Raises ``UserError`` for one that does not exist."""
        chosen = integers("dims", indices)
        wrong = [index for index in chosen if not 0 <= index < len(self)]
        if wrong or not chosen:
            raise UserError(
                f"dims {shown(wrong) if wrong else 'empty'}: {there_are(len(self), 'direction')}, 0 to {len(self) - 1}"
            )
        return replace(
            self,
            matrix=self.matrix[chosen],
            names=[self.names[i] for i in chosen],
            notes=[self.notes[i] for i in chosen],
            scores={key: [values[i] for i in chosen] for key, values in self.scores.items()},
        )

    def renamed(self, index: int, name: str, note: str | None = None) -> Directions:
        """Rename direction ``index`` to ``name`` and set its ``note`` (None: keep its note).

        Raises ``UserError`` for a direction that does not exist, or an empty name.
        """
        if not 0 <= index < len(self):
            raise UserError(f"direction {index}: {there_are(len(self), 'direction')}, 0 to {len(self) - 1}")
        if not name.strip():
            raise UserError(f"direction {index}: the new name is empty; use at least one letter")
        names, notes = list(self.names), list(self.notes)
        names[index] = name.strip()
        if note is not None:
            notes[index] = note.strip()
        return replace(self, names=names, notes=notes)

    def oriented(self) -> Directions:
        """Flip each row so that its largest entry by magnitude (the first of near ties) is positive."""
        size = np.abs(self.matrix)
        leading = (size >= size.max(axis=1, keepdims=True) * (1 - _TIE)).argmax(axis=1)
        sign = np.sign(self.matrix[np.arange(len(self)), leading])
        return replace(self, matrix=self.matrix * sign[:, None])

    def sorted_by(self, score: str) -> Directions:
        """Sort the directions by descending ``score``; equal ones keep their order."""
        if score not in self.scores:
            raise UserError(f"these directions have no score '{score}'; available: {', '.join(self.scores) or 'none'}")
        return self.select(np.argsort(-np.asarray(self.scores[score]), kind="stable"))

    def check(self, generator: nn.Module, *, where: str = "these directions") -> None:
        """Refuse directions that do not apply to this generator, and warn if they are from another model.

        ``where`` names them in the message. Raises ``UserError`` for a space or layer that the generator does not have,
        or a wrong dimension.
        """
        net = as_generator(generator)
        any_class = 0 if self.space != "z" and net.num_classes else None
        try:
            dim = in_space(net, self.space, y=any_class, layers=self.layers).latent_dim
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        if self.latent_dim != dim:
            raise UserError(
                f"{where}: made for a latent of {self.latent_dim} dimensions, but this generator has {dim} in "
                f"'{self.space}'; use directions of this model"
            )
        warn_of_another_model(generator, self.model_hash, where, "they may not be meaningful here")

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a ``.safetensors`` file.

        It contains the matrix as tensor ``directions``, the rest as JSON metadata, and a hash of both.
        """
        if some_path("path", path).suffix != ".safetensors":
            raise UserError(f"{path}: the name of a Directions file must end in .safetensors")
        described = {
            "format": FORMAT,
            "method": self.method,
            "space": self.space,
            "layer": self.layer,
            "unit": self.unit,
            "scores": self.scores,
            "names": self.names,
            "notes": self.notes,
            "model_hash": self.model_hash,
            "seed": self.seed,
            "layers": self.layers,
        }
        text = json.dumps(described, ensure_ascii=False, allow_nan=False)
        return write_sealed(path, {_KEY: torch.tensor(self.matrix)}, {_KEY: text})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Directions:
        """Read a file written by ``save``; use ``check`` to compare it with a generator.

        Raises ``UserError`` naming the file if it is missing, damaged, or not a Directions file.
        """
        where = printable(path)
        tensors, metadata = read_sealed(path, needed=False)  # early versions wrote no hash
        if _KEY not in metadata or _KEY not in tensors:
            raise UserError(f"{where}: not a Directions file (no '{_KEY}' in it)")
        described: Any = parse_json(metadata[_KEY], where)
        try:
            if described.pop("format") != FORMAT:
                raise UserError(f"written in another version of the Directions format; expected {FORMAT}")
            if not tensors[_KEY].is_floating_point():
                raise UserError(f"its matrix is {tensors[_KEY].dtype}, but floating-point numbers are needed")
            return cls(matrix=tensors[_KEY].float().numpy(), **described)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise UserError(f"{where}: cannot be read as a Directions file ({describe_error(error)})") from error


def warn_of_another_model(generator: nn.Module, expected: str, where: str, effect: str) -> None:
    """Warn the caller of ``check`` if ``expected``, unless it is empty, is not the hash of ``generator``."""
    if expected and expected != (actual := hash_of(generator)):
        warnings.warn(
            f"{where}: computed for another model (hash {expected[:12]}, this one has {actual[:12]}); {effect}",
            stacklevel=3,
        )


def real_array(what: str, given: Any) -> np.ndarray:
    """Return a tensor or array as a new array of float32. Raises ``UserError``, naming ``what``, for other values."""
    if isinstance(given, torch.Tensor):
        given = given.detach().to_dense().cpu()
        given = (given if given.is_complex() else given.float()).numpy()
    try:
        if np.iscomplexobj(given):
            raise UserError(f"{what} contain complex values; expected real numbers")
        return np.array(given, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"{what} are not a matrix of numbers: {error}") from error


def check_text(what: str, value: object) -> None:
    """Refuse anything that is not a string, and strings that cannot be encoded (half of a surrogate pair)."""
    try:
        str.encode(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, UnicodeEncodeError):
        raise UserError(f"{what} must be a string, not {value!a:.60}") from None


def score_values(name: object, values: Sequence[float]) -> tuple[float, ...]:
    """Return a score as floats. Raises ``UserError`` for values that are not numbers."""
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"score {shown(name)} is {shown(values)}: expected a list of numbers") from error


def random_control(latent_dim: int, k: int, seed: int) -> Directions:
    """Draw random orthonormal directions, uniform over all frames: the control for any method.

    They are the Q of the QR decomposition of a Gaussian matrix, with the signs that make the diagonal of R positive, so
    Q is Haar distributed (Mezzadri 2007, "How to generate random matrices from the classical compact groups").

    Args:
        latent_dim: dimension of the latent.
        k: number of directions.
        seed: random seed; a larger ``k`` keeps the first directions up to rounding.

    Raises:
        UserError: ``k`` is not from 1 to latent_dim.

    Example:
        >>> import numpy as np
        >>> from orthogan.latent import random_control
        >>> rows = random_control(latent_dim=8, k=3, seed=0).matrix
        >>> np.allclose(rows @ rows.T, np.eye(3), atol=1e-6)
        True
    """
    if not 1 <= k <= latent_dim:
        raise UserError(f"{k} random control directions: must be between 1 and the latent dimension, {latent_dim}")
    # One generator per direction, so that a larger number keeps the first ones.
    sources = [random_generator("cpu", seed, "random direction", row) for row in range(k)]
    columns = [torch.randn(latent_dim, generator=source, dtype=torch.float64).numpy() for source in sources]
    q, r = np.linalg.qr(np.stack(columns, axis=1))
    q = q * np.sign(np.diagonal(r))
    return Directions(q.T, method="random", names=[f"random {i + 1}" for i in np.arange(k)], seed=seed)
