"""Right singular vectors of the Jacobian of the generator, averaged over the prior, or local at one latent.

Local: Choi et al., ICLR 2022, "Do Not Escape From the Manifold: Discovering the Local Coordinates on the Latent Space
of GANs". Averaged: the eigenvectors of E[J^T J], which for a linear generator are SeFa's.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from orthogan.errors import UserError
from orthogan.latent.directions import Directions
from orthogan.latent.discovery.methods import DIRECTION_METHODS
from orthogan.latent.discovery.response import GeneratorFunction, trace_generator
from orthogan.latent.discovery.spectrum import check_components, check_positive, sort_by_spectrum, warn_of_tie
from orthogan.models.protocol import as_generator
from orthogan.progress import progress_bar


@DIRECTION_METHODS.register("jacobian")
def jacobian(
    generator: nn.Module,
    *,
    samples: int = 100,
    layer: str | None = None,
    resolution: int | None = None,
    components: int | None = None,
    y: int | None = None,
    seed: int = 0,
    batch_size: int = 128,
) -> Directions:
    """Find eigenvectors of J^T J averaged over latents, by descending "sigma", the root of the eigenvalue.

    J is the exact derivative of the image, or of the output of ``layer``. Sigma is the root mean square of the change
    per unit step along the direction, as a Euclidean norm over all features. Warns if the sigmas tie.

    Args:
        samples: number of latents; each costs latent_dim forward passes. 1 gives the local basis at the latent of
            ``seed``.
        layer: the submodule whose output is used; None for the images.
        resolution: average feature maps down to this height and width; None for their own.
        components: number of directions, the first ones; None for all.
        y: class of a conditional generator; None cycles through all classes.
        seed: random seed of the latents.
        batch_size: forward passes at once.

    Raises:
        UserError: an argument is invalid, or nothing depends on the latent.

    Source: Choi et al. 2022, arXiv:2106.06959.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from orthogan.latent.discovery import jacobian
        >>> net = nn.Sequential(nn.Linear(3, 48, bias=False), nn.Unflatten(1, (3, 4, 4)))
        >>> net.latent_dim = 3
        >>> found = jacobian(net, samples=4)
        >>> torch.allclose(torch.tensor(found.scores["sigma"]), torch.linalg.svdvals(net[0].weight), atol=1e-4)
        True
    """
    k = check_components(as_generator(generator), components)
    with trace_generator(generator, layer=layer, resolution=resolution, y=y) as response:
        sigma, rows = principal(mean_gram(response, samples, seed, batch_size))
    where = f"layer '{layer}'" if layer else "the image"
    if not float(sigma[0]) > 0:
        raise UserError(f"{where} does not depend on the latent: its Jacobian is zero")
    warn_of_tie(sigma, where)
    method = "jacobian" if samples > 1 else "local jacobian"
    return sort_by_spectrum(rows[:k], sigma[:k], generator, method=method, layer=layer or "", seed=seed)


def mean_gram(response: GeneratorFunction, samples: int, seed: int, batch_size: int) -> Tensor:
    """J^T J averaged over ``samples`` latents: (latent_dim, latent_dim) float64 on the CPU."""
    check_positive(samples=samples, batch_size=batch_size)
    z, labels = response.draw(samples, seed)
    dim = response.dim
    axes = torch.eye(dim, device=z.device)
    gram = torch.zeros(dim, dim, dtype=torch.float64)
    parts = torch.arange(samples).split(max(1, batch_size // dim))
    for part in progress_bar(parts, desc="jacobian", unit=" batches", leave=False):
        points = z[part].repeat_interleave(dim, 0)
        classes = None if labels is None else labels[part].repeat_interleave(dim, 0)
        tangents = axes.repeat(len(part), 1)
        pieces = [
            push_forward(response, points[few], tangents[few], None if classes is None else classes[few])
            for few in torch.arange(len(points)).split(batch_size)
        ]
        columns = torch.cat(pieces).reshape(len(part), dim, -1).cpu().double()
        gram += (columns @ columns.mT).sum(0)
    return gram / samples


def push_forward(response: GeneratorFunction, z: Tensor, tangents: Tensor, labels: Tensor | None) -> Tensor:
    """J(z) t for each row of ``z`` and ``tangents`` (n, latent_dim): (n, features), by forward-mode derivatives.

    Dual numbers rather than ``torch.func.jvp``: they pass through layers with an autograd function of the old kind.
    """
    with forward_ad.dual_level(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)  # from torch's own setup
        out = response(forward_ad.make_dual(z, tangents), labels)
        value, tangent = forward_ad.unpack_dual(out)
    return (torch.zeros_like(value) if tangent is None else tangent).flatten(1)


def principal(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Of a Gram matrix J^T J: singular values of J (d,), descending, and their right vectors, one a row.

    Raises ``UserError`` where it is not finite.
    """
    if not bool(torch.isfinite(gram).all()):
        raise UserError("the Jacobian contains NaN or infinite values; the generator is damaged or not differentiable")
    values, vectors = torch.linalg.eigh(gram)
    return values.flip(0).clamp_min(0).sqrt(), vectors.flip(1).T.contiguous()
