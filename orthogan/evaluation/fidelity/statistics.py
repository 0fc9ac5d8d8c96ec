"""Mean and covariance of features, streamed in float64 and merged over processes, and their files."""

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
BLOCK = 1024  # rows multiplied at once: small batches would spend their time reading and writing the d x d matrix
STRIP = 256  # rows of the matrix that processes exchange at once
LARGEST = 1 << 30  # of an array in an .npz [bytes]; 11,000 features have such a covariance
HUGE = 1e75  # of a mean or covariance: the squares of squares must not overflow
SLACK = 1e-5  # relative to the largest value: tolerance for asymmetry and negative eigenvalues of a covariance


@dataclass(frozen=True)
class Gaussian:
    """Mean (d,) and unbiased covariance (d, d) of ``count`` feature vectors, float64."""

    mean: np.ndarray
    covariance: np.ndarray
    count: int


class Moments:
    """A running mean and scatter matrix; memory does not depend on the number of rows.

    Rows are gathered into blocks of ``BLOCK``. Each block is centered on its own mean before it is merged (Chan, Golub
    & LeVeque 1983), which avoids cancellation; the result does not depend on the batches.
    """

    def __init__(self) -> None:
        self.count = 0  # number of merged rows; ``waiting`` more are in the buffer
        self.waiting = 0
        self.buffer: Tensor | None = None
        self.mean = torch.zeros(0, dtype=torch.float64)
        self.scatter = torch.zeros(0, 0, dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        """Add features (n, d), always with the same d, dtype and device."""
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
        """Return the merged moments of all processes, equal on each."""
        self._flush()
        if rank_and_world()[1] == 1:
            return self
        counts = torch.stack(gather(torch.tensor(self.count, dtype=torch.float64, device=self.mean.device)))
        means = torch.stack(gather(self.mean))
        total = Moments()
        total.count = int(counts.sum())
        # equal to any other order up to float64 rounding; each process adds in the same order
        total.mean = counts @ means / total.count
        delta = self.mean - total.mean
        mine = self.scatter.addr(delta, delta, alpha=self.count)
        # in strips: all matrices of 64 processes at once would take gigabytes
        total.scatter = torch.cat([torch.stack(gather(strip)).sum(0) for strip in mine.split(STRIP)])
        return total

    def gaussian(self) -> Gaussian:
        """Return mean and unbiased covariance.

        Raises:
            UserError: fewer than two vectors, or some were not finite.
        """
        self._flush()
        if self.count < 2:
            raise UserError(f"{self.count} images: a covariance needs at least 2")
        mean = self.mean.cpu().numpy().copy()
        covariance = (self.scatter / (self.count - 1)).cpu().numpy()
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise UserError("the features contain NaN or infinite values; the images or the extractor are damaged")
        return Gaussian(mean, covariance, self.count)

    def _flush(self) -> None:
        """Merge the rows in the buffer, in place."""
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
    """Move ``tensor`` to a device with float64: to the CPU if it is on an Apple GPU."""
    return tensor.cpu() if tensor.device.type == "mps" else tensor


def save_gaussian(path: str | Path, gaussian: Gaussian, metadata: dict[str, str]) -> None:
    """Write statistics, metadata, and a hash of both to one safetensors file. Raises ``CannotWrite``."""
    tensors = {
        "mean": torch.from_numpy(gaussian.mean),
        "covariance": torch.from_numpy(gaussian.covariance),
        "count": torch.tensor(gaussian.count),
    }
    write_sealed(path, tensors, {"format": FORMAT, **metadata})


def load_gaussian(path: str | Path, *, sealed: bool = False) -> tuple[Gaussian, dict[str, str]]:
    """Read statistics from a safetensors file of orthogan, or the ``.npz`` (mu, sigma) of pytorch-fid, TTUR and others.

    An ``.npz`` does not state its extractor: its metadata is empty.

    Args:
        sealed: the file is from our own cache: it counts as damaged without a hash, and its numbers are trusted.

    Raises:
        UserError: not such a file, a damaged file, or numbers that are not a mean and covariance.
    """
    path = Path(path)
    if path.suffix == ".npz":
        return _checked(path, *_read_npz(path), 0), {}
    tensors, metadata = read_sealed(path, needed=sealed)
    if metadata.pop("format", None) != FORMAT or not {"mean", "covariance", "count"} <= tensors.keys():
        raise UserError(f"{path}: not reference statistics; write them with `orthogan evaluate --save-reference`")
    if tensors["count"].shape != () or tensors["count"].dtype != torch.int64 or int(tensors["count"]) < 2:
        raise UserError(f"{path}: the number of images must be an integer of at least 2")
    mean, covariance = (_plain(path, tensors[name]) for name in ("mean", "covariance"))
    count = int(tensors["count"])
    return Gaussian(mean, covariance, count) if sealed else _checked(path, mean, covariance, count), metadata


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read ``mu`` and ``sigma``."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            found: list[np.ndarray] = []
            for name in ("mu", "sigma"):
                member = f"{name}.npy"
                if member not in archive.namelist():
                    raise UserError(f"{path}: has no array {name!r}; statistics in an .npz are mu and sigma")
                if archive.getinfo(member).file_size > LARGEST:
                    raise UserError(f"{path}: {name} is larger than {LARGEST >> 20} MiB, too large for statistics")
                data = archive.read(member)
                found.append(np.lib.format.read_array(io.BytesIO(data), allow_pickle=False))
    except UserError:
        raise
    except (MemoryError, Exception) as error:  # zipfile, zlib and numpy can raise almost any type on damaged files
        raise UserError(f"{path}: damaged, or not an .npz file with the arrays mu and sigma") from error
    return found[0], found[1]


def _plain(path: Path, tensor: Tensor) -> np.ndarray:
    if not tensor.is_floating_point():
        raise UserError(f"{path}: statistics must be floating-point numbers, not {tensor.dtype}")
    return tensor.double().numpy()


def _checked(path: Path, mean: np.ndarray, covariance: np.ndarray, count: int) -> Gaussian:
    """Return the Gaussian, after checking mean and covariance."""
    for name, array in (("mean", mean), ("covariance", covariance)):
        if array.dtype.kind not in "fiu":
            raise UserError(f"{path}: its {name} has type {array.dtype}; statistics must be real numbers")
    if mean.ndim != 1 or not len(mean) or covariance.shape != (len(mean), len(mean)):
        raise UserError(
            f"{path}: the mean of shape {mean.shape} and the covariance of shape {covariance.shape} do not match"
        )
    mean, covariance = mean.astype(np.float64), covariance.astype(np.float64)
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"{path}: its mean or covariance contains NaN or infinite values")
    if max(np.abs(mean).max(), np.abs(covariance).max()) > HUGE:
        raise UserError(f"{path}: its mean or covariance contains values above {HUGE:g}, which are not plausible")
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
