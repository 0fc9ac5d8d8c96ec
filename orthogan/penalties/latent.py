"""Penalties on how a generator depends on its latent: Hessian penalty, OroJaR, path length.

They regularize training (``loss.latent_penalty``). The first two also find directions of a trained generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from orthogan.config.base import Fraction, KindOf, Layers, NotNegative, PositiveInt, Section
from orthogan.errors import UserError
from orthogan.linalg.precision import at_least_float32, without_autocast
from orthogan.registry import Registry

Features = Tensor | Sequence[Tensor]
# A penalty is a function (function, z, *, generator), as below, with some of the options k, epsilon and reduction.
# "path_length" is different: it is compared with a running mean, which the training loop keeps.
LATENT_PENALTIES: Registry[Callable[..., Tensor]] = Registry("latent penalty", "orthogan.penalties")


@LATENT_PENALTIES.register("hessian")
def hessian_penalty(
    function: Callable[[Tensor], Features],
    z: Tensor,
    k: int = 2,
    epsilon: float = 0.1,
    reduction: Literal["max", "mean"] = "max",
    generator: torch.Generator | None = None,
    over_batch: Literal["mean", "max"] = "mean",
) -> Tensor:
    """Return the Hessian penalty (Peebles et al., ECCV 2020): no two directions interact in a feature.

    It is a scalar: the variance over ``k`` sign vectors x of the second derivative of ``function`` along x (equation
    5).

    Its expectation is twice the sum of the squared off-diagonal entries of each feature's Hessian. ``function`` maps
    latents (n, d) to one or several tensors of features (n, ...). It must be deterministic: no noise, dropout or batch
    statistics. The derivative is the central difference with step ``epsilon`` without its middle term, which is the
    same for every x. The variances are reduced over the features of each latent (the paper's "max", or "mean"),
    averaged over the latents, and summed if there are several tensors. ``over_batch``: "max" takes the largest value
    over the latents in place of the average, as the released code does; published weights belong to that.
    ``generator`` draws the signs.

    Raises ``UserError`` if k is below 2, epsilon is not positive, or the reduction is unknown.
    """
    _check_difference(k, epsilon)
    if reduction not in ("max", "mean"):
        raise UserError(f"reduction='{reduction}': must be 'max' or 'mean'")
    with without_autocast(z.device):
        z = at_least_float32(z)
        curves: list[list[Tensor]] = []
        for _ in range(k):
            step = epsilon * _signs(z, generator)
            ahead, behind = _listed(function(z + step)), _listed(function(z - step))
            curves.append(
                [(at_least_float32(a) + at_least_float32(b)) / epsilon**2 for a, b in zip(ahead, behind, strict=True)]
            )
        spread = [torch.stack(same).var(dim=0).flatten(1) for same in zip(*curves, strict=True)]
        reduced = [part.amax(1) if reduction == "max" else part.mean(1) for part in spread]
        return torch.stack([_over_batch(part, over_batch) for part in reduced]).sum()


@LATENT_PENALTIES.register("orojar")
def orojar_penalty(
    function: Callable[[Tensor], Features],
    z: Tensor,
    k: int = 2,
    epsilon: float = 0.1,
    reduction: Literal["sum", "mean"] = "sum",
    generator: torch.Generator | None = None,
    over_batch: Literal["mean", "max"] = "mean",
) -> Tensor:
    """Return the OroJaR penalty (Wei et al., ICCV 2021): directions change the features orthogonally.

    It is a scalar: the variance over ``k`` sign vectors x of |J x|^2, where J is the Jacobian of ``function`` at each
    latent.

    Its expectation is twice the sum of the squared off-diagonal entries of J^T J, averaged over the latents and summed
    if there are several tensors of features. ``function`` maps latents (n, d) to one or several tensors of features
    (n, ...) and must be deterministic. J x is the forward difference with step ``epsilon``. ``reduction``: compute
    |J x|^2 as the paper's "sum" over features, whose penalty grows with the square of their number, or as the "mean".
    ``over_batch``: "max" takes the largest variance over the latents in place of the average, as the released code
    does; published weights belong to that. ``generator`` draws the signs.

    Raises ``UserError`` if k is below 2, epsilon is not positive, or the reduction is unknown.
    """
    _check_difference(k, epsilon)
    if reduction not in ("sum", "mean"):
        raise UserError(f"reduction='{reduction}': must be 'sum' or 'mean'")
    with without_autocast(z.device):
        z = at_least_float32(z)
        here = _listed(function(z))
        lengths: list[list[Tensor]] = []
        for _ in range(k):
            there = _listed(function(z + epsilon * _signs(z, generator)))
            squares = [
                ((at_least_float32(b) - at_least_float32(a)) / epsilon).square().flatten(1)
                for a, b in zip(here, there, strict=True)
            ]
            lengths.append([part.sum(1) if reduction == "sum" else part.mean(1) for part in squares])
        spread = [torch.stack(same).var(dim=0) for same in zip(*lengths, strict=True)]
        return torch.stack([_over_batch(part, over_batch) for part in spread]).sum()


@LATENT_PENALTIES.register("path_length")
def path_lengths(generator: nn.Module, z: Tensor, labels: Tensor | None, rng: torch.Generator) -> Tensor:
    """Return |J^T y| (n,) of each latent, y an image of noise N(0, 1 / pixels) (Karras et al. 2020, section 3.2).

    J is the derivative of the image with respect to z. If the generator has ``mapping`` and ``synthesis``, it is the
    derivative with respect to w of each layer separately, and the squared lengths are averaged over the layers, as in
    the authors' code.
    """
    mapping, synthesis = getattr(generator, "mapping", None), getattr(generator, "synthesis", None)
    if callable(mapping) and callable(synthesis):
        w = mapping(z) if labels is None else mapping(z, labels)
        points = w[:, None].expand(-1, int(generator.num_ws), -1)  # pyright: ignore
        images = synthesis(points)
        assert isinstance(images, Tensor)
    else:
        points = z.detach().requires_grad_(True)
        images = generator(points) if labels is None else generator(points, labels)
    noise = torch.randn(images.shape, generator=rng, device=images.device) / (images[0, 0].numel() ** 0.5)
    (gradient,) = torch.autograd.grad((at_least_float32(images) * noise).sum(), points, create_graph=True)
    squares = at_least_float32(gradient).square()
    # the square root is not differentiable at 0
    return (squares.sum(-1).reshape(len(z), -1).mean(1) + 1e-12).sqrt()


@LATENT_PENALTIES.register("none")
def no_penalty(function: Callable[[Tensor], Features], z: Tensor) -> Tensor:
    """Return zero."""
    return z.new_zeros(())


def _over_batch(values: Tensor, how: str) -> Tensor:
    """Reduce one value per latent (n,) to a scalar."""
    if how not in ("mean", "max"):
        raise UserError(f"over_batch='{how}': must be 'mean' or 'max'")
    return values.mean() if how == "mean" else values.amax()


def _signs(z: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw independent -1 or +1 (Rademacher) in the shape of ``z``, on the generator's device."""
    device = z.device if generator is None else generator.device
    return (2 * torch.randint(0, 2, z.shape, generator=generator, device=device) - 1).to(z)


def _listed(features: Features) -> list[Tensor]:
    """Return one or several tensors of features as a list."""
    return [features] if isinstance(features, Tensor) else list(features)


def _check_difference(k: int, epsilon: float) -> None:
    """Raise ``UserError`` unless there are at least two vectors and the step is positive."""
    if k < 2:
        raise UserError(f"k={k}: at least 2 random vectors are needed for a variance")
    if not epsilon > 0:
        raise UserError(f"epsilon={epsilon}: must be positive")


class LatentPenaltyConfig(Section):
    """The config section ``loss.latent_penalty``."""

    kind: Annotated[str, KindOf(LATENT_PENALTIES)] = Field(
        default="none", description="penalty on how G depends on its latent z (path_length: on w if G has one)"
    )
    weight: NotNegative | None = Field(
        default=None,
        description="coefficient, required unless kind is none; published: hessian 0.1 (ProGAN), 1e-3 (dSprites); "
        "orojar 1e-11 "
        "(dSprites), 1e-6 (CelebA); path_length 2",
    )
    interval: PositiveInt = Field(
        default=1,
        description="lazy regularization: apply the penalty every N updates of G, multiplied by N; 4 as published "
        "for path_length",
    )
    ramp: Fraction = Field(
        default=0.0, description="fraction of the run over which the weight grows linearly from 0 [0-1]"
    )
    shrink: PositiveInt = Field(
        default=1, description="compute the penalty on 1/N of G's batch; 2 as published for path_length"
    )
    layers: Layers = Field(
        default=[],
        description="hessian, orojar: submodules of G whose outputs are penalized, by name pattern such as blocks.*; "
        "[] = the images",
    )
    reduction: Literal["max", "mean", "sum"] | None = Field(
        default=None,
        description="reduction over the elements of an output: hessian max | mean, orojar sum | mean; null = as "
        "published, "
        "the first",
    )
    over_batch: Literal["mean", "max"] = Field(
        default="mean",
        description="hessian, orojar: reduction over the latents of a batch; max as in the released code, for which "
        "the published weights were chosen (with training.accumulate: over each part)",
    )
    directions: Annotated[int, Field(ge=2, le=1000)] = Field(
        default=2, description="hessian, orojar: number of random sign vectors (k) for the variance"
    )
    epsilon: Annotated[float, Field(ge=1e-9, le=1e9)] = Field(
        default=0.1, description="hessian, orojar: step size of the finite difference [units of z]"
    )
    decay: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        default=0.01, description="path_length: weight of a new length in the running mean [0-1]"
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.kind == "none":
            return self
        if self.weight is None:
            raise ValueError(
                "weight: must be set; published values are 0.1 (hessian), 1e-11 to 1e-6 (orojar, which grows with "
                "the square of the number of features) and 2 (path_length)"
            )
        of_paths = self.kind == "path_length"
        for key in ("layers", "reduction", "over_batch", "directions", "epsilon") if of_paths else ("decay",):
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key}: does not apply to {self.kind!r}; omit it")
        if (self.kind, self.reduction) in (("hessian", "sum"), ("orojar", "max")):
            raise ValueError(f"reduction: {self.kind!r} does not support {self.reduction!r}; use 'mean', or omit it")
        return self
