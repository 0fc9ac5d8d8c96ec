"""How far a latent is from the prior of its space, in standard deviations of the prior."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from orthogan.models.protocol import Generator, standard_normal
from orthogan.rng import derive

DRAWS = 4096
WIDEST = 1024  # dimensions; above, only the variance of each coordinate is estimated
FAR = 0.99  # share of the prior that is nearer than the distance from which a penalty applies
LEAST_VARIANCE = 1e-3  # of the largest one; flatter directions count as this wide


@dataclass(frozen=True)
class Prior:
    """The prior of a latent space: its mean and covariance, and how far its own latents are from the mean.

    ``whitener`` (d, d): maps a part of a latent to uncorrelated coordinates of variance 1; d is the latent dimension
    divided by the ``rows`` of the space. Above 1024 dimensions (d,): factors of the coordinates. ``scale``: root mean
    square of a coordinate around the mean. ``sorted``: distances of draws, ascending.
    """

    mean: Tensor
    whitener: Tensor
    rows: int
    scale: float
    sorted: Tensor

    def distance(self, latents: Tensor) -> Tensor:
        """Return the distances (n,) of latents (n, latent_dim): the root mean square of the whitened coordinates.

        It is about 1 for a latent of the prior. For W+, all rows are compared with the prior of W.
        """
        parts, whitener = latents.unflatten(1, (self.rows, -1)) - self.mean.to(latents), self.whitener.to(latents)
        white = parts * whitener if whitener.ndim == 1 else parts @ whitener
        # the small number keeps the gradient finite at the mean
        return (white.square().mean((1, 2)) + 1e-12).sqrt()

    def excess(self, latents: Tensor) -> Tensor:
        """Return a penalty (n,), zero for 99 % of the prior: (distance / 99th percentile - 1)^2 beyond it."""
        return (self.distance(latents) / float(self.sorted[int(FAR * len(self.sorted))]) - 1).clamp(min=0).square()

    def farther(self, latents: Tensor) -> Tensor:
        """Return the share (n,) of draws of the prior that are at least as far from the mean as ``latents``."""
        found = self.distance(latents).detach().cpu()
        return 1 - torch.searchsorted(self.sorted, found).float() / len(self.sorted)


def find_prior(seen: Generator, *, seed: int = 0) -> Prior:
    """Estimate the prior of a generator viewed from a space, from 4096 draws; a standard normal one is exact."""
    rows = int(getattr(seen, "rows", 1))
    dim = seen.latent_dim // rows
    with torch.no_grad():
        if torch.equal(seen.sample_latent(2, seed=0).cpu(), standard_normal(2, seen.latent_dim, seed=0)):
            mean, whitener, scale = torch.zeros(dim), torch.eye(dim), 1.0
        else:
            drawn = seen.sample_latent(DRAWS, seed=derive(seed, "prior moments")).cpu()[:, :dim].double()
            mean = drawn.mean(0)
            if dim > WIDEST:  # too many for a covariance
                variances, axes = drawn.var(0, correction=0), torch.ones(dim, dtype=torch.float64)
            else:
                variances, axes = torch.linalg.eigh((drawn - mean).T @ (drawn - mean) / len(drawn))
            floor = max(LEAST_VARIANCE * float(variances.max()), torch.finfo(torch.float64).tiny)
            whitener = axes * variances.clamp(min=floor).rsqrt()
            scale = float(variances.clamp(min=0).mean().sqrt()) or 1.0
            mean, whitener = mean.float(), whitener.float()
        prior = Prior(mean, whitener, rows, scale, torch.empty(0))
        fresh = seen.sample_latent(DRAWS, seed=derive(seed, "prior distances")).cpu()
        return Prior(mean, whitener, rows, scale, prior.distance(fresh).sort().values)
