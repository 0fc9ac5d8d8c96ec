"""Truncation: pull latents towards the mode of the prior, for better pictures of fewer kinds."""

from __future__ import annotations

import math

import torch

from orthogan.errors import UserError


def truncate(z: torch.Tensor, truncation: float) -> torch.Tensor:
    """Standard normal entries mapped to a truncated normal that keeps the central share ``truncation`` of the mass.

    Each entry goes through the normal CDF, shrinks towards the median, and comes back:
    ``z' = Phi^-1(1/2 + truncation * (Phi(z) - 1/2))``. So every |z'| <= ``threshold(truncation)``, the result is
    exactly the truncated normal when z is normal, it depends on z alone (no redrawing), 1 returns z itself and 0
    the mode. The "truncated normal with threshold t" of BigGAN is ``truncation = 2 Phi(t) - 1``
    (0.683 for t = 1, 0.383 for t = 0.5); it is not StyleGAN's psi, which scales w.

    ``z``: any shape. Raises ``UserError`` unless 0 <= truncation <= 1.
    """
    if not 0 <= truncation <= 1:
        raise UserError(f"truncation={truncation}: between 0 (always the mode) and 1 (the whole prior)")
    if truncation == 1:
        return z
    z = z if z.is_floating_point() else z.float()
    # By the error function, which is odd and exact near zero: Phi(z) - 1/2 = erf(z / sqrt 2) / 2.
    share = torch.special.erf(z.double() * math.sqrt(0.5)) * truncation
    return (torch.special.erfinv(share) * math.sqrt(2)).to(z.dtype)


def threshold(truncation: float) -> float:
    """The largest magnitude, in latent std, that ``truncate`` leaves; infinite for 1."""
    if not 0 <= truncation <= 1:
        raise UserError(f"truncation={truncation}: between 0 (always the mode) and 1 (the whole prior)")
    if truncation == 1:
        return math.inf
    return math.sqrt(2) * float(torch.special.erfinv(torch.tensor(truncation, dtype=torch.float64)))
