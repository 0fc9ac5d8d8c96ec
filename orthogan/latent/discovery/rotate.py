"""Directions that minimize a penalty over orthonormal frames by gradient descent, for Hessian penalty and OroJaR."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from orthogan.errors import UserError
from orthogan.fit import cosine, fit
from orthogan.latent.directions import Directions, random_control
from orthogan.latent.discovery.jacobian import mean_gram, principal
from orthogan.latent.discovery.response import GeneratorFunction, trace_generator
from orthogan.latent.discovery.spectrum import check_components, check_positive, sort_by_spectrum
from orthogan.linalg.rotations import qr
from orthogan.models.protocol import as_generator
from orthogan.rng import derive
from orthogan.rng import generator as random_generator

JACOBIANS = 32  # latents for the subspace and the scores
START = 0.1  # spread of the start, to leave the symmetric points of the penalty immediately
CONTROLS = 4  # random frames of the same subspace
TRIALS = 64  # latents for the comparison with them
GAIN = 0.9  # a result with more than this fraction of the penalty of a random frame found nothing

Penalty = Callable[..., Tensor]  # (function, z, *, generator), as orthogan.penalties.latent


def learn_rotation(
    generator: nn.Module,
    penalty: Penalty,
    *,
    method: str,
    components: int | None,
    layer: str | None,
    resolution: int | None,
    y: int | None,
    steps: int,
    batch_size: int,
    lr: float,
    seed: int,
) -> Directions:
    """Find ``components`` (k) orthonormal rows A that minimize ``penalty`` of c -> G(z + c A) at c = 0 over the prior.

    The rows span the k leading right singular vectors of the mean Jacobian (the whole space if k is latent_dim), so
    that directions without effect, which have no penalty, are excluded. Within this span the frame is Q of a QR
    decomposition, which starts near the singular vectors, is trained by Adam with a cosine schedule from ``lr`` to 0,
    and is orthonormalized after each step (the authors' Gram-Schmidt).

    ``penalty(function, z, generator=...)``: a scalar; the generator draws its random numbers. Scores: "sigma", as in
    ``jacobian``. Warns if random frames of the same span have a similar penalty: the result is then meaningless. Raises
    ``UserError`` for fewer than two components and other invalid arguments.
    """
    k = check_components(as_generator(generator), components)
    if k < 2:
        raise UserError(f"components={k}: {method} separates directions from each other, so at least 2 are needed")
    check_positive(steps=steps, batch_size=batch_size)
    if not lr > 0:
        raise UserError(f"lr={lr}: must be positive")
    with trace_generator(generator, layer=layer, resolution=resolution, y=y) as response:
        gram = mean_gram(response, JACOBIANS, derive(seed, method, "jacobian"), batch_size=128)
        span = principal(gram)[1][:k].float().to(response.device)
        source = random_generator(response.device, seed, method, "start")
        start = torch.randn(k, k, generator=source, device=response.device)
        root = torch.eye(k, device=response.device) + START * start
        root.requires_grad_(True)

        def after(step: int) -> None:
            with torch.no_grad():
                root.copy_(qr(root))

        fit(
            torch.optim.Adam([root], lr=lr),
            lambda step: _along(response, qr(root).T @ span, penalty, batch_size, seed, method, "step", step),
            steps,
            what=method,
            rate=cosine(lr, steps),
            after=after,
        )
        frame = qr(root.detach()).T
        controls = [random_control(k, k, derive(seed, method, "control", i)).matrix for i in range(CONTROLS)]
        frames = [frame, *(torch.from_numpy(control.copy()).to(frame) for control in controls)]
        found, *random = (float(_along(response, one @ span, penalty, TRIALS, seed, method, "trial")) for one in frames)
    if not math.isfinite(found):
        raise UserError(f"{method}: the penalty is not finite; a larger epsilon or a smaller lr may help")
    if not found < GAIN * sum(random) / CONTROLS:
        warnings.warn(
            f"{method}: the penalty {found:.3g} is not smaller than that of random directions "
            f"({sum(random) / CONTROLS:.3g}), so the directions are arbitrary; use another method or layer, or more "
            "steps",
            stacklevel=3,
        )
    rows = (frame @ span).double().cpu()
    sigma = ((rows @ gram) * rows).sum(1).clamp_min(0).sqrt()
    return sort_by_spectrum(rows, sigma, generator, method=method, layer=layer or "", seed=seed)


def _along(response: GeneratorFunction, rows: Tensor, penalty: Penalty, n: int, seed: int, *at: int | str) -> Tensor:
    """Return the penalty along ``rows`` at ``n`` latents; random numbers depend on ``seed`` and ``at``."""
    z, labels = response.draw(n, derive(seed, *at))
    source = random_generator(response.device, seed, *at, "signs")
    return penalty(lambda c: response(z + c @ rows, labels), z.new_zeros(n, len(rows)), generator=source)
