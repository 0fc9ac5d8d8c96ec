"""Post-hoc EMA: choose the length of the weight average after training (Karras et al. 2024, arXiv 2312.02696).

Training keeps two or more averages with power-function profiles (``training.ema.kind: power``) and stores a snapshot
of them at intervals. An average of any other length is then a linear combination of the snapshots, whose coefficients
are the least-squares fit of its profile by theirs (section 3.2 and appendix C.3).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

from orthogan.config.schema import Config
from orthogan.errors import UserError
from orthogan.io.read import printable
from orthogan.io.weights import UNREADABLE, Damaged, read_sealed, write_sealed
from orthogan.io.write import disk_errors, remove
from orthogan.models.protocol import Generator
from orthogan.models.saved import save_generator
from orthogan.training.config import LONGEST, SNAPSHOTS, EmaConfig
from orthogan.training.ema import Ema, PowerEma, exponent

FOLDER = "ema"
FORMAT = "orthogan-ema-snapshot-1"
NODES = 24  # of the quadrature between two snapshots: exact for the products of the profiles of usual lengths
WORST_FIT = 0.1  # a larger error of the profile, relative to its norm, is refused
_NAME = re.compile(r"step-(\d{9})\.safetensors")


def snapshot_interval(config: EmaConfig, steps: int) -> int:
    """Steps between two snapshots in a run of ``steps``; 0 = none."""
    if config.kind != "power":
        return 0
    return config.snapshot_every or max(1, -(-steps // SNAPSHOTS))


def is_snapshot_due(config: EmaConfig, step: int, steps: int) -> bool:
    """Whether a snapshot is stored after ``step``: at each interval, and at the end of the run."""
    interval = snapshot_interval(config, steps)
    return interval > 0 and (step % interval == 0 or step == steps)


def write_snapshot(run: Path, average: Ema[Any], step: int, images: int) -> None:
    """Store the averages after ``step`` and ``images`` under ``run/ema``. Raises ``CannotWrite``."""
    if not isinstance(average, PowerEma):
        return
    tensors: dict[str, Tensor] = {}
    for length, net in average.nets.items():
        tensors |= {f"{length:g}/{name}": tensor for name, tensor in _parameters(net).items()}
    # all averages have the buffers of the net itself
    parameters = _parameters(average.net)
    state = average.net.state_dict()
    tensors |= {f"buffers/{name}": tensor for name, tensor in state.items() if name not in parameters}
    about = {"format": FORMAT, "step": str(step), "images": str(images), "lengths": json.dumps(list(average.nets))}
    write_sealed(_path(run, step), tensors, about)


def _parameters(net: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters by name; tied ones under each of their names, as in a state dict."""
    return dict(net.named_parameters(remove_duplicate=False))


def forget_snapshots(run: Path, last: int) -> None:
    """Delete the snapshots of steps after ``last``, which a resumed run makes again, and what a kill left half-written.

    Raises ``CannotWrite``.
    """
    later = [path for step, path in _files(run) if step > last]
    for path in [*later, *(run / FOLDER).glob(".*.writing")]:
        with disk_errors(path):
            remove(path)


@dataclass(frozen=True)
class Snapshot:
    """One stored average: the file, what its tensors' names begin with, and its profile."""

    path: Path
    prefix: str
    images: int
    length: float


