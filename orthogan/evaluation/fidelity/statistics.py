"""Mean and covariance of features, streamed in float64 and joined over processes; and such statistics on disk."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from orthogan.distributed import gather, rank_and_world
from orthogan.errors import UserError
from orthogan.io.read import open_regular
from orthogan.io.weights import read_sealed, write_sealed

FORMAT = "orthogan-statistics-1"
BLOCK = 1024  # rows multiplied at once: batches of 64 would spend their time on reading and writing the d x d matrix
STRIP = 256  # rows of it that processes exchange at once
LARGEST = 1 << 30  # of an array in an .npz [bytes]; 11,000 features have such a covariance
HUGE = 1e75  # of a mean or covariance: the squares of squares must not overflow
SLACK = 1e-5  # of the largest value: how far rounding takes a covariance from symmetric and positive semi-definite


@dataclass(frozen=True)
class Gaussian:
    """Mean (d,) and unbiased covariance (d, d) of ``count`` feature vectors, float64."""

    mean: np.ndarray
    covariance: np.ndarray
    count: int


class Moments:
    """A running mean and scatter matrix; memory does not depend on how much was seen.

    Rows are gathered into blocks of ``BLOCK``. Each block is centred on its own mean before it is merged (Chan, Golub
    & LeVeque 1983), so nothing cancels; and how the rows came in batches leaves no trace.
    """

    def __init__(self) -> None:
        self.count = 0  # of the rows merged; ``waiting`` more are in the buffer
        self.waiting = 0
        self.buffer: Tensor | None = None
        self.mean = torch.zeros(0, dtype=torch.float64)
        self.scatter = torch.zeros(0, 0, dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        """Take in features (n, d), always of one d, number format and device."""
        x = float64_place(features)
        if self.buffer is None:
            length = x.shape[1]
            self.buffer = x.new_empty(BLOCK, length)
            self.mean = x.new_zeros(length, dtype=torch.float64)
            self.scatter = x.new_zeros(length, length, dtype=torch.float64)
        while len(x):
            taken = x[: BLOCK - self.waiting]
            self.buffer[self.waiting : self.waiting + len(taken)] = taken
            self.waiting += len(taken)
            x = x[len(taken) :]
            if self.waiting == BLOCK:
                self._flush()

    def gathered(self) -> Moments:
        """The moments of all processes together, the same on each."""
        self._flush()
        if rank_and_world()[1] == 1:
            return self
        counts = torch.stack(gather(torch.tensor(self.count, dtype=torch.float64, device=self.mean.device)))
        means = torch.stack(gather(self.mean))
        total = Moments()
        total.count = int(counts.sum())
        # within float64 rounding of any other order; each process adds up in the same one
        total.mean = counts @ means / total.count
        delta = self.mean - total.mean
        mine = self.scatter.addr(delta, delta, alpha=self.count)
        # by strips: all matrices of 64 processes at once would be gigabytes
        total.scatter = torch.cat([torch.stack(gather(strip)).sum(0) for strip in mine.split(STRIP)])
        return total

    def gaussian(self) -> Gaussian:
        """Mean and unbiased covariance.

        Raises:
            UserError: fewer than two vectors, or some were not finite.
        """
        self._flush()
        if self.count < 2:
            raise UserError(f"{self.count} images: a covariance needs at least 2")
        mean = self.mean.cpu().numpy().copy()
        covariance = (self.scatter / (self.count - 1)).cpu().numpy()
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise UserError("the features hold NaN or infinite values; the images or the extractor are damaged")
        return Gaussian(mean, covariance, self.count)

    def _flush(self) -> None:
        """Merge what waits in the buffer, in place."""
        if self.buffer is None or self.waiting == 0:
            return
        block = self.buffer[: self.waiting].double()
        mean = block.mean(0)
        block = block - mean
        total = self.count + self.waiting
        delta = mean - self.mean
        self.scatter.addmm_(block.T, block)
        self.scatter.addr_(delta, delta, alpha=self.count * self.waiting / total)
        self.mean += delta * (self.waiting / total)
        self.count, self.waiting = total, 0


def float64_place(tensor: Tensor) -> Tensor:
    """``tensor`` where float64 exists: Apple's GPU has none, so there the CPU takes over."""
    return tensor.cpu() if tensor.device.type == "mps" else tensor


