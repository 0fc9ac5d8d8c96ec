"""Latents in a file, such as those of projected pictures, which every latent command takes as a starting point."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from orthogan import __version__
from orthogan.arguments import integers, some_path
from orthogan.errors import UserError
from orthogan.io.read import describe_error, parse_json, printable, shown
from orthogan.io.weights import read_sealed, write_sealed
from orthogan.latent.directions import Directions, check_text, real_array, score_values, warn_of_another_model
from orthogan.models.generate import generate, in_space, truncate_in_space
from orthogan.models.generate import model_hash as hash_of
from orthogan.models.noise import WithNoise, noise_maps
from orthogan.models.protocol import Generator, as_generator
from orthogan.models.samples import Samples
from orthogan.words import counted, there_are

FORMAT = "orthogan-latents-1"
_KEY, _NOISE = "latents", "noise."


@dataclass(frozen=True)
class Latents:
    """Latents of one generator, and where they come from.

    Args:
        matrix: (n, latent_dim), converted to float32.
        space: their latent space, see ``orthogan.latent.in_space``.
        labels: their classes (n,), or None for an unconditional generator.
        names: n strings (default: "0", "1", …).
        model_hash: hash of the generator ("" for any).
        noise: noise maps (n, 1, s, s) by the name of the generator's buffer, if it has any.
        scores: name -> n finite numbers.
        protocol: how they were found.

    Raises:
        UserError: these do not match, or a number is not finite.

    Example:
        >>> import numpy as np
        >>> from orthogan.latent import Latents
        >>> Latents(np.zeros((2, 16)), names=["me", "you"]).save("latents.safetensors").name
        'latents.safetensors'
        >>> Latents.load("latents.safetensors").names
        ('me', 'you')
    """

    matrix: np.ndarray
    space: str = "z"
    labels: Sequence[int] | None = None
    names: Sequence[str] = ()
    model_hash: str = ""
    noise: Mapping[str, np.ndarray] = field(default_factory=dict)
    scores: Mapping[str, Sequence[float]] = field(default_factory=dict)
    protocol: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("space", "model_hash"):
            check_text(f"{name} of these latents", getattr(self, name))
        matrix = real_array("latents", self.matrix)
        if matrix.ndim != 2 or 0 in matrix.shape:
            raise UserError(f"latents of shape {matrix.shape}: expected (n, latent_dim), at least one each")
        if not np.isfinite(matrix).all():
            raise UserError("latents contain NaN or infinite values")
        count = len(matrix)
        if isinstance(self.names, str):
            raise UserError(f"names is {shown(self.names)}: expected a list, one per latent")
        names = tuple(str(name) for name in self.names) or tuple(map(str, np.arange(count)))
        labels = None if self.labels is None else tuple(integers("labels", self.labels))
        noise = {str(name): real_array(f"noise maps '{name}'", maps) for name, maps in self.noise.items()}
        scores = {str(name): score_values(name, values) for name, values in self.scores.items()}
        protocol = {str(key): str(value) for key, value in dict(self.protocol).items()}
        for text in (*names, *scores, *protocol, *protocol.values()):
            check_text("a name, score or protocol of these latents", text)
        for what, values in {"names": names, "labels": names if labels is None else labels, **noise, **scores}.items():
            if len(values) != count:
                raise UserError(
                    f"{counted(len(values), 'value')} of '{what}' for {counted(count, 'latent')}; expected one per "
                    "latent"
                )
        for what, values in scores.items():
            if not all(map(math.isfinite, values)):
                raise UserError(f"score '{what}' contains a NaN or infinite value")
        for what, maps in noise.items():
            if maps.ndim != 4 or maps.shape[1] != 1 or not np.isfinite(maps).all():
                raise UserError(f"noise '{what}' of shape {maps.shape}: expected finite maps (n, 1, height, width)")
        matrix.setflags(write=False)
        fixed = {"matrix": matrix, "names": names, "labels": labels, "noise": noise, "scores": scores}
        for name, value in {**fixed, "protocol": protocol}.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.matrix)

    def label(self, index: int) -> int | None:
        """Return the class of a latent; None for an unconditional generator."""
        return None if self.labels is None else self.labels[index]

    def select(self, indices: Sequence[int]) -> Latents:
        """Return the latents at ``indices``, in this order. Raises ``UserError`` for one that does not exist."""
        chosen = integers("latents", indices)
        wrong = [index for index in chosen if not 0 <= index < len(self)]
        if wrong or not chosen:
            raise UserError(
                f"latents {shown(wrong) if wrong else 'empty'}: {there_are(len(self), 'latent')}, 0 to {len(self) - 1}"
            )
        return replace(
            self,
            matrix=self.matrix[chosen],
            labels=None if self.labels is None else [self.labels[i] for i in chosen],
            names=[self.names[i] for i in chosen],
            noise={name: maps[chosen] for name, maps in self.noise.items()},
            scores={name: [values[i] for i in chosen] for name, values in self.scores.items()},
        )

    def check(self, generator: nn.Module, *, where: str = "these latents") -> None:
        """Refuse latents that do not apply to this generator, and warn if they are from another model.

        ``where`` names them in the message. Raises ``UserError`` for a wrong dimension, or a space, class or noise map
        that the generator does not have.
        """
        net = as_generator(generator)
        if (self.labels is not None) != (net.num_classes > 0):
            needs = f"needs classes, 0 to {net.num_classes - 1}" if net.num_classes else "has no classes"
            raise UserError(f"{where}: this generator {needs}; use latents of this model")
        if self.labels is not None and not all(0 <= label < net.num_classes for label in self.labels):
            raise UserError(f"{where}: class {max(self.labels)}: this generator has classes 0 to {net.num_classes - 1}")
        known = noise_maps(net) if self.noise else {}
        for name, maps in self.noise.items():
            if name not in known or known[name].shape[1:] != maps.shape[1:]:
                size = f"{maps.shape[2]}x{maps.shape[3]}"
                raise UserError(f"{where}: this generator has no noise map '{printable(name)}' of {size} pixels")
        try:
            dim = in_space(net, self.space, y=None if self.space == "z" else self.label(0)).latent_dim
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        if self.matrix.shape[1] != dim:
            raise UserError(
                f"{where}: made for a latent of {self.matrix.shape[1]} dimensions, but this generator has {dim} in "
                f"'{self.space}'; use latents of this model"
            )
        warn_of_another_model(net, self.model_hash, where, "the pictures differ")

    def dressed(self, generator: nn.Module, index: int) -> Generator:
        """Return the generator with the noise maps of a latent; the generator itself if there are none."""
        net = as_generator(generator)
        if not self.noise:
            return net
        return WithNoise(net, {name: torch.from_numpy(maps[index : index + 1]) for name, maps in self.noise.items()})

    def in_space(self, generator: nn.Module, index: int, space: str) -> Tensor:
        """Return a latent (latent_dim,) in another ``space`` of the generator: from z to any, and from w to w+.

        Raises ``UserError`` for a space to which it cannot be moved.
        """
        v = torch.from_numpy(self.matrix[index].copy())
        if space == self.space:
            return v
        seen = in_space(generator, space, y=None if space == "z" else self.label(index))
        if self.space == "z" and hasattr(seen, "from_z"):
            return seen.from_z(v[None])[0]  # pyright: ignore[reportCallIssue]
        if self.space != "z" and getattr(seen, "rows", 1) * len(v) == seen.latent_dim > len(v):
            return v.repeat(seen.rows)
        raise UserError(
            f"this latent is in space '{self.space}' and cannot be moved to '{space}'; use directions of {self.space}, "
            f"or project the picture with --space {space}"
        )

    def base(self, generator: nn.Module, index: int, directions: Directions) -> tuple[Generator, Tensor, np.ndarray]:
        """Return the generator viewed from a space of a latent and directions, and both in that space.

        Returns:
            The view; the latent (latent_dim,); the rows (k, latent_dim) float64 of the directions. A latent of w+ stays
            there: directions of w then move all its rows, or those of their ``layers``.

        Raises:
            UserError: the directions belong to a space to which the latent cannot be moved.
        """
        net, rows = self.dressed(generator, index), directions.matrix.astype(np.float64)
        lifted = self.space == f"{directions.space}+"
        space, label = self.space if lifted else directions.space, self.label(index)
        latent = self.in_space(net, index, space)
        layers = () if lifted else directions.layers
        seen = in_space(net, space, y=None if space == "z" else label, layers=layers, base=latent if layers else None)
        if lifted:
            wrong = [layer for layer in directions.layers if layer >= seen.rows]
            if wrong or seen.rows * rows.shape[1] != seen.latent_dim:
                raise UserError(f"the directions do not fit {space}, which has {seen.rows} layers")
            taken = np.isin(np.arange(seen.rows), directions.layers or np.arange(seen.rows))
            rows = (taken[None, :, None] * rows[:, None]).reshape(len(rows), -1)
        return seen, latent, rows

    def images(
        self, generator: nn.Module, *, batch_size: int = 64, device: torch.device | str | None = None
    ) -> np.ndarray:
        """Generate the images uint8 (n, c, h, w) of all latents.

        Example:
            >>> import numpy as np
            >>> import orthogan
            >>> from orthogan.latent import Latents
            >>> Latents(np.zeros((2, 16))).images(orthogan.load("sprites-sngan")).shape
            (2, 1, 32, 32)
        """
        net = as_generator(generator)
        found: list[np.ndarray] = [np.empty(0)] * len(self)
        keys = [(self.label(i), i if self.noise else 0) for i in range(len(self))]
        for key in dict.fromkeys(keys):
            chosen = [i for i, other in enumerate(keys) if other == key]
            seen = in_space(self.dressed(net, chosen[0]), self.space, y=None if self.space == "z" else key[0])
            labels = [key[0]] * len(chosen) if seen.num_classes and key[0] is not None else None
            z = torch.from_numpy(self.matrix[chosen])
            for i, image in zip(chosen, generate(seen, z, labels, batch_size=batch_size, device=device), strict=True):
                found[i] = image
        return np.stack(found)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a ``.safetensors`` file: latents and noise maps as tensors, the rest as JSON, and a hash of both."""
        if some_path("path", path).suffix != ".safetensors":
            raise UserError(f"{path}: the name of a file of latents must end in .safetensors")
        described = {
            "format": FORMAT,
            "space": self.space,
            "labels": self.labels,
            "names": self.names,
            "model_hash": self.model_hash,
            "scores": self.scores,
            "protocol": self.protocol,
        }
        text = json.dumps(described, ensure_ascii=False, allow_nan=False)
        tensors = {_KEY: torch.tensor(self.matrix)}
        tensors |= {_NOISE + name: torch.tensor(maps) for name, maps in self.noise.items()}
        return write_sealed(path, tensors, {_KEY: text})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Latents:
        """Read a file written by ``save``; use ``check`` to compare it with a generator.

        Raises ``UserError`` naming the file if it is missing, damaged, or not a file of latents.
        """
        where = printable(path)
        tensors, metadata = read_sealed(path, needed=True)
        if _KEY not in metadata or _KEY not in tensors:
            raise UserError(f"{where}: not a file of latents (no '{_KEY}' in it); orthogan project writes one")
        described: Any = parse_json(metadata[_KEY], where)
        try:
            if (form := described.pop("format")) != FORMAT:
                raise UserError(f"written in another version of the format, {shown(form)}; expected {FORMAT}")
            for name, tensor in tensors.items():
                if not tensor.is_floating_point():
                    raise UserError(f"'{name}' is {tensor.dtype}, but floating-point numbers are needed")
            noise = {name.removeprefix(_NOISE): maps.float().numpy() for name, maps in tensors.items() if name != _KEY}
            return cls(matrix=tensors[_KEY].float().numpy(), noise=noise, **described)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise UserError(f"{where}: cannot be read as a file of latents ({describe_error(error)})") from error


def latent_images(
    generator: nn.Module,
    latents: Latents,
    truncation: float = 1.0,
    batch_size: int = 64,
    device: torch.device | str | None = None,
) -> Samples:
    """Generate the images of ``latents``, such as those of projected pictures; their names are in the metadata.

    ``truncation``: see ``orthogan.models.generate.truncate_in_space``. Raises ``UserError`` as ``Latents.check``.

    Example:
        >>> import numpy as np
        >>> import orthogan
        >>> from orthogan.latent.latents import latent_images
        >>> latent_images(orthogan.load("sprites-sngan"), orthogan.Latents(np.zeros((2, 16)))).images.shape
        (2, 1, 32, 32)
    """
    net = as_generator(generator)
    latents.check(net)
    pulled = truncate_in_space(torch.from_numpy(latents.matrix.copy()), truncation, latents.space)
    return Samples(
        images=replace(latents, matrix=pulled.numpy()).images(net, batch_size=batch_size, device=device),
        seeds=np.arange(len(latents)).tolist(),
        labels=latents.labels,
        metadata={
            "software": f"orthogan {__version__}",
            "model_hash": hash_of(net),
            "truncation": f"{truncation:g}",
            "latents": ",".join(latents.names),
        },
    )
