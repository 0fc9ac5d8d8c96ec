"""Latent codes: a part of z with a prior of its own, whose axes training ties to factors of the images (InfoGAN).

z stays standard normal for every tool. Inside, the generator gets the value of each code: uniform codes are the
quantiles of z, scaled to [-1, 1], and a categorical code is the one-hot vector of the largest of its coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from orthogan.config.base import Count, Section
from orthogan.models.protocol import Generator
from orthogan.words import counted

Prior = Literal["uniform", "normal"]
EDGE = 1 - 1e-6  # uniform values are kept inside, so that their z is finite


class CodesConfig(Section):
    """Which part of z are codes, and their prior."""

    continuous: Count = Field(
        default=0,
        description="number of continuous codes, the first coordinates of z; published: 5 (InfoGAN-CR, sprites)",
    )
    categorical: list[Annotated[int, Field(ge=2, le=10_000)]] = Field(
        default=[],
        max_length=100,
        description="number of categories of each categorical code, such as [10]; each takes that many coordinates of "
        "z, after the continuous codes",
    )
    distribution: Prior = Field(
        default="uniform", description="prior of the continuous codes: uniform on [-1, 1], or standard normal"
    )
    noise: Prior = Field(default="normal", description="prior of the other coordinates of z; uniform in InfoGAN-CR")

    names: list[Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[^\n\r,]+$")]] = Field(
        default=[],
        description="names of the codes, continuous ones first, once you have seen what they change; pages and tables "
        "show them (default: c1, c2, ..., d1, ...)",
    )

    @model_validator(mode="after")
    def _one_name_per_code(self) -> CodesConfig:
        count = self.continuous + len(self.categorical)
        if self.names and len(self.names) != count:
            raise ValueError(
                f"names: {counted(len(self.names), 'name')} for {counted(count, 'code')}; give one name per code"
            )
        if len(set(self.names)) < len(self.names):
            raise ValueError("names: two codes have the same name; choose different names")
        return self

    @property
    def size(self) -> int:
        """Number of coordinates of z that belong to codes; 0 without codes."""
        return self.continuous + sum(self.categorical)

    def of(self, latent_dim: int) -> Codes | None:
        """Return the codes of a generator with this latent dimension; None without codes."""
        if not self.size:
            return None
        return Codes(
            latent_dim, self.continuous, tuple(self.categorical), self.distribution, self.noise, tuple(self.names)
        )


@dataclass(frozen=True)
class Codes:
    """The codes of a generator: how z (n, latent_dim), standard normal, becomes the values that the network gets.

    Args:
        latent_dim: of z.
        continuous: number of continuous codes, the first coordinates.
        categorical: number of categories of each categorical code; each takes that many coordinates.
        distribution: prior of the continuous codes.
        noise: prior of the other coordinates.
        labels: name of each code, continuous ones first (default: c1, c2, ..., d1, ...).

    Source: Chen et al. 2016, arXiv:1606.03657, section 5.

    Example:
        >>> from orthogan.models import Codes
        >>> codes = Codes(6, continuous=2, categorical=(3,))
        >>> codes.names
        ('c1', 'c2', 'd1=0', 'd1=1', 'd1=2')
        >>> import torch
        >>> codes(torch.tensor([[0.0, 9.0, 0.1, 0.3, 0.2, 1.5]])).round(decimals=3)
        tensor([[0.0000, 1.0000, 0.0000, 1.0000, 0.0000, 1.5000]])
    """

    latent_dim: int
    continuous: int = 0
    categorical: tuple[int, ...] = ()
    distribution: Prior = "uniform"
    noise: Prior = "normal"
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.size <= self.latent_dim:
            raise ValueError(f"{self.size} coordinates of codes: z has {self.latent_dim}, and at least one is needed")
        if self.labels and len(self.labels) != self.count:
            raise ValueError(f"{counted(len(self.labels), 'label')} for {counted(self.count, 'code')}")

    @property
    def size(self) -> int:
        """Number of coordinates that belong to codes."""
        return self.continuous + sum(self.categorical)

    @property
    def count(self) -> int:
        """Number of codes."""
        return self.continuous + len(self.categorical)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each coordinate of a code: "c1" of a continuous one, "d1=0" of a category, or those of ``labels``."""
        labels = self.labels or (
            *(f"c{i + 1}" for i in range(self.continuous)),
            *(f"d{i + 1}" for i in range(len(self.categorical))),
        )
        pairs = zip(labels[self.continuous :], self.categorical, strict=True)
        return (*labels[: self.continuous], *(f"{label}={k}" for label, size in pairs for k in range(size)))

    def __call__(self, z: Tensor) -> Tensor:
        """Return the values (n, latent_dim) that the network gets for ``z``."""
        *codes, noise = z.split([self.continuous, *self.categorical, self.latent_dim - self.size], 1)
        values = [_quantiles(codes[0]) if self.distribution == "uniform" else codes[0]]
        values += [functional.one_hot(block.argmax(1), block.shape[1]).to(z.dtype) for block in codes[1:]]
        values.append(_quantiles(noise) if self.noise == "uniform" else noise)
        return torch.cat(values, 1)

    def pairs(self, shared: Tensor, gap: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw two latents (n, latent_dim) per entry of ``shared`` (n,) that agree in that code and in the noise.

        All other codes are drawn twice. ``gap``: at least this distance of the two values of a continuous code, out of
        2, the length of [-1, 1] (for normal codes: of their quantiles); any gap makes the categories different.
        ``rng``: on the device of ``shared``.

        Source: Lin et al. 2020, arXiv:1906.06034, section 3 and appendix, and their released code.
        """
        n, device = len(shared), shared.device
        first = torch.randn(n, self.latent_dim, generator=rng, device=device)
        second = first.clone()
        low = torch.rand(2, n, self.continuous, generator=rng, device=device) * (2 - gap) + (gap / 2 - 1)
        push = torch.where(low[0] > low[1], gap / 2, -gap / 2)
        same = shared[:, None] == torch.arange(self.continuous, device=device)
        apart = [_normal(low[0] + push), _normal(low[1] - push)]
        first[:, : self.continuous] = torch.where(same, first[:, : self.continuous], apart[0])
        second[:, : self.continuous] = torch.where(same, first[:, : self.continuous], apart[1])
        start = self.continuous
        for i, size in enumerate(self.categorical):
            block = slice(start, start + size)
            other = torch.randn(n, size, generator=rng, device=device)
            if gap > 0:  # the first block moved on by a random number of places has its maximum elsewhere
                turn = torch.randint(1, size, (n, 1), generator=rng, device=device)
                other = first[:, block].gather(1, (torch.arange(size, device=device) + turn) % size)
            keep = (shared == self.continuous + i)[:, None]
            second[:, block] = torch.where(keep, first[:, block], other)
            start += size
        return first, second

    def directions(self) -> Tensor:
        """Return the axes of the codes (size, latent_dim)."""
        return torch.eye(self.size, self.latent_dim)

    def hook(self, module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """A forward pre-hook that replaces z by the values of the codes."""
        return (self(arguments[0]), *arguments[1:])

    def name_axes(self) -> list[str]:
        """``names`` as a list, for ``native_names`` of the generator."""
        return list(self.names)


def add_codes(generator: Generator, codes: Codes) -> None:
    """Give ``generator`` codes: it maps z to their values before it uses it, and they become its native directions.

    This holds for any generator. A generator with a mapping network, a submodule ``mapper`` or ``mapping``, gets them
    there, also if its W is computed alone. Nothing is added to the state dict.

    Raises:
        ValueError: the generator has another latent dimension.

    Example:
        >>> from orthogan.models import Codes, DCGANGenerator, add_codes
        >>> generator = DCGANGenerator(resolution=32, image_channels=1, channels=8, latent_dim=6)
        >>> add_codes(generator, Codes(6, continuous=2))
        >>> generator.native_names()
        ['c1', 'c2']
    """
    if codes.latent_dim != generator.latent_dim:
        raise ValueError(f"codes of a z of {codes.latent_dim}: the generator has latent_dim {generator.latent_dim}")
    inner = dict(generator.named_children())
    target = inner.get("mapper") or inner.get("mapping") or generator
    target.register_forward_pre_hook(codes.hook)
    net: Any = generator
    net.codes, net.native_directions, net.native_names, net.native_scores = (
        codes,
        codes.directions,
        codes.name_axes,
        dict,
    )


def name_codes(generator: Generator, names: Sequence[str]) -> None:
    """Name the codes of ``generator``, continuous ones first; its native directions get these names.

    Raises:
        ValueError: the generator has no codes, or another number of them.
    """
    codes = codes_of(generator)
    if codes is None:
        raise ValueError("the generator has no latent codes")
    net: Any = generator
    net.codes = replace(codes, labels=tuple(names))
    net.native_names = net.codes.name_axes


def codes_of(generator: nn.Module) -> Codes | None:
    """Return the codes of ``generator``; None if it has none."""
    found = getattr(generator, "codes", None)
    return found if isinstance(found, Codes) else None


def _quantiles(z: Tensor) -> Tensor:
    """Map standard normal numbers to uniform ones on [-1, 1]."""
    return torch.erf(z / math.sqrt(2))


def _normal(values: Tensor) -> Tensor:
    """The inverse of ``_quantiles``."""
    return torch.erfinv(values.clamp(-EDGE, EDGE)) * math.sqrt(2)
