"""Penalties on how a generator depends on its latent: Hessian penalty, OroJaR, path length.

They regularize training (``loss.latent_penalty``). The first two also find directions of a trained generator. Your own
penalty, ``my_module:NAME``, is a function like ``hessian_penalty``; its further arguments are keys of the section.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from orthogan.config.base import (
    Fraction,
    Layers,
    NotNegative,
    OpenSection,
    PositiveInt,
    Section,
    section_of_options,
)
from orthogan.errors import UserError
from orthogan.linalg.precision import at_least_float32, without_autocast
from orthogan.named_code import describe
from orthogan.registry import Registry

Features = Tensor | Sequence[Tensor]
Penalty = Callable[..., Tensor]  # (function, z, *, generator, **options) -> scalar, as hessian_penalty


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
    """The config section ``loss.latent_penalty``; each kind is a subclass in ``LATENT_PENALTIES``."""

    kind: str = Field(
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
    start: Annotated[Fraction, Field(lt=1.0)] = Field(
        default=0.0, description="fraction of the run after which the penalty is first applied, below 1"
    )
    ramp: Fraction = Field(
        default=0.0, description="fraction of the run over which the weight grows linearly from 0, from start on [0-1]"
    )
    shrink: PositiveInt = Field(
        default=1, description="compute the penalty on 1/N of G's batch; 2 as published for path_length"
    )
    published: ClassVar[str] = "choose one, such as 1.0"  # weights, for the message
    of_all_kinds: ClassVar = {
        "layers": [],
        "reduction": None,
        "over_batch": "mean",
        "directions": 2,
        "epsilon": 0.1,
        "decay": 0.01,
    }
    added_later: ClassVar = ("over_batch",)

    @model_validator(mode="after")
    def _weighted(self) -> Self:
        if self.kind != "none" and self.weight is None:
            raise ValueError(f"weight: must be set; {self.published}")
        if self.start + self.ramp > 1 + 1e-9:
            raise ValueError(f"start {self.start} + ramp {self.ramp} is more than 1, so the weight is never reached")
        return self


class FeaturePenaltyConfig(LatentPenaltyConfig):
    """A penalty on features of the generator, which are a function of its latent."""

    layers: Layers = Field(
        default=[],
        description="submodules of G whose outputs are penalized, by name pattern such as blocks.*; [] = the images",
    )
    penalty: ClassVar[Penalty]

    def keywords(self) -> dict[str, Any]:
        """Return the options of ``penalty``."""
        return self.model_dump(exclude={*FeaturePenaltyConfig.model_fields})


def _adopt(found: Any) -> type[LatentPenaltyConfig]:
    if inspect.isclass(found) and issubclass(found, FeaturePenaltyConfig):  # others need the training loop
        return found
    if not inspect.isfunction(found) or len(inspect.signature(found).parameters) < 2:
        raise TypeError(
            f"{describe(found)}; name a function (function, z, *, generator, **options) -> scalar, such as "
            "orthogan.penalties.latent.hessian_penalty"
        )
    return _section(found)


@cache
def _section(penalty: Callable[..., Any]) -> type[FeaturePenaltyConfig]:
    arguments = list(inspect.signature(penalty).parameters)
    config = section_of_options(penalty, FeaturePenaltyConfig, *arguments[:2], "generator")
    config.penalty = staticmethod(penalty if "generator" in arguments else _without_generator(penalty))
    return config


def _without_generator(penalty: Callable[..., Any]) -> Penalty:
    """Return ``penalty`` without the argument ``generator``, which a penalty that draws nothing does not have."""
    return lambda function, z, generator=None, **options: penalty(function, z, **options)


LATENT_PENALTIES: Registry[type[LatentPenaltyConfig]] = Registry("latent penalty", "orthogan.penalties", adopt=_adopt)
LATENT_PENALTIES.register("none")(LatentPenaltyConfig)
LATENT_PENALTY = OpenSection(LATENT_PENALTIES)


class _DifferenceConfig(FeaturePenaltyConfig):
    """A variance over random sign vectors of a finite difference."""

    over_batch: Literal["mean", "max"] = Field(
        default="mean",
        description="reduction over the latents of a batch; max as in the released code, for which the published "
        "weights were chosen (with training.accumulate: over each part)",
    )
    directions: Annotated[int, Field(ge=2, le=1000)] = Field(
        default=2, description="number of random sign vectors (k) for the variance"
    )
    epsilon: Annotated[float, Field(ge=1e-9, le=1e9)] = Field(
        default=0.1, description="step size of the finite difference [units of z]"
    )

    @classmethod
    def read_old_keys(cls, tree: dict[str, Any]) -> dict[str, Any]:
        """Read configs of version 0.1, in which a ``reduction`` of null was the default of the kind."""
        tree = super().read_old_keys(tree)
        return {key: value for key, value in tree.items() if key != "reduction" or value is not None}

    def keywords(self) -> dict[str, Any]:
        """Return the options of ``penalty``, which calls the number of directions k."""
        found = super().keywords()
        return found | {"k": found.pop("directions")}


@LATENT_PENALTIES.register("hessian")
class HessianConfig(_DifferenceConfig):
    """The Hessian penalty (Peebles et al. 2020, arXiv:2008.10599): directions do not interact."""

    reduction: Literal["max", "mean"] = Field(
        default="max", description="reduction over the elements of an output; max as published"
    )
    published: ClassVar = "published values are 0.1 (ProGAN) and 1e-3 (dSprites)"
    penalty: ClassVar = staticmethod(hessian_penalty)


@LATENT_PENALTIES.register("orojar")
class OroJaRConfig(_DifferenceConfig):
    """OroJaR (Wei et al. 2021, arXiv:2108.07668): directions change the features orthogonally."""

    reduction: Literal["sum", "mean"] = Field(
        default="sum", description="reduction over the elements of an output; sum as published"
    )
    published: ClassVar = (
        "published values are 1e-11 (dSprites) to 1e-6 (CelebA); the penalty grows with the square of the number of "
        "features"
    )
    penalty: ClassVar = staticmethod(orojar_penalty)


@LATENT_PENALTIES.register("path_length")
class PathLengthConfig(LatentPenaltyConfig):
    """Path length (Karras et al. 2020, arXiv:1912.04958, section 3.2): its distance to a running mean, squared.

    The training loop keeps the mean.
    """

    decay: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        default=0.01, description="weight of a new length in the running mean [0-1]"
    )
    published: ClassVar = "the published value is 2"
