"""Mean and covariance of features, streamed in float64 and joined over processes; and such statistics on disk."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from orthogan.errors import UserError
from orthogan.evaluation.processes import gathered, rank_and_world

FORMAT = "orthogan-statistics-1"


@dataclass(frozen=True)
class Gaussian:
    """Mean (d,) and unbiased covariance (d, d) of ``count`` feature vectors, float64."""

    mean: np.ndarray
    covariance: np.ndarray
    count: int


class Moments:
    """A running mean and scatter matrix; memory does not depend on how much was seen.

    Each batch is centred on its own mean before it is merged (Chan, Golub & LeVeque 1983), so nothing cancels.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(0, dtype=torch.float64)
        self.scatter = torch.zeros(0, 0, dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        """Take in features (n, d)."""
        x = features.to("cpu" if features.device.type == "mps" else features.device).double()
        mean = x.mean(0)
        centred = x - mean
        self._merge(len(x), mean, centred.T @ centred)

    def gathered(self) -> Moments:
        """The moments of all processes together, the same on each."""
        if rank_and_world()[1] == 1:
            return self
        total = Moments()
        count = torch.tensor([self.count], dtype=torch.float64, device=self.mean.device)
        parts = [gathered(t) for t in (count, self.mean, self.scatter)]
        for n, mean, scatter in zip(*parts, strict=True):
            total._merge(int(n), mean, scatter)
        return total

    def gaussian(self) -> Gaussian:
        """Mean and unbiased covariance.

        Raises:
            UserError: fewer than two vectors, or some were not finite.
        """
        if self.count < 2:
            raise UserError(f"{self.count} images: a covariance needs at least 2")
        mean = self.mean.cpu().numpy()
        covariance = (self.scatter / (self.count - 1)).cpu().numpy()
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise UserError("the features hold NaN or infinite values; the images or the extractor are damaged")
        return Gaussian(mean, covariance, self.count)

    def _merge(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        if self.count == 0:
            self.count, self.mean, self.scatter = count, mean, scatter
            return
        total = self.count + count
        delta = mean - self.mean
        self.scatter = self.scatter + scatter + torch.outer(delta, delta) * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total


def save_gaussian(path: str | Path, gaussian: Gaussian, metadata: dict[str, str]) -> None:
    """Write statistics with what they belong to as one safetensors file, through a temporary name."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.writing")
    tensors = {
        "mean": torch.from_numpy(gaussian.mean),
        "covariance": torch.from_numpy(gaussian.covariance),
        "count": torch.tensor(gaussian.count),
    }
    save_file(tensors, temporary, {"format": FORMAT, **metadata})
    temporary.replace(path)


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