def save_gaussian(path: str | Path, gaussian: Gaussian, metadata: dict[str, str]) -> None:
    """Write statistics, what they belong to, and a hash of both as one safetensors file. Raises ``CannotWrite``."""
    tensors = {
        "mean": torch.from_numpy(gaussian.mean),
        "covariance": torch.from_numpy(gaussian.covariance),
        "count": torch.tensor(gaussian.count),
    }
    write_sealed(path, tensors, {"format": FORMAT, **metadata})


def load_gaussian(path: str | Path, *, sealed: bool = False) -> tuple[Gaussian, dict[str, str]]:
    """Statistics from a safetensors file of ours, or from the ``.npz`` (mu, sigma) of pytorch-fid, TTUR and others.

    An ``.npz`` does not say which extractor it belongs to: its metadata is empty.

    Args:
        sealed: the file is of our own cache: without a hash it counts as damaged, and its numbers are trusted.

    Raises:
        UserError: not such a file, a damaged one, or numbers that are no mean and covariance.
    """
    path = Path(path)
    if path.suffix == ".npz":
        return _checked(path, *_read_npz(path), 0), {}
    tensors, metadata = read_sealed(path, needed=sealed)
    if metadata.pop("format", None) != FORMAT or not {"mean", "covariance", "count"} <= tensors.keys():
        raise UserError(f"{path}: not reference statistics; `orthogan evaluate --save-reference` writes them")
    if tensors["count"].shape != () or tensors["count"].dtype != torch.int64 or int(tensors["count"]) < 2:
        raise UserError(f"{path}: its count of images must be one whole number, at least 2")
    mean, covariance = (_plain(path, tensors[name]) for name in ("mean", "covariance"))
    count = int(tensors["count"])
    return Gaussian(mean, covariance, count) if sealed else _checked(path, mean, covariance, count), metadata


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """``mu`` and ``sigma`` as they are."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            found: list[np.ndarray] = []
            for name in ("mu", "sigma"):
                member = f"{name}.npy"
                if member not in archive.namelist():
                    raise UserError(f"{path}: holds no array {name!r}; statistics in an .npz are mu and sigma")
                if archive.getinfo(member).file_size > LARGEST:
                    raise UserError(f"{path}: {name} is larger than {LARGEST >> 20} MiB, too large for statistics")
                data = archive.read(member)
                found.append(np.lib.format.read_array(io.BytesIO(data), allow_pickle=False))
    except UserError:
        raise
    except (MemoryError, Exception) as error:  # zipfile, zlib and numpy raise whatever damaged bytes lead them to
        raise UserError(f"{path}: damaged, or not an .npz file with the arrays mu and sigma") from error
    return found[0], found[1]


def _plain(path: Path, tensor: Tensor) -> np.ndarray:
    if not tensor.is_floating_point():
        raise UserError(f"{path}: statistics are floating-point numbers, not {tensor.dtype}")
    return tensor.double().numpy()


def _checked(path: Path, mean: np.ndarray, covariance: np.ndarray, count: int) -> Gaussian:
    """The Gaussian, if there is one with this mean and covariance."""
    for name, array in (("mean", mean), ("covariance", covariance)):
        if array.dtype.kind not in "fiu":
            raise UserError(f"{path}: its {name} is of type {array.dtype}; statistics are real numbers")
    if mean.ndim != 1 or not len(mean) or covariance.shape != (len(mean), len(mean)):
        raise UserError(f"{path}: mean of shape {mean.shape} and covariance of shape {covariance.shape} do not fit")
    mean, covariance = mean.astype(np.float64), covariance.astype(np.float64)
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"{path}: its mean or covariance holds NaN or infinite values")
    if max(np.abs(mean).max(), np.abs(covariance).max()) > HUGE:
        raise UserError(f"{path}: its mean or covariance holds values above {HUGE:g}; features are not that large")
    largest = np.abs(covariance).max()
    if np.abs(covariance - covariance.T).max() > SLACK * largest:
        raise UserError(f"{path}: its covariance is not symmetric, so it is damaged or not a covariance")
    covariance = (covariance + covariance.T) / 2
    values = np.linalg.eigvalsh(covariance)
    if values[0] < -SLACK * max(values[-1], 0.0):
        raise UserError(
            f"{path}: its covariance has the negative eigenvalue {values[0]:.3g}, so it is damaged or not a covariance"
        )
    return Gaussian(mean, covariance, count)
