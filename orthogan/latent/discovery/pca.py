"""GANSpace (Härkönen et al., NeurIPS 2020): principal components of activations of a layer, mapped back to z."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from orthogan.errors import UserError
from orthogan.latent.directions import Directions
from orthogan.latent.discovery.methods import DIRECTION_METHODS
from orthogan.latent.discovery.response import trace_generator
from orthogan.latent.discovery.sefa import find_layer
from orthogan.latent.discovery.spectrum import check_components, check_positive, sort_by_spectrum, warn_of_tie
from orthogan.models.protocol import Generator, as_generator
from orthogan.rng import generator as random_generator

EXACT_FEATURES = 2048  # up to this size the whole covariance is computed; beyond, its leading subspace is iterated
OVERSAMPLING = 32
ITERATIONS = 4
LATENT = "latent"  # instead of a layer: the latents themselves

Batches = Callable[[], Iterator[tuple[Tensor, Tensor]]]


@DIRECTION_METHODS.register("pca")
def pca(
    generator: nn.Module,
    *,
    layer: str = "auto",
    samples: int = 10_000,
    components: int | None = None,
    y: int | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> Directions:
    """Find principal components of a layer over random latents, mapped to unit vectors in z by least squares.

    Scores: "sigma" is the standard deviation of the activations along the component, "share" its fraction of their
    total variance, and "linear" the fraction of the component's variance that a linear function of z explains, 0 to 1.

    Warns if sigmas tie beyond what sampling explains, and if a component is not linear in z, so that its direction is
    noise.

    Args:
        layer: a dotted submodule name; "latent" for the latents themselves, which is GANSpace in w; or "auto": in z the
            first module that runs after the first layer (see ``layer_behind``), in any other space "latent".
        samples: number of latents, at least 10 per latent dimension.
        components: number of components; None for all that vary, at most the latent dimension.
        y: class of a conditional generator; None cycles through all classes.
        seed: random seed of the latents.
        batch_size: latents per batch.

    Raises:
        UserError: the activations are z itself, because an isotropic Gaussian has no principal components; there are
            too few samples; or the layer is unknown.

    Source: Härkönen et al. 2020, arXiv:2004.02546.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from orthogan.latent.discovery import pca
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 48), nn.Unflatten(1, (3, 4, 4)))
        >>> net.latent_dim = 3
        >>> found = pca(net, samples=256, components=2)
        >>> found.matrix.shape, sorted(found.scores)
        ((2, 3), ['linear', 'share', 'sigma'])
    """
    check_positive(batch_size=batch_size)
    net = as_generator(generator)
    k, dim = check_components(net, components), net.latent_dim
    if samples < 10 * dim:
        raise UserError(
            f"samples={samples} is too few: use at least 10 per latent dimension, {10 * dim}; GANSpace uses 10,000 "
            "or more"
        )
    name = layer
    if layer == "auto":
        name = layer_behind(net) if getattr(generator, "axis", "z") == "z" else LATENT
    with trace_generator(generator, layer="" if name == LATENT else name, y=y) as response:
        z, labels = response.draw(samples, seed)

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for start in range(0, samples, batch_size):
                part = slice(start, start + batch_size)
                if name == LATENT:
                    yield z[part], z[part]
                    continue
                yield response(z[part], None if labels is None else labels[part]).flatten(1), z[part]

        first = next(batches())
        if name != LATENT and first[0].shape == first[1].shape and torch.equal(*first):
            raise UserError(
                f"layer '{name}': its output is z itself, which has no principal components; choose a later layer"
            )
        covariance, total = _covariance(batches, first[0].shape[1], k, seed)
    variance, basis = torch.linalg.eigh(covariance[:-dim, :-dim])
    kept = min(k, int((variance > 1e-10 * variance[-1]).sum()))
    if not kept:
        raise UserError(f"layer '{name}': its activations do not depend on z; choose another layer")
    variance, basis = variance.flip(0)[:kept], basis.flip(1)[:, :kept]
    if components is not None and kept < k:
        warnings.warn(f"layer '{name}': only {kept} of {k} components vary", stacklevel=2)

    # Coordinates u = basis^T a / sigma are uncorrelated, so the least squares of z on u is their covariance.
    onto = (basis.T @ covariance[:-dim, -dim:]) / variance.sqrt()[:, None]
    explained = (onto @ torch.linalg.pinv(covariance[-dim:, -dim:], hermitian=True) * onto).sum(1).clamp(0, 1)
    # For a component independent of z this fraction is Beta distributed: mean and four standard deviations.
    chance = dim / (samples - 1)
    chance += 4 * math.sqrt(2 * chance * (1 - chance) / (samples + 1))
    noisy = torch.nonzero(explained < chance).flatten().tolist()
    if noisy:
        warnings.warn(
            f"layer '{name}': components {', '.join(map(str, noisy))} are not linear in z (a linear function "
            f"explains at most {float(explained[noisy].max()):.2g} of their variance), so their directions are "
            "noise; choose another layer",
            stacklevel=2,
        )
    ratio = math.sqrt(dim / samples)
    warn_of_tie(variance.sqrt(), f"layer '{name}'", noise=(1 + ratio) / (1 - ratio))
    return sort_by_spectrum(
        onto / onto.norm(dim=1, keepdim=True),
        variance.sqrt(),
        generator,
        method="pca",
        layer=name,
        seed=seed,
        scores={"share": (variance / total).tolist(), "linear": explained.tolist()},
    )


def layer_behind(generator: Generator, *, layer: str = "auto") -> str:
    """Return the name of the first module after the first layer, except Sequential; else that of the first layer.

    Modules whose inputs are only integers, such as the embedding of a class, do not count. In our networks this is the
    first block or norm with its activation: nonlinear in z, but still close to it. Raises ``UserError`` if no first
    layer is found.
    """
    name, first = find_layer(generator, layer, generator.latent_dim)
    names = {part: part_name for part_name, part in generator.named_modules()}
    left: list[nn.Module] = []
    behind: list[nn.Module] = []

    def leave(module: nn.Module, inputs: object, output: object) -> None:
        left.append(module)

    def enter(module: nn.Module, inputs: tuple[object, ...], named: dict[str, object]) -> None:
        given = (*inputs, *named.values())
        if left and not (given and all(isinstance(x, Tensor) and not x.is_floating_point() for x in given)):
            behind.append(module)

    hooks = [first.register_forward_hook(leave)]
    hooks += [
        part.register_forward_pre_hook(enter, with_kwargs=True) for part in names if type(part) is not nn.Sequential
    ]
    try:
        with trace_generator(generator):
            pass
    finally:
        for hook in hooks:
            hook.remove()
    return names[behind[0]] if behind else names.get(first, name)


def _covariance(batches: Batches, features: int, k: int, seed: int) -> tuple[Tensor, float]:
    """Covariance float64 of (activations, or their coordinates in the leading subspace; z), and the total variance."""
    activations, z = next(batches())
    # Subtract the mean of the first batch, to avoid cancellation with a large mean.
    origin, z_origin = _double(activations).mean(0), _double(z).mean(0)
    width = min(k + OVERSAMPLING, features)
    subspace = None if features <= EXACT_FEATURES else _leading(batches, features, width, seed).to(origin)
    count, squares = 0, 0.0
    sums, z_sums, products = origin.new_zeros(features), z_origin.new_zeros(len(z_origin)), torch.zeros(())
    for activations, z in batches():
        a, b = _double(activations) - origin, _double(z) - z_origin
        x = torch.cat([a if subspace is None else a @ subspace, b], dim=1)
        count, squares = count + len(a), squares + float(a.square().sum())
        sums, z_sums, products = sums + a.sum(0), z_sums + b.sum(0), products + (x.T @ x).cpu()
    total = torch.cat([sums if subspace is None else sums @ subspace, z_sums]).cpu()
    covariance = (products - torch.outer(total, total) / count) / (count - 1)
    return covariance, (squares - float(sums.square().sum()) / count) / (count - 1)


def _leading(batches: Batches, features: int, width: int, seed: int) -> Tensor:
    """(features, width) orthonormal float64: the leading subspace of the covariance, by iteration from a random one.

    Halko, Martinsson & Tropp 2011, algorithm 4.4, on a covariance that is never formed: each iteration is a pass.
    """
    source = random_generator("cpu", seed, "pca subspace")
    subspace = torch.linalg.qr(torch.randn(features, width, dtype=torch.float64, generator=source))[0]
    for _ in range(ITERATIONS):
        count, sums, product = 0, torch.zeros(features, dtype=torch.float64), torch.zeros_like(subspace)
        for activations, _z in batches():
            a = _double(activations)
            count, sums = count + len(a), sums + a.sum(0).cpu()
            product += (a.T @ (a @ subspace.to(a.device))).cpu()
        subspace = torch.linalg.qr(product - torch.outer(sums, sums @ subspace / count))[0]
    return subspace


def _double(x: Tensor) -> Tensor:
    return x.to("cpu" if x.device.type == "mps" else x.device).double()
