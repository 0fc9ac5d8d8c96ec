"""Mean and covariance of features, streamed in float64 and joined over processes; and such statistics on disk."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from orthogan.errors import UserError
from orthogan.evaluation.processes import gathered, rank_and_world
from orthogan.io.write import write_tensors

FORMAT = "orthogan-statistics-1"
BLOCK = 1024  # rows multiplied at once: batches of 64 would spend their time on reading and writing the d x d matrix
STRIP = 256  # rows of it that processes exchange at once


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
        counts = torch.stack(gathered(torch.tensor(self.count, dtype=torch.float64, device=self.mean.device)))
        means = torch.stack(gathered(self.mean))
        total = Moments()
        total.count = int(counts.sum())
        # within float64 rounding of any other order; each process adds up in the same one
        total.mean = counts @ means / total.count
        delta = self.mean - total.mean
        mine = self.scatter.addr(delta, delta, alpha=self.count)
        # by strips: all matrices of 64 processes at once would be gigabytes
        total.scatter = torch.cat([torch.stack(gathered(strip)).sum(0) for strip in mine.split(STRIP)])
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
    """Write statistics with what they belong to as one safetensors file. Raises ``CannotWrite``."""
    tensors = {
        "mean": torch.from_numpy(gaussian.mean),
        "covariance": torch.from_numpy(gaussian.covariance),
        "count": torch.tensor(gaussian.count),
    }
    write_tensors(path, tensors, {"format": FORMAT, **metadata})


def load_gaussian(path: str | Path) -> tuple[Gaussian, dict[str, str]]:
    """Statistics from a safetensors file of ours, or from the ``.npz`` (mu, sigma) of pytorch-fid, TTUR and others.

    An ``.npz`` does not say which extractor it belongs to: its metadata is empty.

    Raises:
        UserError: not such a file.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file of reference statistics")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                mean, covariance = file["mu"].astype(np.float64), file["sigma"].astype(np.float64)
            count, metadata = 0, {}
        else:
            with safe_open(path, "np") as file:
                metadata = dict(file.metadata() or {})
                if metadata.pop("format", None) != FORMAT:
                    raise UserError(
                        f"{path}: not reference statistics; `orthogan evaluate --save-reference` writes them"
                    )
                mean, covariance = file.get_tensor("mean"), file.get_tensor("covariance")
                count = int(file.get_tensor("count"))
    except (OSError, ValueError, KeyError, SafetensorError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not readable as reference statistics (mu and sigma, or ours): {error}") from None
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise UserError(f"{path}: mean of shape {mean.shape} and covariance of shape {covariance.shape} do not fit")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"{path}: its mean or covariance holds NaN or infinite values")
    return Gaussian(mean, covariance, count), metadata