@dataclass(frozen=True)
class PostHocEma:
    """The stored averages of a run, from which an average of any length can be made (see ``orthogan ema``).

    Create it with ``PostHocEma.open``.

    Attributes:
        run: the run folder.
        snapshots: the stored averages.

    Source: Karras et al. 2024, arXiv:2312.02696.

    Example:
        >>> import orthogan
        >>> from orthogan.training.post_hoc_ema import PostHocEma
        >>> tiny = ["data.source=sprites", "data.channels=1", "data.count=16", "model.generator.channels=4"]
        >>> tiny += ["model.discriminator.channels=4", "training.batch_size=4", "training.steps=4", "out=ema"]
        >>> config = orthogan.load_config(None, [*tiny, "training.ema.kind=power", "evaluation.every=0"])
        >>> run = orthogan.train(config)  # doctest: +ELLIPSIS
        data: sprites-16, 16 images of 32 px; ...
        >>> averages = PostHocEma.open(run)
        >>> generator = averages.generator(0.08, orthogan.load(run))  # the net is changed and returned
    """

    run: Path
    snapshots: Sequence[Snapshot]

    @classmethod
    def open(cls, run: str | Path) -> PostHocEma:
        """Find the snapshots of a run; only their headers are read. A damaged one is named on stderr and left out.

        Raises:
            UserError: there are fewer than two.
        """
        run = Path(run)
        found: list[Snapshot] = []
        for _, path in _files(run):
            try:
                with safe_open(path, "pt") as file:
                    about: dict[str, str] = file.metadata() or {}
                if about["format"] != FORMAT:
                    raise ValueError(f"format {about['format']}")
                images, lengths = int(about["images"]), [float(length) for length in json.loads(about["lengths"])]
                found += [Snapshot(path, f"{length:g}/", images, length) for length in lengths]
            except UNREADABLE as error:
                print(f"orthogan: {printable(path)}: damaged, left out ({printable(error)})", file=sys.stderr)
        if len({snapshot.length for snapshot in found}) < 2:
            raise UserError(
                f"{run / FOLDER}: no snapshots of the averages of G; they are stored by a run with "
                "training.ema={kind: power}"
            )
        return cls(run, found)

    @property
    def images(self) -> int:
        """Images at the newest snapshot, which every average ends at."""
        return max(snapshot.images for snapshot in self.snapshots)

    def coefficients(self, length: float) -> tuple[np.ndarray, float]:
        """The coefficient of each snapshot, and the error of the profile relative to its norm.

        Raises:
            UserError: the snapshots cannot represent an average of this length.
        """
        if not 0.0 < length < LONGEST:
            raise UserError(f"length {length:g}: must be greater than 0 and less than {LONGEST}")
        profiles = [(snapshot.images, snapshot.length) for snapshot in self.snapshots]
        found, error = fit_profile(profiles, (self.images, length))
        if error > WORST_FIT:
            stored = ", ".join(f"{one:g}" for one in sorted({snapshot.length for snapshot in self.snapshots}))
            raise UserError(
                f"length {length:g}: the snapshots of {self.run} cannot represent it (the error of its profile is "
                f"{error:.0%}, and at most {WORST_FIT:.0%} is accepted); choose a length nearer to {stored}, or store "
                "snapshots more often (training.ema.snapshot_every)"
            )
        return found, error

    def tensors(self, length: float) -> dict[str, Tensor]:
        """The state dict of the average of ``length`` at the newest snapshot, with the buffers that the net had there.

        One file is read after the other, and sums are float64: the memory does not grow with the number of snapshots.

        Raises:
            UserError: as ``coefficients``, or a file is damaged.
        """
        coefficients, _ = self.coefficients(length)
        shares: dict[Path, dict[str, float]] = {}
        for snapshot, coefficient in zip(self.snapshots, coefficients, strict=True):
            shares.setdefault(snapshot.path, {})[snapshot.prefix] = float(coefficient)
        sums: dict[str, Tensor] = {}
        kinds: dict[str, torch.dtype] = {}
        buffers: dict[str, Tensor] = {}
        for path, weights in shares.items():
            try:
                stored, _ = read_sealed(path, needed=True)
            except Damaged as damage:
                raise UserError(f"{damage}; delete it to use the others") from None
            for prefix, weight in weights.items():
                for name in [name for name in stored if name.startswith(prefix)]:
                    short = name.removeprefix(prefix)
                    kinds[short] = stored[name].dtype
                    total = sums.setdefault(short, torch.zeros(stored[name].shape, dtype=torch.float64))
                    total.add_(stored.pop(name).double(), alpha=weight)
            buffers = {name.removeprefix("buffers/"): t for name, t in stored.items() if name.startswith("buffers/")}
        return {name: total.to(kinds[name]) for name, total in sums.items()} | buffers

    def generator(self, length: float, net: Generator) -> Generator:
        """``net`` with the weights of the average of ``length``. Raises ``UserError`` as ``tensors``."""
        try:
            net.load_state_dict(self.tensors(length))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:400]
            raise UserError(f"{self.run / FOLDER}: do not fit the generator of the run: {reason}") from None
        return net


def save_average(path: Path, net: Generator, config: Config, length: float, extra: Mapping[str, str]) -> None:
    """Write ``net``, an average of ``length``, as a model file. Raises ``CannotWrite``."""
    save_generator(path, net, config=config, extra={**extra, "weights": "ema", "ema_length": f"{length:g}"})


def fit_profile(profiles: Sequence[tuple[float, float]], target: tuple[float, float]) -> tuple[np.ndarray, float]:
    """The linear combination of ``profiles`` that is nearest to ``target`` in the sense of least squares.

    Each is (images, length): the density ``(gamma + 1) tau ** gamma / t ** (gamma + 1)`` for ``tau`` from 0 to ``t``
    images, with gamma from ``length``. The paper solves the normal equations, whose condition is the square of that of
    the problem; here the densities are sampled at the nodes of a Gauss-Legendre quadrature between any two snapshots
    and fitted by an SVD, which gives the same in exact arithmetic. The coefficients are scaled to a sum of 1.

    Returns:
        coefficients (n,), and the L2 error of the fit relative to the norm of ``target``.

    Example:
        >>> found, error = fit_profile([(100, 0.05), (100, 0.1), (50, 0.05), (50, 0.1)], (100, 0.1))
        >>> (found.round(6) + 0).tolist(), round(error, 6)
        ([0.0, 1.0, 0.0, 0.0], 0.0)
    """
    ends = sorted({float(images) for images, _ in [*profiles, target]})
    # the profiles fall steeply toward 0, so the first interval is divided
    first = [ends[0] * 0.5**k for k in range(8, 0, -1)]
    knots = np.array([0.0, *first, *ends])
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    middle, half = (knots[1:] + knots[:-1]) / 2, np.diff(knots) / 2
    at = (middle[:, None] + half[:, None] * nodes).ravel()
    root = np.sqrt((half[:, None] * weights).ravel())

    def sampled(images: float, length: float) -> np.ndarray:
        gamma = exponent(length)
        inside = np.where(at <= images, at / images, 0.0)
        return root * (gamma + 1) / images * inside**gamma

    matrix = np.stack([sampled(*profile) for profile in profiles], axis=1)
    wanted = sampled(*target)
    scale = np.linalg.norm(matrix, axis=0)
    found = np.linalg.lstsq(matrix / scale, wanted, rcond=1e-12)[0] / scale
    found /= found.sum()
    return found, float(np.linalg.norm(matrix @ found - wanted) / np.linalg.norm(wanted))


def _path(run: Path, step: int) -> Path:
    return run / FOLDER / f"step-{step:09d}.safetensors"


def _files(run: Path) -> list[tuple[int, Path]]:
    """(step, file) of the snapshots of ``run``, oldest first."""
    found = [(match, path) for path in (run / FOLDER).glob("*.safetensors") if (match := _NAME.fullmatch(path.name))]
    return sorted((int(match[1]), path) for match, path in found)
